//! What two reports come to: findings, with what to change. Pure: the same on both sides, each told as seen from there.

mod contents;
mod identity;
mod locks;
mod measured;

pub use measured::{Measured, Waited, measured};

use super::{Both, Outcome};
use crate::duration;
use crate::store::{Finding, Level};

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
    let mut found = vec![identity::who(both)];
    found.extend(identity::names(both));
    found.extend([
        identity::versions(both),
        identity::store(both),
        identity::mounts(both),
        identity::clocks(both),
    ]);
    if both.here.is_taken_for(&both.there) {
        return found;
    }
    found.extend([locks::flock(both), locks::posix(both)]);
    if locks::reaches(both, |r| &r.flock) {
        found.extend([locks::inherited(both), locks::taken_over(both)]);
    }
    found.extend([contents::data(both), contents::sqlite(both)]);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Boot;
    use crate::peer::side::{MountSide, Side};
    use crate::peer::sqlite::{COUNTED, SqliteSeen};
    use crate::peer::trial::{Answer, LockSeen, Report};
    use rstest::rstest;

    /// In seconds, on the clock of blue; green was booted 1000 s before.
    fn at(seconds: u64) -> Boot {
        Boot(seconds * 1_000_000_000)
    }

    fn side(host: &str) -> Side {
        Side {
            joblock: "1.0".into(),
            format: 1,
            url: "lockfile:/mnt".into(),
            store_id: Some("0d9f".into()),
            store_error: None,
            by_kernel_locks: true,
            host: host.into(),
            boot_id: host.into(),
            user: "root".into(),
            uid: 0,
            mount: Some(MountSide {
                source: "srv:/data".into(),
                point: "/mnt".into(),
                kind: "nfs4".into(),
                options: format!("rw,vers=4.2,hard,clientaddr={host},local_lock=none"),
                local: false,
                server_lease_seconds: Some(90),
            }),
            nfs_client: None,
        }
    }

    fn report(green: bool) -> Report {
        let at = |seconds: u64| Some(at(seconds + if green { 1000 } else { 0 }));
        let lock = LockSeen {
            held: Answer::Refused,
            released: at(10),
            freed: at(11),
            crossed: Answer::Refused,
            later: Answer::Refused,
            ..LockSeen::default()
        };
        Report {
            flock: lock.clone(),
            posix: lock,
            inherited: Answer::Refused,
            killed: at(20),
            polled: at(22),
            woken: at(25),
            name_made: at(1),
            name_seen: at(4),
            sqlite: SqliteSeen {
                excluded: Answer::Refused,
                counted: COUNTED,
                total: Some(i64::from(COUNTED) * 2),
                integrity: Some("ok".into()),
                took_ms: 300,
                error: None,
            },
            // letters took 10 ms, and green's wall clock is right
            wall_ahead_ms: Some(10),
            boot_ahead_ns: Some(10_000_000 + if green { 1 } else { -1 } * 1_000_000_000_000),
            ..Report::default()
        }
    }

    fn both(change: impl FnOnce(&mut Both)) -> Both {
        let mut both = Both {
            here: side("blue"),
            there: side("green"),
            seen_here: report(false),
            seen_there: report(true),
        };
        change(&mut both);
        both
    }

    fn said(both: Both) -> Vec<Finding> {
        findings(&Outcome::Through(Box::new(both)))
    }

    fn worst(findings: &[Finding]) -> Level {
        findings.iter().map(|f| f.level).max().expect("some")
    }

    #[test]
    fn two_that_exclude_each_other_are_well_and_say_how_long_it_takes() {
        let found = said(both(|_| {}));
        assert_eq!(worst(&found), Level::Ok, "{found:#?}");
        let takeover = found
            .iter()
            .find(|f| f.what.contains("takeover"))
            .expect("it");
        assert!(
            takeover
                .detail
                .contains("by blue after 2.0 s, waiting in the kernel 5.0 s"),
            "{takeover:?}"
        );
        assert!(takeover.detail.contains("lease of 90 s"), "{takeover:?}");
        let measured = measured(&both(|_| {}));
        assert!(measured.kernel_locks_reach && measured.sqlite_locks_reach);
        let near =
            |seconds: Option<f64>, wanted: f64| seconds.is_some_and(|s| (s - wanted).abs() < 0.001);
        assert!(near(measured.clock_behind_seconds, 0.), "{measured:?}");
        for waited in [&measured.here, &measured.there] {
            assert!(near(waited.released_seconds, 1.), "{waited:?}");
            assert!(near(waited.takeover_polling_seconds, 2.), "{waited:?}");
            assert!(near(waited.takeover_waiting_seconds, 5.), "{waited:?}");
            assert!(near(waited.name_seconds, 3.), "{waited:?}");
        }
    }

    /// Each changes one thing, on the other side where that can be: the verdict is the same from both.
    #[rstest]
    #[case::flock_at_once(|b: &mut Both| b.seen_there.flock.held = Answer::Taken, Level::Bad, "must not be used here")]
    #[case::flock_later(|b: &mut Both| { b.seen_there.flock.later = Answer::Taken; b.seen_there.flock.later_ms = 3200; }, Level::Bad, "3.2 s after it had been refused")]
    #[case::flock_reopened(|b: &mut Both| b.seen_there.flock.crossed = Answer::Taken, Level::Bad, "closed and opened again")]
    #[case::flock_never_free(|b: &mut Both| b.seen_there.flock.freed = None, Level::Bad, "never got it")]
    #[case::flock_fails(|b: &mut Both| b.seen_there.flock.held = Answer::Failed("EIO".into()), Level::Bad, "on green: EIO")]
    #[case::flock_not_had(|b: &mut Both| b.seen_there.flock.own = Some("ENOLCK".into()), Level::Bad, "ENOLCK")]
    #[case::flock_under_a_lease(|b: &mut Both| { b.seen_there.flock.held = Answer::Taken; b.here.by_kernel_locks = false; b.there.by_kernel_locks = false; }, Level::Warning, "goes by its lease alone")]
    #[case::posix(|b: &mut Both| { b.seen_there.posix.held = Answer::Taken; b.here.by_kernel_locks = false; b.there.by_kernel_locks = false; }, Level::Bad, "no store can be kept here")]
    #[case::lost(|b: &mut Both| b.seen_there.lost = Some("EIO".into()), Level::Bad, "green lost a lock while it held it (EIO)")]
    #[case::inherited(|b: &mut Both| b.seen_there.inherited = Answer::Taken, Level::Bad, "a process that had inherited it")]
    #[case::no_child(|b: &mut Both| { b.seen_here.inherited = Answer::Taken; b.seen_there.no_child = Some("no cat".into()); }, Level::Warning, "no cat")]
    #[case::never_taken_over(|b: &mut Both| b.seen_there.polled = None, Level::Bad, "not within 30s")]
    #[case::never_woken(|b: &mut Both| b.seen_there.woken = None, Level::Warning, "not within 30s")]
    #[case::data(|b: &mut Both| b.seen_there.data = Some("something else".into()), Level::Bad, "not so on green")]
    #[case::transactions(|b: &mut Both| b.seen_there.sqlite.excluded = Answer::Taken, Level::Bad, "began a transaction")]
    #[case::lost_updates(|b: &mut Both| b.seen_there.sqlite.total = Some(39), Level::Bad, "to 39 together")]
    #[case::damage(|b: &mut Both| b.seen_there.sqlite.integrity = Some("row missing".into()), Level::Bad, "row missing")]
    #[case::sqlite_fails(|b: &mut Both| b.seen_there.sqlite.error = Some("disk I/O error".into()), Level::Bad, "disk I/O error")]
    #[case::one_name(|b: &mut Both| b.there.host = "blue".into(), Level::Bad, "nfs4_unique_id")]
    #[case::one_name_two_ids(|b: &mut Both| { b.there.host = "blue".into(); b.there.nfs_client = Some("x".into()); b.here.nfs_client = Some("y".into()); }, Level::Warning, "rename one")]
    #[case::one_name_no_nfs(|b: &mut Both| { b.there.host = "blue".into(); for s in [&mut b.here, &mut b.there] { s.mount.as_mut().expect("it").kind = "fuse.x".into(); } }, Level::Warning, "rename one")]
    #[case::one_machine(|b: &mut Both| b.there.boot_id = "blue".into(), Level::Warning, "proves nothing about two")]
    #[case::versions(|b: &mut Both| b.there.joblock = "2.0".into(), Level::Warning, "the same version on both")]
    #[case::stores(|b: &mut Both| b.there.store_id = Some("4711".into()), Level::Bad, "they are two")]
    #[case::no_store(|b: &mut Both| b.there.store_error = Some("no folder".into()), Level::Bad, "on green: no folder")]
    #[case::mounts(|b: &mut Both| b.there.mount.as_mut().expect("it").options = "rw,vers=3,hard,local_lock=none".into(), Level::Warning, "only on green: vers=3")]
    #[case::clocks(|b: &mut Both| { b.seen_here.wall_ahead_ms = Some(90_010); b.seen_there.wall_ahead_ms = Some(-89_990); }, Level::Warning, "green is 1 min 30 s behind")]
    fn each_trouble_is_told_with_what_to_change(
        #[case] change: fn(&mut Both),
        #[case] level: Level,
        #[case] words: &str,
    ) {
        let both = both(change);
        let found = said(both.clone());
        assert_eq!(worst(&found), level, "{found:#?}");
        assert!(
            found
                .iter()
                .any(|f| f.level == level && f.detail.contains(words)),
            "{found:#?}"
        );
        let other = said(super::measured::turned(&both));
        assert_eq!(worst(&other), level, "{other:#?}");
    }

    #[rstest]
    #[case("nfs", "vers=3,local_lock=flock", "local_lock=none")]
    #[case("nfs", "vers=3,nolock,local_lock=all", "without nolock")]
    #[case("fuse.bindfs", "rw", "FUSE")]
    #[case("cifs", "nobrl", "nobrl")]
    #[case("9p", "rw", "NFS for example")]
    fn what_to_change_is_told_by_the_mount(
        #[case] kind: &str,
        #[case] options: &str,
        #[case] words: &str,
    ) {
        let found = said(both(|b| {
            b.seen_here.flock.held = Answer::Taken;
            for side in [&mut b.here, &mut b.there] {
                let mount = side.mount.as_mut().expect("one");
                (mount.kind, mount.options) = (kind.into(), options.into());
            }
        }));
        assert!(found.iter().any(|f| f.detail.contains(words)), "{found:#?}");
    }

    #[test]
    fn an_nfs_3_server_never_frees_what_a_dead_machine_held() {
        let found = said(both(|b| {
            let mount = b.there.mount.as_mut().expect("one");
            (mount.kind, mount.options) = ("nfs".into(), "rw,vers=3".into());
        }));
        let text = format!("{found:?}");
        assert!(text.contains("over NFS 3: never"), "{text}");
    }

    #[test]
    fn what_ended_early_is_bad() {
        let outcomes = [
            Outcome::Foreign("9.9".into()),
            Outcome::Nobody {
                folder: "/mnt/peer".into(),
                source: Some("srv:/data".into()),
                waited: std::time::Duration::from_secs(120),
                busy: vec!["red".into()],
            },
            Outcome::Broken {
                step: "files".into(),
                why: "no space".into(),
                there: Some(Box::new(side("green"))),
            },
        ];
        for (outcome, words) in outcomes
            .iter()
            .zip(["9.9", "red met somebody else", "green"])
        {
            let found = findings(outcome);
            assert_eq!(worst(&found), Level::Bad);
            assert!(found[0].detail.contains(words), "{found:?}");
        }
    }
}
