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
use crate::verdict::{TELLING, tells};

/// Says whether any of a holder's own three processes is alive; `None` if that can't be seen from here.
pub type Alive = fn(&Holder) -> Option<bool>;

/// A store, looked at from this machine.
pub struct Look<'a> {
    store: &'a dyn Store,
    alive: Alive,
}

/// How many telling runs of a job are read to find its last success.
const TELLING_LIMIT: usize = 50;

impl<'a> Look<'a> {
    /// At `store`.
    pub fn new(store: &'a dyn Store, alive: Alive) -> Self {
        Look { store, alive }
    }

    /// The rows that `query` asks for, newest first; one whose processes are known to be gone comes as `abandoned`.
    pub fn runs(&self, query: Query) -> Result<Vec<RunRecord>, StoreError> {
        self.store.runs(&Query {
            alive: Some(self.alive),
            ..query
        })
    }

    /// The row of one run.
    pub fn run(&self, id: &RunId) -> Result<Option<RunRecord>, StoreError> {
        Ok(self.by_prefix(id.as_str())?.into_iter().next())
    }

    /// A look by id knows nothing of processes, one by job and time does.
    fn by_prefix(&self, prefix: &str) -> Result<Vec<RunRecord>, StoreError> {
        let settled = |run: RunRecord| {
            if !matches!(run.outcome, Outcome::Running | Outcome::Abandoned) {
                return Ok(run);
            }
            let (since, until) = (Some(run.started), Some(Wall(run.started.0 + 1)));
            let same_moment = self.runs(Query {
                since,
                until,
                ..of(run.job.as_str())
            })?;
            Ok(same_moment
                .into_iter()
                .find(|other| other.run_id == run.run_id)
                .unwrap_or(run))
        };
        self.store
            .by_prefix(prefix)?
            .into_iter()
            .map(settled)
            .collect()
    }

    /// Whether the processes of `holder` are gone, as far as this machine can see.
    pub fn is_gone(&self, holder: &Holder) -> bool {
        (self.alive)(holder) == Some(false)
    }

    /// The newest runs of `job` that say something of it, newest first.
    pub fn telling(&self, job: &str) -> Result<Vec<RunRecord>, StoreError> {
        // A limit of the query's would count the ones that say nothing.
        let mut runs = self.runs(Query {
            outcomes: TELLING.to_vec(),
            ..of(job)
        })?;
        runs.retain(tells);
        runs.truncate(TELLING_LIMIT);
        Ok(runs)
    }

    /// The newest attempt of `job`, whatever became of it.
    pub fn newest(&self, job: &str) -> Result<Option<RunRecord>, StoreError> {
        self.newest_with(job, &[])
    }

    /// The newest run of `job`; an attempt that was refused, skipped or not started without the lock is none.
    pub fn last_run(&self, job: &str) -> Result<Option<RunRecord>, StoreError> {
        Ok(self.telling(job)?.into_iter().next())
    }

    /// The newest attempt of `job` that was skipped because it had succeeded.
    pub fn last_fresh(&self, job: &str) -> Result<Option<RunRecord>, StoreError> {
        self.newest_with(job, &[Outcome::Fresh])
    }

    fn newest_with(
        &self,
        job: &str,
        outcomes: &[Outcome],
    ) -> Result<Option<RunRecord>, StoreError> {
        let query = Query {
            outcomes: outcomes.to_vec(),
            limit: Some(1),
            ..of(job)
        };
        Ok(self.runs(query)?.into_iter().next())
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

    /// How many wait for a lock.
    pub fn waiting(&self, lock: &LockName) -> Result<u32, StoreError> {
        self.store.waiting(lock)
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
        let mut runs = self.by_prefix(prefix)?;
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
    use crate::store::pruning::{Prune, Pruned};
    use crate::store::record::{Attempted, End, Tail};
    use crate::store::{
        About, Attempt, Finding, History, LockRequest, Locks, Queued, Recorded, Request,
    };
    use rstest::rstest;

    /// Rows in memory, to be looked at and nothing else.
    struct Fake(Vec<RunRecord>);

    const NO_WRITER: &str = "a look writes nothing";

    impl Locks for Fake {
        fn try_acquire(&self, _: &LockRequest<'_>, _: Option<Boot>) -> Result<Attempt, StoreError> {
            panic!("{NO_WRITER}")
        }
        fn queue(&self, _: &LockName, _: Option<u32>) -> Result<Result<Queued, u32>, StoreError> {
            panic!("{NO_WRITER}")
        }
        fn waiting(&self, _: &LockName) -> Result<u32, StoreError> {
            panic!("not asked for")
        }
        fn inspect(&self, _: &LockName) -> Result<Observed, StoreError> {
            panic!("not asked for")
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
        fn lock_file(&self, _: &LockName) -> std::path::PathBuf {
            panic!("not asked for")
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
            let mut rows = self.0.clone();
            let gone = query.alive.and_then(|alive| alive(&holder_of("sync"))) == Some(false);
            for row in rows
                .iter_mut()
                .filter(|r| gone && r.outcome == Outcome::Running)
            {
                row.outcome = Outcome::Abandoned;
            }
            rows.retain(|r| query.job.as_ref().is_none_or(|job| job == r.job.as_str()));
            rows.retain(|r| query.since.is_none_or(|since| r.started >= since));
            rows.retain(|r| query.until.is_none_or(|until| r.started < until));
            rows.retain(|r| query.outcomes.is_empty() || query.outcomes.contains(&r.outcome));
            rows.truncate(query.limit.unwrap_or(usize::MAX));
            Ok(rows)
        }
        fn by_prefix(&self, prefix: &str) -> Result<Vec<RunRecord>, StoreError> {
            Ok(self
                .0
                .iter()
                .filter(|r| r.run_id.as_str().starts_with(prefix))
                .cloned()
                .collect())
        }
        fn last_success(&self, _: &str) -> Result<Option<Wall>, StoreError> {
            panic!("not asked for")
        }
        fn jobs(&self) -> Result<Vec<String>, StoreError> {
            Ok(self.0.iter().map(|r| r.job.to_string()).collect())
        }
        fn tail(&self, _: &RunId) -> Result<Option<Tail>, StoreError> {
            panic!("not asked for")
        }
        fn prune(&self, _: &Prune) -> Result<Pruned, StoreError> {
            panic!("{NO_WRITER}")
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

    #[test]
    fn a_look_by_id_says_the_same_as_a_look_by_job() {
        let fake = Fake(vec![running()]);
        let outcome = |alive: Alive| {
            let run = Look::new(&fake, alive)
                .run(&running().run_id)
                .expect("a row")
                .expect("it is there");
            run.outcome
        };
        assert_eq!(outcome(|_| Some(true)), Outcome::Running);
        assert_eq!(outcome(|_| Some(false)), Outcome::Abandoned);
    }

    fn found(target: &str) -> Result<Vec<String>, String> {
        let rows = vec![
            row("sync", "aaaaaa0000000001", Outcome::Refused),
            row("sync", "aaaaaa0000000002", Outcome::Failed),
            row("decade", "bbbbbb0000000003", Outcome::Refused),
            row("other", "decade0000000004", Outcome::Succeeded),
        ];
        let fake = Fake(rows);
        let target: Target = target.parse().expect("a target");
        match Look::new(&fake, |_| None).find(&target, &["nightly"]) {
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
