//! Waiting for a run on any host to end: when to go on, and when to give up. Pure: looks and moments come in.
//!
//! Giving up says nothing about the lock. It only means that whoever was asked doesn't answer.

use std::time::Duration;

use crate::clock::{Boot, Wall};
use crate::name::{RunId, Token};
use crate::store::Observed;

/// How long a holder without a lease may be silent before it counts as not answering: nine heartbeats at the
/// default TTL.
const SILENCE: Duration = Duration::from_secs(45);

/// How much longer than its TTL a holder may be silent: a renewal that is on its way counts.
const MARGIN: Duration = Duration::from_secs(5);

/// How long the holder of `seen` may be silent.
pub fn silence_limit(seen: &Observed) -> Duration {
    seen.ttl.map_or(SILENCE, |ttl| ttl + MARGIN)
}

/// What a look means for who waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sight {
    /// The run has the lock.
    Holds,
    /// It has, and has been silent for longer than it may be.
    Silent(Duration),
    /// The lock is free, or another run's.
    Over,
}

/// Watches one run's hold on a lock. Silence is counted on the watcher's own clock, from its own first look:
/// clocks of other hosts are not asked.
#[derive(Debug)]
pub struct Vigil {
    run: RunId,
    seq: u64,
    moved: Boot,
}

impl Vigil {
    /// Begins at `now`, when `run` was seen to hold the lock after `seq` heartbeats.
    pub fn new(run: RunId, seq: u64, now: Boot) -> Self {
        Vigil {
            run,
            seq,
            moved: now,
        }
    }

    /// Takes a look into account that was begun at `now`.
    pub fn see(&mut self, seen: &Observed, now: Boot) -> Sight {
        if seen
            .holder
            .as_ref()
            .is_none_or(|holder| holder.run_id != self.run)
        {
            return Sight::Over;
        }
        if seen.seq != self.seq {
            (self.seq, self.moved) = (seen.seq, now);
        }
        let silent = now.since(self.moved);
        if silent > silence_limit(seen) {
            Sight::Silent(silent)
        } else {
            Sight::Holds
        }
    }
}

/// Whether `run` holds the lock with `token` at `now`; if not, why.
///
/// Wall clocks are compared here, but only ever those of one machine, since it is the job itself that asks: a
/// lease that its own keeper has not renewed for a whole TTL is no lease. A clock that was set forward makes a
/// wrong "no" until the next heartbeat.
///
/// # Errors
/// Why not, as words for people.
pub fn holds_now(seen: &Observed, run: &RunId, token: Token, now: Wall) -> Result<(), String> {
    match &seen.holder {
        None => return Err("nobody holds it".to_owned()),
        Some(holder) if holder.run_id != *run => {
            return Err(format!("run {} holds it", holder.run_id.short()));
        }
        Some(_) => {}
    }
    if seen.token != Some(token) {
        let newest = seen
            .token
            .map_or_else(|| "none".to_owned(), |t| t.to_string());
        return Err(format!("its newest token is {newest}, not {token}"));
    }
    if let Some(revoked) = &seen.revoked {
        return Err(format!("{} revoked it: {}", revoked.by, revoked.reason));
    }
    let silent = seen
        .heartbeat
        .and_then(|at| now.since(at))
        .unwrap_or_default();
    match seen.ttl {
        Some(ttl) if silent >= ttl => {
            Err(format!("its last heartbeat was {} s ago", silent.as_secs()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::record::tests::holder_of;
    use crate::store::Request;
    use rstest::rstest;

    fn look(seq: u64, ttl: Option<u64>) -> Observed {
        Observed {
            token: Some(Token(1)),
            holder: Some(holder_of("sync")),
            seq,
            heartbeat: None,
            ttl: ttl.map(Duration::from_secs),
            revoked: None,
            stopping: None,
        }
    }

    fn at(seconds: u64) -> Boot {
        Boot(0) + Duration::from_secs(1_000 + seconds)
    }

    fn vigil() -> Vigil {
        Vigil::new(holder_of("sync").run_id, 7, at(0))
    }

    #[test]
    fn a_holder_that_beats_is_waited_for_without_end() {
        let mut vigil = vigil();
        for n in 1..1_000 {
            assert_eq!(vigil.see(&look(7 + n, None), at(n * 40)), Sight::Holds);
        }
    }

    #[test]
    fn silence_is_counted_from_the_last_beat() {
        let mut vigil = vigil();
        assert_eq!(vigil.see(&look(8, None), at(30)), Sight::Holds);
        assert_eq!(vigil.see(&look(8, None), at(75)), Sight::Holds);
        assert_eq!(
            vigil.see(&look(8, None), at(76)),
            Sight::Silent(Duration::from_secs(46))
        );
        assert_eq!(vigil.see(&look(9, None), at(77)), Sight::Holds);
    }

    #[test]
    fn a_lease_brings_its_own_limit() {
        assert_eq!(vigil().see(&look(7, Some(2)), at(7)), Sight::Holds);
        assert_eq!(
            vigil().see(&look(7, Some(2)), at(8)),
            Sight::Silent(Duration::from_secs(8))
        );
    }

    #[test]
    fn it_is_over_when_the_lock_is_free_or_anothers() {
        assert_eq!(
            vigil().see(
                &Observed {
                    holder: None,
                    ..look(7, None)
                },
                at(1)
            ),
            Sight::Over
        );
        let mut other = holder_of("sync");
        other.run_id = RunId::random();
        assert_eq!(
            vigil().see(
                &Observed {
                    holder: Some(other),
                    ..look(0, None)
                },
                at(1)
            ),
            Sight::Over
        );
    }

    fn beating(seconds_ago: i64, ttl: Option<u64>) -> Observed {
        Observed {
            heartbeat: Some(Wall(1_000_000 - seconds_ago * 1_000)),
            ..look(7, ttl)
        }
    }

    fn revoked(seen: Observed) -> Observed {
        let request = Request {
            token: Token(1),
            by: "ann@blue".into(),
            reason: "gone".into(),
            at: Wall(0),
        };
        Observed {
            revoked: Some(request),
            ..seen
        }
    }

    #[rstest]
    #[case::held(beating(2, Some(45)), None)]
    #[case::held_locally_however_silent(beating(1_000, None), None)]
    #[case::heartbeat_from_the_future(beating(-1_000, Some(45)), None)]
    #[case::lease_over(beating(45, Some(45)), Some("45 s ago"))]
    #[case::revoked(revoked(beating(2, None)), Some("ann@blue revoked it: gone"))]
    #[case::released(Observed { holder: None, ..look(7, None) }, Some("nobody"))]
    #[case::granted_again(Observed { token: Some(Token(2)), ..look(7, None) }, Some("token is 2, not 1"))]
    fn holding(#[case] seen: Observed, #[case] why_not: Option<&str>) {
        let said = holds_now(&seen, &holder_of("sync").run_id, Token(1), Wall(1_000_000));
        match why_not {
            None => assert_eq!(said, Ok(())),
            Some(part) => assert!(
                said.clone().is_err_and(|why| why.contains(part)),
                "{said:?}"
            ),
        }
    }

    #[test]
    fn another_run_holds_it() {
        let said = holds_now(&look(7, None), &RunId::random(), Token(1), Wall(0));
        assert_eq!(said, Err("run 00ff00 holds it".to_owned()));
    }
}
