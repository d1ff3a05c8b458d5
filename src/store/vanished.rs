//! What readers make of a row that says `running`: is it? Nothing is written, and no lock is taken.
//!
//! Not guaranteed: that a run on another machine whose heartbeats stopped is dead. It is *shown* as abandoned,
//! so that somebody looks; no lock is ever given away by this.

use std::time::Duration;

use crate::clock::Wall;
use crate::lease::timing::Timing;
use crate::name::{LockName, RunId};

use super::record::{Outcome, Query, RunRecord};
use super::spool::Spool;
use super::{Observed, Place, StoreError};

/// Heartbeats may be late by so much more than a lease before people are told.
pub const GRACE: Duration = Duration::from_secs(15);

/// Gives rows without an end the one that waits in the spool, marks those as abandoned whose grant is gone, and
/// then keeps what `query` asks for. `again` reads a row once more: it may have ended while we looked at its lock.
pub fn settle(
    runs: Vec<RunRecord>,
    query: &Query,
    spool: &Spool,
    here: &Place,
    mut inspect: impl FnMut(&LockName) -> Result<Observed, StoreError>,
    again: impl Fn(&RunId) -> Result<Option<RunRecord>, StoreError>,
) -> Result<Vec<RunRecord>, StoreError> {
    let any = runs.iter().any(|run| run.outcome == Outcome::Running);
    let spooled = if any { spool.entries() } else { Vec::new() };
    let mut settled = Vec::with_capacity(runs.len());
    for mut run in runs {
        if run.outcome == Outcome::Running {
            if let Some((_, entry)) = spooled
                .iter()
                .find(|(_, e)| e.record.run_id == run.run_id && e.record.end.is_some())
            {
                run = entry.record.clone();
            } else if is_gone(&inspect(&run.lock)?, &run, query, here) {
                match again(&run.run_id)? {
                    Some(ended) if ended.outcome != Outcome::Running => run = ended,
                    _ => run.outcome = Outcome::Abandoned,
                }
            }
        }
        if query.outcomes.is_empty() || query.outcomes.contains(&run.outcome) {
            settled.push(run);
        }
    }
    if let Some(limit) = query.limit {
        settled.truncate(limit);
    }
    Ok(settled)
}

fn is_gone(lock: &Observed, run: &RunRecord, query: &Query, here: &Place) -> bool {
    let Some(holder) = lock.holder.as_ref().filter(|h| h.run_id == run.run_id) else {
        return true;
    };
    let alive = if holder.place.same_pids(here) {
        query.alive.and_then(|alive| alive(holder))
    } else {
        None
    };
    alive.map_or_else(
        || {
            let last = lock.heartbeat.unwrap_or(holder.since);
            Wall::now()
                .since(last)
                .is_some_and(|silent| silent > lock.ttl.unwrap_or(Timing::DEFAULT) + GRACE)
        },
        |alive| !alive,
    )
}
