//! A container's PID 1 whose store is on the container's own overlay is alone with its lock: it must not start.

use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

/// Runs joblock as PID 1 of a namespace of its own, with the store on a fresh overlay file system.
fn as_pid_1(place: &TempDir, options: &str) -> Output {
    let script = format!(
        "mount -t tmpfs none {place} && cd {place} && mkdir lower upper work merged && \
         mount -t overlay none -o lowerdir=lower,upperdir=upper,workdir=work merged && mkdir volume && \
         mkdir merged/store && JOBLOCK_CONFIG={place}/lower/joblock.toml && export JOBLOCK_CONFIG && \
         : > lower/joblock.toml && exec {program} run {options} job -- echo started",
        place = place.path().display(),
        program = env!("CARGO_BIN_EXE_joblock"),
    );
    let mut command = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.args([
        "--mount",
        "--pid",
        "--fork",
        "--mount-proc",
        "--kill-child",
        "sh",
        "-c",
        &script,
    ]);
    command
        .env_remove("JOBLOCK_STORE")
        .env_remove("JOBLOCK_TRIGGER")
        .output()
        .unwrap()
}

fn url(place: &TempDir, folder: &str) -> String {
    format!(
        "--store sqlite:{}/joblock.db",
        Path::new(place.path()).join(folder).display()
    )
}

#[test]
fn pid_1_refuses_a_store_on_its_own_overlay() {
    let place = tempfile::tempdir().unwrap();
    let output = as_pid_1(&place, &url(&place, "merged/store"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(69), "{said}");
    assert!(
        said.contains("--private-store") && output.stdout.is_empty(),
        "{said}"
    );
}

#[test]
fn pid_1_takes_it_when_told_that_it_is_alone() {
    let place = tempfile::tempdir().unwrap();
    let output = as_pid_1(
        &place,
        &format!("{} --private-store", url(&place, "merged/store")),
    );
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(output.stdout, b"started\n");
}

#[test]
fn pid_1_takes_a_store_on_a_volume() {
    let place = tempfile::tempdir().unwrap();
    let output = as_pid_1(&place, &url(&place, "volume"));
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(output.stdout, b"started\n");
}
