//! What two reports come to: findings, with what to change. Pure: the same on both sides, each told as seen from there.

use std::time::Duration;

use serde::Serialize;

use super::side::{MountSide, Side};
use super::sqlite::{COUNTED, SqliteSeen};
use super::trial::{Answer, HELD_FOR, LockSeen, Report, TAKEN_OVER_WITHIN};
use super::{Both, Outcome};
use crate::clock::Boot;
use crate::duration;
use crate::store::{Finding, Level};

/// Clocks that differ by more are said to be wrong.
const CLOCKS: Duration = Duration::from_secs(60);

fn finding(level: Level, what: &str, detail: impl Into<String>) -> Finding {
    Finding {
        level,
        what: what.to_owned(),
        detail: detail.into(),
    }
}

/// All that is to say about it; the first one names the two.
pub fn findings(outcome: &Outcome) -> Vec<Finding> {
    const WHO: &str = "the other side";
    match outcome {
        Outcome::Nobody {
            folder,
            source,
            waited,
            busy,
        } => {
            let busy = if busy.is_empty() {
                String::new()
            } else {
                let hosts = busy.join(", ");
                format!("; {hosts} met somebody else meanwhile: run it on two at a time")
            };
            let source = source.as_deref().unwrap_or("unknown");
            let detail = format!(
                "nobody came within {} to {} (on {source}){busy}; start `joblock doctor --peer` on both machines within that time, with the same store, \
                 and see that both have the same folder mounted there",
                duration::text(*waited),
                folder.display(),
            );
            vec![finding(Level::Bad, WHO, detail)]
        }
        Outcome::Foreign(version) => vec![finding(
            Level::Bad,
            WHO,
            format!(
                "it has joblock {version}, this is {}: install the same version on both",
                env!("CARGO_PKG_VERSION")
            ),
        )],
        Outcome::Broken { step, why, there } => {
            let host = there.as_ref().map_or(String::new(), |side| {
                format!("{}, as {}: ", side.host, side.user)
            });
            let detail = format!("{host}the trial did not come to its end ({step}): {why}");
            vec![finding(Level::Bad, WHO, detail)]
        }
        Outcome::Through(both) => through(both),
    }
}

fn through(both: &Both) -> Vec<Finding> {
    let mut found = vec![who(both)];
    found.extend(names(both));
    found.extend([versions(both), store(both), mounts(both), clocks(both)]);
    found.push(flock(both));
    found.push(posix(both));
    if reaches(both, |r| &r.flock) {
        found.push(inherited(both));
        found.push(taken_over(both));
    }
    found.push(data(both));
    found.push(sqlite(both));
    found
}

/// How the two are told apart in words.
fn called(both: &Both) -> (String, String) {
    if both.here.host == both.there.host {
        ("this side".to_owned(), "the other side".to_owned())
    } else {
        (both.here.host.clone(), both.there.host.clone())
    }
}

fn is_one_machine(both: &Both) -> bool {
    !both.here.boot_id.is_empty() && both.here.boot_id == both.there.boot_id
}

fn who(both: &Both) -> Finding {
    const WHAT: &str = "the two sides";
    let seen = |side: &Side| format!("{} as {} ({})", side.host, side.user, side.url);
    let text = format!("{}; and {}", seen(&both.here), seen(&both.there));
    if is_one_machine(both) {
        return finding(
            Level::Warning,
            WHAT,
            format!(
                "{text}; both run on one machine (they have one boot id): this proves nothing about two"
            ),
        );
    }
    finding(Level::Ok, WHAT, text)
}

fn names(both: &Both) -> Option<Finding> {
    const WHAT: &str = "host names";
    if is_one_machine(both) {
        return None;
    }
    let (here, there) = (&both.here, &both.there);
    if here.host != there.host {
        return Some(finding(Level::Ok, WHAT, "they differ"));
    }
    let is_nfs = |side: &Side| side.mount.as_ref().is_some_and(MountSide::is_nfs);
    let told_apart = here.nfs_client.is_some() && here.nfs_client != there.nfs_client;
    let same = format!("both machines are called {}", here.host);
    Some(if (is_nfs(here) || is_nfs(there)) && !told_apart {
        finding(
            Level::Bad,
            WHAT,
            format!(
                "{same}: an NFS server takes them for one and throws away the locks of one when the other one mounts or boots; \
                 give each a name of its own (hostnamectl hostname NAME), or for version 4 an nfs4_unique_id of its own (modprobe.d: options nfs \
                 nfs4_unique_id=…), then unmount and mount again"
            ),
        )
    } else {
        finding(
            Level::Warning,
            WHAT,
            format!("{same}: status and history can't say which of them is meant; rename one"),
        )
    })
}

fn versions(both: &Both) -> Finding {
    const WHAT: &str = "joblock";
    let (here, there) = (&both.here, &both.there);
    let (name_here, name_there) = called(both);
    if (&here.joblock, here.format) == (&there.joblock, there.format) {
        let detail = format!("{} on both, store format {}", here.joblock, here.format);
        return finding(Level::Ok, WHAT, detail);
    }
    let detail = format!(
        "{} (store format {}) on {name_here}, {} (store format {}) on {name_there}: install the same version on both",
        here.joblock, here.format, there.joblock, there.format
    );
    finding(Level::Warning, WHAT, detail)
}

fn store(both: &Both) -> Finding {
    const WHAT: &str = "one store";
    let (name_here, name_there) = called(both);
    match (&both.here.store_id, &both.there.store_id) {
        (Some(here), Some(there)) if here == there => {
            finding(Level::Ok, WHAT, format!("id {here} on both"))
        }
        (Some(here), Some(there)) => finding(
            Level::Bad,
            WHAT,
            format!(
                "{name_here} has the store {here}, {name_there} has {there}: they are two, and their locks have nothing to do with each other; \
                 name the same file, and pin it with store-id in both jobs files"
            ),
        ),
        (None, None) => finding(
            Level::Warning,
            WHAT,
            "there is none, or it can't be opened on either side: `joblock init` makes one",
        ),
        (here, _) => {
            let name = if here.is_none() {
                name_here
            } else {
                name_there
            };
            let detail =
                format!("it can't be opened on {name}: `joblock doctor` says there what is wrong");
            finding(Level::Bad, WHAT, detail)
        }
    }
}

/// Options that say where a client is, not how it mounts.
const ADDRESSES: [&str; 5] = ["addr", "clientaddr", "mountaddr", "mountport", "port"];
/// Options by which locks or errors differ.
const TELLING: [&str; 6] = ["vers", "local_lock", "nolock", "soft", "softerr", "hard"];

fn only_in<'a>(one: &'a MountSide, other: &MountSide) -> Vec<&'a str> {
    let name = |option: &str| option.split('=').next().unwrap_or_default().to_owned();
    one.options
        .split(',')
        .filter(|o| !other.options.split(',').any(|theirs| theirs == *o))
        .filter(|o| !ADDRESSES.contains(&name(o).as_str()))
        .collect()
}

fn mounts(both: &Both) -> Finding {
    const WHAT: &str = "mounts";
    let (name_here, name_there) = called(both);
    let (Some(here), Some(there)) = (&both.here.mount, &both.there.mount) else {
        return finding(Level::Warning, WHAT, "/proc/self/mountinfo does not tell");
    };
    let seen = |m: &MountSide| format!("{} {} at {}", m.name(), m.source, m.point);
    let only: Vec<_> = [
        (&name_here, only_in(here, there)),
        (&name_there, only_in(there, here)),
    ]
    .into_iter()
    .filter(|(_, options)| !options.is_empty())
    .map(|(name, options)| format!("only on {name}: {}", options.join(",")))
    .collect();
    let mut text = format!(
        "{name_here}: {}; {name_there}: {}; ",
        seen(here),
        seen(there)
    );
    if only.is_empty() {
        text.push_str("with the same options");
    } else {
        text.push_str(&only.join("; "));
    }
    let differ = TELLING.iter().any(|name| {
        let is = |m: &MountSide| {
            let of = |o: &&str| o.split('=').next() == Some(*name);
            m.options.split(',').find(of).map(str::to_owned)
        };
        is(here) != is(there)
    });
    if here.is_nfs() && there.is_nfs() && differ {
        text.push_str("; mount both the same way");
        return finding(Level::Warning, WHAT, text);
    }
    finding(Level::Ok, WHAT, text)
}

/// How far the other side's clock is behind ours, and how sure that is, by what both saw of each other's letters.
fn offset(here: Option<i64>, there: Option<i64>) -> Option<(i64, u64)> {
    // ours less theirs is at most what we saw, and at least the negative of what they saw
    let (most, least) = (here?, there?.checked_neg()?);
    Some((
        least.midpoint(most),
        most.saturating_sub(least).unsigned_abs() / 2,
    ))
}

fn clocks(both: &Both) -> Finding {
    const WHAT: &str = "clocks";
    let (_, name_there) = called(both);
    let Some((ms, unsure)) = offset(both.seen_here.wall_ahead_ms, both.seen_there.wall_ahead_ms)
    else {
        return finding(Level::Warning, WHAT, "could not be compared");
    };
    let by = Duration::from_millis(ms.unsigned_abs());
    let text = format!(
        "that of {name_there} is {} {} (give or take {unsure} ms)",
        duration_text(by),
        if ms > 0 { "behind" } else { "ahead" }
    );
    if by > CLOCKS {
        return finding(
            Level::Warning,
            WHAT,
            format!(
                "{text}: no lock depends on it, but --unless-succeeded-within, schedules and prune do; set both clocks (timedatectl set-ntp true)"
            ),
        );
    }
    finding(Level::Ok, WHAT, text)
}

fn duration_text(d: Duration) -> String {
    crate::output::time::took(d)
}

fn seconds(ms: u64) -> String {
    duration_text(Duration::from_millis(ms))
}

/// From a moment of the other side's to one of ours.
fn elapsed(both: &Both, theirs: Option<Boot>, ours: Option<Boot>) -> Option<Duration> {
    let (ahead, _) = offset(both.seen_here.boot_ahead_ns, both.seen_there.boot_ahead_ns)?;
    let began = i128::from(theirs?.0) + i128::from(ahead);
    let took = u64::try_from((i128::from(ours?.0) - began).max(0)).ok()?;
    Some(Duration::from_nanos(took))
}

/// The same two, seen from the other side.
fn turned(both: &Both) -> Both {
    Both {
        here: both.there.clone(),
        there: both.here.clone(),
        seen_here: both.seen_there.clone(),
        seen_there: both.seen_here.clone(),
    }
}

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
                    seconds(seen.later_ms)
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

fn reaches(both: &Both, kind: fn(&Report) -> &LockSeen) -> bool {
    matches!(reach(both, kind), Reach::All)
}

fn excludes(both: &Both, kind: fn(&Report) -> &LockSeen) -> String {
    let freed = |both: &Both| {
        let took = elapsed(
            both,
            kind(&both.seen_there).released,
            kind(&both.seen_here).freed,
        );
        took.map_or("unknown".to_owned(), duration_text)
    };
    format!(
        "tried both ways, also after closing and opening and for {}: refused; let go of, it was free after {} here, {} there",
        duration::text(HELD_FOR),
        freed(both),
        freed(&turned(both))
    )
}

/// What to change where locks don't reach the other side, by how the two are mounted.
fn cure(both: &Both) -> &'static str {
    let mounts = [&both.here.mount, &both.there.mount];
    let mounts: Vec<_> = mounts.into_iter().flatten().collect();
    let is_kept_here = |m: &MountSide| {
        m.options.split(',').any(|o| o == "nolock")
            || !matches!(m.option("local_lock"), None | Some("none"))
    };
    if mounts.iter().any(|m| m.is_nfs() && is_kept_here(m)) {
        "mount it on both without nolock, with local_lock=none"
    } else if mounts.iter().any(|m| m.is_nfs()) && mounts.iter().any(|m| m.local) {
        "the file server itself must use the export as its clients do: mount it there too (mount -t nfs localhost:/…)"
    } else if mounts.iter().any(|m| m.kind.starts_with("fuse")) {
        "this FUSE file system keeps locks to itself: use NFS, or an option of it that passes locks on"
    } else if mounts.iter().any(|m| m.kind == "cifs" || m.kind == "smb3") {
        "mount it on both without nobrl"
    } else {
        "use a file system whose locks reach all machines, NFS for example"
    }
}

fn flock(both: &Both) -> Finding {
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

fn posix(both: &Both) -> Finding {
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

fn inherited(both: &Both) -> Finding {
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

fn taken_over(both: &Both) -> Finding {
    const WHAT: &str = "takeover from a killed holder";
    let took = |both: &Both, at: fn(&Report) -> Option<Boot>| {
        let took = elapsed(both, both.seen_there.killed, at(&both.seen_here));
        took.map_or_else(
            || format!("not within {}", duration::text(TAKEN_OVER_WITHIN)),
            duration_text,
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
        took(both, |r| r.polled),
        took(both, |r| r.woken),
        took(&turned, |r| r.polled),
        took(&turned, |r| r.woken),
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
    if mounts.clone().any(|m| m.server_lease_seconds.is_none()) {
        return "; of a machine that loses power, over NFS 3: never, until it is up again or the server is told (unlock_filesystem)".to_owned();
    }
    let lease = mounts.find_map(|m| m.server_lease_seconds);
    lease.map_or(String::new(), |lease| {
        format!("; of a machine that loses power: once the server's lease of {lease} s is over")
    })
}

fn data(both: &Both) -> Finding {
    const WHAT: &str = "what one writes the other one reads";
    let (here, there) = called(both);
    let bad = [(here, &both.seen_here.data), (there, &both.seen_there.data)]
        .into_iter()
        .find_map(|(who, data)| Some(format!("not so on {who}: {}", data.as_ref()?)));
    if let Some(bad) = bad {
        return finding(
            Level::Bad,
            WHAT,
            format!(
                "{bad}; a store's files can't be trusted here: look for caching options of the mount"
            ),
        );
    }
    let named = |both: &Both| {
        let took = elapsed(both, both.seen_there.name_made, both.seen_here.name_seen);
        took.map_or_else(
            || "in the end not yet".to_owned(),
            |took| format!("after {}", duration_text(took)),
        )
    };
    finding(
        Level::Ok,
        WHAT,
        format!(
            "tried; the name of a new file was seen {} here, {} there, which no lock depends on",
            named(both),
            named(&turned(both))
        ),
    )
}

fn sqlite(both: &Both) -> Finding {
    const WHAT: &str = "SQLite's transactions exclude each other";
    let (here, there) = called(both);
    let wanted = i64::from(COUNTED) * 2;
    for (who, seen) in [
        (here, &both.seen_here.sqlite),
        (there, &both.seen_there.sqlite),
    ] {
        if let Some(bad) = wrong_with(seen, wanted) {
            return finding(
                Level::Bad,
                WHAT,
                format!("on {who}: {bad}; no store can be kept here: {}", cure(both)),
            );
        }
    }
    finding(
        Level::Ok,
        WHAT,
        format!(
            "tried both ways; both counted to {wanted} together, none was lost ({} here, {} there)",
            seconds(both.seen_here.sqlite.took_ms),
            seconds(both.seen_there.sqlite.took_ms)
        ),
    )
}

fn wrong_with(seen: &SqliteSeen, wanted: i64) -> Option<String> {
    if seen.excluded == Answer::Taken {
        return Some("it began a transaction while the other side had one".to_owned());
    }
    if let Some(error) = &seen.error {
        return Some(error.clone());
    }
    if let Answer::Failed(why) = &seen.excluded {
        return Some(why.clone());
    }
    if seen.total != Some(wanted) {
        let total = seen.total.map_or("nothing".to_owned(), |n| n.to_string());
        return Some(format!(
            "both counted to {total} together, and not to {wanted}"
        ));
    }
    match seen.integrity.as_deref() {
        Some("ok") => None,
        other => Some(other.unwrap_or("not checked").to_owned()),
    }
}

/// What was measured, in seconds: for programs.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[expect(missing_docs, reason = "docs/json.md describes each field")]
pub struct Measured {
    pub one_machine: bool,
    pub kernel_locks_reach: bool,
    pub sqlite_locks_reach: bool,
    pub clock_behind_seconds: Option<f64>,
    pub here: Waited,
    pub there: Waited,
}

/// What one side waited for the other.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[expect(missing_docs, reason = "docs/json.md describes each field")]
pub struct Waited {
    pub released_seconds: Option<f64>,
    pub takeover_polling_seconds: Option<f64>,
    pub takeover_waiting_seconds: Option<f64>,
    pub name_seconds: Option<f64>,
    pub sqlite_seconds: f64,
}

/// Of two that went through all of it.
pub fn measured(both: &Both) -> Measured {
    let ahead = offset(both.seen_here.wall_ahead_ms, both.seen_there.wall_ahead_ms);
    Measured {
        one_machine: is_one_machine(both),
        kernel_locks_reach: reaches(both, |r| &r.flock),
        sqlite_locks_reach: reaches(both, |r| &r.posix),
        clock_behind_seconds: ahead.map(|(ms, _)| {
            Duration::from_millis(ms.unsigned_abs())
                .as_secs_f64()
                .copysign(if ms < 0 { -1. } else { 1. })
        }),
        here: waited(both),
        there: waited(&turned(both)),
    }
}

fn waited(both: &Both) -> Waited {
    let (theirs, ours) = (&both.seen_there, &both.seen_here);
    let took = |from, to| elapsed(both, from, to).map(|d| d.as_secs_f64());
    Waited {
        released_seconds: took(theirs.flock.released, ours.flock.freed),
        takeover_polling_seconds: took(theirs.killed, ours.polled),
        takeover_waiting_seconds: took(theirs.killed, ours.woken),
        name_seconds: took(theirs.name_made, ours.name_seen),
        sqlite_seconds: Duration::from_millis(ours.sqlite.took_ms).as_secs_f64(),
    }
}
