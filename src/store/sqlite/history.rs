//! The history of the `sqlite:` store.

use super::{Inner, SqliteStore, rows};
use crate::clock::Wall;
use crate::name::{RunId, Token};
use crate::store::pruning::{Prune, Pruned};
use crate::store::record::{Attempted, End, Query, RunRecord, Tail};
use crate::store::vanished;
use crate::store::{History, Recorded, StoreError};

impl History for SqliteStore {
    fn attempted(&self, record: &RunRecord, outcome: &Attempted) -> Result<Recorded, StoreError> {
        let record = outcome.of(record);
        let written = self.inner.db().write(|tx| rows::upsert(tx, &record));
        self.inner.recorded(written, &record, None)
    }

    fn end_of(
        &self,
        record: &RunRecord,
        token: Token,
        end: &End,
        tail: Option<&Tail>,
    ) -> Result<Recorded, StoreError> {
        self.inner.finish(&end.of(record, token), tail)
    }

    fn runs(&self, query: &Query) -> Result<Vec<RunRecord>, StoreError> {
        let spooled = self.inner.spool.records();
        let runs = self.inner.db().read(|conn| rows::query(conn, query))?;
        let runs = vanished::with_spooled(runs, spooled, |r| vanished::matches(r, query));
        self.inner.settle(runs, query)
    }

    fn by_prefix(&self, prefix: &str) -> Result<Vec<RunRecord>, StoreError> {
        let runs = self.inner.db().read(|conn| rows::by_prefix(conn, prefix))?;
        self.inner.settle(runs, &Query::default())
    }

    fn last_success(&self, job: &str) -> Result<Option<Wall>, StoreError> {
        self.inner.db().read(|conn| rows::last_success(conn, job))
    }

    fn jobs(&self) -> Result<Vec<String>, StoreError> {
        self.inner.db().read(rows::jobs)
    }

    fn tail(&self, run: &RunId) -> Result<Option<Tail>, StoreError> {
        self.inner.db().read(|conn| rows::tail(conn, run))
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
}
