//! What happens at the server while a job runs on blue, and what becomes of it and of those who want to start it elsewhere.

use std::time::{Duration, Instant};

use super::lab::{self, Lab};
use super::measured::took;
use super::stage::{Kind, Stage, TTL, tokens};
use crate::common::{Finished, stays, wait_until};

/// The exit code of a run that lost its lock.
const LOST: i32 = 79;
/// The exit code where the store can't be used.
const UNUSABLE: i32 = 69;
/// The exit code of an attempt that found the lock held.
const HELD: i32 = 75;

/// As `nfs/init.sh` starts it, but with a lease that is longer than it takes to start.
const LONG_LEASE: u64 = 90;

/// Whether the kernel of the server can be made to take this run's lock away behind its back: by version 4 it notices, and is ended.
fn has_server_lease(kind: Kind, mount: &str) -> bool {
    kind == Kind::Lockfile && mount.contains("vers=4")
}

/// A folder of the test's own, by what it is about.
fn name(what: &str, kind: Kind, mount: &str) -> String {
    let version: String = mount.chars().filter(char::is_ascii_digit).collect();
    format!("{what}-{kind:?}-{version}").to_lowercase()
}

/// That many attempts on green find the lock held, each after a look at the server.
#[track_caller]
fn refused(stage: &Stage, times: usize) {
    for _ in 0..times {
        stage.run("green", "-n", "sync").finish().expect(HELD);
    }
}

/// The run on blue comes to its end, and after it the job runs on green.
#[track_caller]
fn ends_and_another_follows(stage: &Stage, blue: crate::common::Running) -> Finished {
    stage.witness.let_end("sync", 1);
    let told = blue.finish().expect(0);
    let next = stage.run("green", "-w forever", "sync");
    stage.witness.lives("sync", 2, "green");
    stage.witness.let_end("sync", 2);
    next.finish().expect(0);
    assert_eq!(tokens(&stage.witness.never_two("sync", &[])), [1, 2]);
    assert_eq!(stage.outcome("sync", 2), "succeeded");
    told
}

/// Another waits on green, gets the lock when the run on blue is gone, and not before.
#[track_caller]
fn another_follows(stage: &Stage) {
    let next = stage.run("green", "-w forever", "sync");
    stage.witness.lives("sync", 2, "green");
    stage.witness.let_end("sync", 2);
    next.finish().expect(0);
    assert_eq!(tokens(&stage.witness.never_two("sync", &[])), [1, 2]);
    assert_eq!(stage.outcome("sync", 2), "succeeded");
}

/// How the server is started anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restart {
    /// Its plug is pulled.
    PowerLoss,
    /// Its NFS service ends and begins, and the clients are told.
    Clean,
}

/// The job runs on through it, if that takes no longer than F, or is ended as lost; nobody else starts it before it is gone.
pub fn restarts(kind: Kind, mount: &str, how: Restart) {
    let Some(lab) = lab::borrow(mount) else {
        return;
    };
    let mut stage = Stage::of(kind, &lab, &name(&format!("{how:?}"), kind, mount));
    stage.ttl = Duration::from_secs(LONG_LEASE);
    let blue = stage.begin("blue", "sync", 1);
    let began = Instant::now();
    match how {
        Restart::PowerLoss => {
            lab.verb("kill", "srv");
            lab.verb("boot", "srv");
        }
        Restart::Clean => {
            let line = "rpc.nfsd 0; rpc.nfsd -L 10 -G 10 8; sm-notify -f";
            lab.x("srv", line).expect(0);
        }
    }
    for host in lab::CLIENTS {
        wait_until("the export answers again", || {
            let line = format!("touch {}/again.{host}", lab::MOUNT);
            lab.x(host, &line).code() == 0
        });
    }
    took(
        &format!("{mount} {how:?}: the export can be written again after"),
        began.elapsed(),
    );
    // the lab's server lease is the shortest that there is, and a start of the server takes longer than four ninths of it
    if has_server_lease(kind, mount) {
        another_follows_whatever_became_of_it(&stage, blue);
    } else {
        refused(&stage, 3);
        stage.witness.lives("sync", 1, "blue");
        ends_and_another_follows(&stage, blue);
        assert_eq!(stage.outcome("sync", 1), "succeeded");
    }
    lab.give_back();
}

/// It may have been ended by its deadline, or not.
fn another_follows_whatever_became_of_it(stage: &Stage, blue: crate::common::Running) {
    let next = stage.run("green", "-w forever", "sync");
    stage.witness.let_end("sync", 2);
    let code = blue.finish().code();
    assert!(code == 0 || code == LOST, "{code}");
    next.finish().expect(0);
    assert_eq!(tokens(&stage.witness.never_two("sync", &[])), [1, 2]);
    let outcome = if code == LOST { "lost" } else { "succeeded" };
    assert_eq!(stage.outcome("sync", 1), outcome);
}

/// The NFSv3 server's locks are gone and no client is told: the kernel gives the lock to whoever asks. While the holder lives, nobody
/// starts; when it has no more heartbeats, another takes over.
pub fn forgets(kind: Kind) {
    let Some(lab) = lab::borrow("vers=3") else {
        return;
    };
    let stage = Stage::of(kind, &lab, &name("forgets", kind, "3"));
    let blue = stage.begin("blue", "sync", 1);
    let file = lock_file(&lab, &stage);
    lab.x("green", &format!("flock -n {file} true")).expect(1);
    lab.x("srv", "rpc.nfsd 0; rpc.nfsd 8").expect(0);
    wait_until("the server gives the lock to another", || {
        lab.x("green", &format!("flock -n {file} true")).code() == 0
    });
    refused(&stage, 2);
    let green = stage.run("green", "-w forever", "sync");
    stays("nobody else runs", TTL + Duration::from_secs(4), || {
        tokens(&stage.witness.runs("sync")) == [1]
    });
    stage.witness.lives("sync", 1, "blue");
    lab.verb("kill", "blue");
    let cut = Instant::now();
    blue.process().kill(9);
    blue.finish();
    let next = stage.witness.lives("sync", 2, "green");
    // from its last heartbeat, which was up to a ninth before
    assert!(next.began + TTL / 9 >= cut + TTL, "{:?}", next.began - cut);
    took(
        &format!(
            "v3 {kind:?}: the server forgot the lock, then the holder lost power; taken over after"
        ),
        next.began - cut,
    );
    stage.witness.let_end("sync", 2);
    green.finish().expect(0);
    assert_eq!(tokens(&stage.witness.never_two("sync", &[1])), [1, 2]);
    assert_eq!(stage.outcome("sync", 1), "abandoned");
    lab.verb("boot", "blue");
    lab.give_back();
}

/// The one in the store.
fn lock_file(lab: &Lab, stage: &Stage) -> String {
    let folder = stage.folder();
    let line = format!("find {folder} -name sync.lock");
    lab.x("green", &line).expect(0).out().trim().to_owned()
}

const EXPORT: &str = "sync,no_root_squash,no_subtree_check,insecure";

/// Exports with these options from now on.
fn export(lab: &Lab, options: &str) {
    let line = format!("exportfs -i -o {EXPORT},{options} '*:/export' && exportfs -f");
    lab.x("srv", &line).expect(0);
}

/// A lease can't be renewed there, so its job is ended; a lock that has no end lasts as long as its job.
pub fn becomes_read_only(kind: Kind, mount: &str) {
    let Some(lab) = lab::borrow(mount) else {
        return;
    };
    let stage = Stage::of(kind, &lab, &name("readonly", kind, mount));
    let blue = stage.begin("blue", "sync", 1);
    export(&lab, "fsid=0,ro");
    let told = stage.run("green", "-n", "other").finish().expect(UNUSABLE);
    assert!(told.out().contains("read-only"), "{told}");
    if kind == Kind::Lockfile && !has_server_lease(kind, mount) {
        stage.witness.lives("sync", 1, "blue");
        stage.witness.let_end("sync", 1);
        let told = blue.finish().expect(0);
        assert!(told.out().contains("could NOT be recorded"), "{told}");
    } else {
        blue.finish().expect(LOST);
    }
    stage.nothing_left("blue", "sync");
    export(&lab, "fsid=0,rw");
    // NFSv3 takes no unlocking on a read-only export, so the server keeps the lock until the client is booted
    if mount.contains("vers=3") {
        lab.verb("kill", "blue");
        lab.verb("boot", "blue");
    }
    // nor does its client ask again whether it may write to a file whose mode did not change, docs/nfs.md
    let line = format!("cd {} && chmod u+x *.db && chmod u-x *.db", stage.folder());
    lab.x("green", &line).expect(0);
    another_follows(&stage);
    lab.give_back();
}

/// No start, while the job that runs is not touched: what a heartbeat writes has its room already.
pub fn is_full(kind: Kind, mount: &str) {
    let Some(lab) = lab::borrow(mount) else {
        return;
    };
    let stage = Stage::of(kind, &lab, &name("full", kind, mount));
    let blue = stage.begin("blue", "sync", 1);
    // also where the file system can't reserve it (NFSv3): ten blocks of 4 KiB
    let file = lock_file(&lab, &stage).replace(lab::MOUNT, "/export/data");
    let room = lab
        .x("srv", &format!("du -k {file} | cut -f1"))
        .expect(0)
        .out();
    assert!(
        room.trim().parse::<u64>().is_ok_and(|kib| kib >= 40),
        "{room}"
    );
    let fill_up = "for size in 1M 1k; do dd if=/dev/zero bs=$size status=none >>/export/fill; done; sync /export";
    lab.x("srv", fill_up);
    let told = stage.run("green", "-n", "other").finish().expect(UNUSABLE);
    assert!(told.out().contains("full"), "{told}");
    let before = stage.witness.run("sync", 1).expect("blue's run").accepted;
    stays("the job lives", stage.ttl, || {
        stage
            .witness
            .run("sync", 1)
            .is_some_and(|run| run.gone.is_none())
    });
    assert!(stage.witness.run("sync", 1).expect("it").accepted > before);
    stage.witness.let_end("sync", 1);
    let told = blue.finish().expect(0);
    assert!(told.out().contains("could NOT be recorded"), "{told}");
    lab.x("srv", "rm /export/fill && sync /export").expect(0);
    another_follows(&stage);
    lab.give_back();
}

/// All that the clients have open is another file system's now.
pub fn goes_stale(kind: Kind, mount: &str) {
    let Some(lab) = lab::borrow(mount) else {
        return;
    };
    let stage = Stage::of(kind, &lab, &name("stale", kind, mount));
    let folder = stage.folder();
    let blue = stage.begin("blue", "sync", 1);
    let at_server = folder.replace(lab::MOUNT, "/export/data");
    let line = format!(
        "mv {at_server} /export/away && cp -a /export/away {at_server} && rm -r /export/away"
    );
    lab.x("srv", &line).expect(0);
    let began = Instant::now();
    blue.finish().expect(LOST);
    took(
        &format!("{mount} {kind:?}: stale, and the job gone after"),
        began.elapsed(),
    );
    stage.nothing_left("blue", "sync");
    another_follows(&stage);
    lab.give_back();
}

/// The store's folder is renamed on the other machine, and a copy put in its place, while the holder's machine has no reason to look at the
/// folder above it. The copy tells of the holder, so whoever comes there waits.
pub fn loses_its_folder(kind: Kind, mount: &str) {
    let remembers = format!("{mount},acdirmin=600,acdirmax=600");
    let Some(lab) = lab::borrow(&remembers) else {
        return;
    };
    let stage = Stage::of(kind, &lab, &name("folder", kind, mount));
    let folder = stage.folder();
    let blue = stage.begin("blue", "sync", 1);
    let replace = format!("mv {folder} {folder}-away && cp -a {folder}-away {folder}");
    lab.x("green", &replace).expect(0);
    let began = Instant::now();
    let green = stage.run("green", "-w forever", "sync");
    let told = blue.finish().expect(LOST);
    assert!(told.out().contains("replaced"), "{told}");
    took(
        &format!("{mount} {kind:?}: its folder replaced, the job gone after"),
        began.elapsed(),
    );
    stage.witness.lives("sync", 2, "green");
    stage.witness.let_end("sync", 2);
    green.finish().expect(0);
    assert_eq!(tokens(&stage.witness.never_two("sync", &[])), [1, 2]);
    // the machine that remembered the other folder comes to this one, too
    let next = stage.run("blue", "-n", "sync");
    stage.witness.lives("sync", 3, "blue");
    stage.witness.let_end("sync", 3);
    next.finish().expect(0);
    lab.give_back();
}

/// Deleted or renamed on the other machine.
pub fn loses_its_lock_file(kind: Kind, mount: &str, command: &str) {
    let Some(lab) = lab::borrow(mount) else {
        return;
    };
    let what = command.split(' ').next().unwrap_or_default();
    let stage = Stage::of(kind, &lab, &name(&format!("file-{what}"), kind, mount));
    let blue = stage.begin("blue", "sync", 1);
    let file = lock_file(&lab, &stage);
    lab.x("green", &command.replace("FILE", &file)).expect(0);
    let began = Instant::now();
    let green = stage.run("green", "-w forever", "sync");
    if kind == Kind::Lockfile {
        let told = blue.finish().expect(LOST);
        assert!(told.out().contains("deleted or replaced"), "{told}");
        took(
            &format!("{mount} {what}: noticed, and the job gone after"),
            began.elapsed(),
        );
    } else {
        stays(
            "nobody else runs",
            stage.ttl + Duration::from_secs(4),
            || tokens(&stage.witness.runs("sync")) == [1],
        );
        stage.witness.lives("sync", 1, "blue");
        stage.witness.let_end("sync", 1);
        blue.finish().expect(0);
    }
    stage.witness.lives("sync", 2, "green");
    stage.witness.let_end("sync", 2);
    green.finish().expect(0);
    assert_eq!(tokens(&stage.witness.never_two("sync", &[])), [1, 2]);
    lab.give_back();
}
