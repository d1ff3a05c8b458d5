//! A run is over when its job is: none of the three processes waits for another that waits for it.

use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Guard and keeper are given up after a minute; half of that tells a wait for each other from a busy machine.
const LIMIT: Duration = Duration::from_secs(30);

/// One run of `true` under a lock of its own; whether it ended in time.
fn ends_in_time(folder: &std::path::Path, name: &str) -> bool {
    let store = format!("sqlite:{}", folder.join("joblock.db").display());
    let mut child = Command::new(env!("CARGO_BIN_EXE_joblock"))
        .args(["run", "--store", &store, name, "--", "true"])
        .env("JOBLOCK_CONFIG", folder.join("joblock.toml"))
        .env_remove("JOBLOCK_STORE")
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success(), "{name}: {status}");
            return true;
        }
        if begun.elapsed() > LIMIT {
            child.kill().unwrap();
            child.wait().unwrap();
            return false;
        }
        thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn many_short_runs_at_once_all_end_with_their_job() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("joblock.toml"), "").unwrap();
    thread::scope(|scope| {
        for worker in 0..8 {
            let folder = folder.path();
            scope.spawn(move || {
                for round in 0..15 {
                    assert!(
                        ends_in_time(folder, &format!("job-{worker}")),
                        "worker {worker}, round {round}"
                    );
                }
            });
        }
    });
}
