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
#[path = "campaign/round.rs"]
mod round;
#[path = "campaign/torment.rs"]
mod torment;
#[path = "campaign/verdict.rs"]
mod verdict;
#[path = "campaign/witness.rs"]
mod witness;
#[path = "campaign/worker.rs"]
mod worker;

#[test]
fn under_fire_no_two_jobs_live_at_once_and_no_row_is_lost_or_doubled() {
    if !common::may_use_root("it freezes cgroups and mounts file systems") {
        return;
    }
    round::campaign();
}
