//! How a lock of the `lockfile:` store is taken, and what its holder does with it.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use super::attempt::{Look, SOON, Steps};
use super::file::LockFile;
use super::side::Side;
use super::slots::{self, Slot};
use super::wait::Waiters;
use super::{Inner, Known};
use crate::clock::{Boot, Wall};
use crate::lease::heartbeat::{Answer, answer, may_renew};
use crate::lease::takeover::{Decision, Mark, Unreleased, decide};
use crate::name::{RunId, Token};
use crate::store::record::{End, OutOfMemory, Outcome, RunRecord, Tail};
use crate::store::sqlite::locks::{self, LockRow};
use crate::store::sqlite::rows;
use crate::store::{
    Cleared, Expiry, Grant, Holder, LockRequest, Observed, Place, Recorded, Renewal, StoreError,
    trouble,
};

impl Steps for Arc<Inner> {
    fn here(&self) -> &Place {
        &self.here
    }

    fn waiters(&self) -> &Waiters {
        &self.waiters
    }

    fn open(&self, request: &LockRequest<'_>) -> Result<LockFile, StoreError> {
        self.open_lock(&request.lock)
    }

    fn look(&self, request: &LockRequest<'_>) -> Result<Observed, StoreError> {
        self.inspect(&request.lock)
    }

    fn decide(&self, request: &LockRequest<'_>, file: LockFile) -> Result<Look, StoreError> {
        let path = file.path.clone();
        let broken = |e: std::io::Error| trouble::from_io(&path, &e);
        let before = Boot::now();
        let Some(side) = Side::of(file).map_err(broken)? else {
            return Ok(Look::Again);
        };
        let found = side.holders().map_err(broken)?;
        if let Some(version) = found.newer {
            let known = i64::from(slots::VERSION);
            return Err(StoreError::Newer {
                path: path.display().to_string(),
                found: version.into(),
                known,
            });
        }
        let known = self.known(&request.lock, found.newest)?;
        let mut old = None;
        if let Some(row) = known.later_row().filter(|row| !row.released) {
            if let Some(wait) = self.wait_for_replaced(request, &side, row, before)? {
                return Ok(wait);
            }
            old = Some(row.holder.clone());
        } else if let Some(slot) = known
            .slot
            .as_ref()
            .filter(|slot| !slot.released && known.later_row().is_none())
        {
            old = Some(slot.holder.clone());
        }
        let mut abandoned = match &old {
            None => Vec::new(),
            // we hold its kernel lock: nobody inherited it any more, only those who closed it can be left
            Some(holder) => match request.clearing.clear(holder, None) {
                Cleared::Alive => return Ok(Look::Leased(self.inspect(&request.lock)?, SOON)),
                Cleared::Stuck(left) => {
                    return Err(StoreError::Leftovers {
                        run: holder.run_id.clone(),
                        left,
                    });
                }
                Cleared::Gone { .. } => vec![self.abandoned(request, &holder.run_id)?],
            },
        };
        // One who took the lock over wrote that into the file, and then could not write the history, or was gone: the history
        // still waits for the end of the run before, which was ended when it was taken over.
        if let Some(row) = known.row.as_ref().filter(|row| !row.released)
            && abandoned.iter().all(|run| run.run != row.owner)
        {
            abandoned.push(self.abandoned(request, &row.owner)?);
        }
        LockfileGrant::write(self, request, side, &known, &abandoned)
            .map(|grant| Look::Granted(Box::new(grant)))
    }
}

impl Inner {
    /// The row tells of a later grant than the file: it was made on a file that is not here any more. `None`: its lease is over.
    fn wait_for_replaced(
        &self,
        request: &LockRequest<'_>,
        side: &Side,
        row: &LockRow,
        before: Boot,
    ) -> Result<Option<Look>, StoreError> {
        let place = &row.holder.place;
        let seen = Unreleased {
            mark: Mark {
                token: row.token,
                row_seq: row.seq,
                slot_seq: None,
                file: side.lock.id,
            },
            granted_on: row.granted_on,
            same_boot: (!place.boot_id.is_empty() && !self.here.boot_id.is_empty())
                .then(|| place.same_boot(&self.here)),
            local_file: side.lock.local,
            local_store: side.lock.local,
            ttl: row.ttl,
        };
        let known = self
            .db()
            .read(|conn| locks::sighting(conn, &request.lock, &self.here))?;
        let Decision::Wait { sighting, until } = decide(&seen, known.as_ref(), before, Boot::now())
        else {
            return Ok(None);
        };
        if known.as_ref() != Some(&sighting) {
            self.db()
                .write(|tx| locks::keep_sighting(tx, &request.lock, &self.here, &sighting))?;
        }
        Ok(Some(Look::Leased(
            self.inspect(&request.lock)?,
            until.since(Boot::now()),
        )))
    }

    fn abandoned(&self, request: &LockRequest<'_>, run: &RunId) -> Result<Abandoned, StoreError> {
        // its end may wait in the spool
        let _ = self.fold();
        let record = self.db().read(|conn| rows::by_id(conn, run))?;
        let memory = record.map_or(OutOfMemory::Unknown, |record| {
            request.clearing.out_of_memory(&record)
        });
        let outcome = if memory == OutOfMemory::Yes {
            Outcome::OomKilled
        } else {
            Outcome::Abandoned
        };
        Ok(Abandoned {
            run: run.clone(),
            outcome,
            memory,
        })
    }
}

struct Abandoned {
    run: RunId,
    outcome: Outcome,
    memory: OutOfMemory,
}

struct LockfileGrant {
    inner: Arc<Inner>,
    side: Side,
    holder: Holder,
    record: RunRecord,
    token: Token,
    seq: u64,
    sent: Boot,
    lost: bool,
}

impl LockfileGrant {
    /// The grant: into the file, then the run's begin into the history or the spool.
    fn write(
        inner: &Arc<Inner>,
        request: &LockRequest<'_>,
        side: Side,
        known: &Known,
        abandoned: &[Abandoned],
    ) -> Result<Self, StoreError> {
        let token = known.token().map_or(Token(1), Token::next);
        let mut record = request.record.clone();
        record.token = Some(token);
        let sent = Boot::now();
        let mut grant = LockfileGrant {
            inner: Arc::clone(inner),
            side,
            holder: request.holder.clone(),
            record,
            token,
            seq: 0,
            sent,
            lost: false,
        };
        grant.slot(sent, false, true)?;
        let row = LockRow {
            token,
            owner: grant.record.run_id.clone(),
            released: false,
            seq: 0,
            ttl: inner.timing().ttl(),
            granted_on: grant.side.lock.id,
            holder: grant.holder.clone(),
        };
        let written = inner.db().write(|tx| {
            for old in abandoned {
                rows::abandon(tx, &old.run, old.outcome, old.memory)?;
            }
            locks::grant(tx, &request.lock, &row)?;
            rows::upsert(tx, &grant.record)
        });
        if let Err(error) = inner.spool.instead(written, &grant.record, None, || Ok(())) {
            // not started, so the lock is given back; if even that fails, the next one sweeps
            let _ = grant.slot(sent, true, true);
            return Err(error);
        }
        Ok(grant)
    }

    fn slot(&mut self, now: Boot, released: bool, durable: bool) -> Result<(), StoreError> {
        let slot = Slot {
            token: self.token,
            owner: self.record.run_id.clone(),
            seq: self.seq + 1,
            released,
            ttl_ms: u64::try_from(self.inner.timing().ttl().as_millis()).unwrap_or(u64::MAX),
            at: Wall::now(),
            sent: now,
            holder: self.holder.clone(),
        };
        self.side.write(&slot, durable).map_err(|e| self.io(&e))?;
        self.seq += 1;
        Ok(())
    }

    fn io(&self, error: &std::io::Error) -> StoreError {
        trouble::from_io(&self.side.lock.path, error)
    }

    fn beat(&mut self, now: Boot) -> Result<Renewal, StoreError> {
        if self.inner.server_lease.is_some() && !may_renew(self.inner.timing(), self.sent, now) {
            return Ok(Renewal::Lost(
                "the file server did not answer for longer than its lease".into(),
            ));
        }
        if !self.side.still_locked().map_err(|e| self.io(&e))? {
            return Ok(Renewal::Lost(
                "the file server gave the lock to somebody else".into(),
            ));
        }
        self.slot(now, false, false)?;
        if !self.side.lock.is_at_path().map_err(|e| self.io(&e))? {
            return Ok(Renewal::Lost(
                "its lock file was deleted or replaced".into(),
            ));
        }
        let asked = self.side.asked(self.token).map_err(|e| self.io(&e))?;
        Ok(
            match (answer(self.token, asked.wishes), asked.revoke, asked.stop) {
                (Answer::Revoked, Some(revoke), _) => Renewal::Revoked(revoke),
                (Answer::Stop, _, Some(stop)) => Renewal::Stop(stop),
                (Answer::Lost, ..) => Renewal::Lost("another run takes it over".into()),
                _ => Renewal::Renewed,
            },
        )
    }
}

impl Grant for LockfileGrant {
    fn token(&self) -> Token {
        self.token
    }

    fn expiry(&self) -> Expiry {
        self.inner
            .server_lease
            .map_or(Expiry::Never, |ttl| Expiry::After {
                sent: self.sent,
                ttl,
            })
    }

    fn renew(&mut self) -> Result<Renewal, StoreError> {
        let now = Boot::now();
        let renewal = self.beat(now)?;
        match renewal {
            Renewal::Renewed | Renewal::Stop(_) => self.sent = now,
            Renewal::Lost(_) | Renewal::Revoked(_) => {
                self.lost |= matches!(renewal, Renewal::Lost(_));
            }
        }
        Ok(renewal)
    }

    fn inherit(&self) -> Option<BorrowedFd<'_>> {
        Some(self.side.as_fd())
    }

    fn save_tail(&mut self, tail: &Tail) -> Result<(), StoreError> {
        self.inner
            .db()
            .write(|tx| rows::save_tail(tx, &self.record.run_id, tail))
    }

    fn release(
        mut self: Box<Self>,
        end: &End,
        tail: Option<&Tail>,
    ) -> Result<Recorded, StoreError> {
        let recorded = self.inner.finish(&end.of(&self.record, self.token), tail);
        // a file that may be another's by now is left alone; one that can't be written is freed all the same, by
        // closing it, and the next holder finds the run's end in the history
        if !self.lost
            && self
                .side
                .holders()
                .is_ok_and(|found| found.newest.is_some_and(|s| s.owner == self.record.run_id))
        {
            let _ = self.slot(Boot::now(), true, true);
        }
        recorded
    }
}
