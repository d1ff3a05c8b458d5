//! How a run ends: no process of it waits for another that waits for it.

mod common;

use std::fs::{self, File};
use std::process::{Command, Stdio};

use common::{Holder, Kind, Store, start, wait_until};

/// The guard hands the end on and then looks whether the keeper is still there. A keeper with a fast store is through
/// by then, which is not the same as dead: the guard must not hold the lock for a record that is written.
#[test]
fn a_keeper_that_is_done_before_the_guard_looks_again_holds_nobody_up() {
    let store = Store::local();
    let go = store.file("go");
    let script = format!("until [ -e {} ]; do sleep 0.02; done", go.display());
    let mut run = start(&mut store.run(&[], "quick", &["sh", "-c", &script]));
    let holder = store.holder("quick");

    // Half a second between the guard's telling and the next thing it does. Nobody else is slowed.
    let slow = store.file("strace");
    let mut strace = Command::new("strace")
        .args(["-e", "inject=sendmsg:delay_exit=500000", "-p"])
        .arg(holder.guard.pid.to_string())
        .arg("-o")
        .arg(&slow)
        .stderr(Stdio::null())
        .spawn()
        .expect("strace");
    wait_until("strace has the guard", || {
        fs::read_to_string(format!("/proc/{}/status", holder.guard.pid))
            .is_ok_and(|status| !status.contains("TracerPid:\t0\n"))
    });
    fs::write(&go, "").expect("the job may end");
    wait_until("the keeper is through", || !holder.keeper.lives());

    // Long before the guard gives up by itself, which it does after a minute.
    let end = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while !run.has_ended() {
        assert!(
            std::time::Instant::now() < end,
            "front and guard wait for each other"
        );
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    run.finish().expect(0);
    strace.wait().expect("strace ends with the guard");
    assert_eq!(store.outcomes("quick"), ["succeeded"]);
}

/// What the kernel's lock alone protects, and a server may forget: others see by its heartbeats that the job still lives.
#[test]
fn a_lock_that_was_taken_away_has_heartbeats_until_the_job_is_gone() {
    let store = Store::new(Kind::Lockfile);
    let said = store.file("said");
    let mut run = store.run(&["--ttl", "2s"], "sync", &["sleep", "1000"]);
    let run = start(run.stderr(File::create(&said).expect("a file")));
    let holder = Holder::of_front(run.process());
    holder.guard.kill(libc::SIGSTOP);
    let mut unlock = store.joblock("unlock");
    let unlock = start(unlock.args(["--reason", "test", "sync"]));
    let slots = || fs::read(store.path().join("sync.lock")).expect("the lock file");
    wait_until("the keeper knows", || {
        fs::read_to_string(&said).is_ok_and(|said| said.contains("the lock was taken away"))
    });
    for beat in 0..4 {
        let before = slots();
        wait_until(&format!("heartbeat {beat}"), || slots() != before);
    }
    holder.guard.kill(libc::SIGCONT);
    run.finish().expect(79);
    unlock.finish();
    assert_eq!(store.outcomes("sync"), ["lost"]);
}
