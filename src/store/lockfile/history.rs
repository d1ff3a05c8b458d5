//! The history of the `lockfile:` store, and what waits for it in the spool.

use std::io;

use rusqlite::Transaction;

use super::side::Side;
use super::slots::Slot;
use super::{Inner, LockfileStore};
use crate::clock::Wall;
use crate::name::{LockName, RunId, Token};
use crate::store::pruning::{Prune, Pruned};
use crate::store::record::{Attempted, End, Outcome, Query, RunRecord, Tail};
use crate::store::sqlite::rows;
use crate::store::{History, Recorded, StoreError, trouble, vanished};

impl History for LockfileStore {
    fn attempted(&self, record: &RunRecord, outcome: &Attempted) -> Result<Recorded, StoreError> {
        let record = outcome.of(record);
        let written = self.inner.write(|tx| rows::upsert(tx, &record));
        self.inner.spool.instead(written, &record, None)
    }

    fn end_of(
        &self,
        record: &RunRecord,
        token: Token,
        end: &End,
        tail: Option<&Tail>,
    ) -> Result<Recorded, StoreError> {
        let recorded = self.inner.finish(&end.of(record, token), tail);
        self.inner.free(&record.lock, &record.run_id, token)?;
        recorded
    }

    fn runs(&self, query: &Query) -> Result<Vec<RunRecord>, StoreError> {
        let spooled = self.inner.spool.records();
        let runs = self.inner.db().read(|conn| rows::query(conn, query))?;
        let runs = vanished::with_spooled(runs, spooled, |r| vanished::matches(r, query));
        self.inner.settle(runs, query)
    }

    fn by_prefix(&self, prefix: &str) -> Result<Vec<RunRecord>, StoreError> {
        let spooled = self.inner.spool.records();
        let runs = self.inner.db().read(|conn| rows::by_prefix(conn, prefix))?;
        let is_meant = |record: &RunRecord| {
            prefix.len() >= RunId::SHORT && record.run_id.as_str().starts_with(prefix)
        };
        let runs = vanished::with_spooled(runs, spooled, is_meant);
        self.inner.settle(runs, &Query::default())
    }

    fn last_success(&self, job: &str) -> Result<Option<Wall>, StoreError> {
        let spooled = self.inner.spool.records();
        let of_job = spooled.iter().filter(|record| record.job.as_str() == job);
        let waiting = of_job
            .filter(|record| record.outcome == Outcome::Succeeded)
            .filter_map(|record| record.end.as_ref().map(|end| end.at))
            .max();
        let stored = self.inner.db().read(|conn| rows::last_success(conn, job))?;
        Ok(stored.max(waiting))
    }

    fn jobs(&self) -> Result<Vec<String>, StoreError> {
        let spooled = self.inner.spool.records();
        let mut jobs = self.inner.db().read(rows::jobs)?;
        jobs.extend(spooled.into_iter().map(|record| record.job.to_string()));
        jobs.sort();
        jobs.dedup();
        Ok(jobs)
    }

    fn tail(&self, run: &RunId) -> Result<Option<Tail>, StoreError> {
        let waiting = self.inner.spool.tail(run);
        let stored = self.inner.db().read(|conn| rows::tail(conn, run))?;
        Ok(waiting.or(stored))
    }

    fn prune(&self, request: &Prune) -> Result<Pruned, StoreError> {
        self.inner.db().prune(request)
    }
}

impl Inner {
    fn settle(&self, runs: Vec<RunRecord>, query: &Query) -> Result<Vec<RunRecord>, StoreError> {
        let again = |run: &RunId| self.db().read(|conn| rows::by_id(conn, run));
        vanished::settle(
            runs,
            query,
            &self.spool,
            &self.here,
            |lock| self.inspect(lock),
            again,
        )
    }

    pub(super) fn finish(
        &self,
        record: &RunRecord,
        tail: Option<&Tail>,
    ) -> Result<Recorded, StoreError> {
        let written = self.write(|tx| rows::finish(tx, record, tail));
        self.spool.instead(written, record, tail)
    }

    /// Writes behind what waits in the spool: what was before it stands before it in the history.
    fn write<T>(
        &self,
        f: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        self.write_behind(self.fold(), f)
    }

    /// The same, where that was tried already.
    pub(super) fn write_behind<T>(
        &self,
        folded: Result<(), StoreError>,
        f: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        match folded {
            // no better now, and another ten seconds
            Err(error @ StoreError::Timeout(_)) => Err(error),
            _ => self.db().write(f),
        }
    }

    pub(super) fn fold(&self) -> Result<(), StoreError> {
        self.spool
            .fold(|entries| self.db().write(|tx| rows::fold(tx, entries)))
    }

    /// Marks the lock free in its file, if the run's grant still stands there and nobody has it locked.
    fn free(&self, lock: &LockName, owner: &RunId, token: Token) -> Result<(), StoreError> {
        let file = self.open_lock(lock)?;
        let path = file.path.clone();
        let broken = |e: io::Error| trouble::from_io(&path, &e);
        if !file.try_lock().map_err(broken)? {
            return Ok(());
        }
        let Some(side) = Side::of(file).map_err(broken)? else {
            return Ok(());
        };
        match side.holders().map_err(broken)?.newest {
            Some(slot) if slot.token == token && slot.owner == *owner && !slot.released => side
                .write(
                    &Slot {
                        released: true,
                        seq: slot.seq.saturating_add(1),
                        at: Wall::now(),
                        ..slot
                    },
                    true,
                )
                .map_err(broken),
            _ => Ok(()),
        }
    }
}
