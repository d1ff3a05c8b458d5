//! After a reboot, and where pids were given to others: a dead run is known to be dead, and nobody else is taken for it.

mod common;

use std::fs;
use std::process::Command;

use common::{Finished, Kind, Store, finish, joblock, may_use_root, start, wait_until};
use rstest::rstest;

const WHY: &str = "namespaces of PIDs and mounts";

/// `joblock run` in a boot of its own, as far as it can tell: with another boot id.
fn in_boot(store: &Store, boot: &str, options: &[&str], script: &str) -> Command {
    let id = store.file(boot);
    fs::write(&id, format!("{boot}-0000-4000-8000-000000000000\n")).expect("a boot id");
    let mut unshare = store.program("unshare");
    unshare.args([
        "--mount",
        "sh",
        "-c",
        "mount --bind \"$0\" /proc/sys/kernel/random/boot_id && exec \"$@\"",
    ]);
    unshare
        .arg(id)
        .args([joblock(), "run", "--store", store.url()])
        .args(options)
        .args(["reboot", "--", "sh", "-c", script]);
    unshare.env("READY", store.file("ready"));
    unshare
}

/// Starts a job in the first boot and ends every process of it at once, as a power cut does.
#[track_caller]
fn power_cut(store: &Store, options: &[&str]) {
    let run = start(&mut in_boot(
        store,
        "11111111",
        options,
        "touch $READY; exec sleep 1000",
    ));
    wait_until("the job", || store.file("ready").exists());
    let all = store.marked();
    for process in &all {
        process.kill(libc::SIGSTOP);
    }
    for process in &all {
        process.kill(libc::SIGKILL);
    }
    run.finish();
    wait_until("the end of all", || store.marked().is_empty());
}

// shows: host-lost local
#[rstest]
fn after_a_reboot_the_lock_is_free_at_once_and_the_run_is_abandoned(
    #[values(Kind::Local, Kind::Lockfile)] kind: Kind,
) {
    if !may_use_root(WHY) {
        return;
    }
    let store = Store::new(kind);
    power_cut(&store, &[]);
    let next = finish(&mut in_boot(
        &store,
        "22222222",
        &["-n"],
        "echo $JOBLOCK_TOKEN",
    ));
    assert_eq!(next.expect(0).out(), "2\n");
    assert_eq!(store.outcomes("reboot"), ["abandoned", "succeeded"]);
}

#[test]
fn a_shared_lock_outlives_the_reboot_by_its_lease_as_another_boot_may_be_another_machine() {
    if !may_use_root(WHY) {
        return;
    }
    let store = Store::new(Kind::Shared);
    power_cut(&store, &["--ttl", "3s"]);
    let next = |options: &[&str]| -> Finished {
        finish(&mut in_boot(
            &store,
            "22222222",
            options,
            "echo $JOBLOCK_TOKEN",
        ))
    };
    next(&["-n"]).expect(75);
    assert_eq!(next(&["-w", "60"]).expect(0).out(), "2\n");
    assert_eq!(
        store.outcomes("reboot"),
        ["abandoned", "refused", "succeeded"]
    );
}

/// In a PID namespace, where one can choose the next pid: `$1` joblock, `$2` the store. Prints what became of the strangers.
const REUSE: &str = r#"
joblock=$1 store=$2
"$joblock" run --store "$store" reuse -- sh -c 'touch $READY; exec sleep 1000' &
until [ -e "$READY" ]; do sleep 0.02; done
old=$(ls /proc | grep -x '[0-9]*' | while read -r p; do
    tr '\0' '\n' <"/proc/$p/environ" 2>/dev/null | grep -q '^RUN=of-the-test$' && [ "$p" != $$ ] && [ "$p" != "$BASHPID" ] && readlink "/proc/$p/exe" | grep -qE 'joblock|sleep' && echo "$p"
done)
kill -STOP $old; kill -KILL $old; wait
# those that this shell inherited are reaped by it whenever it gets to it
for p in $old; do while [ -e "/proc/$p" ]; do sleep 0.01; done; done
for p in $old; do
    echo $((p - 1)) >/proc/sys/kernel/ns_last_pid
    env -i sleep 2000 &
    echo "$p $!"
done
"$joblock" run --store "$store" -n reuse -- sh -c 'echo token $JOBLOCK_TOKEN'
echo "code $?"
for p in $old; do kill -0 "$p" && echo "lives $p"; kill -KILL "$p"; done
"#;

// shows: pid-reuse local, shared, lockfile
#[rstest]
fn whoever_has_the_pids_of_a_dead_run_now_is_not_taken_for_it_and_not_killed(
    #[values(Kind::Local, Kind::Shared, Kind::Lockfile)] kind: Kind,
) {
    if !may_use_root(WHY) {
        return;
    }
    let store = Store::new(kind);
    let mut unshare = store.program("unshare");
    unshare
        .args(["--pid", "--fork", "--mount-proc", "--kill-child"])
        .args(["bash", "-c", REUSE, "bash", joblock(), store.url()])
        .env("READY", store.file("ready"))
        .env("RUN", "of-the-test");
    let done = finish(&mut unshare).expect(0);
    let out = done.out();
    let strangers: Vec<_> = out
        .lines()
        .map_while(|line| line.split_once(' '))
        .take_while(|(old, _)| old.parse::<u32>().is_ok())
        .collect();
    assert_eq!(
        strangers.len(),
        4,
        "front, keeper, guard and the job: {done}"
    );
    for (old, new) in strangers {
        assert_eq!(old, new, "not the pid that was wanted: {done}");
        assert!(out.contains(&format!("lives {old}")), "{done}");
    }
    assert!(out.contains("token 2\ncode 0\n"), "{done}");
    assert_eq!(store.outcomes("reuse"), ["abandoned", "succeeded"]);
}
