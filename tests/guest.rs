//! What only a machine of one's own allows: its wall clock set back and forth by hours and years, and its memory used up, a
//! cgroup's or all of it. On the machines of the NFS lab (`nfs/lab`), each with a kernel of its own, which has version 2
//! cgroups.
//!
//! Needs root, and the network that Debian's packages come from, for the first time.

mod common;

#[allow(dead_code, reason = "others use the rest")]
mod nfs {
    pub mod lab;
    pub mod stage;
    pub mod witness;
}

use std::time::{Duration, Instant};

use common::{Finished, Running, wait_for, wait_until};
use nfs::lab::{self, Lab};
use nfs::stage::{Stage, TTL, find, tokens};
use serde_json::Value;

const MOUNT: &str = "vers=3,local_lock=flock,timeo=50,retrans=1";
const HELD: i32 = 75;
const KILLED: i32 = 137;
const OVER_TIME: i32 = 124;

fn set_clock(lab: &Lab, host: &str, to: &str) {
    lab.x(host, &format!("date -s '{to}'")).expect(0);
}

/// The clocks as they were, for whoever comes next.
fn right_clocks(lab: &Lab) {
    for host in lab::CLIENTS {
        let now = joblock::clock::Wall::now().0 / 1000;
        set_clock(lab, host, &format!("@{now}"));
    }
}

/// `status`, `history` and `check` have an answer, whatever the clock says; the history is in the order of its tokens.
fn looks(stage: &Stage<'_>, host: &str, job: &str) {
    for verb in ["status", "history", "check", "show"] {
        let line = format!("/host/joblock {verb} {} {job}", stage.store);
        let done = stage.lab.x(host, &line);
        // what a check says of a past that a clock made up, it says in the words of monitoring
        let code = done.code();
        assert!(
            code == 0 || (verb == "check" && code <= 2),
            "{line}: {done}"
        );
        assert!(!done.out().contains("panicked"), "{line}: {done}");
    }
    let history = runs(stage, host, job);
    let tokens: Vec<u64> = history.iter().filter_map(|r| r["token"].as_u64()).collect();
    assert!(
        tokens.is_sorted_by(|a, b| a > b),
        "newest first: {tokens:?}"
    );
}

/// Newest first.
fn runs(stage: &Stage<'_>, host: &str, job: &str) -> Vec<Value> {
    let answer = stage.json(host, "history", job);
    answer["runs"].as_array().expect("a list of runs").clone()
}

fn heartbeats(stage: &Stage<'_>, host: &str, job: &str) -> u64 {
    let status = stage.json(host, "status", job);
    find(&status, "heartbeats")
        .and_then(Value::as_u64)
        .expect("a number")
}

/// The holder says twice more that it lives.
fn goes_on_beating(stage: &Stage<'_>, host: &str, job: &str) {
    let before = heartbeats(stage, host, job);
    wait_until("two heartbeats", || {
        heartbeats(stage, host, job) >= before + 2
    });
}

// shows: clock-jump shared
#[test]
fn clocks_that_differ_by_years_and_jump_neither_give_a_lock_away_nor_keep_it() {
    let Some(lab) = lab::borrow(MOUNT) else {
        return;
    };
    let stage = Stage::new(&lab, "clocks");
    set_clock(&lab, "blue", "2031-05-01 09:00:00");
    set_clock(&lab, "green", "2019-01-01 03:00:00");
    let blue = stage.begin("blue", "sync", 1);
    let waiter = stage.run("green", "-w forever", "sync");
    for (host, to) in [
        ("blue", "2031-04-30 04:00:00"),
        ("green", "2044-01-01 00:00:00"),
        ("blue", "1999-01-01 00:00:00"),
    ] {
        set_clock(&lab, host, to);
        goes_on_beating(&stage, "blue", "sync");
        stage.run(host, "-n", "sync").finish().expect(HELD);
        stage.witness.lives("sync", 1, "blue");
    }
    looks(&stage, "green", "sync");
    let cut = Instant::now();
    lab.verb("kill", "blue");
    // nobody is there to say how it ended
    blue.process().kill(9);
    blue.finish();
    set_clock(&lab, "green", "2037-12-31 23:59:50");
    set_clock(&lab, "green", "2019-01-01 03:00:00");
    let second = stage.witness.lives("sync", 2, "green");
    // the last heartbeat was seen at most one of them before the cut
    assert!(
        second.began >= cut + TTL * 7 / 9,
        "taken over {:?} after the power cut",
        second.began - cut
    );
    set_clock(&lab, "green", "2033-01-01 00:00:00");
    looks(&stage, "green", "sync");
    stage.witness.let_end("sync", 2);
    waiter.finish().expect(0);
    // the machine that lost its power closed no connection
    assert_eq!(tokens(&stage.witness.never_two("sync", &[1])), [1, 2]);
    assert_eq!(stage.outcome("sync", 1), "abandoned");
    assert_eq!(stage.outcome("sync", 2), "succeeded");
    let took = runs(&stage, "green", "sync")[0]["duration_seconds"].as_f64();
    assert!(took.is_some_and(|s| s < 600.0), "{took:?}");
    lab.verb("boot", "blue");
    right_clocks(&lab);
    lab.give_back();
}

// shows: clock-jump local
#[test]
fn time_limits_waits_and_durations_go_by_a_clock_that_nobody_can_set() {
    let Some(lab) = lab::borrow(MOUNT) else {
        return;
    };
    let stage = Stage::local(&lab, "limits");
    let jump = |to| set_clock(&lab, "green", to);
    jump("2030-01-01 12:00:00");
    let limited = begun(&stage, "limited", "-t 3s", "sleep 600");
    jump("2030-01-01 07:00:00");
    jump("2030-01-02 12:00:00");
    limited.finish().expect(OVER_TIME);
    let ended = &runs(&stage, "green", "limited")[0];
    assert_eq!(ended["outcome"], "timed-out");
    let took = ended["duration_seconds"].as_f64().expect("a duration");
    assert!((3.0..600.0).contains(&took), "{took}");

    let long = stage.begin("green", "long", 1);
    jump("2030-01-03 12:00:00");
    goes_on_beating(&stage, "green", "long");
    let began = Instant::now();
    let waiter = stage.run("green", "-w 2s", "long");
    jump("2030-01-01 00:00:00");
    waiter.finish().expect(HELD);
    assert!(began.elapsed() < Duration::from_secs(90), "{began:?}");
    jump("2009-01-01 00:00:00");
    stage.witness.lives("long", 1, "green");
    stage.witness.let_end("long", 1);
    long.finish().expect(0);
    let ended = runs(&stage, "green", "long")
        .into_iter()
        .find(|r| r["token"] == 1);
    let took = ended.and_then(|r| r["duration_seconds"].as_f64());
    assert!(took.is_some_and(|s| s < 600.0), "{took:?}");
    looks(&stage, "green", "long");
    right_clocks(&lab);
    lab.give_back();
}

/// A run on green whose job lives.
fn begun(stage: &Stage<'_>, job: &str, options: &str, command: &str) -> Running {
    let line = format!(
        "cd / && exec /host/joblock run {} {options} {job} -- {command}",
        stage.store
    );
    let run = stage.lab.start("green", &line);
    wait_for("a holder", || {
        let line = format!("/host/joblock status {} --json {job}", stage.store);
        let status: Value = serde_json::from_str(&stage.lab.x("green", &line).out()).ok()?;
        find(&status, "processes").map(drop)
    });
    run
}

// shows: clock-jump local
#[test]
fn a_success_is_fresh_by_the_clock_that_people_read_and_one_of_the_future_counts_for_nothing() {
    let Some(lab) = lab::borrow(MOUNT) else {
        return;
    };
    let stage = Stage::local(&lab, "fresh");
    let attempt = || -> Finished {
        let line = format!(
            "/host/joblock run {} -v --unless-succeeded-within 6h sync -- true",
            stage.store
        );
        lab.x("green", &line).expect(0)
    };
    let mut outcomes = Vec::new();
    for (to, outcome, says) in [
        ("2030-01-01 12:00:00", "succeeded", "token 1"),
        ("2030-01-01 13:00:00", "fresh", "skipped: sync succeeded"),
        (
            "2030-01-01 10:00:00",
            "succeeded",
            "a clock that was wrong, or this one is",
        ),
        ("2030-01-01 15:00:00", "fresh", "skipped: sync succeeded"),
        ("2030-01-02 12:00:00", "succeeded", "token 3"),
        (
            "1971-01-01 00:00:00",
            "succeeded",
            "a clock that was wrong, or this one is",
        ),
        ("2037-01-01 00:00:00", "succeeded", "token 5"),
    ] {
        set_clock(&lab, "green", to);
        let done = attempt();
        assert!(done.out().contains(says), "{to}: {done}");
        outcomes.insert(0, outcome);
        if says.contains("clock") {
            looks(&stage, "green", "sync");
        }
    }
    let told = runs(&stage, "green", "sync");
    let told: Vec<_> = told
        .iter()
        .map(|r| r["outcome"].as_str().expect("a word"))
        .collect();
    assert_eq!(told, outcomes);
    right_clocks(&lab);
    lab.give_back();
}

// shows: clock-jump lockfile
// shows: prune lockfile
#[test]
fn a_clock_that_jumps_by_years_gives_no_lock_file_away_and_deletes_no_history() {
    let Some(lab) = lab::borrow(MOUNT) else {
        return;
    };
    lab.x("green", "mkdir -p /run/files").expect(0);
    let stage = Stage::with(&lab, "lockfile:/run/files");
    let jump = |to| set_clock(&lab, "green", to);
    jump("2030-01-01 12:00:00");
    let old = format!("/host/joblock run {} old -- true", stage.store);
    for _ in 0..3 {
        lab.x("green", &old).expect(0);
    }
    let holder = stage.begin("green", "held", 1);
    let prune = |options: &str| {
        let line = format!(
            "/host/joblock prune {} --keep 90d --json {options} old 2>/dev/null",
            stage.store
        );
        let done = lab.x("green", &line).expect(0);
        let told: Value = serde_json::from_slice(&done.stdout).expect("JSON");
        (told["attempts"].clone(), told["jobs"].clone())
    };
    for to in [
        "2036-06-01 12:00:00",
        "2009-01-01 00:00:00",
        "2037-06-01 12:00:00",
    ] {
        jump(to);
        assert_eq!(prune("").0, 0, "{to}");
        let again = format!("/host/joblock run {} --keep 90d old -- true", stage.store);
        lab.x("green", &again).expect(0);
        goes_on_beating(&stage, "green", "held");
        stage.run("green", "-n", "held").finish().expect(HELD);
        stage.witness.lives("held", 1, "green");
    }
    assert_eq!(runs(&stage, "green", "old").len(), 6);
    // who says that the clock is right is believed; the newest success stays
    let (deleted, told) = prune("--trust-clock");
    assert_eq!(deleted, 5, "{told}");
    stage.witness.let_end("held", 1);
    holder.finish().expect(0);
    assert_eq!(stage.outcome("held", 1), "succeeded");
    looks(&stage, "green", "held");
    right_clocks(&lab);
    lab.give_back();
}

/// A run whose three processes and job are in a cgroup of `limit` (`max`: none).
fn boxed(stage: &Stage<'_>, job: &str, limit: &str, group: u8, command: &str) -> Finished {
    let line = format!(
        "cd / && cgroups=/sys/fs/cgroup && \
         {{ grep -q ' cgroup2 ' /proc/mounts || mount -t cgroup2 cgroup2 $cgroups; }} && \
         echo +memory > $cgroups/cgroup.subtree_control && mkdir $cgroups/{job} && \
         echo {limit} > $cgroups/{job}/memory.max && echo {group} > $cgroups/{job}/memory.oom.group && \
         echo $BASHPID > $cgroups/{job}/cgroup.procs && \
         exec /host/joblock run {} {job} -- {command}",
        stage.store
    );
    let done = stage.lab.start("green", &line).finish();
    // whoever was left has ended what there was to end
    wait_until(&format!("nobody in the cgroup of {job}"), || {
        let line = format!("grep -x 'populated 0' /sys/fs/cgroup/{job}/cgroup.events");
        stage.lab.x("green", &line).code() == 0
    });
    done
}

/// The first run's outcome, once the next start has seen to it.
fn told(stage: &Stage<'_>, job: &str) -> (String, String) {
    let line = format!("/host/joblock run {} {job} -- true", stage.store);
    stage.lab.x("green", &line).expect(0);
    let history = runs(stage, "green", job);
    let first = history
        .iter()
        .find(|r| r["token"] == 1)
        .expect("the first run");
    let word = |key: &str| first[key].as_str().unwrap_or_default().to_owned();
    (word("outcome"), word("out_of_memory"))
}

// shows: out-of-memory local
#[test]
fn who_is_killed_for_want_of_memory_is_told_from_who_is_killed() {
    let Some(lab) = lab::borrow(MOUNT) else {
        return;
    };
    let stage = Stage::local(&lab, "memory");
    let eaten = ("oom-killed".to_owned(), "yes".to_owned());
    for (job, limit, group, victim) in [
        ("cgroup", "24M", 0, "job"),
        ("machine", "max", 0, "job"),
        ("front", "24M", 0, "front"),
        ("keeper", "24M", 0, "keeper"),
        ("guard", "24M", 0, "guard"),
        ("all", "24M", 1, "keeper"),
    ] {
        let command = format!("perl /host/eat.pl {victim}");
        boxed(&stage, job, limit, group, &command).expect(KILLED);
        assert_eq!(told(&stage, job), eaten, "{job}");
    }
    boxed(&stage, "plain", "24M", 0, "sh -c 'kill -9 $$'").expect(KILLED);
    assert_eq!(told(&stage, "plain"), ("signaled".into(), "no".into()));
    lab.give_back();
}
