//! What comes of an attempt: refused, waited, fresh, cancelled, or a mistake, and what the history says of it.

mod common;

use std::fs;

use common::{Kind, Store, finish, start, wait_until};
use rstest::rstest;
use serde_json::Value;

/// A job that says so in `mark` when it is there, and ends when `go` appears.
fn until(store: &Store, mark: &str, go: &str) -> String {
    format!(
        "touch {}; until [ -e {} ]; do sleep 0.05; done",
        store.file(mark).display(),
        store.file(go).display()
    )
}

fn let_go(store: &Store, go: &str) {
    fs::write(store.file(go), "").expect("the sign to go on");
}

fn jobs_file(store: &Store, text: &str) -> String {
    let path = store.file("joblock.toml");
    fs::write(&path, text).expect("a jobs file");
    path.display().to_string()
}

// shows: two-names local, shared, lockfile
#[rstest]
fn a_job_under_another_lock_than_its_running_one_is_refused(
    #[values(Kind::Local, Kind::Shared, Kind::Lockfile)] kind: Kind,
) {
    let store = Store::new(kind);
    let script = until(&store, "there", "go");
    let run = start(&mut store.run(&["--lock", "one"], "sync", &["sh", "-c", &script]));
    wait_until("the job is there", || store.file("there").exists());
    // Also where the jobs file says that the lock has another name from now on.
    let file = jobs_file(&store, "[jobs.sync]\nlock = \"two\"\n");
    for option in [["--lock", "two"], ["--config", file.as_str()]] {
        let done = store
            .sh(&[&option[..], &["-v"]].concat(), "sync", "echo no")
            .expect(75);
        assert!(
            done.out().is_empty() && done.err().contains("the lock one"),
            "{done}"
        );
    }
    let_go(&store, "go");
    run.finish().expect(0);
    assert_eq!(store.outcomes("sync"), ["succeeded", "refused", "refused"]);
    // It is idle now: a name on the command line is still a mistake, the jobs file's is meant.
    let done = store.sh(&["--lock", "two"], "sync", "echo no").expect(125);
    assert!(
        done.out().is_empty() && done.err().contains("--lock one"),
        "{done}"
    );
    store.sh(&["--config", &file], "sync", "true").expect(0);
}

#[test]
fn a_lock_beside_the_jobs_files_own_is_a_mistake_before_anything_ran() {
    let store = Store::local();
    let file = jobs_file(&store, "\n[jobs.sync]\ncommand = [\"true\"]\n");
    let mut run = store.joblock("run");
    let done = finish(run.args(["--config", &file, "--lock", "other", "sync"])).expect(125);
    assert!(
        done.err()
            .contains("joblock.toml:2 has sync under the lock sync"),
        "{done}"
    );
}

#[rstest]
#[case::itself("sync")]
#[case::through_another_job("other")]
fn a_job_that_starts_itself_is_told_so_at_once(#[case] between: &str) {
    let store = Store::local();
    let inner = store.prefix("sync");
    let inner = format!(
        "{} true; echo inner $?",
        inner.join(" ").replace("run", "run -w forever")
    );
    let script = if between == "sync" {
        inner
    } else {
        let outer = store.prefix(between).join(" ");
        format!("{outer} env -i sh -c '{inner}'")
    };
    let done = store.sh(&[], "sync", &script).expect(0);
    assert_eq!(done.out(), "inner 125\n", "{done}");
    assert!(done.err().contains("can't end before this does"), "{done}");
    let mut outcomes = store.outcomes("sync");
    outcomes.sort();
    assert_eq!(outcomes, ["not-started", "succeeded"]);
}

#[rstest]
fn jobs_that_share_a_lock_exclude_each_other(
    #[values(Kind::Local, Kind::Shared, Kind::Lockfile)] kind: Kind,
) {
    let store = Store::new(kind);
    let script = until(&store, "there", "go");
    let run = start(&mut store.run(&["--lock", "index"], "rebuild", &["sh", "-c", &script]));
    wait_until("the job is there", || store.file("there").exists());
    let done = store
        .sh(&["--lock", "index", "-v"], "sync", "echo no")
        .expect(75);
    assert!(
        done.err().contains("of rebuild") && done.err().contains("stop rebuild"),
        "{done}"
    );
    let done = store
        .sh(&["--lock", "index", "-E", "0"], "sync", "echo no")
        .expect(0);
    assert!(done.out().is_empty(), "{done}");
    let_go(&store, "go");
    run.finish().expect(0);
    let rows = store.rows("sync");
    assert_eq!(rows.len(), 2);
    for row in rows {
        assert_eq!(
            (&row["outcome"], &row["held_by"]["job"]),
            (&"refused".into(), &"rebuild".into())
        );
    }
}

// shows: waiting local, shared, lockfile
#[rstest]
fn a_waiter_sleeps_in_the_kernel_until_the_release(
    #[values(Kind::Local, Kind::Shared, Kind::Lockfile)] kind: Kind,
) {
    let store = Store::new(kind);
    let script = until(&store, "there", "go");
    let run = start(&mut store.run(&[], "sync", &["sh", "-c", &script]));
    wait_until("the job is there", || store.file("there").exists());
    let waiter = start(&mut store.run(&["-w", "forever"], "sync", &["echo", "mine"]));
    // proc_locks(5): who waits for a lock stands in a line with an arrow.
    wait_until("its keeper is queued for the kernel lock", || {
        let locks = fs::read_to_string("/proc/locks").expect("/proc/locks");
        let of_waiter = |pid: &str| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.rsplit(") ").next().is_some_and(|rest| {
                rest.split(' ').nth(1) == Some(waiter.pid().to_string().as_str())
            })
        };
        locks.lines().any(|line| {
            let mut fields = line.split_whitespace().skip(1);
            fields.next() == Some("->") && fields.nth(3).is_some_and(of_waiter)
        })
    });
    let_go(&store, "go");
    run.finish().expect(0);
    assert_eq!(waiter.finish().expect(0).out(), "mine\n");
    assert_eq!(store.outcomes("sync"), ["succeeded", "succeeded"]);
}

#[test]
fn a_wait_that_is_over_is_a_refusal_and_an_interrupted_one_is_cancelled() {
    let store = Store::local();
    let script = until(&store, "there", "go");
    let run = start(&mut store.run(&[], "sync", &["sh", "-c", &script]));
    wait_until("the job is there", || store.file("there").exists());
    store.sh(&["-w", "0.3"], "sync", "echo no").expect(75);
    let waiter = start(&mut store.run(&["-w", "1h", "-v"], "sync", &["echo", "no"]));
    wait_until("it waits", || {
        store.outcomes("sync").len() == 2 && waits(&store, waiter.pid())
    });
    // SAFETY: kill(2) on a child that was not waited for yet.
    unsafe { libc::kill(waiter.pid(), libc::SIGTERM) };
    assert!(waiter.finish().expect(128 + libc::SIGTERM).out().is_empty());
    let_go(&store, "go");
    run.finish().expect(0);
    assert_eq!(
        store.outcomes("sync"),
        ["succeeded", "refused", "cancelled"]
    );
    assert!(store.rows("sync")[2]["held_by"]["run_id"].is_string());
}

/// Front has a handler for what is sent to it: signals are blocked, and read from a descriptor.
fn waits(_: &Store, pid: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status
        .lines()
        .any(|line| line.starts_with("SigBlk:") && !line.ends_with("0000000000000000"))
}

#[test]
fn a_success_within_the_window_makes_a_start_fresh_and_a_failure_does_not() {
    let store = Store::local();
    let fresh = ["--unless-succeeded-within", "1h"];
    store.sh(&fresh, "sync", "exit 3").expect(3);
    store.sh(&fresh, "sync", "true").expect(0);
    let done = store.sh(&fresh, "sync", "echo no").expect(0);
    assert!(done.out().is_empty(), "{done}");
    // A failure after it: that has to be repaired, whatever succeeded before.
    store.sh(&[], "sync", "exit 4").expect(4);
    let done = store.sh(&fresh, "sync", "echo yes").expect(0);
    assert_eq!(done.out(), "yes\n", "{done}");
    let tiny = ["--unless-succeeded-within", "0.001"];
    assert_eq!(store.sh(&tiny, "sync", "echo yes").expect(0).out(), "yes\n");
    assert_eq!(
        store.outcomes("sync"),
        [
            "failed",
            "succeeded",
            "fresh",
            "failed",
            "succeeded",
            "succeeded"
        ]
    );
    let again = finish(store.joblock("rerun").arg("sync")).expect(0);
    assert_eq!(again.out(), "yes\n", "a rerun is never fresh: {again}");
}

#[test]
fn the_jobs_files_window_holds_for_schedule_and_start_up_and_for_no_operator() {
    let store = Store::local();
    let file = jobs_file(
        &store,
        "[jobs.sync]\ncommand = [\"echo\", \"ran\"]\nunless-succeeded-within = \"1h\"\n",
    );
    let with = |trigger: &str| {
        let mut run = store.joblock("run");
        finish(run.args(["--config", &file, "--trigger", trigger, "sync"]))
            .expect(0)
            .out()
    };
    assert_eq!(with("schedule"), "ran\n");
    assert_eq!(with("schedule"), "");
    assert_eq!(with("startup"), "");
    assert_eq!(with("operator"), "ran\n");
    assert_eq!(with("other"), "ran\n");
}

#[test]
fn whoever_waited_for_a_run_that_succeeded_does_not_run_it_again() {
    let store = Store::local();
    let script = until(&store, "there", "go");
    let run = start(&mut store.run(&[], "sync", &["sh", "-c", &script]));
    wait_until("the job is there", || store.file("there").exists());
    let fresh = ["-w", "forever", "--unless-succeeded-within", "1h"];
    let waiter = start(&mut store.run(&fresh, "sync", &["echo", "no"]));
    wait_until("it waits", || waits(&store, waiter.pid()));
    let_go(&store, "go");
    run.finish().expect(0);
    assert!(waiter.finish().expect(0).out().is_empty());
    assert_eq!(store.outcomes("sync"), ["succeeded", "fresh"]);
}

// shows: leaked-children local, shared, lockfile
#[rstest]
fn a_lock_is_held_until_the_jobs_children_are_gone_and_they_are_ended_or_waited_for(
    #[values(Kind::Local, Kind::Shared, Kind::Lockfile)] kind: Kind,
) {
    let store = Store::new(kind);
    let leave = format!(
        "setsid sh -c '{}' >&- 2>&- & exit 5",
        until(&store, "there", "go")
    );
    let done = store.sh(&[], "ends", &leave).expect(5);
    assert_eq!(store.of_jobs(), [], "{done}");
    let leaked = |row: &Value| row["leaked_processes"].as_u64();
    assert!(leaked(&store.rows("ends")[0]).is_some_and(|n| n > 0));

    let _ = fs::remove_file(store.file("there"));
    let run = start(&mut store.run(&["--wait-for-children"], "waits", &["sh", "-c", &leave]));
    wait_until("the child is there", || store.file("there").exists());
    store.sh(&[], "waits", "echo no").expect(75);
    let_go(&store, "go");
    run.finish().expect(5);
    store.sh(&[], "waits", "true").expect(0);
}

#[rstest]
fn a_run_whose_keeper_is_dead_or_stopped_can_still_be_ended_on_its_machine(
    #[values(Kind::Local, Kind::Lockfile)] kind: Kind,
    #[values(libc::SIGKILL, libc::SIGSTOP)] signal: i32,
) {
    let store = Store::new(kind);
    let script = until(&store, "there", "go");
    let run = start(&mut store.run(&[], "sync", &["sh", "-c", &script]));
    wait_until("the job is there", || store.file("there").exists());
    let keeper = store.holder("sync").keeper;
    keeper.kill(signal);
    wait_until("it is", || !keeper.lives() || keeper.is_stopped());
    let ask = ["--reason", "a test", "sync"];
    let done = finish(store.joblock("stop").args(ask)).expect(125);
    assert!(done.err().contains("unlock sync --kill"), "{done}");
    finish(store.joblock("unlock").arg("--kill").args(ask)).expect(0);
    run.finish().expect(128 + libc::SIGKILL);
    assert_eq!(store.of_jobs(), []);
    store.sh(&[], "sync", "true").expect(0);
    assert_eq!(store.outcomes("sync"), ["signaled", "succeeded"]);
}

// shows: restored-backup local, shared, lockfile
#[rstest]
fn tokens_go_on_growing_when_the_database_is_gone(
    #[values(Kind::Local, Kind::Shared, Kind::Lockfile)] kind: Kind,
) {
    let store = Store::new(kind);
    for _ in 0..3 {
        store.sh(&[], "sync", "true").expect(0);
    }
    for entry in fs::read_dir(store.path()).expect("the store").flatten() {
        if entry.file_name().to_string_lossy().contains(".db") && entry.path().is_file() {
            fs::remove_file(entry.path()).expect("remove");
        }
    }
    let done = store.sh(&[], "sync", "echo $JOBLOCK_TOKEN").expect(0);
    assert_eq!(done.out(), "4\n", "{done}");
}

#[test]
fn a_backup_by_hard_links_harms_no_holder() {
    let store = Store::new(Kind::Lockfile);
    let script = until(&store, "there", "go");
    let run = start(&mut store.run(&["--ttl", "2s"], "sync", &["sh", "-c", &script]));
    wait_until("the job is there", || store.file("there").exists());
    fs::hard_link(store.path().join("sync.lock"), store.file("backup")).expect("a link");
    let heartbeat = || store.json("status", &["sync"]).to_string();
    let before = heartbeat();
    wait_until("two heartbeats more", || heartbeat() != before);
    fs::remove_file(store.file("backup")).expect("remove");
    let_go(&store, "go");
    run.finish().expect(0);
    assert_eq!(store.outcomes("sync"), ["succeeded"]);
}
