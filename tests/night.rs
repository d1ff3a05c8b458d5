//! The night that joblock was made for (`night/night.json`), with everything real but the length of its minutes: two
//! hosts with names, processes and mounts of their own, a cron daemon, a memory limit and the kernel's OOM killer, a
//! container that starts again, and a sync that deletes a search index and fills it page by page. Without joblock
//! the index ends with duplicates; with joblock it must not, and the history must tell what happened.
//!
//! Needs root, and the Debian packages cron, sqlite3 and util-linux.

mod night {
    pub mod machine;
    pub mod stage;
    pub mod wait;
}

use night::stage::{Index, KILLED, SYNC, Stage, at};

/// The night up to 08:21, when a user looks at the list of persons. Returns what the user sees.
fn play_until_users_look(stage: &mut Stage) -> Index {
    stage.boot_green();
    stage.boot_blue();

    stage.pass_until(at(0, 5));
    stage.comes_entry("blue begins person-owner-rebuild");
    stage.pass_until(at(0, 8));
    stage.comes_entry("blue schedule of person-owner-rebuild exited with 0");
    stage.pass_until(at(0, 9));
    stage.comes_entry(&format!("blue begins {KILLED}"));

    stage.pass_until(at(0, 21));
    stage.comes("the OOM killer strikes", |stage| {
        stage.blue.cgroup().oom_kills() > 0
    });
    stage.blue.kill();

    stage.pass_until(at(0, 22));
    stage.boot_blue();
    stage.comes(&format!("blue begins {KILLED} again"), |stage| {
        stage.entries(&format!("blue begins {KILLED}")) == 2
    });

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
    stage.comes("blue's chain has come to the person sync", |stage| {
        stage.entries("blue has indexed page 1 of 10") > 0
            || stage
                .diary()
                .contains(&format!("blue startup of {SYNC} exited with"))
    });

    stage.pass_until(at(2, 20));
    stage.comes_entry(&format!("green ends {SYNC}"));
    stage.comes_entry("blue start-up is over");

    stage.jump_to(at(8, 21));
    stage.index()
}

/// 09:25: an operator starts the sync on green, which takes until 09:45.
fn operator_runs_it_again(stage: &mut Stage, mut command: std::process::Command) {
    stage.jump_to(at(9, 25));
    let begun = stage.entries(&format!("green begins {SYNC}"));
    let mut rerun = command.spawn().expect("the operator's command");
    stage.comes("the operator's run begins", |stage| {
        stage.entries(&format!("green begins {SYNC}")) > begun
    });
    stage.pass_until(at(9, 46));
    let status = rerun.wait().expect("the operator's command");
    assert!(status.success(), "the operator's run: {status}");
}

#[test]
fn without_joblock_the_night_leaves_duplicates_until_an_operator_runs_the_sync_again() {
    let mut stage = Stage::new(None);
    let index = play_until_users_look(&mut stage);
    assert!(
        index.rows > index.persons,
        "a night without joblock left no duplicates: it proves nothing ({index:?})"
    );
    let mut command = stage.green.command("sh");
    command.args(["-c", &format!("exec {} {SYNC}", stage.job_sh().display())]);
    operator_runs_it_again(&mut stage, command);
    assert_eq!(stage.index(), Index::RIGHT);
}
