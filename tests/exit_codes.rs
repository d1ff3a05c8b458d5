//! The job's end comes through: every exit code, every signal, and the codes for a command that can't run.

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::thread;

use common::{Kind, Store, finish};
use rstest::rstest;

/// Signals whose default is to do nothing or to stop, `signal(7)`, and the two that the C library keeps for itself,
/// which whoever started the tests may have left ignored.
const NOT_DEADLY: [i32; 10] = [17, 18, 19, 20, 21, 22, 23, 28, 32, 33];

/// Checks every case on a few stores at once, so that hundreds of runs stay affordable.
fn on_four_stores(cases: &[i32], check: impl Fn(&Store, i32) + Sync) {
    thread::scope(|scope| {
        for part in cases.chunks(cases.len().div_ceil(4)) {
            let check = &check;
            scope.spawn(move || {
                let store = Store::local();
                for &case in part {
                    check(&store, case);
                }
            });
        }
    });
}

#[test]
fn every_exit_code_of_the_job_from_0_to_255_is_joblocks_own() {
    let codes: Vec<i32> = (0..=255).collect();
    on_four_stores(&codes, |store, code| {
        let done = store.sh(&[], "code", &format!("exit {code}"));
        assert_eq!(done.status.code(), Some(code), "{done}");
        assert_eq!(done.out() + &done.err(), "", "joblock has nothing to say");
    });
}

#[test]
fn the_history_has_the_exit_code_of_every_run() {
    let store = Store::local();
    for code in [0, 1, 42, 69, 75, 125, 255] {
        store.sh(&[], "code", &format!("exit {code}")).expect(code);
    }
    let seen: Vec<(String, i64)> = store
        .rows("code")
        .iter()
        .map(|row| {
            let outcome = row["outcome"].as_str().expect("an outcome");
            (
                outcome.to_owned(),
                row["exit_code"].as_i64().expect("a code"),
            )
        })
        .collect();
    let expected = [0, 1, 42, 69, 75, 125, 255].map(|code| {
        let outcome = if code == 0 { "succeeded" } else { "failed" };
        (outcome.to_owned(), code)
    });
    assert_eq!(seen, expected);
}

#[test]
fn a_job_that_any_deadly_signal_ends_gives_128_and_the_signals_number() {
    let deadly: Vec<i32> = (1..=64).filter(|n| !NOT_DEADLY.contains(n)).collect();
    on_four_stores(&deadly, |store, signal| {
        let done = store.sh(
            &[],
            "signal",
            &format!("ulimit -c 0; kill -{signal} $$; exit 1"),
        );
        assert_eq!(done.status.code(), Some(128 + signal), "{done}");
        let last = store.rows("signal").pop().expect("a row");
        assert_eq!(last["outcome"], "signaled", "{last}");
        assert_eq!(last["signal"], signal, "{last}");
    });
}

// shows: job-killed local, shared, lockfile
#[rstest]
fn a_job_that_is_killed_gives_137_leaves_nothing_behind_and_its_lock_is_free(
    #[values(Kind::Local, Kind::Shared, Kind::Lockfile)] kind: Kind,
) {
    let store = Store::new(kind);
    let killed = "(trap '' TERM; exec sleep 1000) & kill -9 $$";
    let done = store.sh(&["-k", "0.2"], "killed", killed).expect(137);
    assert!(store.marked().is_empty(), "{done}");
    store.sh(&[], "killed", "exit 0").expect(0);
    assert_eq!(store.outcomes("killed"), ["signaled", "succeeded"]);
}

#[test]
fn a_command_that_is_not_there_is_127_and_named() {
    let store = Store::local();
    for missing in ["no-such-program-anywhere", "/no/such/program", "./not-here"] {
        let done = finish(&mut store.run(&[], "missing", &[missing])).expect(127);
        assert!(done.err().starts_with("joblock: "), "{done}");
        assert!(done.err().contains(missing), "{done}");
    }
    assert_eq!(store.outcomes("missing"), ["not-started"; 3]);
}

#[test]
fn a_whole_command_line_in_one_word_is_127_with_a_hint_at_sh_c() {
    let store = Store::local();
    let done = finish(&mut store.run(&[], "word", &["echo one two"])).expect(127);
    assert!(done.err().contains("sh -c"), "{done}");
    let done = finish(&mut store.run(&[], "word", &["nothing-like-it"])).expect(127);
    assert!(!done.err().contains("sh -c"), "{done}");
}

#[test]
fn a_file_that_is_no_program_and_a_folder_are_126() {
    let store = Store::local();
    let file = store.file("data");
    fs::write(&file, "#!/bin/sh\nexit 0\n").expect("a file");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).expect("its mode");
    for command in [file.to_str().expect("a path"), "/etc"] {
        let done = finish(&mut store.run(&[], "no-program", &[command])).expect(126);
        assert!(done.err().starts_with("joblock: "), "{done}");
        assert!(done.err().contains(command), "{done}");
    }
    assert_eq!(store.outcomes("no-program"), ["not-started"; 2]);
}

#[test]
fn after_a_command_that_could_not_be_started_the_lock_is_free() {
    let store = Store::local();
    finish(&mut store.run(&[], "job", &["no-such-program-anywhere"])).expect(127);
    store.sh(&[], "job", "exit 3").expect(3);
    assert_eq!(store.outcomes("job"), ["not-started", "failed"]);
}

#[test]
fn wrong_usage_is_125_and_no_job_is_started() {
    let store = Store::local();
    let mark = store.file("started");
    let touch = format!("touch {}", mark.display());
    let run = ["sh", "-c", touch.as_str()];
    for (options, job) in [
        (vec![], "bad/name"),
        (vec![], "0123456789abcdef"),
        (vec!["--no-such-option"], "job"),
        (vec!["--time-limit", "soon"], "job"),
        (vec!["--timeout", "5"], "job"),
    ] {
        finish(&mut store.run(&options, job, &run)).expect(125);
    }
    // Without `--` the command would be joblock's own words.
    finish(store.joblock("run").args(["job", "sh", "-c", &touch])).expect(125);
    assert!(!mark.exists());
}

#[test]
fn a_second_start_is_75_or_what_the_caller_chose_and_the_job_runs_once() {
    let store = Store::local();
    let (ready, go) = (store.file("ready"), store.file("go"));
    let script = format!(
        "touch {}; while [ ! -e {} ]; do sleep 0.02; done",
        ready.display(),
        go.display()
    );
    let first = common::start(&mut store.run(&[], "once", &["sh", "-c", &script]));
    common::wait_until("the first run", || ready.exists());
    let refused = store.sh(&[], "once", "echo second").expect(75);
    assert_eq!(refused.out(), "");
    assert_eq!(refused.err(), "", "silent without a terminal");
    store.sh(&["-E", "0"], "once", "echo second").expect(0);
    store
        .sh(&["--conflict-exit-code", "200"], "once", "echo second")
        .expect(200);
    fs::write(&go, "").expect("go");
    first.finish().expect(0);
    assert_eq!(
        store.outcomes("once"),
        ["succeeded", "refused", "refused", "refused"]
    );
}
