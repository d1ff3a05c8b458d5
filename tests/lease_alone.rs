//! Where kernel locks don't reach the other side but the data does, the lease alone keeps two runs apart: a shared
//! store on a real NFSv3 mount with `local_lock=flock`, on two machines with kernels of their own (`nfs/lab`). The jobs
//! do all they can to outlive their lock, and a witness outside of both machines sees which of them live.
//!
//! Needs root, and the network that Debian's packages come from, for the first time.

mod common;

mod nfs {
    pub mod lab;
    pub mod stage;
    pub mod witness;
}

use std::time::Instant;

use common::{Running, wait_for, wait_until};
use nfs::lab;
use nfs::stage::{Stage, TTL, tokens};

/// flock(2) is the client's own here; the locks that SQLite uses are the server's. With the short time limits a link
/// that was cut is noticed to be back within seconds.
const MOUNT: &str = "vers=3,local_lock=flock,timeo=50,retrans=1";

/// The exit code of a run that lost its lock.
const LOST: i32 = 79;
/// The exit code of a run whose job was killed.
const KILLED: i32 = 137;
/// The exit code of an attempt that found the lock held.
const HELD: i32 = 75;

// shows: contention shared
#[test]
fn starts_on_two_machines_never_overlap() {
    let Some(lab) = lab::borrow(MOUNT) else {
        return;
    };
    let stage = Stage::new(&lab, "contention");
    let mut waiters: Vec<Running> = ["blue", "green", "blue", "green"]
        .map(|host| stage.run(host, "-w forever", "sync"))
        .into();
    for token in 1..=4 {
        let host = wait_for("the next run", || stage.witness.run("sync", token)).host;
        stage.witness.lives("sync", token, &host);
        if token == 2 {
            for host in lab::CLIENTS {
                stage.run(host, "-n", "sync").finish().expect(HELD);
            }
        }
        stage.witness.let_end("sync", token);
    }
    for waiter in waiters.drain(..) {
        waiter.finish().expect(0);
    }
    let seen = stage.witness.never_two("sync", &[]);
    assert_eq!(tokens(&seen), [1, 2, 3, 4]);
    let mut outcomes: Vec<_> = stage
        .history("sync")
        .into_iter()
        .map(|a| (a.token, a.outcome))
        .collect();
    outcomes.sort();
    let refused = (None, "refused".to_owned());
    let succeeded = |token| (Some(token), "succeeded".to_owned());
    assert_eq!(
        outcomes,
        [
            vec![refused.clone(), refused],
            (1..=4).map(succeeded).collect()
        ]
        .concat()
    );
    lab.give_back();
}

/// Beyond the TTL. With the keeper stopped alone the lease runs out, and the guard kills. With the guard stopped alone its
/// timer kills it, front the job, and the keeper, which had the lock all the time, frees it. Front alone keeps nobody
/// from anything, so that ^Z on a terminal is harmless.
// shows: stopped-past-ttl shared
#[test]
fn a_stopped_keeper_or_guard_gives_up_the_lock_after_its_job_and_a_stopped_front_keeps_it() {
    let Some(lab) = lab::borrow(MOUNT) else {
        return;
    };
    let stage = Stage::new(&lab, "stopped");
    let jobs = ["front", "keeper", "guard"];
    let blue = jobs.map(|job| stage.begin("blue", job, 1));
    let holders = jobs.map(|job| stage.holder("blue", job));
    let victims = [holders[0].front, holders[1].keeper, holders[2].guard];
    let green = jobs.map(|job| stage.run("green", "-w forever", job));
    for victim in victims {
        stage.signal("blue", "STOP", victim);
    }
    for job in ["keeper", "guard"] {
        stage.witness.lives(job, 2, "green");
        stage.witness.never_two(job, &[]);
    }
    // its heartbeats went on for as long as the others' leases ran out
    stage.witness.lives("front", 1, "blue");
    for victim in victims {
        // the stopped guard is gone by now, killed by its timer
        lab.x("blue", &format!("kill -CONT {victim}"));
    }
    for job in ["keeper", "guard"] {
        stage.nothing_left("blue", job);
        stage.witness.lives(job, 2, "green");
    }
    stage.witness.let_end("front", 1);
    stage.witness.lives("front", 2, "green");
    for job in jobs {
        stage.witness.let_end(job, 2);
    }
    for (run, code) in blue.into_iter().zip([0, LOST, KILLED]) {
        run.finish().expect(code);
    }
    for run in green {
        run.finish().expect(0);
    }
    for (job, outcome) in jobs.iter().zip(["succeeded", "lost", "signaled"]) {
        assert_eq!(stage.outcome(job, 1), outcome, "{job}");
        assert_eq!(stage.outcome(job, 2), "succeeded", "{job}");
        assert_eq!(tokens(&stage.witness.never_two(job, &[])), [1, 2]);
    }
    lab.give_back();
}

// shows: frozen-past-ttl shared
#[test]
fn a_machine_that_was_frozen_beyond_its_lease_is_refused_by_token_and_loses_its_job() {
    let Some(lab) = lab::borrow(MOUNT) else {
        return;
    };
    let stage = Stage::new(&lab, "frozen");
    let blue = stage.begin("blue", "sync", 1);
    let green = stage.run("green", "-w forever", "sync");
    lab.verb("freeze", "blue");
    stage.witness.lives("sync", 2, "green");
    let frozen = stage.witness.run("sync", 1).expect("blue's run");
    assert_eq!(frozen.gone, None, "{frozen:?}");
    lab.verb("thaw", "blue");
    stage.witness.gone("sync", 1);
    blue.finish().expect(LOST);
    stage.nothing_left("blue", "sync");
    stage.witness.lives("sync", 2, "green");
    stage.witness.let_end("sync", 2);
    green.finish().expect(0);
    // what it wrote before it was killed came too late, and only that
    let seen = stage.witness.never_two("sync", &[1]);
    assert_eq!(tokens(&seen), [1, 2]);
    assert!(seen[0].accepted == frozen.accepted, "{frozen:?}, {seen:?}");
    assert_eq!(stage.outcome("sync", 1), "lost");
    assert_eq!(stage.outcome("sync", 2), "succeeded");
    lab.give_back();
}

// shows: host-lost shared
#[test]
fn after_a_power_cut_the_lock_is_free_once_the_ttl_is_over_and_not_before_for_waiters_and_for_cron()
{
    let Some(lab) = lab::borrow(MOUNT) else {
        return;
    };
    let stage = Stage::new(&lab, "power");
    let blue = ["waited", "cron"].map(|job| stage.begin("blue", job, 1));
    lab.verb("kill", "blue");
    for run in blue {
        // nobody is there to say how it ended
        run.process().kill(9);
        run.finish();
    }
    let cut = Instant::now();
    let waiter = stage.run("green", "-w forever", "waited");
    // one attempt after the other, each of which looks once and goes on counting where the last one stopped
    let mut refused = 0;
    let cron = wait_for("an attempt that is granted", || {
        let mut attempt = stage.run("green", "-n", "cron");
        wait_until("the end of an attempt, or its run", || {
            attempt.has_ended() || stage.witness.run("cron", 2).is_some()
        });
        if stage.witness.run("cron", 2).is_some() {
            return Some(attempt);
        }
        attempt.finish().expect(HELD);
        refused += 1;
        None
    });
    assert!(refused >= 3, "{refused} attempts were refused");
    for job in ["waited", "cron"] {
        let took_over = stage.witness.lives(job, 2, "green");
        assert!(
            took_over.began >= cut + TTL,
            "{job}: taken over {:?} after the first look",
            took_over.began - cut
        );
        stage.witness.let_end(job, 2);
    }
    waiter.finish().expect(0);
    cron.finish().expect(0);

    lab.verb("boot", "blue");
    lab.mount("blue");
    for job in ["waited", "cron"] {
        let again = stage.begin("blue", job, 3);
        stage.witness.let_end(job, 3);
        again.finish().expect(0);
        assert_eq!(tokens(&stage.witness.never_two(job, &[1])), [1, 2, 3]);
        assert_eq!(stage.outcome(job, 1), "abandoned");
    }
    lab.give_back();
}

// shows: partition shared
#[test]
fn a_machine_that_is_cut_off_kills_its_job_in_time_though_its_keeper_hangs() {
    let Some(lab) = lab::borrow(MOUNT) else {
        return;
    };
    let stage = Stage::new(&lab, "cut");
    let blue = stage.begin("blue", "sync", 1);
    let keeper = stage.holder("blue", "sync").keeper;
    let green = stage.run("green", "-w forever", "sync");
    lab.verb("part", "blue");
    lab.wait_for_state("blue", keeper, "D");
    stage.witness.lives("sync", 2, "green");
    stage.witness.never_two("sync", &[]);
    lab.wait_for_state("blue", keeper, "D");
    lab.verb("heal", "blue");
    blue.finish().expect(LOST);
    stage.nothing_left("blue", "sync");
    stage.witness.lives("sync", 2, "green");
    stage.witness.let_end("sync", 2);
    green.finish().expect(0);
    assert_eq!(stage.outcome("sync", 1), "lost");
    let again = stage.run("blue", "-w forever", "sync");
    stage.witness.lives("sync", 3, "blue");
    stage.witness.let_end("sync", 3);
    again.finish().expect(0);
    assert_eq!(tokens(&stage.witness.never_two("sync", &[])), [1, 2, 3]);
    lab.give_back();
}

/// Nobody on blue is left to end the daemon, and green can't see it; blue's own next start does, though its lock was
/// green's in between.
// shows: all-killed shared
#[test]
fn what_three_killed_processes_left_is_ended_by_the_next_start_on_their_machine() {
    let Some(lab) = lab::borrow(MOUNT) else {
        return;
    };
    let stage = Stage::new(&lab, "left");
    let blue = stage.begin("blue", "sync", 1);
    let three = stage.holder("blue", "sync");
    let pids = format!("{} {} {}", three.front, three.keeper, three.guard);
    // stopped before, so that none of them acts on another's end
    let line = format!("kill -STOP {pids}; kill -KILL {pids}");
    lab.x("blue", &line).expect(0);
    blue.finish();
    let between = format!(
        "/host/joblock run {} --ttl 12s -w forever sync -- true",
        stage.store
    );
    lab.x("green", &between).expect(0);
    let left = "grep -lzx JOBLOCK_JOB=sync /proc/[0-9]*/environ";
    assert!(!lab.x("blue", left).out().is_empty(), "nothing was left");
    let again = stage.run("blue", "-n", "sync");
    stage.witness.lives("sync", 3, "blue");
    stage.witness.gone("sync", 1);
    stage.witness.let_end("sync", 3);
    again.finish().expect(0);
    assert_eq!(tokens(&stage.witness.never_two("sync", &[])), [1, 3]);
    assert_eq!(stage.outcome("sync", 1), "abandoned");
    lab.give_back();
}
