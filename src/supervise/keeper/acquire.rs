//! From "asked for" to "granted" or "not run": freshness, a lock that changed its name, contention, waiting.

use crate::clock::{Boot, Wall};
use crate::exit;
use crate::name::LockName;
use crate::output::Page;
use crate::output::record::holder as holder_text;
use crate::output::text::visible;
use crate::plan::{Fresh, Wait};
use crate::schedule::Zone;
use crate::store::freeing::Freeing;
use crate::store::mount::lies;
use crate::store::record::{Attempted, End, OutOfMemory, Outcome, Query, RunRecord};
use crate::store::{
    Attempt, Grant, Holder, LockRequest, Observed, Purpose, Queued, Store, StoreError, open,
    remote, twin,
};
use crate::supervise::messages::{FromKeeper, FrontToKeeper, Level, Received, Word};
use crate::supervise::{process, tree};

use super::Keeper;

/// A success that is dated further in the future than this was dated by a clock that is wrong.
const FUTURE: i64 = 5 * 60 * 1000;

/// What came of an attempt.
pub enum Verdict {
    /// The lock is ours, the row is written.
    Granted(Box<dyn Store>, Box<dyn Grant>),
    /// Front exits with this code; the attempt is recorded where that was possible.
    NotRun(u8),
}

/// Why the job is not run.
struct Refusal {
    code: u8,
    /// What to record; `None` for a grant that was given back, which has its row.
    record: Option<(Outcome, Option<Holder>)>,
    word: Word,
    /// The word stands in the record, too.
    note: bool,
}

impl Keeper<'_> {
    /// Asks the store for everything, in the order in which it must be asked.
    pub fn acquire(&mut self) -> Verdict {
        let opened = self.look_at_mount().and_then(|()| {
            open(
                &self.plan.store,
                Purpose::Run,
                self.plan.store_id.as_deref(),
            )
        });
        let store = match opened {
            Ok(store) => {
                self.holder.freeing = Freeing::of(&self.plan.store);
                store
            }
            Err(error) => {
                self.say(
                    Level::Error,
                    format!("{error}; the job was not started, and this attempt is in no history"),
                );
                return Verdict::NotRun(exit::STORE_UNUSABLE);
            }
        };
        match self.ask(store.as_ref()) {
            Ok(Ok(grant)) => Verdict::Granted(store, grant),
            Ok(Err(refusal)) => Verdict::NotRun(self.refuse(store.as_ref(), refusal)),
            Err(error) => {
                let word = Word {
                    level: Level::Error,
                    text: format!("{error}; the job was not started"),
                };
                let refusal = Refusal {
                    code: exit::STORE_UNUSABLE,
                    record: Some((Outcome::NotStarted, None)),
                    word,
                    note: true,
                };
                Verdict::NotRun(self.refuse(store.as_ref(), refusal))
            }
        }
    }

    /// Refuses a mount that lies, or puts what was accepted into the record.
    fn look_at_mount(&mut self) -> Result<(), StoreError> {
        let lies = lies::of_store(&self.plan.store)?;
        if lies.is_empty() {
            return Ok(());
        }
        let listed = lies::listed(&lies);
        let Some(accepted) = &mut self.record.unsafe_mount else {
            return Err(StoreError::Unusable(format!(
                "{listed}; the store is not safe like this, and --accept-unsafe-mount REASON starts a job all the same"
            )));
        };
        accepted.accepted = lies.into_iter().map(|lie| lie.what).collect();
        let text = format!(
            "the store is not safe, and that is accepted ({}): {listed}",
            visible(&accepted.reason)
        );
        self.say(Level::Warning, text);
        Ok(())
    }

    fn ask(&self, store: &dyn Store) -> Result<Result<Box<dyn Grant>, Refusal>, StoreError> {
        if let Some(own) = &self.holder.nfs
            && let Some(twin) = twin::find(store, own, Wall::now())?
        {
            return Err(StoreError::Unusable(twin));
        }
        if let Some(refusal) = self.other_lock(store)? {
            return Ok(Err(refusal));
        }
        if let Some(word) = self.fresh(store, false)? {
            return Ok(Err(Refusal {
                code: exit::OK,
                record: Some((Outcome::Fresh, None)),
                word,
                note: true,
            }));
        }
        let grant = match self.try_lock(store)? {
            Ok(grant) => grant,
            Err(refusal) => return Ok(Err(refusal)),
        };
        // Another start of the job may have been granted another lock, or have succeeded, since the first look.
        if let Some(refusal) = self.other_lock(store)? {
            grant.release(&not_run(Outcome::NotStarted), None)?;
            return Ok(Err(Refusal {
                record: None,
                ..refusal
            }));
        }
        if let Some(word) = self.fresh(store, true)? {
            grant.release(&not_run(Outcome::Fresh), None)?;
            return Ok(Err(Refusal {
                code: exit::OK,
                record: None,
                word,
                note: false,
            }));
        }
        Ok(Ok(grant))
    }

    fn try_lock(&self, store: &dyn Store) -> Result<Result<Box<dyn Grant>, Refusal>, StoreError> {
        let never = || false;
        let seen = match store.try_acquire(&self.request(&never), None)? {
            Attempt::Granted(grant) => return Ok(Ok(grant)),
            Attempt::Held(seen) => seen,
        };
        if let Some(refusal) = self.nested(&seen) {
            return Ok(Err(refusal));
        }
        let until = match self.plan.wait {
            Wait::No => return Ok(Err(self.held(&self.plan.lock, &seen))),
            Wait::For(time) => Boot::now() + time,
            Wait::Forever => Boot(u64::MAX),
        };
        let place = match self.queue(store, &seen)? {
            Ok(place) => place,
            Err(refusal) => return Ok(Err(refusal)),
        };
        self.say(
            Level::Person,
            format!("waiting for {}: {}", self.plan.lock, describe(&seen)),
        );
        let cancelled = || self.is_cancelled();
        let attempt = store.try_acquire(&self.request(&cancelled), Some(until))?;
        drop(place);
        match attempt {
            Attempt::Granted(grant) if self.cancelled.get() => {
                grant.release(&not_run(Outcome::Cancelled), None)?;
                Ok(Err(interrupted(None)))
            }
            Attempt::Granted(grant) => Ok(Ok(grant)),
            Attempt::Held(seen) if self.cancelled.get() => {
                Ok(Err(interrupted(Some((Outcome::Cancelled, seen.holder)))))
            }
            Attempt::Held(seen) => Ok(Err(self.held(&self.plan.lock, &seen))),
        }
    }

    fn request<'b>(&'b self, interrupted: &'b dyn Fn() -> bool) -> LockRequest<'b> {
        LockRequest {
            lock: self.plan.lock.clone(),
            holder: Holder {
                since: Wall::now(),
                ..self.holder.clone()
            },
            record: self.record.clone(),
            ttl: self.plan.ttl,
            clearing: &self.tree,
            interrupted,
        }
    }

    /// Whether front was interrupted, or is gone.
    fn is_cancelled(&self) -> bool {
        if let Received::Message(FrontToKeeper::Cancel, _) | Received::Gone = self.front.receive() {
            self.cancelled.set(true);
        }
        self.cancelled.get()
    }

    /// A place among those who wait. Who has no limit takes one as well, to be counted by the others, but does not depend on it.
    fn queue(
        &self,
        store: &dyn Store,
        seen: &Observed,
    ) -> Result<Result<Option<Queued>, Refusal>, StoreError> {
        let Some(limit) = self.plan.max_waiters else {
            let place = store.queue(&self.plan.lock, None);
            return Ok(Ok(place.ok().and_then(Result::ok)));
        };
        let waiting = match store.queue(&self.plan.lock, Some(limit))? {
            Ok(place) => return Ok(Ok(Some(place))),
            Err(waiting) => waiting,
        };
        let wait = if waiting == 1 { "waits" } else { "wait" };
        let text = format!(
            "not started: {waiting} {wait} for the lock {} already, and --max-waiters is {limit}; it is held by {}",
            self.plan.lock,
            describe(seen)
        );
        Ok(Err(Refusal {
            word: Word {
                level: Level::Person,
                text,
            },
            note: true,
            ..self.held(&self.plan.lock, seen)
        }))
    }

    fn held(&self, lock: &LockName, seen: &Observed) -> Refusal {
        let job = seen
            .holder
            .as_ref()
            .map_or(self.plan.job.as_str(), |holder| holder.job.as_str());
        let (here, now) = (&self.holder.place, Wall::now());
        let mount = || remote::on_the_way(&self.plan.store.database());
        let to_free = seen.to_free(here, mount, now);
        let advice = match (to_free, seen.silence_elsewhere(here, now)) {
            (Some(way), _) => way,
            // who is asked to stop must hear it
            (None, Some(silent)) => format!(
                "it has given no sign of life for {} s: see `joblock status {job}`, or take the lock away with \
                 `joblock unlock {job} --reason TEXT`",
                silent.as_secs()
            ),
            (None, None) => format!(
                "wait for it with `-w 1h`, see `joblock status {job}`, or end it with `joblock stop {job} --reason TEXT`"
            ),
        };
        let text = format!(
            "not started: the lock {lock} is held by {}; {advice}",
            describe(seen)
        );
        Refusal {
            code: self.plan.conflict_exit_code,
            record: Some((Outcome::Refused, seen.holder.clone())),
            word: Word {
                level: Level::Person,
                text,
            },
            // the holder stands there already
            note: false,
        }
    }

    /// A job that starts itself, however deep, would wait for its own end.
    fn nested(&self, seen: &Observed) -> Option<Refusal> {
        let holder = seen.holder.as_ref()?;
        // Whatever a job did to its environment, the guard is above it: it is a subreaper. Seen from another pid
        // namespace, the environment tells.
        let front = self.holder.processes.front.pid;
        let inside = if holder.place.same_pids(&self.holder.place) {
            process::ancestors(front).any(|above| above.id == holder.processes.guard)
        } else {
            process::environment_value(front, tree::MARK)
                .ok()
                .flatten()
                .is_some_and(|id| id == holder.run_id.as_str())
        };
        inside.then(|| Refusal {
            code: exit::OWN_FAILURE,
            record: Some((Outcome::NotStarted, Some(holder.clone()))),
            word: Word {
                level: Level::Error,
                text: format!(
                    "this is inside run {} of {}, which has the lock {} and can't end before this does: \
                     call the command itself here, or run it as a job with a name of its own",
                    holder.run_id.short(),
                    holder.job,
                    self.plan.lock
                ),
            },
            note: true,
        })
    }

    /// Two locks for one job is the incident again.
    fn other_lock(&self, store: &dyn Store) -> Result<Option<Refusal>, StoreError> {
        let last = self.newest_runs(store)?.into_iter().next();
        let Some(last) = last.filter(|last| last.lock != self.plan.lock) else {
            return Ok(None);
        };
        if last.outcome == Outcome::Running {
            return Ok(Some(self.held(&last.lock, &store.inspect(&last.lock)?)));
        }
        if self.plan.lock_is_declared {
            return Ok(None);
        }
        let text = format!(
            "{job} ran under the lock {was} before, and two locks let two of it run at once: \
             give --lock {was}, or set `lock = \"{new}\"` for it in the jobs file, which every start then uses",
            job = self.plan.job,
            was = last.lock,
            new = self.plan.lock
        );
        Ok(Some(Refusal {
            code: exit::OWN_FAILURE,
            record: Some((Outcome::NotStarted, None)),
            word: Word {
                level: Level::Error,
                text,
            },
            note: true,
        }))
    }

    /// Fresh is a job whose newest run that ended is a success within the window. One that failed or died since has to
    /// run again, however short ago the success is.
    fn fresh(&self, store: &dyn Store, granted: bool) -> Result<Option<Word>, StoreError> {
        let Some(Fresh { within }) = self.plan.fresh else {
            return Ok(None);
        };
        let runs = self.newest_runs(store)?;
        let ended = runs.iter().find(|run| run.outcome != Outcome::Running);
        let success = ended.filter(|run| run.outcome == Outcome::Succeeded);
        let now = Wall::now();
        let last = success.and_then(|run| run.end.as_ref()).map(|end| end.at);
        if let Some(wrong) = last.filter(|last| last.0 > now.0 + FUTURE) {
            // once, where it decides
            if granted {
                self.say(
                Level::Person,
                format!(
                    "{} last succeeded {}, by a clock that was wrong, or this one is: it runs again",
                    self.plan.job,
                    page().when(wrong)
                ),
            );
            }
            return Ok(None);
        }
        let fresh = last.filter(|last| now.since(*last).unwrap_or_default() < within);
        Ok(fresh.map(|last| Word {
            level: Level::Person,
            text: format!("skipped: {} succeeded {}", self.plan.job, page().when(last)),
        }))
    }

    /// The newest runs of the job but this one: the one that goes on, if one does, and the last that ended.
    fn newest_runs(&self, store: &dyn Store) -> Result<Vec<RunRecord>, StoreError> {
        let query = Query {
            job: Some(self.plan.job.as_str().into()),
            limit: Some(3),
            outcomes: RAN.into(),
            alive: Some(tree::alive_here),
            ..Query::default()
        };
        let mut runs = store.runs(&query)?;
        runs.retain(|run| run.run_id != self.record.run_id);
        Ok(runs)
    }

    fn refuse(&self, store: &dyn Store, refusal: Refusal) -> u8 {
        let Refusal {
            code,
            record,
            word,
            note,
        } = refusal;
        if let Some((outcome, held_by)) = record {
            let note = note.then(|| word.text.clone());
            if let Err(error) = store.attempted(
                &self.record,
                &Attempted {
                    outcome,
                    held_by,
                    note,
                },
            ) {
                self.say(
                    Level::Error,
                    format!("this attempt could not be recorded: {error}"),
                );
            }
        }
        self.front.send(&FromKeeper::Say(word), None);
        code
    }
}

/// Front knows the signal, and with it the exit code.
fn interrupted(record: Option<(Outcome, Option<Holder>)>) -> Refusal {
    let word = Word {
        level: Level::Detail,
        text: "interrupted while it waited for the lock".into(),
    };
    Refusal {
        code: exit::OWN_FAILURE,
        record,
        word,
        note: true,
    }
}

/// What counts as a run, of all that a history holds.
const RAN: [Outcome; 9] = [
    Outcome::Running,
    Outcome::Succeeded,
    Outcome::Failed,
    Outcome::Signaled,
    Outcome::OomKilled,
    Outcome::TimedOut,
    Outcome::Stopped,
    Outcome::Lost,
    Outcome::Abandoned,
];

fn page() -> Page {
    Page {
        now: Wall::now(),
        width: None,
        colour: false,
        zone: Zone::Local,
    }
}

fn describe(seen: &Observed) -> String {
    match &seen.holder {
        Some(holder) => holder_text(&page(), holder),
        None => "a run that has only just begun or ended".into(),
    }
}

/// The end of a grant under which nothing was run.
fn not_run(outcome: Outcome) -> End {
    End {
        outcome,
        at: Wall::now(),
        duration: std::time::Duration::ZERO,
        exit_code: None,
        signal: None,
        out_of_memory: OutOfMemory::Unknown,
        peak_memory_kib: None,
        cpu: None,
        leaked: 0,
        note: None,
    }
}
