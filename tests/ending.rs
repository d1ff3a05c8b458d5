//! How a run ends: no process of it waits for another that waits for it.

mod common;

use std::process::{Command, Stdio};

use common::{Store, start, wait_until};

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
        std::fs::read_to_string(format!("/proc/{}/status", holder.guard.pid))
            .is_ok_and(|status| !status.contains("TracerPid:\t0\n"))
    });
    std::fs::write(&go, "").expect("the job may end");
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
