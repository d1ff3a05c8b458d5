//! What was measured between two clocks that nobody has set by each other.

use std::time::Duration;

use serde::Serialize;

use super::is_one_machine;
use super::locks::reaches;
use crate::clock::Boot;
use crate::peer::Both;

/// How far the other side's clock is behind ours, and how sure that is, by what both saw of each other's letters.
pub(super) fn offset(here: Option<i64>, there: Option<i64>) -> Option<(i64, u64)> {
    // ours less theirs is at most what we saw, and at least the negative of what they saw
    let (most, least) = (here?, there?.checked_neg()?);
    Some((
        least.midpoint(most),
        most.saturating_sub(least).unsigned_abs() / 2,
    ))
}

/// From a moment of the other side's to one of ours.
pub(super) fn elapsed(both: &Both, theirs: Option<Boot>, ours: Option<Boot>) -> Option<Duration> {
    let (ahead, _) = offset(both.seen_here.boot_ahead_ns, both.seen_there.boot_ahead_ns)?;
    let began = i128::from(theirs?.0) + i128::from(ahead);
    let took = u64::try_from((i128::from(ours?.0) - began).max(0)).ok()?;
    Some(Duration::from_nanos(took))
}

/// The same two, seen from the other side.
pub(super) fn turned(both: &Both) -> Both {
    Both {
        here: both.there.clone(),
        there: both.here.clone(),
        seen_here: both.seen_there.clone(),
        seen_there: both.seen_here.clone(),
    }
}

/// What was measured, in seconds: for programs.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[expect(missing_docs, reason = "docs/json.md describes each field")]
pub struct Measured {
    pub one_machine: bool,
    pub kernel_locks_reach: bool,
    pub sqlite_locks_reach: bool,
    pub clock_behind_seconds: Option<f64>,
    pub here: Waited,
    pub there: Waited,
}

/// What one side waited for the other.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[expect(missing_docs, reason = "docs/json.md describes each field")]
pub struct Waited {
    pub released_seconds: Option<f64>,
    pub takeover_polling_seconds: Option<f64>,
    pub takeover_waiting_seconds: Option<f64>,
    pub name_seconds: Option<f64>,
    pub sqlite_seconds: f64,
}

/// Of two that went through all of it.
pub fn measured(both: &Both) -> Measured {
    let ahead = offset(both.seen_here.wall_ahead_ms, both.seen_there.wall_ahead_ms);
    Measured {
        one_machine: is_one_machine(both),
        kernel_locks_reach: reaches(both, |r| &r.flock),
        sqlite_locks_reach: reaches(both, |r| &r.posix),
        clock_behind_seconds: ahead.map(|(ms, _)| {
            Duration::from_millis(ms.unsigned_abs())
                .as_secs_f64()
                .copysign(if ms < 0 { -1. } else { 1. })
        }),
        here: waited(both),
        there: waited(&turned(both)),
    }
}

fn waited(both: &Both) -> Waited {
    let (theirs, ours) = (&both.seen_there, &both.seen_here);
    let took = |from, to| elapsed(both, from, to).map(|d| d.as_secs_f64());
    Waited {
        released_seconds: took(theirs.flock.released, ours.flock.freed),
        takeover_polling_seconds: took(theirs.killed, ours.polled),
        takeover_waiting_seconds: took(theirs.killed, ours.woken),
        name_seconds: took(theirs.name_made, ours.name_seen),
        sqlite_seconds: Duration::from_millis(ours.sqlite.took_ms).as_secs_f64(),
    }
}
