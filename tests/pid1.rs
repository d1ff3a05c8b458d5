//! joblock as PID 1 of a PID namespace, as in a container whose entrypoint it is.

mod common;

use std::fs;
use std::process::Command;

use common::process::Process;
use common::{
    Finished, Kind, Store, finish, joblock, may_use_root, start, text, wait_for, wait_until,
};
use rstest::rstest;

const WHY: &str = "namespaces of PIDs and mounts";

/// `joblock run … JOB -- sh -c SCRIPT` as PID 1.
fn as_pid_1(store: &Store, options: &[&str], job: &str, script: &str) -> Command {
    let mut unshare = store.program("unshare");
    unshare.args([
        "--pid",
        "--fork",
        "--mount-proc",
        "--kill-child",
        joblock(),
        "run",
        "--store",
        store.url(),
    ]);
    unshare
        .args(options)
        .args([job, "--", "bash", "-c", script]);
    unshare
        .env("READY", store.file("ready"))
        .env("SEEN", store.file("seen"));
    unshare
}

/// The PID 1 of the namespace that `unshare` made, by its pid out here.
#[track_caller]
fn first_process(unshare: Process) -> Process {
    wait_for("the namespace's first process", || unshare.children().pop())
}

#[test]
fn as_pid_1_the_jobs_exit_code_and_death_come_through() {
    if !may_use_root(WHY) {
        return;
    }
    let store = Store::local();
    for (script, code) in [
        ("exit 0", 0),
        ("exit 3", 3),
        ("kill -9 $$", 137),
        ("kill -2 $$", 130),
        ("exec no-such-program", 127),
    ] {
        finish(&mut as_pid_1(&store, &["--private-store"], "pid1", script)).expect(code);
    }
    let done = finish(&mut as_pid_1(
        &store,
        &["--private-store"],
        "pid1",
        "echo $PPID; cat /proc/1/comm",
    ))
    .expect(0);
    assert!(
        done.out().ends_with("joblock\n"),
        "joblock is PID 1: {done}"
    );
}

#[test]
fn as_pid_1_zombies_are_reaped_while_the_job_runs() {
    if !may_use_root(WHY) {
        return;
    }
    let store = Store::local();
    // Forty orphans that end at once; the job ends well only when none of them is left, not even as a zombie.
    let script = r#"
        for i in $(seq 40); do ( ( exec sh -c 'echo $$ >>$SEEN' ) & ) ; done
        until [ "$(wc -l <$SEEN)" -eq 40 ]; do sleep 0.02; done
        while :; do
            left=0
            for pid in $(cat $SEEN); do [ -e /proc/$pid ] && left=1; done
            [ $left -eq 0 ] && exit 0
            sleep 0.02
        done"#;
    finish(&mut as_pid_1(
        &store,
        &["--private-store"],
        "zombies",
        script,
    ))
    .expect(0);
}

#[test]
fn as_pid_1_orphans_of_others_in_the_namespace_are_reaped() {
    if !may_use_root(WHY) {
        return;
    }
    let store = Store::local();
    let run = start(&mut as_pid_1(
        &store,
        &["--private-store"],
        "strangers",
        "touch $READY; until [ -e $SEEN ]; do sleep 0.02; done",
    ));
    wait_until("the job", || store.file("ready").exists());
    let init = first_process(run.process());
    // What `docker exec` leaves: a process that joblock did not start, whose parent is gone, becomes PID 1's child.
    let pid = init.pid.to_string();
    let mut enter = store.program("nsenter");
    enter.args([
        "--target",
        &pid,
        "--pid",
        "--mount",
        "sh",
        "-c",
        "(sleep 0.05 & ) ; exit 0",
    ]);
    finish(&mut enter).expect(0);
    wait_until("no zombie is left", || {
        let children =
            fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        children
            .split_whitespace()
            .all(|child| Process::of(child.parse().expect("a pid")).is_none_or(Process::lives))
            && children.split_whitespace().count() == 2
    });
    fs::write(store.file("seen"), "").expect("the end");
    run.finish().expect(0);
}

#[test]
fn as_pid_1_sigterm_reaches_the_job_and_a_job_that_it_ends_gives_143() {
    if !may_use_root(WHY) {
        return;
    }
    let store = Store::local();
    let run = start(&mut as_pid_1(
        &store,
        &["--private-store"],
        "term",
        "touch $READY; exec sleep 1000",
    ));
    wait_until("the job", || store.file("ready").exists());
    first_process(run.process()).kill(15);
    run.finish().expect(143);
    assert_eq!(store.outcomes("term"), ["signaled"]);
}

#[test]
fn as_pid_1_a_job_that_handles_sigterm_ends_as_it_likes() {
    if !may_use_root(WHY) {
        return;
    }
    let store = Store::local();
    let script =
        "trap 'echo TERM >>$SEEN; exit 5' TERM; touch $READY; while :; do sleep 0.02; done";
    let run = start(&mut as_pid_1(&store, &["--private-store"], "term", script));
    wait_until("the job", || store.file("ready").exists());
    first_process(run.process()).kill(15);
    run.finish().expect(5);
    assert_eq!(text(&store.file("seen")), "TERM\n");
}

#[test]
fn as_pid_1_what_the_job_leaves_is_gone_before_joblock_ends() {
    if !may_use_root(WHY) {
        return;
    }
    let store = Store::local();
    let done: Finished = finish(&mut as_pid_1(
        &store,
        &["--private-store", "-k", "0.2"],
        "left",
        "trap '' TERM; (setsid sleep 1000 &); (sleep 1000 &); exit 0",
    ));
    let done = done.expect(0);
    assert!(store.of_jobs().is_empty(), "{done}");
    assert_eq!(store.outcomes("left"), ["succeeded"]);
}

// shows: same-host-name local, shared
#[rstest]
fn two_namespaces_with_the_same_pids_and_host_name_exclude_each_other(
    #[values(Kind::Local, Kind::Shared, Kind::Lockfile)] kind: Kind,
) {
    if !may_use_root(WHY) {
        return;
    }
    let store = Store::new(kind);
    let run = start(&mut as_pid_1(
        &store,
        &["--private-store"],
        "same",
        "touch $READY; until [ -e $SEEN ]; do sleep 0.02; done",
    ));
    wait_until("the job", || store.file("ready").exists());
    finish(&mut as_pid_1(
        &store,
        &["--private-store"],
        "same",
        "exit 0",
    ))
    .expect(75);
    fs::write(store.file("seen"), "").expect("the end");
    run.finish().expect(0);
    finish(&mut as_pid_1(
        &store,
        &["--private-store"],
        "same",
        "exit 0",
    ))
    .expect(0);
    assert_eq!(
        store.outcomes("same"),
        ["succeeded", "refused", "succeeded"]
    );
}

#[test]
fn a_namespace_that_is_killed_leaves_a_lock_that_the_next_one_takes() {
    if !may_use_root(WHY) {
        return;
    }
    let store = Store::local();
    let run = start(&mut as_pid_1(
        &store,
        &["--private-store"],
        "killed",
        "touch $READY; exec sleep 1000",
    ));
    wait_until("the job", || store.file("ready").exists());
    // As the OOM killer or `docker kill` does: the kernel ends all else in the namespace with its PID 1.
    first_process(run.process()).kill(9);
    run.finish();
    finish(&mut as_pid_1(
        &store,
        &["--private-store", "-w", "60"],
        "killed",
        "exit 0",
    ))
    .expect(0);
    let outcomes = store.outcomes("killed");
    // The kernel ends one after the other: the keeper may live just long enough to see its job die.
    assert!(
        ["abandoned", "signaled"].contains(&outcomes[0].as_str()),
        "{outcomes:?}"
    );
    assert_eq!(outcomes[1..], ["succeeded"]);
}

/// What the kernel tells of a lock's taker who is dead is no pid in a namespace of its own.
// shows: all-killed local, shared, lockfile
#[rstest]
fn what_has_nothing_of_a_killed_run_but_the_lock_is_ended_in_a_container_too(
    #[values(Kind::Local, Kind::Shared, Kind::Lockfile)] kind: Kind,
) {
    if !may_use_root(WHY) {
        return;
    }
    let store = Store::new(kind);
    let script = r#"
        "$JOBLOCK" run left -- bash -c '
            ( for procs in /sys/fs/cgroup/unified/cgroup.procs /sys/fs/cgroup/cgroup.procs; do
                [ -w $procs ] && echo $BASHPID >$procs; done
              exec setsid env -i sleep 1000 ) </dev/null >/dev/null 2>&1 &
            until [ "$(cat /proc/$!/comm)" = sleep ]; do sleep 0.01; done
            touch $READY; wait' &
        until [ -e $READY ]; do sleep 0.01; done
        own=$(pgrep -x joblock); kill -STOP $own; kill -KILL $own; wait
        pgrep -x sleep || exit 3
        "$JOBLOCK" run -w 20 left -- pgrep -x sleep; [ $? = 1 ]"#;
    let mut unshare = store.program("unshare");
    let namespace = ["--pid", "--fork", "--mount-proc", "--kill-child"];
    unshare.args(namespace).args(["bash", "-c", script]);
    unshare
        .env("JOBLOCK", joblock())
        .env("JOBLOCK_STORE", store.url())
        .env("READY", store.file("ready"));
    finish(&mut unshare).expect(0);
    assert_eq!(store.outcomes("left"), ["abandoned", "failed"]);
}

#[test]
fn as_pid_1_a_store_on_the_containers_own_overlay_is_refused_unless_it_is_meant() {
    if !may_use_root(WHY) {
        return;
    }
    let store = Store::local();
    // A root on an overlay, as containers have it, with the store inside.
    let script = r#"
        set -e
        mount -t tmpfs none "$1"
        mkdir "$1/upper" "$1/work" "$1/root"
        mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root"
        mount --rbind /proc "$1/root/proc"
        mount --rbind /dev "$1/root/dev"
        shift 1
        exec chroot "$0/root" "$@""#;
    let run = |options: &[&str]| {
        let folder = store.file("container");
        let _ = fs::create_dir(&folder);
        let folder = folder.to_str().expect("a path").to_owned();
        // `$0` of the script is the folder, `$1` the same.
        let mut unshare = store.program("unshare");
        unshare.args([
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "bash",
            "-c",
            script,
            &folder,
            &folder,
        ]);
        unshare.args([joblock(), "run", "--store", "sqlite:/joblock.db"]);
        unshare.args(options).args(["own", "--", "echo", "ran"]);
        finish(&mut unshare)
    };
    let refused = run(&[]).expect(69);
    assert_eq!(refused.out(), "");
    assert!(refused.err().contains("--private-store"), "{refused}");
    let done = run(&["--private-store"]).expect(0);
    assert_eq!(done.out(), "ran\n");
}
