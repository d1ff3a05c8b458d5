//! How a lock of the `sqlite:` store is taken: kernel lock first, then one transaction. In which order, and what is
//! made of the answers, is decided in [`crate::lease::taker`]; here are its hands.

use std::sync::{Arc, MutexGuard};

use super::db::Db;
use super::grant::SqliteGrant;
use super::locks::{self, LockRow};
use super::{Inner, rows};
use crate::clock::Boot;
use crate::lease::holder::{By, Lease};
use crate::lease::row;
use crate::lease::takeover::{Mark, Unreleased};
use crate::lease::taker::{Looked, Over, Step, Taker, Written};
use crate::lease::timing::Timing;
use crate::name::{RunId, Token};
use crate::store::lockfile::attempt::{Look, SOON, Steps};
use crate::store::lockfile::file::LockFile;
use crate::store::lockfile::side::Side;
use crate::store::lockfile::wait::Waiters;
use crate::store::record::{OutOfMemory, Outcome};
use crate::store::{Cleared, Holder, LockRequest, Observed, Place, StoreError, trouble};

impl Steps for Arc<Inner> {
    fn here(&self) -> &Place {
        &self.here
    }

    fn waiters(&self) -> &Waiters {
        &self.waiters
    }

    fn shared_db(&self) -> Option<MutexGuard<'_, Db>> {
        self.shared.then(|| self.db())
    }

    fn open(&self, request: &LockRequest<'_>) -> Result<LockFile, StoreError> {
        self.open_lock(&request.lock)
    }

    fn look(&self, request: &LockRequest<'_>) -> Result<Observed, StoreError> {
        self.inspect(&request.lock)
    }

    fn decide(&self, request: &LockRequest<'_>, file: LockFile) -> Result<Look, StoreError> {
        with_lock(self, request, file)
    }
}

/// The kernel lock is ours, as far as it reaches.
fn with_lock(
    inner: &Arc<Inner>,
    request: &LockRequest<'_>,
    file: LockFile,
) -> Result<Look, StoreError> {
    let path = file.path.clone();
    let broken = |e: std::io::Error| trouble::from_io(&path, &e);
    let before = Boot::now();
    let Some(side) = Side::of(file).map_err(broken)? else {
        return Ok(Look::Again);
    };
    let file = side.holders().map_err(broken)?.newest.map(|slot| LockRow {
        token: slot.token,
        ttl: slot.ttl(),
        owner: slot.owner,
        released: slot.released,
        seq: 0,
        granted_on: side.lock.id,
        holder: slot.holder,
    });
    let (mut taker, mut step) = Taker::begin(before, file);
    let hands = Hands {
        inner,
        request,
        side,
    };
    let mut trouble = None;
    loop {
        step = match step {
            Step::Grant { over, file } => {
                taker.written(match hands.write_grant(file.as_ref(), over.as_ref()) {
                    Ok(written) => written,
                    Err(error) => {
                        trouble = Some(error);
                        Written::Unknown
                    }
                })
            }
            Step::GiveBack => {
                hands.give_back();
                return trouble.map_or(Ok(Look::Again), Err);
            }
            Step::Look(old) => taker.looked(&hands.look(&old)?, Boot::now()),
            Step::Remember(sighting) => {
                let place = &inner.here;
                inner
                    .db()
                    .write(|tx| locks::keep_sighting(tx, &request.lock, place, &sighting))?;
                taker.remembered()
            }
            // nobody inherited the lock any more: only those who closed it can be left
            Step::Clear(old) => match request.clearing.clear(&old.holder, None) {
                Cleared::Gone { .. } => taker.cleared(false, Boot::now()),
                Cleared::Alive => taker.cleared(true, Boot::now()),
                Cleared::Stuck(left) => {
                    let run = old.owner;
                    return Err(StoreError::Leftovers { run, left });
                }
            },
            Step::Claim(token) => {
                let claimed = hands.side.claim(token, &request.holder.run_id);
                claimed.map_err(broken)?;
                taker.claimed()
            }
            Step::LookAgain(old) => {
                let mark = hands.mark(&old)?;
                taker.looked_again(mark, Boot::now())
            }
            Step::Over(Over::Granted { token, sent }) => return Ok(hands.granted(token, sent)),
            Step::Over(Over::Again) => return Ok(Look::Again),
            Step::Over(Over::Alive) => {
                return Ok(Look::Leased(inner.inspect(&request.lock)?, SOON));
            }
            Step::Over(Over::Until(until)) => {
                let seen = inner.inspect(&request.lock)?;
                return Ok(Look::Leased(seen, until.since(Boot::now())));
            }
        }
    }
}

struct Hands<'a> {
    inner: &'a Arc<Inner>,
    request: &'a LockRequest<'a>,
    side: Side,
}

impl Hands<'_> {
    fn granted(self, token: Token, sent: Boot) -> Look {
        let by = if self.inner.shared {
            By::Slot
        } else {
            By::Kernel
        };
        let lease = Lease::new(token, self.timing(), by, 0, sent);
        let inner = Arc::clone(self.inner);
        Look::Granted(Box::new(SqliteGrant::new(
            inner,
            self.side,
            self.request,
            lease,
        )))
    }

    fn timing(&self) -> Timing {
        Timing::of(self.request.ttl.unwrap_or(Timing::DEFAULT))
    }

    /// The grant, in one transaction: token, owner and the run's begin, and what became of the run that it is written over.
    fn write_grant(
        &self,
        file: Option<&LockRow>,
        over: Option<&LockRow>,
    ) -> Result<Written<Holder>, StoreError> {
        let Hands {
            inner,
            request,
            side,
        } = self;
        let abandoned = over.map(|old| self.abandoned(&old.owner)).transpose()?;
        inner.db().write(|tx| {
            let row = locks::get(tx, &request.lock)?;
            let token = match row::may_grant(row.as_ref(), file, over) {
                Ok(token) => token,
                Err(other) => return Ok(Written::Held(other.clone())),
            };
            if let (Some(old), Some((outcome, memory))) = (over, abandoned) {
                rows::abandon(tx, &old.owner, outcome, memory)?;
            }
            // an old database may have another, which nobody will end any more
            let row = row.filter(|row| !row.released);
            if let Some(old) = &row {
                rows::abandon(tx, &old.owner, Outcome::Abandoned, OutOfMemory::Unknown)?;
            }
            for old in over.into_iter().chain(&row) {
                if !inner.here.same_pids(&old.holder.place) {
                    locks::keep_unswept(tx, &request.lock, &old.holder)?;
                }
            }
            let grant = LockRow {
                token,
                owner: request.holder.run_id.clone(),
                released: false,
                seq: 0,
                ttl: self.timing().ttl(),
                granted_on: side.lock.id,
                holder: request.holder.clone(),
            };
            locks::grant(tx, &request.lock, &grant)?;
            let mut record = request.record.clone();
            record.token = Some(token);
            rows::upsert(tx, &record)?;
            Ok(Written::Granted(token))
        })
    }

    /// Nobody would renew a grant that the store took although it gave an error. Should this fail too, the next attempt finds a run that is gone.
    fn give_back(&self) {
        let (lock, owner) = (&self.request.lock, &self.request.holder.run_id);
        let _ = self
            .inner
            .db()
            .write(|tx| locks::give_back(tx, lock, owner));
    }

    /// What became of a run that left no end.
    fn abandoned(&self, run: &RunId) -> Result<(Outcome, OutOfMemory), StoreError> {
        let record = self.inner.db().read(|conn| rows::by_id(conn, run))?;
        Ok(self.request.clearing.became(record.as_ref()))
    }

    fn mark(&self, row: &LockRow) -> Result<Mark, StoreError> {
        let found = self.side.holders();
        let slot = found
            .map_err(|e| trouble::from_io(&self.side.lock.path, &e))?
            .newest;
        let slot = slot.as_ref().map(|s| (s.token, &s.owner, s.seq));
        Ok(row.mark(slot, self.side.lock.id))
    }

    fn look(&self, old: &LockRow) -> Result<Looked<Holder>, StoreError> {
        let (inner, lock) = (self.inner, &self.request.lock);
        // its end may wait in the spool, and frees the lock
        inner.fold()?;
        let (row, known) = inner.db().read(|conn| {
            Ok((
                locks::get(conn, lock)?,
                locks::sighting(conn, lock, &inner.here)?,
            ))
        })?;
        let place = &old.holder.place;
        let seen = Unreleased {
            mark: self.mark(old)?,
            granted_on: old.granted_on,
            same_boot: place.known_same_boot(&inner.here),
            local_file: self.side.lock.local,
            local_store: !inner.shared,
            ttl: old.ttl,
        };
        Ok(Looked { row, known, seen })
    }
}
