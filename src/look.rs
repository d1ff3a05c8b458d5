//! What the reading commands see: history rows, locks, and those processes that this machine can see, put together.
//! A look takes no lock and writes nothing.
//!
//! Not guaranteed: that a run which shows as running still runs, if it is of another machine or another pid
//! namespace. Then only the age of its heartbeat tells.

use anyhow::bail;

use crate::cli::Target;
use crate::clock::Wall;
use crate::guess::did_you_mean;
use crate::name::{LockName, RunId};
use crate::store::record::{Outcome, Query, RunRecord};
use crate::store::{Holder, Observed, Store, StoreError};
use crate::supervise::tree::Tree;
use crate::verdict::TELLING;

/// What this machine can see of a run's processes.
pub trait Sees {
    /// Whether any of the holder's own three processes is alive; `None` if that can't be seen from here.
    fn alive(&self, holder: &Holder) -> Option<bool>;
}

impl Sees for Tree {
    fn alive(&self, holder: &Holder) -> Option<bool> {
        Tree::alive(self, holder)
    }
}

/// A store, looked at from this machine.
pub struct Look<'a> {
    store: &'a dyn Store,
    here: &'a dyn Sees,
}

/// How many telling runs of a job are read to find its last success.
const TELLING_LIMIT: usize = 50;

impl<'a> Look<'a> {
    /// At `store`.
    pub fn new(store: &'a dyn Store, here: &'a dyn Sees) -> Self {
        Look { store, here }
    }

    /// The rows that `query` asks for, newest first; one whose processes are known to be gone comes as `abandoned`.
    pub fn runs(&self, query: &Query) -> Result<Vec<RunRecord>, StoreError> {
        self.store
            .runs(query)?
            .into_iter()
            .map(|run| self.settled(run))
            .collect()
    }

    /// The row of one run.
    pub fn run(&self, id: &RunId) -> Result<Option<RunRecord>, StoreError> {
        let found = self.store.by_prefix(id.as_str())?.into_iter().next();
        found.map(|run| self.settled(run)).transpose()
    }

    fn settled(&self, run: RunRecord) -> Result<RunRecord, StoreError> {
        if run.outcome != Outcome::Running || !self.is_dead(&run)? {
            return Ok(run);
        }
        // It may have ended between the two looks. A run releases before its processes go, so a lock that
        // still names it now belongs to no one.
        let again = self
            .store
            .by_prefix(run.run_id.as_str())?
            .into_iter()
            .next()
            .unwrap_or(run);
        if again.outcome != Outcome::Running || !self.is_dead(&again)? {
            return Ok(again);
        }
        let note = again
            .note
            .clone()
            .unwrap_or_else(|| format!("its processes on {} are gone", again.host));
        Ok(RunRecord {
            outcome: Outcome::Abandoned,
            note: Some(note),
            ..again
        })
    }

    fn is_dead(&self, run: &RunRecord) -> Result<bool, StoreError> {
        let holder = self
            .store
            .inspect(&run.lock)?
            .holder
            .filter(|holder| holder.run_id == run.run_id);
        Ok(holder.is_some_and(|holder| self.here.alive(&holder) == Some(false)))
    }

    /// Whether the processes of `holder` are gone, as far as this machine can see.
    pub fn is_gone(&self, holder: &Holder) -> bool {
        self.here.alive(holder) == Some(false)
    }

    /// The newest runs of `job` that say something of it, newest first.
    pub fn telling(&self, job: &str) -> Result<Vec<RunRecord>, StoreError> {
        self.runs(&Query {
            outcomes: TELLING.to_vec(),
            limit: Some(TELLING_LIMIT),
            ..of(job)
        })
    }

    /// The newest attempt of `job`, whatever became of it.
    pub fn newest(&self, job: &str) -> Result<Option<RunRecord>, StoreError> {
        Ok(self
            .runs(&Query {
                limit: Some(1),
                ..of(job)
            })?
            .into_iter()
            .next())
    }

    /// The newest run of `job`; an attempt that was refused or skipped is none.
    pub fn last_run(&self, job: &str) -> Result<Option<RunRecord>, StoreError> {
        let query = Query {
            outcomes: TELLING.to_vec(),
            limit: Some(1),
            ..of(job)
        };
        Ok(self.runs(&query)?.into_iter().next())
    }

    /// The lock of `job`: what the jobs file says, else that of its last attempt, else the one of its name.
    ///
    /// # Errors
    /// The store's, and that `job` can be no name.
    pub fn lock_of(&self, job: &str, declared: Option<&LockName>) -> anyhow::Result<LockName> {
        if let Some(lock) = declared {
            return Ok(lock.clone());
        }
        Ok(match self.newest(job)? {
            Some(run) => run.lock,
            None => job.parse()?,
        })
    }

    /// A lock, if it was ever granted.
    pub fn lock(&self, lock: &LockName) -> Result<Option<Observed>, StoreError> {
        let seen = self.store.inspect(lock)?;
        Ok(seen.token.is_some().then_some(seen))
    }

    /// The end of the newest success.
    pub fn last_success(&self, job: &str) -> Result<Option<Wall>, StoreError> {
        self.store.last_success(job)
    }

    /// Every job with a history, by name.
    pub fn jobs(&self) -> Result<Vec<String>, StoreError> {
        let mut jobs = self.store.jobs()?;
        jobs.sort();
        Ok(jobs)
    }

    /// Ends with a guess when `job` has no history and isn't one of `declared`.
    ///
    /// # Errors
    /// The store's, and that nobody knows `job`.
    pub fn known(&self, job: &str, declared: &[&str]) -> anyhow::Result<()> {
        if declared.contains(&job) {
            return Ok(());
        }
        let jobs = self.jobs()?;
        if jobs.iter().any(|known| known == job) {
            return Ok(());
        }
        let names = jobs
            .iter()
            .map(String::as_str)
            .chain(declared.iter().copied());
        bail!("no job {job:?} has ever run{}", did_you_mean(job, names));
    }

    /// What `target` means: the last run of the job of that name, else the run whose id begins so.
    ///
    /// # Errors
    /// The store's, and that nothing fits.
    pub fn find(&self, target: &Target, declared: &[&str]) -> anyhow::Result<Found> {
        if let Some(job) = target.as_job() {
            let run = match self.last_run(job.as_str())? {
                Some(run) => Some(run),
                None => self.newest(job.as_str())?,
            };
            if let Some(run) = run {
                return Ok(Found::One(Box::new(run)));
            }
        }
        let Some(prefix) = target.as_run_prefix() else {
            self.known(target.as_str(), declared)?;
            bail!(
                "{} has not run yet: there is nothing to show",
                target.as_str()
            );
        };
        let mut runs = Vec::new();
        for run in self.store.by_prefix(prefix)? {
            runs.push(self.settled(run)?);
        }
        match runs.len() {
            0 => bail!(
                "no run begins with {prefix}, and no job has that name: see `joblock history`"
            ),
            1 => Ok(Found::One(Box::new(runs.remove(0)))),
            _ => Ok(Found::Several(runs)),
        }
    }
}

/// What a target means.
pub enum Found {
    /// This run.
    One(Box<RunRecord>),
    /// Any of these: the digits are too few.
    Several(Vec<RunRecord>),
}

fn of(job: &str) -> Query {
    Query {
        job: Some(job.to_owned()),
        ..Query::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Boot;
    use crate::name::Token;
    use crate::output::record::tests::{holder_of, run};
    use crate::store::record::{Attempted, End, Tail};
    use crate::store::{About, Attempt, Finding, History, LockRequest, Locks, Recorded, Request};
    use rstest::rstest;
    use std::sync::Mutex;

    /// Rows and one lock in memory. It can be looked at and nothing else; `ends_at_look` releases the lock and ends
    /// its run after so many looks at the lock.
    struct Fake {
        rows: Mutex<Vec<RunRecord>>,
        seen: Observed,
        looks: Mutex<usize>,
        ends_at_look: usize,
    }

    impl Fake {
        fn new(rows: Vec<RunRecord>) -> Self {
            let seen = Observed {
                token: Some(Token(1)),
                holder: Some(holder_of("sync")),
                seq: 1,
                heartbeat: None,
                ttl: None,
                revoked: None,
                stopping: None,
            };
            Fake {
                rows: Mutex::new(rows),
                seen,
                looks: Mutex::new(0),
                ends_at_look: usize::MAX,
            }
        }

        fn rows(&self) -> Vec<RunRecord> {
            self.rows.lock().expect("no test panicked").clone()
        }
    }

    struct Says(Option<bool>);

    impl Sees for Says {
        fn alive(&self, _: &Holder) -> Option<bool> {
            self.0
        }
    }

    const NO_WRITER: &str = "a look writes nothing";

    impl Locks for Fake {
        fn try_acquire(&self, _: &LockRequest<'_>, _: Option<Boot>) -> Result<Attempt, StoreError> {
            panic!("{NO_WRITER}")
        }
        fn inspect(&self, _: &LockName) -> Result<Observed, StoreError> {
            let mut looks = self.looks.lock().expect("no test panicked");
            *looks += 1;
            if *looks < self.ends_at_look {
                return Ok(self.seen.clone());
            }
            self.rows.lock().expect("no test panicked")[0].outcome = Outcome::Succeeded;
            Ok(Observed {
                holder: None,
                ..self.seen.clone()
            })
        }
        fn locks(&self) -> Result<Vec<LockName>, StoreError> {
            panic!("not asked for")
        }
        fn request_stop(&self, _: &LockName, _: &Request) -> Result<(), StoreError> {
            panic!("{NO_WRITER}")
        }
        fn revoke(&self, _: &LockName, _: &Request) -> Result<(), StoreError> {
            panic!("{NO_WRITER}")
        }
        fn probe(&self) -> Vec<Finding> {
            panic!("{NO_WRITER}")
        }
    }

    impl History for Fake {
        fn attempted(&self, _: &RunRecord, _: &Attempted) -> Result<Recorded, StoreError> {
            panic!("{NO_WRITER}")
        }
        fn end_of(
            &self,
            _: &RunRecord,
            _: Token,
            _: &End,
            _: Option<&Tail>,
        ) -> Result<Recorded, StoreError> {
            panic!("{NO_WRITER}")
        }
        fn runs(&self, query: &Query) -> Result<Vec<RunRecord>, StoreError> {
            let mut rows = self.rows();
            rows.retain(|r| query.job.as_ref().is_none_or(|job| job == r.job.as_str()));
            rows.retain(|r| query.outcomes.is_empty() || query.outcomes.contains(&r.outcome));
            rows.truncate(query.limit.unwrap_or(usize::MAX));
            Ok(rows)
        }
        fn by_prefix(&self, prefix: &str) -> Result<Vec<RunRecord>, StoreError> {
            Ok(self
                .rows()
                .into_iter()
                .filter(|r| r.run_id.as_str().starts_with(prefix))
                .collect())
        }
        fn last_success(&self, _: &str) -> Result<Option<Wall>, StoreError> {
            panic!("not asked for")
        }
        fn jobs(&self) -> Result<Vec<String>, StoreError> {
            Ok(self.rows().iter().map(|r| r.job.to_string()).collect())
        }
        fn tail(&self, _: &RunId) -> Result<Option<Tail>, StoreError> {
            panic!("not asked for")
        }
    }

    impl Store for Fake {
        fn about(&self) -> About {
            panic!("not asked for")
        }
    }

    fn row(job: &str, id: &str, outcome: Outcome) -> RunRecord {
        RunRecord {
            run_id: id.parse().expect("a run id"),
            ..run(job, 60, outcome)
        }
    }

    fn running() -> RunRecord {
        row("sync", holder_of("sync").run_id.as_str(), Outcome::Running)
    }

    #[rstest]
    #[case::alive(Some(true), Outcome::Running)]
    #[case::cannot_be_seen(None, Outcome::Running)]
    #[case::gone(Some(false), Outcome::Abandoned)]
    fn a_run_whose_processes_are_gone_is_abandoned(
        #[case] alive: Option<bool>,
        #[case] outcome: Outcome,
    ) {
        let fake = Fake::new(vec![running()]);
        let alive = Says(alive);
        let runs = Look::new(&fake, &alive)
            .runs(&Query::default())
            .expect("rows");
        assert_eq!(runs[0].outcome, outcome);
        assert_eq!(runs[0].note.is_some(), outcome == Outcome::Abandoned);
    }

    #[test]
    fn a_run_that_ends_between_two_looks_is_not_abandoned() {
        let fake = Fake {
            ends_at_look: 2,
            ..Fake::new(vec![running()])
        };
        let runs = Look::new(&fake, &Says(Some(false)))
            .runs(&Query::default())
            .expect("rows");
        assert_ne!(runs[0].outcome, Outcome::Abandoned);
    }

    fn found(target: &str) -> Result<Vec<String>, String> {
        let rows = vec![
            row("sync", "aaaaaa0000000001", Outcome::Refused),
            row("sync", "aaaaaa0000000002", Outcome::Failed),
            row("decade", "bbbbbb0000000003", Outcome::Refused),
            row("other", "decade0000000004", Outcome::Succeeded),
        ];
        let fake = Fake::new(rows);
        let target: Target = target.parse().expect("a target");
        match Look::new(&fake, &Says(None)).find(&target, &["nightly"]) {
            Ok(Found::One(run)) => Ok(vec![run.run_id.to_string()]),
            Ok(Found::Several(runs)) => Ok(runs.iter().map(|r| r.run_id.to_string()).collect()),
            Err(error) => Err(error.to_string()),
        }
    }

    #[rstest]
    #[case::a_job_by_its_last_run("sync", &["aaaaaa0000000002"])]
    #[case::a_whole_id("aaaaaa0000000001", &["aaaaaa0000000001"])]
    #[case::six_digits("bbbbbb", &["bbbbbb0000000003"])]
    #[case::too_few_digits("aaaaaa", &["aaaaaa0000000001", "aaaaaa0000000002"])]
    #[case::a_job_before_an_id("decade", &["bbbbbb0000000003"])]
    #[case::an_id_like_a_job("decade0", &["decade0000000004"])]
    fn targets(#[case] target: &str, #[case] ids: &[&str]) {
        assert_eq!(
            found(target),
            Ok(ids.iter().map(ToString::to_string).collect())
        );
    }

    #[rstest]
    #[case("synk", "did you mean \"sync\"?")]
    #[case("nihgtly", "did you mean \"nightly\"?")]
    #[case("nightly", "has not run yet")]
    #[case("cccccc", "no run begins with cccccc")]
    fn targets_that_are_nothing(#[case] target: &str, #[case] says: &str) {
        let error = found(target).expect_err("nothing");
        assert!(error.contains(says), "{error}");
    }
}
