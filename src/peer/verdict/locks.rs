//! What the locks of one side are to the other one.

use std::time::Duration;

use super::measured::{elapsed, turned};
use super::{called, finding};
use crate::clock::Boot;
use crate::duration;
use crate::output::time::took;
use crate::peer::Both;
use crate::peer::side::MountSide;
use crate::peer::trial::{Answer, HELD_FOR, LockSeen, Report, TAKEN_OVER_WITHIN};
use crate::store::{Finding, Level};

/// What keeps a kind of lock from its end, on either side.
enum Reach {
    /// Nothing.
    All,
    /// A second one was granted; when.
    None(String),
    /// It could not be found out.
    Unknown(String),
}

fn reach(both: &Both, kind: fn(&Report) -> &LockSeen) -> Reach {
    let (here, there) = called(both);
    let sides = [
        (&here, &there, kind(&both.seen_here)),
        (&there, &here, kind(&both.seen_there)),
    ];
    let mut trouble = Vec::new();
    for (who, whose, seen) in sides {
        let held = [
            (
                &seen.held,
                format!("{who} was granted it while {whose} held it"),
            ),
            (
                &seen.crossed,
                format!(
                    "{who} was granted it while {whose} held it, after it was closed and opened again"
                ),
            ),
            (
                &seen.later,
                format!(
                    "{who} was granted it while {whose} held it, {} after it had been refused",
                    took(Duration::from_millis(seen.later_ms))
                ),
            ),
        ];
        for (answer, words) in held {
            match answer {
                Answer::Taken => return Reach::None(words),
                Answer::Refused => {}
                Answer::NotTried => trouble.push(format!("not all could be tried on {who}")),
                Answer::Failed(why) => trouble.push(format!("on {who}: {why}")),
            }
        }
        if let Some(why) = seen.own.as_ref().or(seen.own_again.as_ref()) {
            trouble.push(format!("{who} could not take a lock of its own: {why}"));
        }
        if seen.freed.is_none() {
            trouble.push(format!("{who} never got it after {whose} let go"));
        }
    }
    trouble
        .into_iter()
        .next()
        .map_or(Reach::All, Reach::Unknown)
}

pub(super) fn reaches(both: &Both, kind: fn(&Report) -> &LockSeen) -> bool {
    matches!(reach(both, kind), Reach::All)
}

fn excludes(both: &Both, kind: fn(&Report) -> &LockSeen) -> String {
    let freed = |both: &Both| {
        let since = elapsed(
            both,
            kind(&both.seen_there).released,
            kind(&both.seen_here).freed,
        );
        since.map_or("unknown".to_owned(), took)
    };
    format!(
        "tried both ways, also after closing and opening and for {}: refused; let go of, it was free after {} here, {} there",
        duration::text(HELD_FOR),
        freed(both),
        freed(&turned(both))
    )
}

/// What to change where locks don't reach the other side, by how the two are mounted.
pub(super) fn cure(both: &Both) -> &'static str {
    let mounts = [&both.here.mount, &both.there.mount];
    let any = |is: fn(&MountSide) -> bool| mounts.into_iter().flatten().any(is);
    let keeps = |m: &MountSide| {
        m.is_nfs() && (m.has("nolock") || !matches!(m.option("local_lock"), None | Some("none")))
    };
    if any(keeps) {
        "mount it on both without nolock, with local_lock=none"
    } else if any(MountSide::is_nfs) && both.here.host == both.there.host {
        "give each machine a host name of its own first, and try again"
    } else if any(MountSide::is_nfs) && any(|m| m.local) {
        "the file server itself must use the export as its clients do: mount it there too (mount -t nfs localhost:/…)"
    } else if any(|m| m.kind.starts_with("fuse")) {
        "this FUSE file system keeps locks to itself: use NFS, or an option of it that passes locks on"
    } else if any(|m| m.kind == "cifs" || m.kind == "smb3") {
        "mount it on both without nobrl"
    } else {
        "use a file system whose locks reach all machines, NFS for example"
    }
}

pub(super) fn flock(both: &Both) -> Finding {
    const WHAT: &str = "the kernel's lock reaches the other side";
    match reach(both, |r| &r.flock) {
        Reach::All => match lost(both) {
            None => finding(Level::Ok, WHAT, excludes(both, |r| &r.flock)),
            Some(lost) => finding(Level::Bad, WHAT, lost),
        },
        Reach::Unknown(why) => finding(
            Level::Bad,
            WHAT,
            format!(
                "can't be told: {why}; try again, and if it stays so, keep the store elsewhere"
            ),
        ),
        Reach::None(how) => {
            let cure = cure(both);
            if both.here.by_kernel_locks || both.there.by_kernel_locks {
                return finding(
                    Level::Bad,
                    WHAT,
                    format!(
                        "it does not: {how}; lockfile: and local sqlite: stores must not be used here, two jobs would run at once: {cure}; \
                         or make a shared store (`joblock init --shared --store sqlite:PATH`), which goes by its lease"
                    ),
                );
            }
            finding(
                Level::Warning,
                WHAT,
                format!(
                    "it does not: {how}; this store is safe, but goes by its lease alone: after a crash the lock is free once the holder \
                     was silent for the TTL (45 s unless --ttl says otherwise), and waiters look again each second; better: {cure}"
                ),
            )
        }
    }
}

fn lost(both: &Both) -> Option<String> {
    let (here, there) = called(both);
    [(here, &both.seen_here), (there, &both.seen_there)]
        .into_iter()
        .find_map(|(who, seen)| {
            let why = seen.lost.as_ref()?;
            Some(format!(
                "{who} lost a lock while it held it ({why}): the server threw it away; look for a second client of the same name, \
                 and for the server's log"
            ))
        })
}

pub(super) fn posix(both: &Both) -> Finding {
    const WHAT: &str = "SQLite's locks reach the other side";
    match reach(both, |r| &r.posix) {
        Reach::All => finding(Level::Ok, WHAT, excludes(both, |r| &r.posix)),
        Reach::Unknown(why) => {
            finding(Level::Bad, WHAT, format!("can't be told: {why}; try again"))
        }
        Reach::None(how) => finding(
            Level::Bad,
            WHAT,
            format!(
                "they don't: {how}; no store can be kept here, its database would lose what is written: {}",
                cure(both)
            ),
        ),
    }
}

pub(super) fn inherited(both: &Both) -> Finding {
    const WHAT: &str = "a child process keeps the lock";
    let (here, there) = called(both);
    let sides = [
        (here, &both.seen_here, &both.seen_there),
        (there, &both.seen_there, &both.seen_here),
    ];
    for (who, seen, other) in sides {
        let (level, detail) = match &seen.inherited {
            Answer::Refused => continue,
            _ if other.no_child.is_some() => (
                Level::Warning,
                format!(
                    "not tried: {}",
                    other.no_child.as_deref().unwrap_or_default()
                ),
            ),
            Answer::Taken => (
                Level::Bad,
                format!(
                    "it does not: {who} was granted it while a process that had inherited it lived; what a job leaves behind would \
                     run beside the next one: keep the store elsewhere"
                ),
            ),
            Answer::NotTried => (Level::Warning, format!("not tried on {who}")),
            Answer::Failed(why) => (Level::Warning, format!("on {who}: {why}")),
        };
        return finding(level, WHAT, detail);
    }
    finding(Level::Ok, WHAT, "tried, it does")
}

pub(super) fn taken_over(both: &Both) -> Finding {
    const WHAT: &str = "takeover from a killed holder";
    let after = |both: &Both, at: fn(&Report) -> Option<Boot>| {
        elapsed(both, both.seen_there.killed, at(&both.seen_here)).map_or_else(
            || format!("not within {}", duration::text(TAKEN_OVER_WITHIN)),
            took,
        )
    };
    let (here, there) = called(both);
    let turned = turned(both);
    let all = [&both.seen_here, &both.seen_there];
    let level = if all.iter().any(|r| r.polled.is_none()) {
        Level::Bad
    } else if all.iter().any(|r| r.woken.is_none()) {
        Level::Warning
    } else {
        Level::Ok
    };
    let mut text = format!(
        "by {here} after {}, waiting in the kernel {}; by {there} after {}, waiting in the kernel {}",
        after(both, |r| r.polled),
        after(both, |r| r.woken),
        after(&turned, |r| r.polled),
        after(&turned, |r| r.woken),
    );
    if both.here.by_kernel_locks || both.there.by_kernel_locks {
        text.push_str(&after_power_loss(both));
    }
    finding(level, WHAT, text)
}

/// What a crashed machine means for kernel locks, which can't be tried here.
fn after_power_loss(both: &Both) -> String {
    let mounts = [&both.here.mount, &both.there.mount];
    let mut mounts = mounts.into_iter().flatten().filter(|m| m.is_nfs());
    if mounts.clone().any(|m| !m.name().starts_with("NFS 4")) {
        return "; of a machine that loses power, over NFS 3: never, until it is up again or the server is told (unlock_filesystem)".to_owned();
    }
    let lease = mounts.find_map(|m| m.server_lease_seconds);
    lease.map_or(String::new(), |lease| {
        format!("; of a machine that loses power: once the server's lease of {lease} s is over")
    })
}
