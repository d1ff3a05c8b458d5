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
    Restart, becomes_read_only, forgets, goes_stale, is_full, loses_its_lock_file, restarts,
};
use nfs::stage::Kind::{self, Lockfile, Sqlite};

const V3: &str = "vers=3";
const V4: &str = "vers=4.2";

/// Runs on each machine, beside starts that are refused.
fn runs() -> u64 {
    if full() { 500 } else { 6 }
}

fn never_overlap(kind: Kind, all: &[(&'static str, [&str; 2])], short: &str) {
    let mut record = Record::new(
        if kind == Lockfile {
            "nfs_lockfile"
        } else {
            "nfs_sqlite"
        },
        "make nfs",
    );
    for (name, mounts) in all {
        if !full() && *name != short {
            continue;
        }
        let Some(came_to) = contend(kind, name, *mounts, runs()) else {
            return;
        };
        let per_minute = came_to.runs * 60 / came_to.took.as_secs().max(1);
        record = record
            .figure(
                format!("{name}: runs on two machines, all of them apart by the witness"),
                came_to.runs,
            )
            .figure(format!("{name}: starts refused meanwhile"), came_to.refused)
            .figure(format!("{name}: runs a minute"), per_minute);
    }
    record
        .figure(
            "overlaps, gaps in the tokens, rows lost or doubled, differences between the machines' histories",
            0,
        )
        .write();
}

// shows: contention lockfile
#[test]
fn starts_on_two_machines_never_overlap_in_a_folder_of_lock_files() {
    never_overlap(
        Lockfile,
        &[
            ("v3", [V3, V3]),
            ("v4.0", ["vers=4.0", "vers=4.0"]),
            ("v4.1", ["vers=4.1", "vers=4.1"]),
            ("v4.2", [V4, V4]),
            ("v3 and v4.2", [V3, V4]),
        ],
        "v3 and v4.2",
    );
}

// shows: contention shared
#[test]
fn starts_on_two_machines_never_overlap_with_a_shared_database() {
    never_overlap(
        Sqlite,
        &[
            ("v3", [V3, V3]),
            ("v4.2", [V4, V4]),
            ("v3 and v4.2", [V3, V4]),
        ],
        "v4.2",
    );
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
