//! Time namespaces of one boot have BOOTTIME clocks that differ: no false takeover of a live run, and a true one of a
//! dead one.

mod common;

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use common::process::{Process, with_environment};
use common::{Kind, Running, Store, finish, joblock, may_use_root, start, stays, wait_until};
use rstest::rstest;

const WHY: &str = "time namespaces";

/// Offsets of BOOTTIME in seconds: ahead by weeks, ahead by a bit more than any lease, the machine's own.
const OFFSETS: [u32; 3] = [2_000_000, 100, 0];

/// `joblock run` in a time namespace whose BOOTTIME is ahead by `offset` seconds.
fn shifted(store: &Store, offset: u32, options: &[&str], script: &str) -> Command {
    let mut unshare = store.program("unshare");
    unshare.args([
        "--time",
        "--boottime",
        &offset.to_string(),
        "--fork",
        "--kill-child",
        joblock(),
    ]);
    unshare
        .args(["run", "--store", store.url()])
        .args(options)
        .args(["shifted", "--", "sh", "-c", script]);
    unshare
        .env("READY", store.file("ready"))
        .env("SEEN", store.file("seen"));
    unshare
}

fn options(kind: Kind) -> Vec<&'static str> {
    if kind == Kind::Shared {
        vec!["--ttl", "2s"]
    } else {
        vec![]
    }
}

/// Starts a run that waits for `$SEEN`.
#[track_caller]
fn begin(store: &Store, offset: u32, kind: Kind) -> Running {
    let script = "touch $READY; until [ -e $SEEN ]; do sleep 0.02; done; exit 3";
    let run = start(&mut shifted(store, offset, &options(kind), script));
    wait_until("the job", || store.file("ready").exists());
    run
}

/// The processes of the run, the wrapper `unshare` aside.
fn tree(store: &Store, run: &Running) -> Vec<Process> {
    let mut all = store.marked();
    all.retain(|p| p.pid != run.pid());
    all
}

// shows: time-namespace local, shared, lockfile
#[rstest]
fn a_live_run_is_taken_over_from_no_other_time_namespace(
    #[values(Kind::Local, Kind::Shared, Kind::Lockfile)] kind: Kind,
    #[values(0, 2_000_000)] holder: u32,
) {
    if !may_use_root(WHY) {
        return;
    }
    let store = Store::new(kind);
    let run = begin(&store, holder, kind);
    let begun = Instant::now();
    let mut attempts = 0;
    // Three leases long: cron's attempts are one-shot, and each goes on counting what an earlier one has seen.
    while begun.elapsed() < Duration::from_secs(6) {
        for offset in OFFSETS {
            finish(&mut shifted(&store, offset, &options(kind), "exit 0")).expect(75);
            attempts += 1;
        }
    }
    fs::write(store.file("seen"), "").expect("the end");
    run.finish().expect(3);
    let outcomes = store.outcomes("shifted");
    assert_eq!(outcomes[0], "failed");
    assert_eq!(outcomes[1..], vec!["refused"; attempts]);
}

#[rstest]
fn a_waiter_in_another_time_namespace_gets_the_lock_when_the_run_ends_and_not_before(
    #[values(Kind::Local, Kind::Shared, Kind::Lockfile)] kind: Kind,
) {
    if !may_use_root(WHY) {
        return;
    }
    let store = Store::new(kind);
    let run = begin(&store, 0, kind);
    let second = store.file("second");
    let script = format!("touch {}", second.display());
    let waiter = start(&mut shifted(
        &store,
        2_000_000,
        &[&options(kind)[..], &["-w", "80"]].concat(),
        &script,
    ));
    stays("the waiter waits", Duration::from_secs(5), || {
        !second.exists()
    });
    fs::write(store.file("seen"), "").expect("the end");
    run.finish().expect(3);
    waiter.finish().expect(0);
    assert_eq!(store.outcomes("shifted"), ["failed", "succeeded"]);
}

// shows: time-namespace local, shared, lockfile
#[rstest]
fn a_killed_run_is_taken_over_from_another_time_namespace(
    #[values(Kind::Local, Kind::Shared, Kind::Lockfile)] kind: Kind,
    #[values((0, 2_000_000), (2_000_000, 0), (100, 2_000_000))] offsets: (u32, u32),
) {
    if !may_use_root(WHY) {
        return;
    }
    let store = Store::new(kind);
    let run = begin(&store, offsets.0, kind);
    for process in tree(&store, &run) {
        process.kill(9);
    }
    run.finish();
    finish(&mut shifted(&store, offsets.1, &["-w", "60"], "exit 0")).expect(0);
    assert_eq!(store.outcomes("shifted"), ["abandoned", "succeeded"]);
}

#[rstest]
fn what_a_killed_run_left_in_another_time_namespace_is_swept_before_the_next_begins(
    #[values(Kind::Local, Kind::Shared, Kind::Lockfile)] kind: Kind,
) {
    if !may_use_root(WHY) {
        return;
    }
    let store = Store::new(kind);
    // The leftover has closed the lock's descriptor: only its environment tells whose it is.
    let script = r#"
        setsid bash -c 'for fd in /proc/$$/fd/*; do fd=${fd##*/}; [ $fd -gt 2 ] && eval "exec $fd>&-"; done
            exec </dev/null >/dev/null 2>&1; touch $READY; exec sleep 1000' &
        exec sleep 1000"#;
    let run = start(&mut shifted(&store, 2_000_000, &options(kind), script));
    wait_until("the leftover", || store.file("ready").exists());
    let left = |p: &Process| {
        fs::read(format!("/proc/{}/cmdline", p.pid)).is_ok_and(|line| line == b"sleep\x001000\0")
    };
    // Joblock's own first, all at once, then the job that was not told to close anything.
    let (sleepers, joblocks): (Vec<_>, Vec<_>) = tree(&store, &run).into_iter().partition(left);
    for process in joblocks {
        process.kill(9);
    }
    run.finish();
    assert!(!sleepers.is_empty());
    finish(&mut shifted(&store, 0, &["-w", "60"], "exit 0")).expect(0);
    assert!(
        sleepers.iter().all(|p| !p.lives()),
        "the old tree was there when the next run began"
    );
    let none = with_environment("JOBLOCK_JOB", "shifted".as_ref());
    assert!(none.iter().all(|p| !sleepers.contains(p)));
}
