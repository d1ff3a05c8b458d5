//! The campaign: many starts through the real program, on every kind of store, while their processes are killed, stopped and
//! frozen; an outside witness says whether two jobs ever lived at once, and the history must tell of every attempt.
//!
//! `make check` runs a short one with a fresh seed. The full length: `make campaign ACQUISITIONS=1000000`.

mod common;

#[path = "campaign/arena.rs"]
mod arena;
#[path = "campaign/fuse.rs"]
mod fuse;
#[path = "campaign/host.rs"]
mod host;
#[path = "campaign/plan.rs"]
mod plan;
#[path = "campaign/power.rs"]
mod power;
#[path = "common/random.rs"]
mod random;
#[path = "campaign/reach.rs"]
mod reach;
#[path = "campaign/round.rs"]
mod round;
#[path = "campaign/torment.rs"]
mod torment;
#[path = "campaign/trouble.rs"]
mod trouble;
#[path = "campaign/verdict.rs"]
mod verdict;
#[path = "campaign/witness.rs"]
mod witness;
#[path = "campaign/worker.rs"]
mod worker;

/// The arenas with far stores prove nothing otherwise.
#[test]
fn of_two_far_mounts_flock_does_not_reach_the_other_one_and_posix_locks_and_data_do() {
    if !common::may_use_root("it mounts file systems") || !fuse::is_there() {
        return;
    }
    reach::show();
}

// shows: contention local, shared, lockfile
// shows: front-killed local, shared, lockfile
// shows: keeper-killed local, shared, lockfile
// shows: guard-killed local, shared, lockfile
// shows: two-killed local, shared, lockfile
// shows: all-killed local, shared, lockfile
// shows: job-killed local, shared, lockfile
// shows: leaked-children local, shared, lockfile
// shows: stopped-past-ttl local, shared, lockfile
// shows: frozen-past-ttl shared
// shows: host-lost shared
// shows: partition shared
// shows: disk-full local, shared, lockfile
// shows: read-only local, shared, lockfile
// shows: lock-file-deleted local, shared, lockfile
#[test]
fn under_fire_no_two_jobs_live_at_once_and_no_row_is_lost_or_doubled() {
    if !common::may_use_root("it freezes cgroups and mounts file systems") {
        return;
    }
    round::campaign();
}

#[test]
fn the_witness_reports_jobs_without_a_lock() {
    assert!(!power::no_lock().overlaps.is_empty());
}

#[test]
fn the_witness_reports_a_lock_that_a_killed_wrapper_lets_go_of() {
    assert!(!power::flock_with_a_killed_wrapper().overlaps.is_empty());
}

#[test]
fn the_witness_reports_a_lease_that_is_taken_over_too_early() {
    if !common::may_use_root("it mounts file systems") {
        return;
    }
    if !fuse::is_there() {
        return;
    }
    assert!(!power::a_lease_taken_over_too_early().overlaps.is_empty());
}
