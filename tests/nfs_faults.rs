//! What happens to a client of a real NFS, or to its link: the holder's machine loses power, is cut off, is frozen; a mount that
//! does not answer. On three machines with kernels of their own (`nfs/lab`).
//!
//! Needs root, and the network that Debian's packages come from, for the first time. `make nfs` runs it at full length.

mod common;

mod nfs {
    pub mod lab;
    pub mod measured;
    pub mod stage;
    pub mod witness;
}

use std::time::{Duration, Instant};

use common::wait_until;
use nfs::lab::{self, Lab};
use nfs::measured::took;
use nfs::stage::{Kind, Stage, tokens};

/// With the short time limit a link that was cut is noticed to be back within seconds.
const V4: &str = "vers=4.2,timeo=50,retrans=1";
const V3: &str = "vers=3,timeo=50,retrans=1";

/// The exit code of a run that lost its lock.
const LOST: i32 = 79;
/// The exit code where the store can't be used.
const UNUSABLE: i32 = 69;
/// The exit code of an attempt that found the lock held.
const HELD: i32 = 75;

/// How long a store may take for an answer, as the manual has it.
const ANSWER: Duration = Duration::from_secs(30);

/// What a guest may need, over what is promised, to do it at all.
const SLOW: Duration = Duration::from_secs(15);

/// The holder is cut off, and another wants the lock: the holder's job is dead before. Later the link is back, and the old run's
/// end finds its place in the history, and touches nothing of the next holder's.
fn cut_off_and_healed(lab: &Lab, kind: Kind, name: &str, lease: Duration) {
    let stage = Stage::of(kind, lab, name);
    let blue = stage.begin("blue", "sync", 1);
    let keeper = stage.holder("blue", "sync").keeper;
    let green = stage.run("green", "-w forever", "sync");
    let cut = Instant::now();
    lab.verb("part", "blue");
    lab.wait_for_state("blue", keeper, "D");
    let next = stage.witness.lives("sync", 2, "green");
    let seen = stage.witness.never_two("sync", &[]);
    let gone = seen[0].gone.expect("the cut-off job's end");
    assert!(
        gone <= cut + lease + SLOW,
        "it outlived its lease: {:?}",
        gone - cut
    );
    took(
        &format!("{name}: cut off, its job is gone after"),
        gone - cut,
    );
    took(
        &format!("{name}: cut off, the next runs after"),
        next.began - cut,
    );
    // the keeper still hangs there
    lab.wait_for_state("blue", keeper, "D");
    lab.verb("heal", "blue");
    let healed = Instant::now();
    let told = blue.finish().expect(LOST);
    assert!(told.out().contains("the lock is lost"), "{told}");
    stage.nothing_left("blue", "sync");
    took(
        &format!("{name}: healed, nothing is left after"),
        healed.elapsed(),
    );
    stage.witness.lives("sync", 2, "green");
    let status = stage.json("blue", "status", "sync");
    assert_eq!(status["jobs"][0]["lock"]["token"], 2, "{status}");
    assert_eq!(status["jobs"][0]["state"], "running", "{status}");
    stage.witness.let_end("sync", 2);
    green.finish().expect(0);
    assert_eq!(stage.outcome("sync", 1), "lost");
    let again = stage.run("blue", "-w forever", "sync");
    stage.witness.lives("sync", 3, "blue");
    stage.witness.let_end("sync", 3);
    again.finish().expect(0);
    assert_eq!(tokens(&stage.witness.never_two("sync", &[])), [1, 2, 3]);
    let told: Vec<_> = stage
        .history("sync")
        .into_iter()
        .map(|a| (a.token, a.host, a.outcome))
        .collect();
    let run = |token, host: &str, outcome: &str| (Some(token), host.to_owned(), outcome.to_owned());
    assert_eq!(
        told,
        [
            run(1, "blue", "lost"),
            run(2, "green", "succeeded"),
            run(3, "blue", "succeeded")
        ]
    );
}

// shows: partition lockfile
#[test]
fn a_machine_that_is_cut_off_loses_the_lock_file_only_after_its_job_is_dead() {
    let Some(lab) = lab::borrow(V4) else {
        return;
    };
    cut_off_and_healed(&lab, Kind::Lockfile, "cut-lockfile", lab::LEASE);
    lab.give_back();
}

/// Each command on a mount that does not answer, at once, and what became of it.
const ON_A_DEAD_MOUNT: &str = r#"
try() {
    (
        began=$(cut -d. -f1 /proc/uptime)
        said=$(/host/joblock "${@:2}" 2>&1)
        code=$?
        echo "$1: code $code after $(($(cut -d. -f1 /proc/uptime) - began)): ${said//$'\n'/ }"
    ) &
}
try run-n run -n STORE sync -- touch /run/started
try run-w run -w 5s STORE sync -- touch /run/started
try rerun rerun STORE sync
try status status STORE
try json status --json STORE sync
try history history STORE
try show show STORE sync
try logs logs STORE sync
try check check STORE sync
try doctor doctor STORE
try stop stop STORE sync --reason test
try unlock unlock STORE sync --reason test
try prune prune STORE --keep 1d
try init init STORE
wait
"#;

/// They end on their own, with 69 and a word about which mount it is; what hangs is left behind, and gone when the mount is back.
fn nothing_hangs_on_a_dead_mount(lab: &Lab, name: &str) {
    let stage = Stage::of(Kind::Lockfile, lab, name);
    let line = format!("/host/joblock run {} sync -- echo output", stage.store);
    lab.x("blue", &line).expect(0);
    lab.verb("part", "blue");
    let script = ON_A_DEAD_MOUNT.replace("STORE", &stage.store);
    let told = lab.x("blue", &script).expect(0);
    let mount = "the file system at /mnt/a (nfs";
    let lines: Vec<_> = told.out().lines().map(str::to_owned).collect();
    assert_eq!(lines.len(), 14, "{told}");
    for line in &lines {
        let (verb, rest) = line.split_once(": code ").expect("a code");
        let code = if verb == "check" { 3 } else { UNUSABLE };
        let (found, rest) = rest.split_once(" after ").expect("a time");
        assert_eq!(found, code.to_string(), "{line}");
        assert!(
            rest.contains(mount) && rest.contains("server 10.99.0.1) does not answer"),
            "{line}"
        );
        let seconds: u64 = rest.split(':').next().unwrap().parse().expect("seconds");
        let wait = if verb == "run-w" { 5 } else { 0 };
        assert!(
            Duration::from_secs(seconds) <= Duration::from_secs(wait) + ANSWER + SLOW,
            "{line}"
        );
        took(
            &format!("{name}: {verb} gives up after"),
            Duration::from_secs(seconds),
        );
    }
    lab.verb("heal", "blue");
    wait_until("nothing left of them", || {
        lab.x("blue", "pgrep -f '^/host/joblock'").out().is_empty()
    });
    lab.x("blue", "! test -e /run/started").expect(0);
    assert_eq!(
        stage.history("sync").len(),
        1,
        "{:?}",
        stage.history("sync")
    );
    lab.x("blue", &line).expect(0);
}

// shows: mount-hangs lockfile
#[test]
fn on_a_mount_that_does_not_answer_every_command_ends_in_time_and_names_it() {
    let Some(lab) = lab::borrow(V4) else {
        return;
    };
    nothing_hangs_on_a_dead_mount(&lab, "hangs");
    lab.give_back();
}
