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
use crate::verdict::TELLING;

/// Says whether a holder's own processes are alive; `None` if that can't be seen from here.
pub type Alive<'a> = dyn Fn(&Holder) -> Option<bool> + 'a;

/// A store, looked at from this machine.
pub struct Look<'a> {
    store: &'a dyn Store,
    alive: &'a Alive<'a>,
}

/// How many telling runs of a job are read to find its last success.
const TELLING_LIMIT: usize = 50;

impl<'a> Look<'a> {
    /// At `store`.
    pub fn new(store: &'a dyn Store, alive: &'a Alive<'a>) -> Self {
        Look { store, alive }
    }

    /// The rows that `query` asks for, newest first; one whose processes are known to be gone comes as `abandoned`.
    pub fn runs(&self, query: &Query) -> Result<Vec<RunRecord>, StoreError> {
        self.store.runs(query)?.into_iter().map(|run| self.settled(run)).collect()
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
        let again = self.store.by_prefix(run.run_id.as_str())?.into_iter().next().unwrap_or(run);
        if again.outcome != Outcome::Running || !self.is_dead(&again)? {
            return Ok(again);
        }
        let note = again.note.clone().unwrap_or_else(|| format!("its processes on {} are gone", again.host));
        Ok(RunRecord { outcome: Outcome::Abandoned, note: Some(note), ..again })
    }

    fn is_dead(&self, run: &RunRecord) -> Result<bool, StoreError> {
        let holder = self.store.inspect(&run.lock)?.holder.filter(|holder| holder.run_id == run.run_id);
        Ok(holder.is_some_and(|holder| (self.alive)(&holder) == Some(false)))
    }

    /// Whether the processes of `holder` are gone, as far as this machine can see.
    pub fn is_gone(&self, holder: &Holder) -> bool {
        (self.alive)(holder) == Some(false)
    }

    /// The newest runs of `job` that say something of it, newest first.
    pub fn telling(&self, job: &str) -> Result<Vec<RunRecord>, StoreError> {
        self.runs(&Query { outcomes: TELLING.to_vec(), limit: Some(TELLING_LIMIT), ..of(job) })
    }

    /// The newest attempt of `job`, whatever became of it.
    pub fn newest(&self, job: &str) -> Result<Option<RunRecord>, StoreError> {
        Ok(self.runs(&Query { limit: Some(1), ..of(job) })?.into_iter().next())
    }

    /// The newest run of `job`; an attempt that was refused or skipped is none.
    pub fn last_run(&self, job: &str) -> Result<Option<RunRecord>, StoreError> {
        let query = Query { outcomes: TELLING.to_vec(), limit: Some(1), ..of(job) };
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
        let names = jobs.iter().map(String::as_str).chain(declared.iter().copied());
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
            bail!("{} has not run yet: there is nothing to show", target.as_str());
        };
        let mut runs = Vec::new();
        for run in self.store.by_prefix(prefix)? {
            runs.push(self.settled(run)?);
        }
        match runs.len() {
            0 => bail!("no run begins with {prefix}, and no job has that name: see `joblock history`"),
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
    Query { job: Some(job.to_owned()), ..Query::default() }
}
