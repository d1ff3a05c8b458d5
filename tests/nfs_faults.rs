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

use rstest::rstest;

use common::{Running, wait_until};
use nfs::lab::{self, Lab};
use nfs::measured::took;
use nfs::stage::{self, Kind, Stage, tokens};

/// With the short time limit a link that was cut is noticed to be back within seconds.
const V4: &str = "vers=4.2,timeo=50,retrans=1";
const V3: &str = "vers=3,timeo=50,retrans=1";

/// The exit code of a run that lost its lock.
const LOST: i32 = 79;
/// The exit code where the store can't be used.
const UNUSABLE: i32 = 69;
/// The exit code of an attempt that found the lock held.
const HELD: i32 = 75;

/// What so many processes at once may need, over what is promised, on the one CPU of a guest.
const CROWD: Duration = Duration::from_secs(60);

/// How long a store may take for an answer, as the manual has it.
const ANSWER: Duration = Duration::from_secs(30);

/// What a guest may need, over what is promised, to do it at all.
const SLOW: Duration = Duration::from_secs(15);

/// The holder is cut off, and another wants the lock: the holder's job is dead before. No command hangs there. Later the link is back, and the old run's
/// end finds its place in the history, and touches nothing of the next holder's.
fn cut_off_and_healed(lab: &Lab, kind: Kind, name: &str, lease: Duration) {
    let stage = Stage::of(kind, lab, name);
    let blue = stage.begin("blue", "sync", 1);
    let keeper = stage.holder("blue", "sync").keeper;
    let green = stage.run("green", "-w forever", "sync");
    let cut = Instant::now();
    lab.verb("part", "blue");
    lab.wait_for_state("blue", keeper, "D");
    // before that they would take the one CPU from the guard
    stage.witness.gone("sync", 1);
    let asked = ask_everything(&stage);
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
    each_gave_up_in_time(asked, name);
    // the keeper still hangs there
    lab.wait_for_state("blue", keeper, "D");
    lab.verb("heal", "blue");
    let healed = Instant::now();
    let told = blue.finish().expect(LOST);
    assert!(told.out().contains("the lock is lost"), "{told}");
    nothing_came_of_it(lab);
    took(
        &format!("{name}: healed, nothing is left after"),
        healed.elapsed(),
    );
    stage.witness.lives("sync", 2, "green");
    let status = stage.json("blue", "status", "sync");
    assert_eq!(status["jobs"][0]["lock"]["token"], 2, "{status}");
    assert_eq!(status["jobs"][0]["state"], "running", "{status}");
    green_ends(&stage, green, "lost");
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
// shows: mount-that-hangs lockfile
#[test]
fn a_machine_that_is_cut_off_loses_the_lock_file_only_after_its_job_is_dead_and_no_command_hangs() {
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
try history history STORE
try check check STORE sync
try doctor doctor STORE
try stop stop STORE sync --reason test
try unlock unlock STORE sync --reason test
wait
"#;

/// All of them, on blue.
fn ask_everything(stage: &Stage) -> Running {
    let script = ON_A_DEAD_MOUNT.replace("STORE", &stage.store);
    stage.lab.start("blue", &script)
}

/// They ended on their own, with 69 and a word about which mount it is.
fn each_gave_up_in_time(asked: Running, name: &str) {
    let told = asked.finish().expect(0);
    let lines: Vec<_> = told.out().lines().map(str::to_owned).collect();
    assert_eq!(lines.len(), 9, "{told}");
    for line in &lines {
        let (verb, rest) = line.split_once(": code ").expect("a code");
        let code = if verb == "check" { 3 } else { UNUSABLE };
        let (found, rest) = rest.split_once(" after ").expect("a time");
        assert_eq!(found, code.to_string(), "{line}");
        for part in [
            "the file system at /mnt/a (nfs",
            "server 10.99.0.1) does not answer",
        ] {
            assert!(rest.contains(part), "{line}");
        }
        let seconds: u64 = rest.split(':').next().unwrap().parse().expect("seconds");
        let took_time = Duration::from_secs(seconds);
        let wait = Duration::from_secs(if verb == "run-w" { 5 } else { 0 });
        assert!(took_time <= wait + ANSWER + CROWD, "{line}");
        took(&format!("{name}: {verb} gives up after"), took_time);
    }
}

/// What hung is gone when the mount is back, and did nothing.
fn nothing_came_of_it(lab: &Lab) {
    wait_until("nothing left of them", || {
        lab.x("blue", "pgrep -f '^/host/joblock'").out().is_empty()
    });
    lab.x("blue", "! test -e /run/started").expect(0);
}

fn nothing_hangs_on_a_dead_mount(lab: &Lab, kind: Kind, name: &str) {
    let stage = Stage::of(kind, lab, name);
    let line = format!("/host/joblock run {} sync -- echo output", stage.store);
    lab.x("blue", &line).expect(0);
    lab.verb("part", "blue");
    let waits = stage.run("blue", "-w forever", "patient");
    each_gave_up_in_time(ask_everything(&stage), name);
    // who waits for ever is told, and can be ended although its keeper hangs
    lab.x("blue", "pkill -TERM -o -f '^/host/joblock run .* patient'")
        .expect(0);
    let told = waits.finish().expect(128 + 15);
    assert!(told.out().contains("does not answer"), "{told}");
    assert!(told.out().contains("; it is waited for"), "{told}");
    lab.verb("heal", "blue");
    nothing_came_of_it(lab);
    // the client may take its time to connect again, longer than a start waits
    lab.x("blue", "ls /mnt/a").expect(0);
    let history = stage.history("sync");
    assert_eq!(history.len(), 1, "{history:?}");
    lab.x("blue", &line).expect(0);
}

/// Blue loses its power while it has the lock. What green is told then.
fn powered_off<'a>(lab: &'a Lab, kind: Kind, name: &str) -> Stage<'a> {
    let stage = Stage::of(kind, lab, name);
    let blue = stage.begin("blue", "sync", 1);
    lab.verb("kill", "blue");
    // nobody is there to say how it ended
    blue.process().kill(9);
    blue.finish();
    stage
}

/// What the user reads on green, and how it ends.
fn told(stage: &Stage, verb: &str) -> (i32, String) {
    let line = format!("/host/joblock {verb} {}", stage.store);
    let told = stage.lab.x("green", &line);
    (told.code(), told.out())
}

/// What the other machine says of it, which is followed to the letter; then the next start runs.
/// The short form only sees the kernel's lock become free: the next start watches for a lease whether the old holder has heartbeats.
fn freed_as_told(lab: &Lab, kind: Kind, name: &str) {
    let stage = powered_off(lab, kind, name);
    stage.run("green", "-n", "sync").finish().expect(HELD);
    // to people it is silent by the wall clock, which need not be waited for
    lab.x("green", "date -s '+10 minutes'").expect(0);
    let way =
        "boot blue, which frees them as it starts (sm-notify); or, if blue stays off, run on srv: ";
    for (verb, code) in [("status", 0), ("status sync", 0), ("doctor", UNUSABLE)] {
        let (found, said) = told(&stage, verb);
        assert_eq!(found, code, "{said}");
        assert!(
            said.contains("blue has given no sign of life for"),
            "{said}"
        );
        assert!(said.contains(way), "{said}");
        assert!(!said.contains("takes over"), "{said}");
    }
    let (_, said) = told(&stage, "status");
    let command = said
        .split(way)
        .nth(1)
        .and_then(|rest| rest.split(" (").next());
    stage.run("green", "-n", "sync").finish().expect(HELD);
    let freed = Instant::now();
    let free = format!("flock -n {}/{name}/sync.lock true", lab::MOUNT);
    if kind == Kind::Lockfile {
        lab.x("green", &free).expect(1);
    }
    lab.x("srv", command.expect("a command")).expect(0);
    if !lab::full() {
        lab.x("green", &free).expect(0);
        lab.x("green", "date -s '-10 minutes'").expect(0);
        lab.verb("boot", "blue");
        return;
    }
    let green = stage.run("green", "-w forever", "sync");
    green_runs_next(&stage, &format!("{name}: unlock_filesystem"), freed);
    assert!(!told(&stage, "status").1.contains("sign of life"));
    lab.x("green", "date -s '-10 minutes'").expect(0);
    green_ends(&stage, green, "abandoned");
    lab.verb("boot", "blue");
    lab.mount("blue");
    let again = stage.begin("blue", "sync", 3);
    stage.witness.let_end("sync", 3);
    again.finish().expect(0);
    assert_eq!(tokens(&stage.witness.never_two("sync", &[1])), [1, 2, 3]);
}

// shows: host-lost lockfile
#[test]
fn a_machine_that_lost_its_power_keeps_an_nfs3_lock_until_somebody_does_what_status_says() {
    let Some(lab) = lab::borrow(V3) else {
        return;
    };
    freed_as_told(&lab, Kind::Lockfile, "off-lockfile-v3");
    if lab::full() {
        freed_as_told(&lab, Kind::Sqlite, "off-sqlite-v3");
    }
    lab.give_back();
    drop(lab);
    if !lab::full() {
        return;
    }
    let v4 = mount_of("4.2");
    // the same export by two versions: it is blue's that tells
    let Some(lab) = lab::borrow_each([V3, &v4]) else {
        return;
    };
    freed_as_told(&lab, Kind::Lockfile, "off-lockfile-v3-seen-by-v4");
    lab.give_back();
    drop(lab);
    let Some(lab) = lab::borrow_each([&v4, V3]) else {
        return;
    };
    freed_by_itself(&lab, "off-lockfile-v4-seen-by-v3");
    lab.give_back();
}

/// Green, which waits for it, runs next: how long after `since`, when there was `what`.
fn green_runs_next(stage: &Stage, what: &str, since: Instant) -> Duration {
    let next = stage.witness.lives("sync", 2, "green");
    let after = next.began - since;
    took(&format!("{what}, the next runs after"), after);
    after
}

/// That run ends, and the one before it stands in the history as what it came to.
fn green_ends(stage: &Stage, green: Running, before: &str) {
    stage.witness.let_end("sync", 2);
    green.finish().expect(0);
    assert_eq!(stage.outcome("sync", 1), before);
}

/// Blue has the export by version 4, green by version 3: nothing has to be done on the server.
fn freed_by_itself(lab: &Lab, name: &str) {
    let stage = powered_off(lab, Kind::Lockfile, name);
    let cut = Instant::now();
    lab.x("green", "date -s '+10 minutes'").expect(0);
    for (verb, code) in [("status sync", 0), ("doctor", 0)] {
        let (found, said) = told(&stage, verb);
        assert_eq!(found, code, "{said}");
        assert!(!said.contains("unlock_filesystem"), "{said}");
        assert!(!said.contains("are gone"), "{said}");
    }
    let (code, said) = told(&stage, "unlock sync --reason gone");
    assert!(!said.contains("unlock_filesystem"), "{said}");
    // the server may take its time after the lease
    let free = said.contains("the next start takes over");
    assert_eq!(code, if free { 0 } else { HELD }, "{said}");
    lab.x("green", "date -s '-10 minutes'").expect(0);
    let waiter = stage.run("green", "-w forever", "sync");
    green_runs_next(&stage, &format!("{name}: powered off"), cut);
    green_ends(&stage, waiter, "abandoned");
    lab.verb("boot", "blue");
    lab.mount("blue");
    assert_eq!(tokens(&stage.witness.never_two("sync", &[1])), [1, 2]);
}

/// As a debugger or the freezer does it: its job dies in time, but the lock stays.
// shows: stopped-past-ttl lockfile
#[test]
fn a_keeper_that_is_stopped_keeps_the_lock_and_the_other_machine_is_told_so() {
    if !lab::full() {
        return;
    }
    let Some(lab) = lab::borrow(&mount_of("4.2")) else {
        return;
    };
    let stage = Stage::of(Kind::Lockfile, &lab, "stopped-lockfile-v4.2");
    let blue = stage.begin("blue", "sync", 1);
    let keeper = stage.holder("blue", "sync").keeper;
    stage.signal("blue", "STOP", keeper);
    let (code, said) = told(&stage, "unlock sync --reason silent");
    assert_eq!(code, HELD, "{said}");
    assert!(said.contains(&format!("keeper {keeper}")), "{said}");
    stage.run("green", "-n", "sync").finish().expect(HELD);
    lab.x("green", "date -s '+10 minutes'").expect(0);
    let (_, status) = told(&stage, "status sync");
    lab.x("green", "date -s '-10 minutes'").expect(0);
    assert!(status.contains("silent for"), "{status}");
    for said in [said, status] {
        assert!(!said.contains("are gone"), "{said}");
        assert!(!said.contains("unlock_filesystem"), "{said}");
    }
    stage.signal("blue", "CONT", keeper);
    blue.finish();
    let next = stage.begin("green", "sync", 2);
    stage.witness.let_end("sync", 2);
    next.finish().expect(0);
    assert_eq!(tokens(&stage.witness.never_two("sync", &[1])), [1, 2]);
    lab.give_back();
}

/// The server learns of the boot.
fn freed_by_its_boot(lab: &Lab, kind: Kind, name: &str) {
    let stage = powered_off(lab, kind, name);
    let green = stage.run("green", "-w forever", "sync");
    // longer than any lease there is
    for _ in 0..3 {
        stage.run("green", "-w 10s", "sync").finish().expect(HELD);
    }
    let booting = Instant::now();
    lab.verb("boot", "blue");
    let booted = Instant::now();
    green_runs_next(&stage, &format!("{name}: powered on"), booting);
    took(
        &format!("{name}: of which it took to boot"),
        booted - booting,
    );
    green_ends(&stage, green, "abandoned");
    lab.mount("blue");
    assert_eq!(tokens(&stage.witness.never_two("sync", &[1])), [1, 2]);
}

/// On version 4 the server gives it to whoever asks, once its lease is over: to those who wait, and to cron.
fn freed_by_the_lease(lab: &Lab, kind: Kind, name: &str, lease: Duration) {
    let stage = powered_off(lab, kind, name);
    let cut = Instant::now();
    let waiter = stage.run("green", "-w forever", "sync");
    let after = green_runs_next(&stage, &format!("{name}: powered off"), cut);
    assert!(after <= lease * 2 + SLOW, "{after:?}");
    green_ends(&stage, waiter, "abandoned");
    lab.verb("boot", "blue");
    lab.mount("blue");
    let again = stage.begin("blue", "sync", 3);
    stage.witness.let_end("sync", 3);
    again.finish().expect(0);
    assert_eq!(tokens(&stage.witness.never_two("sync", &[1])), [1, 2, 3]);
}

// shows: host-lost lockfile, shared
#[test]
fn a_machine_that_lost_its_power_frees_its_lock_by_its_boot_or_by_the_servers_lease() {
    if !lab::full() {
        return;
    }
    let Some(lab) = lab::borrow(V3) else {
        return;
    };
    freed_by_its_boot(&lab, Kind::Lockfile, "boot-lockfile-v3");
    freed_by_its_boot(&lab, Kind::Sqlite, "boot-sqlite-v3");
    lab.give_back();
    drop(lab);
    for version in ["4.0", "4.1", "4.2"] {
        let Some(lab) = lab::borrow(&format!("vers={version},timeo=50,retrans=1")) else {
            return;
        };
        freed_by_the_lease(
            &lab,
            Kind::Lockfile,
            &format!("off-lockfile-v{version}"),
            lab::LEASE,
        );
        freed_by_the_lease(
            &lab,
            Kind::Sqlite,
            &format!("off-sqlite-v{version}"),
            stage::TTL,
        );
        lab.give_back();
    }
}

/// The mounts of the full length.
const ALL: [&str; 4] = ["3", "4.0", "4.1", "4.2"];

fn mount_of(version: &str) -> String {
    format!("vers={version},timeo=50,retrans=1")
}

/// Everything of the run on blue is killed at one moment: joblock's processes and the job's.
// shows: all-killed lockfile, shared
#[test]
fn once_all_of_a_run_is_killed_a_waiter_on_the_other_machine_runs() {
    if !lab::full() {
        return;
    }
    for version in ALL {
        let Some(lab) = lab::borrow(&mount_of(version)) else {
            return;
        };
        for (kind, name) in [(Kind::Lockfile, "lockfile"), (Kind::Sqlite, "sqlite")] {
            let stage = Stage::of(kind, &lab, &format!("killed-{name}-{version}"));
            let blue = stage.begin("blue", "sync", 1);
            let green = stage.run("green", "-w forever", "sync");
            wait_until("green waits", || {
                lab.x("green", "pgrep -f '^/host/joblock run'")
                    .out()
                    .lines()
                    .count()
                    == 3
            });
            let killed = Instant::now();
            lab.x(
                "blue",
                "pkill -KILL -f '^/host/joblock run|^perl /host/job.pl'",
            )
            .expect(0);
            blue.finish();
            green_runs_next(
                &stage,
                &format!("{name} v{version}: all of it killed"),
                killed,
            );
            green_ends(&stage, green, "abandoned");
            assert_eq!(tokens(&stage.witness.never_two("sync", &[])), [1, 2]);
        }
        lab.give_back();
    }
}

// shows: frozen-past-ttl lockfile
#[test]
fn a_machine_that_was_frozen_past_the_servers_lease_kills_its_job_before_anything_else() {
    if !lab::full() {
        return;
    }
    for version in ["4.0", "4.2"] {
        let Some(lab) = lab::borrow(&mount_of(version)) else {
            return;
        };
        let stage = Stage::of(Kind::Lockfile, &lab, &format!("frozen-{version}"));
        let blue = stage.begin("blue", "sync", 1);
        let green = stage.run("green", "-w forever", "sync");
        lab.verb("freeze", "blue");
        stage.witness.lives("sync", 2, "green");
        let frozen = stage.witness.run("sync", 1).expect("blue's run");
        assert_eq!(frozen.gone, None, "{frozen:?}");
        lab.verb("thaw", "blue");
        let thawed = Instant::now();
        let gone = stage.witness.gone("sync", 1);
        took(
            &format!("v{version}: thawed, its job is gone after"),
            gone - thawed,
        );
        blue.finish().expect(LOST);
        stage.nothing_left("blue", "sync");
        stage.witness.lives("sync", 2, "green");
        stage.witness.let_end("sync", 2);
        green.finish().expect(0);
        // what it wrote before it was killed came too late, and only that
        let seen = stage.witness.never_two("sync", &[1]);
        assert_eq!(tokens(&seen), [1, 2]);
        assert_eq!(seen[0].accepted, frozen.accepted, "{frozen:?}, {seen:?}");
        assert_eq!(stage.outcome("sync", 1), "lost");
        assert_eq!(stage.outcome("sync", 2), "succeeded");
        lab.give_back();
    }
}

/// The server takes all that the client has away, while the link is whole and nobody else wants the lock: an administrator's doing,
/// which only reading through the locked descriptor tells of.
// shows: lock-taken-away lockfile, shared
#[test]
fn a_lock_that_the_server_gave_away_is_noticed_at_the_next_heartbeat() {
    if !lab::full() {
        return;
    }
    for version in ["4.0", "4.1", "4.2"] {
        let Some(lab) = lab::borrow(&mount_of(version)) else {
            return;
        };
        let stage = Stage::of(Kind::Lockfile, &lab, &format!("expired-{version}"));
        let blue = stage.begin("blue", "sync", 1);
        let leased = Stage::of(Kind::Sqlite, &lab, &format!("expired-sqlite-{version}"));
        let with_lease = leased.begin("blue", "leased", 1);
        let expire = "for c in /proc/fs/nfsd/clients/*; do \
                      grep -q '^name:.* blue' $c/info && echo expire > $c/ctl; done";
        let expired = Instant::now();
        lab.x("srv", expire);
        let gone = stage.witness.gone("sync", 1);
        took(
            &format!("v{version}: taken away, its job is gone after"),
            gone - expired,
        );
        assert!(gone - expired <= lab::LEASE + SLOW, "{:?}", gone - expired);
        let told = blue.finish().expect(LOST);
        assert!(
            told.out().contains("the file server gave the lock"),
            "{told}"
        );
        // a lease alone would do, but the store's files were taken away with the lock
        let next = leased.run("green", "-w forever", "leased");
        with_lease.finish().expect(LOST);
        leased.witness.lives("leased", 2, "green");
        leased.witness.let_end("leased", 2);
        next.finish().expect(0);
        assert_eq!(tokens(&leased.witness.never_two("leased", &[])), [1, 2]);
        stage.nothing_left("blue", "sync");
        assert_eq!(stage.outcome("sync", 1), "lost");
        let again = stage.run("blue", "-w forever", "sync");
        stage.witness.lives("sync", 2, "blue");
        stage.witness.let_end("sync", 2);
        again.finish().expect(0);
        assert_eq!(tokens(&stage.witness.never_two("sync", &[])), [1, 2]);
        lab.give_back();
    }
}

/// On version 3 nothing takes the lock from a machine that was cut off: its job runs on, and nobody else's.
// shows: partition lockfile
#[test]
fn on_version_3_a_machine_that_is_cut_off_keeps_lock_and_job() {
    if !lab::full() {
        return;
    }
    let Some(lab) = lab::borrow(V3) else {
        return;
    };
    let stage = Stage::of(Kind::Lockfile, &lab, "cut-v3");
    let blue = stage.begin("blue", "sync", 1);
    let keeper = stage.holder("blue", "sync").keeper;
    lab.verb("part", "blue");
    lab.wait_for_state("blue", keeper, "D");
    for _ in 0..3 {
        stage.run("green", "-w 15s", "sync").finish().expect(HELD);
    }
    stage.witness.lives("sync", 1, "blue");
    // it ends while nobody can be told
    stage.witness.let_end("sync", 1);
    let told = blue.finish().expect(0);
    for part in [
        "the end of this run is not recorded yet",
        "/mnt/a (nfs, server 10.99.0.1)",
    ] {
        assert!(told.out().contains(part), "{told}");
    }
    stage.run("green", "-n", "sync").finish().expect(HELD);
    let green = stage.run("green", "-w forever", "sync");
    lab.verb("heal", "blue");
    let healed = Instant::now();
    green_runs_next(&stage, "v3: cut off, ended, and healed", healed);
    stage.nothing_left("blue", "sync");
    green_ends(&stage, green, "succeeded");
    assert_eq!(tokens(&stage.witness.never_two("sync", &[])), [1, 2]);
    lab.give_back();
}

// shows: partition shared, lockfile
#[test]
fn a_machine_that_is_cut_off_loses_its_lock_only_after_its_job_is_dead_on_every_version_4() {
    if !lab::full() {
        return;
    }
    for version in ["4.0", "4.1", "4.2"] {
        let Some(lab) = lab::borrow(&mount_of(version)) else {
            return;
        };
        cut_off_and_healed(
            &lab,
            Kind::Lockfile,
            &format!("cut-lockfile-{version}"),
            lab::LEASE,
        );
        cut_off_and_healed(
            &lab,
            Kind::Sqlite,
            &format!("cut-sqlite-{version}"),
            stage::TTL,
        );
        lab.give_back();
    }
}

// shows: mount-that-hangs lockfile, shared
#[test]
fn on_a_version_3_mount_that_does_not_answer_every_command_ends_in_time_too() {
    if !lab::full() {
        return;
    }
    let Some(lab) = lab::borrow(V3) else {
        return;
    };
    nothing_hangs_on_a_dead_mount(&lab, Kind::Lockfile, "hangs-v3");
    nothing_hangs_on_a_dead_mount(&lab, Kind::Sqlite, "hangs-sqlite-v3");
    lab.give_back();
}

/// A clone of blue, as an image of a disk makes them: with its host name, but its own machine id; or with the same; or where machines have
/// none.
// shows: same-host-name lockfile
#[rstest]
#[case::with_ids("twins", "cat /proc/sys/kernel/random/uuid")]
#[case::with_one_id("copies", "echo 11111111111111111111111111111111")]
#[case::without_ids("bare-twins", ":")]
fn a_second_machine_of_the_same_name_is_told_apart_or_refused(
    #[case] name: &str,
    #[case] id: &str,
) {
    if !lab::full() {
        return;
    }
    let Some(lab) = lab::borrow(V4) else {
        return;
    };
    let stage = Stage::of(Kind::Lockfile, &lab, name);
    for host in ["blue", "green"] {
        lab.x(host, &format!("{id} >/etc/machine-id")).expect(0);
    }
    let export = "-t nfs -o vers=4.2,timeo=50,retrans=1 srv:/data /mnt/a";
    lab.x("green", "umount /mnt/a && hostname blue").expect(0);
    let blue = stage.begin("blue", "sync", 1);
    lab.x("green", &format!("mount {export}")).expect(0);
    let mounted = Instant::now();
    // its mount has cost blue the lock already
    let green = lab.x(
        "green",
        &format!("/host/joblock run -n {} sync -- true", stage.store),
    );
    let green = green.expect(UNUSABLE).out();
    assert!(
        green.contains("another machine that is called blue, too"),
        "{green}"
    );
    assert!(green.contains("nfs4_unique_id"), "{green}");
    let gone = stage.witness.gone("sync", 1);
    took("a twin mounts, the job is gone after", gone - mounted);
    assert!(gone - mounted <= lab::LEASE + SLOW, "{:?}", gone - mounted);
    blue.finish().expect(LOST);

    // what it was told helps
    lab.x(
        "green",
        "umount /mnt/a && echo two >/sys/module/nfs/parameters/nfs4_unique_id",
    )
    .expect(0);
    lab.x("green", &format!("mount {export}")).expect(0);
    let blue = stage.run("blue", "-w forever", "sync");
    stage.witness.lives("sync", 2, "blue");
    stage.run("green", "-w 15s", "sync").finish().expect(HELD);
    stage.witness.let_end("sync", 2);
    blue.finish().expect(0);
    let green = stage.run("green", "-n", "other");
    stage.witness.lives("other", 1, "blue");
    stage.witness.let_end("other", 1);
    green.finish().expect(0);
    assert_eq!(tokens(&stage.witness.never_two("sync", &[])), [1, 2]);
    // the machines keep their names: they are not given back
}

/// Blue loses its power in the midst of a transaction on the history: `bytes` are what SQLite has locked then, and how many.
fn dies_with_the_history_locked(lab: &Lab, stage: &Stage, folder: &str, bytes: &str) {
    let hold = format!(
        r#"perl -e 'use Fcntl qw(:DEFAULT :flock); $| = 1;
            open my $gate, "+<", "{folder}/history.gate" or die; flock $gate, LOCK_EX or die;
            open my $db, "+<", "{folder}/history.db" or die;
            my $lock = pack "s s x4 q q i x4", F_WRLCK, 0, {bytes}, 0; fcntl $db, F_SETLK, $lock or die;
            open my $held, ">", "/run/held"; close $held; sleep 1000'"#
    );
    let line = format!("/host/joblock run {} sync -- true", stage.store);
    lab.x("green", &line).expect(0);
    let holder = lab.start("blue", &format!("rm -f /run/held; {hold}"));
    wait_until("the history is locked", || {
        lab.x("blue", "test -e /run/held").code() == 0
    });
    lab.verb("kill", "blue");
    holder.process().kill(9);
    holder.finish();
}

// shows: history-locked-by-the-dead lockfile
#[test]
fn a_history_that_a_dead_client_keeps_locked_holds_up_no_other_machine() {
    if !lab::full() {
        return;
    }
    let Some(lab) = lab::borrow(V3) else {
        return;
    };
    let stage = Stage::of(Kind::Lockfile, &lab, "history");
    let folder = format!("{}/history", lab::MOUNT);
    let run = format!("/host/joblock run {} sync -- echo ran", stage.store);
    // the byte of a writer that has not begun to commit
    dies_with_the_history_locked(&lab, &stage, &folder, "0x40000001, 1");
    let began = Instant::now();
    let told = lab.x("green", &run).expect(0).out();
    took(
        "v3: a run while a dead client has the history",
        began.elapsed(),
    );
    assert!(told.contains("ran\n"), "{told}");
    assert!(told.contains("the end of this run waits in"), "{told}");
    assert!(
        told.contains("on srv: echo /export/data > /proc/fs/nfsd/unlock_filesystem"),
        "{told}"
    );
    let outcomes = |stage: &Stage| -> Vec<_> {
        let history = stage.history("sync");
        // what was folded in stands behind what was there first
        let mut told: Vec<_> = history.into_iter().map(|a| (a.token, a.outcome)).collect();
        told.sort();
        told
    };
    let succeeded = |tokens: std::ops::RangeInclusive<u64>| -> Vec<_> {
        tokens
            .map(|token| (Some(token), "succeeded".to_owned()))
            .collect()
    };
    assert_eq!(outcomes(&stage), succeeded(1..=2));
    let free = "echo /export/data >/proc/fs/nfsd/unlock_filesystem";
    lab.x("srv", free).expect(0);
    lab.x("green", &run).expect(0);
    assert_eq!(outcomes(&stage), succeeded(1..=3));
    assert_eq!(lab.x("green", &format!("ls {folder}/spool")).out(), "");

    // one that was in the midst of it: nobody can read the history itself
    lab.verb("boot", "blue");
    lab.mount("blue");
    dies_with_the_history_locked(&lab, &stage, &folder, "0x40000000, 512");
    let began = Instant::now();
    let told = lab.x("green", &run).expect(0).out();
    took(
        "v3: a run while a client that died in a commit has the history",
        began.elapsed(),
    );
    assert!(
        told.contains("on srv: echo /export/data > /proc/fs/nfsd/unlock_filesystem"),
        "{told}"
    );
    assert_eq!(outcomes(&stage), succeeded(1..=5));
    lab.x("srv", free).expect(0);
    lab.x("green", &run).expect(0);
    assert_eq!(outcomes(&stage), succeeded(1..=6));
    lab.verb("boot", "blue");
    lab.give_back();
}
