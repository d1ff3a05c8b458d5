//! Whoever only looks holds up nobody: not a run whose heartbeat is due, not a start.

mod common;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use common::{Holder, Kind, Shell, Store, finish, start, stays, wait_until};
use rstest::rstest;

/// Somebody's sqlite3 shell with a SELECT that has begun and is not finished.
#[track_caller]
fn open_select(database: &Path) -> Shell {
    let (shell, line) = Shell::after(database, "BEGIN;\nSELECT 'rows', count(*) FROM runs;\n");
    assert!(line.starts_with("rows|"), "{line:?}");
    shell
}

fn options(kind: Kind) -> Vec<&'static str> {
    if kind == Kind::Shared {
        vec!["--ttl", "2s"]
    } else {
        vec![]
    }
}

fn journal_mode(database: &Path) -> String {
    let done = Command::new("sqlite3")
        .arg(database)
        .arg("PRAGMA journal_mode")
        .output()
        .expect("sqlite3");
    String::from_utf8_lossy(&done.stdout).trim().to_owned()
}

// shows: slow-reader local, shared
#[rstest]
#[case(Kind::Local, "wal")]
#[case(Kind::Shared, "delete")]
fn a_select_held_open_for_longer_than_the_fence_kills_no_job(
    #[case] kind: Kind,
    #[case] journal: &str,
) {
    let store = Store::new(kind);
    let database = store.path().join("joblock.db");
    let go = store.file("go");
    let script = format!("until [ -e {} ]; do sleep 0.02; done; exit 5", go.display());
    let mut run = start(&mut store.run(&options(kind), "read", &["sh", "-c", &script]));
    let job = Holder::of_front(run.process()).guard.children()[0];
    assert_eq!(journal_mode(&database), journal);
    let select = open_select(&database);
    // F of a lease of two seconds is 0.9 s.
    stays("the job lives", Duration::from_secs(6), || job.lives());
    drop(select);
    fs::write(&go, "").expect("go");
    assert!(!run.has_ended() || job.lives());
    run.finish().expect(5);
    assert_eq!(store.outcomes("read"), ["failed"]);
}

// shows: slow-reader local, shared
#[rstest]
fn a_run_that_ends_while_a_select_is_open_ends_with_the_jobs_code_and_its_end_is_not_lost(
    #[values(Kind::Local, Kind::Shared)] kind: Kind,
) {
    let store = Store::new(kind);
    let go = store.file("go");
    let script = format!("until [ -e {} ]; do sleep 0.02; done; exit 5", go.display());
    let run = start(&mut store.run(&options(kind), "read", &["sh", "-c", &script]));
    Holder::of_front(run.process());
    let select = open_select(&store.path().join("joblock.db"));
    fs::write(&go, "").expect("go");
    run.finish().expect(5);
    drop(select);
    store.sh(&options(kind), "read", "exit 0").expect(0);
    assert_eq!(store.outcomes("read"), ["failed", "succeeded"]);
}

#[rstest]
fn looking_refuses_no_start(#[values(Kind::Local, Kind::Shared, Kind::Lockfile)] kind: Kind) {
    let store = Store::new(kind);
    store.sh(&[], "busy", "exit 0").expect(0);
    let over = AtomicBool::new(false);
    let looks = AtomicUsize::new(0);
    thread::scope(|scope| {
        for verb in ["status", "history", "show"] {
            let (store, over, looks) = (&store, &over, &looks);
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    finish(store.joblock(verb).arg("busy")).expect(0);
                    looks.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for _ in 0..60 {
            let done = finish(&mut store.run(&[], "busy", &["true"]));
            if done.status.code() != Some(0) {
                over.store(true, Ordering::Relaxed);
                panic!("a start was refused though nobody ran: {done}");
            }
        }
        wait_until("the lookers have looked", || {
            looks.load(Ordering::Relaxed) > 60
        });
        over.store(true, Ordering::Relaxed);
    });
    assert_eq!(store.outcomes("busy"), ["succeeded"; 61]);
}

#[rstest]
fn of_300_starts_against_a_loop_of_short_jobs_each_refused_one_names_a_run_that_held_the_lock(
    #[values(Kind::Local, Kind::Shared, Kind::Lockfile)] kind: Kind,
) {
    let store = Store::new(kind);
    store.sh(&[], "loop", "exit 0").expect(0);
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let (store, over) = (&store, &over);
        scope.spawn(move || {
            while !over.load(Ordering::Relaxed) {
                finish(&mut store.run(&["-w", "60"], "loop", &["sleep", "0.02"])).expect(0);
            }
        });
        scope.spawn(move || {
            while !over.load(Ordering::Relaxed) {
                finish(store.joblock("status").arg("loop")).expect(0);
            }
        });
        let starters: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(move || {
                    for _ in 0..100 {
                        let code = finish(&mut store.run(&[], "loop", &["true"])).code();
                        assert!([0, 75].contains(&code), "{code}");
                    }
                })
            })
            .collect();
        let failed = starters.into_iter().filter_map(|s| s.join().err()).count();
        over.store(true, Ordering::Relaxed);
        assert_eq!(failed, 0, "starts that were neither run nor refused");
    });
    let rows = store.rows("loop");
    let ran: Vec<&str> = rows
        .iter()
        .filter(|row| row["outcome"] == "succeeded")
        .map(|row| row["run_id"].as_str().expect("a run id"))
        .collect();
    let refused: Vec<_> = rows
        .iter()
        .filter(|row| row["outcome"] == "refused")
        .collect();
    assert_eq!(
        ran.len() + refused.len(),
        rows.len(),
        "each attempt ran or was refused"
    );
    assert!(
        !refused.is_empty(),
        "the test shows nothing if nobody is refused"
    );
    for row in refused {
        let by = row["held_by"]["run_id"]
            .as_str()
            .unwrap_or_else(|| panic!("refused by nobody: {row}"));
        assert!(ran.contains(&by), "refused by {by}, which never ran: {row}");
    }
}
