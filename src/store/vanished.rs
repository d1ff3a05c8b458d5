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
const GRACE: Duration = Duration::from_secs(15);

impl Observed {
    /// When the holder gave its last sign of life, by its clock on the wall.
    pub fn last_sign(&self) -> Option<Wall> {
        let holder = self.holder.as_ref()?;
        Some(self.heartbeat.unwrap_or(holder.since))
    }

    /// For how long the holder has given no sign of life, if that is longer than a lease can explain. By the wall clocks of two machines: it
    /// is for people, and no lock is given away by it.
    pub fn silence(&self, now: Wall) -> Option<Duration> {
        let last = self.last_sign()?;
        let patience = self.ttl.unwrap_or(Timing::DEFAULT) + GRACE;
        now.since(last).filter(|silent| *silent > patience)
    }
}

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
    let spooled = if any { spool.records() } else { Vec::new() };
    let mut settled = Vec::with_capacity(runs.len());
    for mut run in runs {
        if run.outcome == Outcome::Running {
            if let Some(ended) = spooled
                .iter()
                .find(|record| record.run_id == run.run_id && record.end.is_some())
            {
                run = ended.clone();
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

/// Adds to the rows, the newest first, those of `spooled` that are not among them and `are_asked_for`: a database that takes
/// nothing hides no attempt.
pub fn with_spooled(
    mut runs: Vec<RunRecord>,
    mut spooled: Vec<RunRecord>,
    are_asked_for: impl Fn(&RunRecord) -> bool,
) -> Vec<RunRecord> {
    // of one run, what has its end comes first
    spooled.sort_by_key(|record| record.end.is_none());
    for record in spooled {
        if runs.iter().all(|run| run.run_id != record.run_id) && are_asked_for(&record) {
            let at = runs.partition_point(|run| run.started > record.started);
            runs.insert(at, record);
        }
    }
    runs
}

/// As the rows are chosen; what stands as `running` may turn out to be something else yet.
pub fn matches(record: &RunRecord, query: &Query) -> bool {
    query
        .job
        .as_deref()
        .is_none_or(|job| record.job.as_str() == job)
        && query.since.is_none_or(|since| record.started >= since)
        && query.until.is_none_or(|until| record.started < until)
        && query.host.as_ref().is_none_or(|host| record.host == *host)
        && query
            .trigger
            .is_none_or(|trigger| record.trigger == trigger)
        && (query.outcomes.is_empty()
            || record.outcome == Outcome::Running
            || query.outcomes.contains(&record.outcome))
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
    alive.map_or_else(|| lock.silence(Wall::now()).is_some(), |alive| !alive)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::record::tests::{NOW, ago, holder_of, run};
    use crate::store::record::Trigger;
    use crate::store::spool::Entry;

    #[test]
    fn what_waits_in_the_spool_is_told_in_its_place_and_once() {
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool::at(dir.path().join("spool"));
        let write = |record: &RunRecord| drop(spool.write(&Entry::new(record.clone(), None)));
        let mut began = run("sync", 20, Outcome::Running);
        began.run_id = RunId::random();
        began.end = None;
        let mut ended = run("sync", 20, Outcome::Succeeded);
        ended.run_id = began.run_id.clone();
        write(&began);
        write(&ended);
        write(&run("other", 15, Outcome::Failed));
        let stored = || {
            let mut stored = [10, 30].map(|ago| run("sync", ago, Outcome::Failed));
            for record in &mut stored {
                record.run_id = RunId::random();
            }
            stored.to_vec()
        };
        let of_job = Query {
            job: Some("sync".into()),
            ..Query::default()
        };
        let told = with_spooled(stored(), spool.records(), |r| matches(r, &of_job));
        let outcomes: Vec<_> = told.iter().map(|r| r.outcome).collect();
        assert_eq!(
            outcomes,
            [Outcome::Failed, Outcome::Succeeded, Outcome::Failed]
        );
        assert_eq!(
            with_spooled(told, spool.records(), |r| matches(r, &of_job)).len(),
            3
        );
        let failed = Query {
            outcomes: vec![Outcome::Failed],
            ..of_job
        };
        let told = with_spooled(Vec::new(), spool.records(), |r| matches(r, &failed));
        // its end is known once it is settled
        assert!(
            told.iter().all(|r| r.outcome == Outcome::Running),
            "{told:?}"
        );
    }

    #[test]
    fn who_ended_while_his_lock_was_looked_at_is_not_abandoned() {
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool::at(dir.path().join("spool"));
        let running = run("sync", 20, Outcome::Running);
        let ended = run("sync", 20, Outcome::Failed);
        let outcome = |again: Option<&RunRecord>| {
            let settled = settle(
                vec![running.clone()],
                &Query::default(),
                &spool,
                &Place::here(),
                |_| Ok(Observed::nobody()),
                |_| Ok(again.cloned()),
            );
            settled.unwrap()[0].outcome
        };
        assert_eq!(outcome(Some(&ended)), Outcome::Failed);
        assert_eq!(outcome(Some(&running)), Outcome::Abandoned);
        assert_eq!(outcome(None), Outcome::Abandoned);
        spool.write(&Entry::new(ended, None)).unwrap();
        assert_eq!(outcome(None), Outcome::Failed);
    }

    #[test]
    fn a_holder_is_silent_when_a_lease_can_t_explain_it() {
        let observed = |heartbeat, ttl: Option<u64>| Observed {
            holder: Some(holder_of("sync")),
            heartbeat,
            ttl: ttl.map(Duration::from_secs),
            ..Observed::nobody()
        };
        let silent = |seconds| Some(Duration::from_secs(seconds));
        // 45 s and 15 s
        assert_eq!(observed(Some(ago(60)), None).silence(NOW), None);
        assert_eq!(observed(Some(ago(61)), None).silence(NOW), silent(61));
        assert_eq!(observed(Some(ago(25)), Some(10)).silence(NOW), None);
        assert_eq!(observed(Some(ago(26)), Some(10)).silence(NOW), silent(26));
        // since its grant
        assert_eq!(observed(None, None).silence(NOW), silent(200));
        assert_eq!(Observed::nobody().silence(NOW), None);
    }

    #[test]
    fn each_part_of_a_query_keeps_what_does_not_fit_out() {
        let record = run("sync", 20, Outcome::Failed);
        let all = Query::default;
        let asked = |query: Query| matches(&record, &query);
        let job = |name: &str| Some(name.into());
        assert!(asked(all()));
        assert!(
            asked(Query {
                job: job("sync"),
                ..all()
            }) && !asked(Query {
                job: job("other"),
                ..all()
            })
        );
        let (at, after) = (record.started, Wall(record.started.0 + 1));
        assert!(
            asked(Query {
                since: Some(at),
                ..all()
            }) && !asked(Query {
                since: Some(after),
                ..all()
            })
        );
        assert!(
            asked(Query {
                until: Some(after),
                ..all()
            }) && !asked(Query {
                until: Some(at),
                ..all()
            })
        );
        let host = Some(record.host.clone());
        assert!(
            asked(Query { host, ..all() })
                && !asked(Query {
                    host: job("other"),
                    ..all()
                })
        );
        assert!(asked(Query {
            trigger: Some(record.trigger),
            ..all()
        }));
        assert!(!asked(Query {
            trigger: Some(Trigger::Operator),
            ..all()
        }));
        for (outcome, fits) in [(Outcome::Failed, true), (Outcome::Lost, false)] {
            assert_eq!(
                asked(Query {
                    outcomes: vec![outcome],
                    ..all()
                }),
                fits
            );
        }
    }
}
