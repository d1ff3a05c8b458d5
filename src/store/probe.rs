//! What `doctor` asks of every store besides its locks: file system, rights, journal, clocks, identity.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Access, StatVfs};
use rustix::io::Errno;

use super::mount::lease::{self, ServerLease};
use super::mount::lies::{self, Locks};
use super::sqlite::db::Db;
use super::{Finding, Level, mount, trust};
use crate::clock::{Boot, Wall};
use crate::duration;
use crate::lease::timing::Timing;

/// So far may a row's time lie in the future before the clocks are doubted.
const AHEAD: Duration = Duration::from_secs(5 * 60);

/// With less room than this, in bytes, a database can't be counted on to take a start and its end.
const ROOM: u64 = 1 << 20;

fn finding(level: Level, what: &str, detail: String) -> Finding {
    Finding {
        level,
        what: what.into(),
        detail,
    }
}

/// The file system below `path`, and each lie of its mount; `locks`: the kinds of lock that must reach other machines.
pub fn file_system(path: &Path, locks: &[Locks]) -> Vec<Finding> {
    const WHAT: &str = "file system";
    let Some(mount) = mount::of(path) else {
        return vec![finding(
            Level::Warning,
            WHAT,
            "not known: /proc/self/mountinfo does not tell".into(),
        )];
    };
    let seen = format!(
        "{} at {} ({})",
        mount.kind,
        mount.point.display(),
        mount.options
    );
    if let Some(point) = lies::read_only(path) {
        let point = point.display();
        return vec![finding(
            Level::Bad,
            WHAT,
            format!("{seen}; it is read-only, and no job can start: mount -o remount,rw {point}"),
        )];
    }
    let lies = match lies::at(path, locks) {
        Ok(lies) => lies,
        Err(error) => {
            let detail = format!("{seen}; whether it lies could not be tried: {error}");
            return vec![finding(Level::Warning, WHAT, detail)];
        }
    };
    let is_known = mount::is_local_at(path).unwrap_or(false) || mount.nfs().is_some();
    let mut findings = vec![if is_known || !lies.is_empty() {
        finding(Level::Ok, WHAT, seen)
    } else {
        finding(
            Level::Warning,
            WHAT,
            format!(
                "{seen}; whether its locks reach other machines must be tried from two of them at once"
            ),
        )
    }];
    // what a store with leases can do without
    let all = (locks == lies::SQLITE).then(|| lies::at(path, lies::LOCKFILE));
    let all = all.and_then(Result::ok).unwrap_or_default();
    let spared = all.iter().filter(|lie| !lies.contains(lie));
    findings.extend(spared.map(|lie| {
        let detail = format!(
            "{lie}; until then the store goes by its lease alone: after a crash, other machines wait for the TTL"
        );
        finding(Level::Warning, "mount", detail)
    }));
    findings.extend(lies.iter().map(|lie| {
        let detail =
            format!("{lie}; until then no job is started, but with --accept-unsafe-mount REASON");
        finding(Level::Bad, "mount", detail)
    }));
    if let Some(time) = lies::gives_up_after(&mount).filter(|time| *time >= lies::PATIENCE) {
        findings.push(finding(
            Level::Warning,
            "mount",
            format!(
                "{} is mounted soft and gives up on its server after {}: a job that runs then loses its lock; mount it hard",
                mount.point.display(),
                duration::text(time)
            ),
        ));
    }
    findings
}

/// The lease of the file server, and what follows from it for a job whose machine can't reach the server.
pub fn server_lease(lease: &ServerLease) -> Finding {
    let (level, more) = doubts(lease);
    let timing = Timing::of(lease.length);
    let after =
        |moment: fn(Timing, Boot) -> Boot| duration::text(moment(timing, Boot(0)).since(Boot(0)));
    let detail = format!(
        "{lease}; a heartbeat each {}, and a job without one gets TERM after {}, KILL after {}, and is gone after {}{more}",
        duration::text(timing.heartbeat()),
        after(Timing::term_at),
        after(Timing::kill_at),
        after(Timing::gone_at),
    );
    finding(level, "server's lease", detail)
}

/// The same for a store whose own lease keeps two runs apart; nothing if the server has none.
pub fn lease_beside_rows(path: &Path, given: Option<Duration>) -> Option<Finding> {
    let is_local = mount::is_local_at(path).unwrap_or(true);
    let lease = (!is_local).then(|| lease::behind(path, given)).flatten()?;
    let (level, more) = doubts(&lease);
    let detail = format!(
        "{lease}; the server may give the kernel's lock away then, and the lease of --ttl goes on protecting{more}"
    );
    Some(finding(level, "server's lease", detail))
}

fn doubts(lease: &ServerLease) -> (Level, String) {
    if lease.length < Timing::MIN {
        return (Level::Bad, format!("; {}", lease.too_short()));
    }
    match lease.overruled {
        Some(longer) => (
            Level::Warning,
            format!(
                "; ?server-lease={} in the store's URL is longer and does not count: leave it out",
                duration::text(longer)
            ),
        ),
        None if lease.source == lease::Source::Assumed => (Level::Warning, String::new()),
        None => (Level::Ok, String::new()),
    }
}

/// How much more can be written below `path`.
pub fn room(path: &Path) -> Finding {
    const WHAT: &str = "free space";
    match rustix::fs::statvfs(path) {
        Ok(vfs) => room_in(&vfs, path),
        Err(error) => finding(Level::Warning, WHAT, format!("not known: {error}")),
    }
}

fn room_in(vfs: &StatVfs, path: &Path) -> Finding {
    const WHAT: &str = "free space";
    // Some file systems keep no account.
    if vfs.f_blocks == 0 {
        return finding(
            Level::Ok,
            WHAT,
            "not known, the file system doesn't tell".into(),
        );
    }
    let free = vfs.f_bavail.saturating_mul(vfs.f_frsize);
    if free >= ROOM {
        return finding(Level::Ok, WHAT, format!("{} MiB", free >> 20));
    }
    finding(
        Level::Bad,
        WHAT,
        format!(
            "{} KiB on the file system of {}: too little to start and record a job; remove files there until 1 MiB is free",
            free >> 10,
            path.display()
        ),
    )
}

/// Who may read and write `path`.
pub fn rights(path: &Path) -> Finding {
    let what = format!("rights of {}", path.display());
    let meta = match path.symlink_metadata() {
        Ok(meta) => meta,
        Err(error) => return finding(Level::Warning, &what, error.to_string()),
    };
    let seen = format!(
        "mode {:04o}, user {}, group {}",
        meta.mode() & 0o7777,
        meta.uid(),
        meta.gid()
    );
    if meta.mode() & 0o002 != 0 {
        return finding(
            Level::Bad,
            &what,
            format!("{seen}: everybody may write, and so take or free any lock; chmod o-w"),
        );
    }
    let may = |access| rustix::fs::access(path, access);
    let ours = match (may(Access::READ_OK), may(Access::WRITE_OK)) {
        (Ok(()), Ok(())) => {
            return finding(Level::Ok, &what, format!("{seen}; you may read and write"));
        }
        // No group helps; what does is told of the file system.
        (Ok(()), Err(Errno::ROFS)) => {
            return finding(
                Level::Warning,
                &what,
                format!("{seen}; nobody may write: the file system is read-only"),
            );
        }
        (Ok(()), Err(_)) => "you may read, not write: you can look, and start nothing",
        (Err(_), _) => "you may not read it",
    };
    finding(
        Level::Warning,
        &what,
        format!("{seen}; {ours}; join its group, or use `joblock init --system --group GROUP`"),
    )
}

/// Who else could put other files in the place of the store's, see [`trust::problem`].
pub fn trusted(folder: &Path, parts: &[PathBuf]) -> Finding {
    const WHAT: &str = "who can write the store";
    let root = rustix::process::geteuid().is_root();
    match trust::problem(folder, parts) {
        Ok(None) => finding(
            Level::Ok,
            WHAT,
            "nobody but root and those that it was made for".into(),
        ),
        Ok(Some(trust::Problem { path, what })) => {
            let (level, so) = if root {
                (Level::Bad, "root starts nothing with it")
            } else {
                (Level::Warning, "root would start nothing with it")
            };
            finding(level, WHAT, format!("{}: {what}; {so}", path.display()))
        }
        Err(error) => finding(Level::Warning, WHAT, error.to_string()),
    }
}

/// Journal, sync level, integrity, id and times of a database.
pub fn database(db: &mut Db) -> Vec<Finding> {
    if let Some(why) = db.held_up() {
        let text = format!(
            "{why} did not answer in time; jobs run all the same, and what they did waits in the spool"
        );
        return vec![finding(Level::Bad, "database", text)];
    }
    let expect = |what: &str, pragma: &str, wanted: &[&str]| match db.pragma(pragma) {
        Ok(value) if wanted.contains(&value.as_str()) => finding(Level::Ok, what, value),
        Ok(value) => finding(
            Level::Bad,
            what,
            format!("{value}, and it should be {}", wanted[0]),
        ),
        Err(error) => finding(Level::Bad, what, error.to_string()),
    };
    let (journal, sync) = if db.shared {
        ("delete", ["extra", "3"])
    } else {
        ("wal", ["full", "2"])
    };
    let mut findings = vec![
        expect("journal", "journal_mode", &[journal]),
        expect("synchronous", "synchronous", &sync),
        expect("integrity of the database", "quick_check", &["ok"]),
    ];
    if let Some(value) = findings
        .iter_mut()
        .find(|f| f.what == "synchronous" && f.level == Level::Ok)
    {
        sync[0].clone_into(&mut value.detail);
    }
    findings.push(finding(Level::Ok, "id", db.uuid.clone()));
    let newest = db.read(|conn| {
        conn.query_row(
            "SELECT max(max(started), coalesce(max(ended), 0)) FROM runs",
            [],
            |row| row.get::<_, Option<i64>>(0),
        )
    });
    findings.push(match newest {
        Ok(Some(newest))
            if Wall(newest)
                .since(Wall::now())
                .is_some_and(|ahead| ahead > AHEAD) =>
        {
            finding(
                Level::Warning,
                "wall clock",
                format!(
                    "a run is dated {}, in the future: set the clocks of all hosts",
                    Wall(newest).to_datetime()
                ),
            )
        }
        Ok(_) => finding(
            Level::Ok,
            "wall clock",
            Wall::now().to_datetime().to_string(),
        ),
        Err(error) => finding(Level::Bad, "wall clock", error.to_string()),
    });
    findings
}

/// Whether the clock that leases are measured by goes on.
pub fn clock() -> Finding {
    let before = Boot::now();
    std::thread::sleep(Duration::from_millis(2));
    match Boot::now().since(before) {
        Duration::ZERO => finding(
            Level::Bad,
            "CLOCK_BOOTTIME",
            "it stands still: no lease can be measured on this machine".into(),
        ),
        _ => finding(Level::Ok, "CLOCK_BOOTTIME", "it advances".into()),
    }
}

/// Records that wait for a writer.
pub fn spool(waiting: usize) -> Finding {
    match waiting {
        0 => finding(Level::Ok, "spool", "empty".into()),
        n => finding(
            Level::Warning,
            "spool",
            format!(
                "{n} records wait for the next run to fold them into the database; it could not take them when they were written"
            ),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Purpose;
    use crate::store::mount::lease::Source;
    use crate::store::sqlite::db::Make;

    #[test]
    fn a_servers_lease_is_doubted_where_it_is_guessed_overruled_or_too_short() {
        let level = |length, source, overruled| {
            let lease = ServerLease {
                length,
                source,
                overruled,
            };
            server_lease(&lease).level
        };
        let (minute, longer) = (Duration::from_secs(60), Some(Duration::from_secs(90)));
        assert_eq!(level(minute, Source::Kernel, None), Level::Ok);
        assert_eq!(level(minute, Source::Assumed, None), Level::Warning);
        assert_eq!(level(minute, Source::Kernel, longer), Level::Warning);
        assert_eq!(level(Timing::MIN, Source::Url, None), Level::Ok);
        let short = Timing::MIN / 2;
        assert_eq!(level(short, Source::Url, None), Level::Bad);
    }

    #[test]
    fn a_lease_beside_rows_is_that_of_what_is_not_local() {
        let given = Some(Duration::from_secs(60));
        let beside = |path: &str| lease_beside_rows(Path::new(path), given);
        assert!(beside("/proc/self").is_some_and(|found| found.detail.starts_with("1m")));
        assert!(beside("/dev/shm").is_none());
    }

    #[test]
    fn settings_of_a_database_are_those_that_it_needs() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.db");
        let gate = dir.path().join("gate");
        let mut db = Db::open(&path, Make::Shared, Purpose::Run, gate).unwrap();
        let of = |db: &mut Db, what: &str| {
            let found = database(db).into_iter().find(|f| f.what == what).unwrap();
            (found.level, found.detail)
        };
        assert_eq!(of(&mut db, "journal"), (Level::Ok, "delete".into()));
        assert_eq!(of(&mut db, "synchronous"), (Level::Ok, "extra".into()));
        db.read(|conn| {
            conn.execute_batch("PRAGMA journal_mode = truncate; PRAGMA synchronous = normal")
        })
        .unwrap();
        let should = |is, be| (Level::Bad, format!("{is}, and it should be {be}"));
        assert_eq!(of(&mut db, "journal"), should("truncate", "delete"));
        assert_eq!(of(&mut db, "synchronous"), should("1", "extra"));
    }
}
