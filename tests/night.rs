//! The night that joblock was made for (`night/night.json`), with everything real but the length of its minutes: two
//! hosts with names, processes and mounts of their own, a cron daemon, a memory limit and the kernel's OOM killer, a
//! container that starts again, and a sync that deletes a search index and fills it page by page. Without joblock
//! the index ends with duplicates; with joblock it must not, and the history must tell what happened.
//!
//! Needs root, and the Debian packages cron, sqlite3 and util-linux.

mod night {
    pub mod history;
    pub mod machine;
    pub mod stage;
    pub mod wait;
}

use std::process::Command;
use std::thread;

use night::history;
use night::stage::{Index, KILLED, SYNC, Stage, at};
use rstest::rstest;

/// What becomes of joblock's own processes when the memory is gone at 00:21.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wrapper {
    /// They live long enough to write the end down, then the container goes.
    SeesIt,
    /// The container goes first: nobody on blue can write anything.
    GoesToo,
    /// The same, and blue is down for as long as it takes others to notice.
    GoesTooAndStaysAway,
}

/// The night up to 08:21, when a user looks at the list of persons. Returns what the user sees.
fn play_until_users_look(stage: &mut Stage, wrapper: Wrapper) -> Index {
    let with_joblock = stage.store.is_some();
    stage.boot_green();
    stage.boot_blue();

    stage.pass_until(at(0, 5));
    stage.comes_entry("blue begins person-owner-rebuild");
    stage.pass_until(at(0, 8));
    stage.comes_entry("blue schedule of person-owner-rebuild exited with 0");
    stage.pass_until(at(0, 9));
    stage.comes_entry(&format!("blue begins {KILLED}"));

    stage.pass_until(at(0, 20));
    if with_joblock && wrapper != Wrapper::SeesIt {
        stage.stop_wrappers_on_blue();
    }
    stage.pass_until(at(0, 21));
    stage.comes("the OOM killer strikes", |stage| {
        stage.blue.cgroup().oom_kills() > 0
    });
    if with_joblock && wrapper == Wrapper::SeesIt {
        stage.comes_entry(&format!("blue schedule of {KILLED} exited with 137"));
    }
    stage.blue.kill();
    match wrapper {
        Wrapper::SeesIt if with_joblock => history::tells_of_the_death(stage),
        Wrapper::GoesTooAndStaysAway if with_joblock => history::notices_the_silence(stage),
        _ => {}
    }

    stage.pass_until(at(0, 22));
    stage.boot_blue();
    let again = format!("blue begins {KILLED}");
    stage.pass_until_it_comes(at(0, 29), &again, |stage| stage.entries(&again) == 2);
    stage.pass_until(at(0, 30));
    if with_joblock {
        history::check_is_critical(stage);
    }

    stage.pass_until(at(1, 28));
    stage.comes_entry("blue begins person-record-status");
    stage.pass_until(at(1, 29));
    stage.comes_entry("green has indexed page 1 of 10");
    assert_eq!(
        stage.entries(&format!("blue begins {SYNC}")),
        0,
        "blue's chain must come second"
    );

    stage.pass_until(at(1, 33));
    if with_joblock {
        stage.comes_entry(&format!("blue startup of {SYNC} exited with 75"));
        history::status_names_green(stage);
    } else {
        stage.comes_entry("blue has indexed page 1 of 10");
    }
    // with joblock nothing of the chain is left to wait for, and blue's own schedule goes on at 01:39
    let latest = if with_joblock { at(1, 33) } else { at(2, 30) };
    stage.pass_until_it_comes(latest, "the chain is over", |stage| {
        stage.entries("blue start-up is over") > 0
    });
    stage.pass_until(at(2, 30));
    stage.comes_entry(&format!("green ends {SYNC}"));
    if with_joblock {
        stage.comes_entry("blue schedule of post-elasticsearch-sync exited with 0");
    }

    stage.jump_to(at(8, 21));
    stage.index()
}

/// 09:25: an operator starts the sync on green, which takes until 09:45.
fn operator_runs_it_again(stage: &mut Stage, mut command: Command) {
    stage.jump_to(at(9, 25));
    let begun = stage.entries(&format!("green begins {SYNC}"));
    let mut rerun = command.spawn().expect("the operator's command");
    stage.comes("the operator's run begins", |stage| {
        stage.entries(&format!("green begins {SYNC}")) > begun
    });
    stage.pass_until(at(9, 45));
    let status = rerun.wait().expect("the operator's command");
    assert!(status.success(), "the operator's run: {status}");
}

fn night_without_joblock() {
    let mut stage = Stage::new(None);
    let index = play_until_users_look(&mut stage, Wrapper::GoesToo);
    assert!(
        index.rows > index.persons,
        "a night without joblock left no duplicates: it proves nothing ({index:?})"
    );
    let mut command = stage.green.command("job.sh");
    command.arg(SYNC);
    operator_runs_it_again(&mut stage, command);
    assert_eq!(stage.index(), Index::RIGHT);
}

fn night_with_joblock(store: &str, wrapper: Wrapper) {
    let mut stage = Stage::new(Some(store));
    assert_eq!(play_until_users_look(&mut stage, wrapper), Index::RIGHT);
    assert_eq!(
        stage.entries(&format!("blue begins {SYNC}")),
        0,
        "the sync was started on blue"
    );

    // at a terminal, through sudo: joblock finds out by itself that this is an operator
    let mut command = stage.green.command("script");
    command.env("SUDO_USER", "ann");
    command.args([
        "-qec",
        &format!("joblock run {SYNC} --reason '{}'", history::REASON),
        "/dev/null",
    ]);
    operator_runs_it_again(&mut stage, command);
    assert_eq!(stage.index(), Index::RIGHT);
    history::tells_the_night(&stage);
}

// shows: out-of-memory local
#[test]
fn without_joblock_the_night_leaves_duplicates_and_with_it_none() {
    thread::scope(|nights| {
        nights.spawn(night_without_joblock);
        night_with_joblock("sqlite:{}/joblock.db", Wrapper::GoesToo);
    });
}

// shows: out-of-memory shared, lockfile
#[rstest]
#[case::shared("sqlite:{}/joblock.db?shared", Wrapper::GoesTooAndStaysAway)]
#[case::lockfile("lockfile:{}", Wrapper::SeesIt)]
fn with_joblock_the_night_leaves_no_duplicates_over(#[case] store: &str, #[case] wrapper: Wrapper) {
    night_with_joblock(store, wrapper);
}
