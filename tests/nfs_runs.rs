//! Two machines with kernels of their own and a real NFS between them (`nfs/lab`): starts on both never overlap, whatever
//! version of the protocol each of them speaks, and whatever happens at the server.
//!
//! Needs root, and the network that Debian's packages come from, for the first time. `make nfs` runs it at full length.

mod common;

mod nfs {
    pub mod contention;
    pub mod journal;
    pub mod lab;
    pub mod measured;
    pub mod server;
    pub mod stage;
    pub mod witness;
}
use common::evidence::Record;
use nfs::contention::contend;
use nfs::lab::full;
use nfs::server::{
    Restart, becomes_read_only, forgets, goes_stale, is_full, loses_its_folder,
    loses_its_lock_file, restarts,
};
use nfs::stage::Kind::{self, Lockfile, Sqlite};
use rstest::rstest;

const V3: &str = "vers=3";
const V4: &str = "vers=4.2";

/// Runs on each machine, beside starts that are refused.
fn runs() -> u64 {
    if full() { 500 } else { 6 }
}

/// In `make check`, only if it is the `short` one.
fn never_overlap(kind: Kind, name: &str, mounts: [&str; 2], short: bool) {
    if !full() && !short {
        println!("left to `make nfs`: {name}");
        return;
    }
    let Some(came_to) = contend(kind, name, mounts, runs()) else {
        return;
    };
    let per_minute = came_to.runs * 60 / came_to.took.as_secs().max(1);
    let program = format!("nfs_{kind:?}_{name}")
        .to_lowercase()
        .replace(' ', "_");
    Record::new(program, "make nfs")
        .figure(
            "runs on two machines, all of them apart by the witness",
            came_to.runs,
        )
        .figure("starts refused meanwhile", came_to.refused)
        .figure("runs a minute", per_minute)
        .figure(
            "overlaps, gaps in the tokens, rows lost or doubled, differences between the machines' histories",
            0,
        )
        .write();
}

// shows: contention lockfile
#[rstest]
#[case::v3("v3", [V3, V3], false)]
#[case::v4_0("v4.0", ["vers=4.0", "vers=4.0"], false)]
#[case::v4_1("v4.1", ["vers=4.1", "vers=4.1"], false)]
#[case::v4_2("v4.2", [V4, V4], false)]
#[case::mixed("v3 and v4.2", [V3, V4], true)]
fn starts_on_two_machines_never_overlap_in_a_folder_of_lock_files(
    #[case] name: &str,
    #[case] mounts: [&str; 2],
    #[case] short: bool,
) {
    never_overlap(Lockfile, name, mounts, short);
}

// shows: contention shared
#[rstest]
#[case::v3("v3", [V3, V3], false)]
#[case::v4_2("v4.2", [V4, V4], true)]
#[case::mixed("v3 and v4.2", [V3, V4], false)]
fn starts_on_two_machines_never_overlap_with_a_shared_database(
    #[case] name: &str,
    #[case] mounts: [&str; 2],
    #[case] short: bool,
) {
    never_overlap(Sqlite, name, mounts, short);
}

#[test]
fn a_database_on_nfs_never_has_a_write_ahead_log() {
    for mount in if full() { &[V4, V3][..] } else { &[V4] } {
        nfs::journal::is_never_a_write_ahead_log(mount);
    }
}

/// In `make check`, the first of them, or none.
fn each(short: usize, cases: &[(Kind, &'static str)], test: impl Fn(Kind, &'static str)) {
    let count = if full() { cases.len() } else { short };
    if count == 0 {
        println!("left to `make nfs`: {} cases", cases.len());
    }
    for &(kind, mount) in &cases[..count] {
        test(kind, mount);
    }
}

// shows: server-restart lockfile, shared
#[test]
fn a_server_that_loses_its_power_gives_nobody_the_lock_that_another_has() {
    let all = [(Lockfile, V3), (Lockfile, V4), (Sqlite, V3), (Sqlite, V4)];
    each(0, &all, |kind, mount| {
        restarts(kind, mount, Restart::PowerLoss);
    });
}

// shows: server-restart lockfile, shared
#[test]
fn a_server_that_is_started_anew_gives_nobody_the_lock_that_another_has() {
    let all = [(Sqlite, V4), (Lockfile, V3), (Lockfile, V4), (Sqlite, V3)];
    each(0, &all, |kind, mount| restarts(kind, mount, Restart::Clean));
}

// shows: server-forgets lockfile, shared
#[test]
fn a_server_that_forgets_its_locks_lets_nobody_run_beside_a_holder_that_lives() {
    each(1, &[(Lockfile, V3), (Sqlite, V3)], |kind, _| forgets(kind));
}

// shows: read-only lockfile, shared
#[test]
fn on_an_export_that_became_read_only_nothing_starts() {
    let all = [(Lockfile, V4), (Sqlite, V4), (Lockfile, V3), (Sqlite, V3)];
    each(0, &all, becomes_read_only);
}

// shows: disk-full lockfile, shared
#[test]
fn on_a_full_export_the_job_that_runs_runs_on() {
    let all = [(Sqlite, V3), (Lockfile, V3), (Lockfile, V4), (Sqlite, V4)];
    each(0, &all, is_full);
}

// shows: stale-handle lockfile, shared
#[test]
fn a_job_whose_store_went_stale_under_it_is_ended() {
    let all = [(Lockfile, V4), (Sqlite, V3), (Lockfile, V3), (Sqlite, V4)];
    each(0, &all, goes_stale);
}

// shows: lock-file-deleted lockfile, shared
#[test]
fn a_lock_file_that_is_renamed_on_the_other_machine_is_missed_by_its_holder() {
    let all = [(Lockfile, V3), (Lockfile, V4), (Sqlite, V3), (Sqlite, V4)];
    each(1, &all, |kind, mount| {
        loses_its_lock_file(kind, mount, "mv FILE FILE.away");
        if full() {
            loses_its_lock_file(kind, mount, "rm FILE");
        }
    });
}

// shows: store-folder-replaced lockfile, shared
#[test]
fn a_store_s_folder_that_is_replaced_on_the_other_machine_is_missed_by_its_holder() {
    let all = [(Lockfile, V4), (Sqlite, V4), (Lockfile, V3), (Sqlite, V3)];
    each(1, &all, loses_its_folder);
}
