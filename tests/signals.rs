//! Signals that a process sends to joblock reach the job, once each; what ends the job names its end.

mod common;

use std::fs;
use std::time::Duration;

use common::process::Process;
use common::{Holder, Kind, Running, Store, start, text, wait_until};

/// Starts `script`, which touches `$READY` when it can be signalled.
#[track_caller]
fn begin(store: &Store, options: &[&str], script: &str) -> Running {
    let mut run = store.run(options, "signals", &["bash", "-c", script]);
    let run = start(
        run.env("READY", store.file("ready"))
            .env("SEEN", store.file("seen")),
    );
    wait_until("the job is ready", || store.file("ready").exists());
    run
}

/// A job that writes down each signal that it gets, and ends by `exit 9` at a USR2.
fn recorder() -> String {
    let names = "HUP INT QUIT TERM USR1 ALRM WINCH CONT";
    format!(
        "for name in {names}; do trap \"echo $name >>$SEEN\" $name; done; trap 'exit 9' USR2\n\
         touch $READY; while :; do sleep 0.02; done"
    )
}

#[test]
fn a_signal_sent_to_front_reaches_the_job_once() {
    let store = Store::local();
    let run = begin(&store, &[], &recorder());
    let mut expected = String::new();
    for (number, name) in [
        (1, "HUP"),
        (15, "TERM"),
        (10, "USR1"),
        (2, "INT"),
        (3, "QUIT"),
        (14, "ALRM"),
    ] {
        run.process().kill(number);
        expected += name;
        expected += "\n";
        wait_until("the signal is seen", || {
            text(&store.file("seen")).len() >= expected.len()
        });
    }
    run.process().kill(12);
    run.finish().expect(9);
    assert_eq!(text(&store.file("seen")), expected);
}

#[test]
fn a_job_that_handles_term_and_exits_0_has_succeeded() {
    let store = Store::local();
    let run = begin(
        &store,
        &[],
        "trap 'exit 0' TERM; touch $READY; while :; do sleep 0.02; done",
    );
    run.process().kill(15);
    run.finish().expect(0);
    assert_eq!(store.outcomes("signals"), ["succeeded"]);
}

#[test]
fn a_job_that_term_ends_gives_143_and_is_signaled_in_the_history() {
    let store = Store::local();
    let run = begin(&store, &[], "touch $READY; exec sleep 1000");
    run.process().kill(15);
    run.finish().expect(143);
    let row = store.rows("signals").pop().expect("a row");
    assert_eq!(row["outcome"], "signaled", "{row}");
    assert_eq!(row["signal"], 15, "{row}");
}

#[test]
fn a_job_that_ignores_term_is_not_killed_for_it() {
    let store = Store::local();
    let run = begin(
        &store,
        &["-k", "0.1"],
        "trap '' TERM; touch $READY; while [ ! -e $SEEN ]; do sleep 0.02; done; exit 6",
    );
    run.process().kill(15);
    common::stays(
        "it runs on, as it would without joblock",
        Duration::from_secs(1),
        || run.process().lives(),
    );
    fs::write(store.file("seen"), "").expect("the end");
    run.finish().expect(6);
}

#[test]
fn signals_to_keeper_and_guard_that_a_terminal_sends_change_nothing() {
    let store = Store::local();
    let run = begin(&store, &[], &recorder());
    let Holder { keeper, guard, .. } = Holder::of_front(run.process());
    for signal in [1, 2, 3, 15, 20, 28] {
        keeper.kill(signal);
        guard.kill(signal);
    }
    common::stays("both live", Duration::from_millis(500), || {
        keeper.lives() && guard.lives()
    });
    run.process().kill(12);
    run.finish().expect(9);
    assert_eq!(text(&store.file("seen")), "");
    assert_eq!(store.outcomes("signals"), ["failed"]);
}

#[test]
fn sigstop_of_the_job_itself_does_not_end_the_run() {
    let store = Store::new(Kind::Shared);
    let run = begin(
        &store,
        &["--ttl", "2s"],
        "touch $READY; while [ ! -e $SEEN ]; do sleep 0.02; done",
    );
    let job = Holder::of_front(run.process()).guard.children()[0];
    job.kill(libc::SIGSTOP);
    wait_until("the job is stopped", || job.is_stopped());
    common::stays(
        "its lock is held and it is not ended",
        Duration::from_secs(4),
        || job.is_stopped(),
    );
    store.sh(&[], "signals", "exit 0").expect(75);
    job.kill(libc::SIGCONT);
    fs::write(store.file("seen"), "").expect("the end");
    run.finish().expect(0);
}

#[test]
fn the_time_limit_ends_the_whole_tree_and_is_124() {
    let store = Store::local();
    let script = "setsid sleep 1000 & sleep 1000";
    let done = store.sh(&["-t", "0.3"], "limit", script).expect(124);
    assert!(store.of_jobs().is_empty(), "{done}");
    assert_eq!(store.outcomes("limit"), ["timed-out"]);
}

#[test]
fn a_job_over_its_time_limit_that_ignores_term_is_killed_and_is_124() {
    let store = Store::local();
    let script = "trap '' TERM; (setsid sleep 1000 &); while :; do sleep 0.02; done";
    store
        .sh(&["-t", "0.3", "-k", "0.3"], "limit", script)
        .expect(124);
    assert!(store.of_jobs().is_empty());
    assert_eq!(store.outcomes("limit"), ["timed-out"]);
}

#[test]
fn the_chosen_signal_asks_the_job_to_end_at_its_time_limit() {
    let store = Store::local();
    let script = "trap 'echo asked; exit 3' USR1; while :; do sleep 0.02; done";
    let done = store
        .sh(&["-t", "0.3", "-s", "USR1"], "limit", script)
        .expect(124);
    assert_eq!(done.out(), "asked\n");
}

#[test]
fn a_waiter_that_is_ended_by_term_starts_nothing_and_is_cancelled_in_the_history() {
    let store = Store::local();
    let run = begin(&store, &[], &recorder());
    let waiter = start(&mut store.run(
        &["-w", "forever"],
        "signals",
        &["touch", store.file("second").to_str().expect("a path")],
    ));
    let waits = |p: Process| p.children().len() == 2;
    wait_until("the waiter has its processes", || waits(waiter.process()));
    waiter.process().kill(15);
    let done = waiter.finish();
    assert!(!done.status.success(), "{done}");
    run.process().kill(12);
    run.finish().expect(9);
    assert!(!store.file("second").exists());
    let mut outcomes = store.outcomes("signals");
    outcomes.sort();
    assert_eq!(outcomes, ["cancelled", "failed"]);
}
