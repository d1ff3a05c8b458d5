//! A lock of the `sqlite:` store in the hands of its holder.
//!
//! # How holder and taker can't miss each other (shared store)
//!
//! A heartbeat must not need SQLite: somebody's open SELECT blocks every commit of a rollback journal for as long as
//! it likes. So it goes through the lock file, and whoever takes over meets the holder there:
//!
//! | holder, at each heartbeat | taker, once the lease has lapsed for it |
//! |---|---|
//! | 1. write the slot, seq + 1, durably | 1. write the claim on the holder's token, durably |
//! | 2. read the claim: there is one → lost | 2. read the slot: seq has moved → give up |
//! | | 3. commit the grant, if token and row are as seen |
//!
//! Both write before they read, so at least one sees the other: either the heartbeat finds the claim and the
//! job is killed, or the taker finds the newer slot and does not take. A heartbeat at or after F is not sent at all.
//!
//! A claim is never taken back, not by a taker that gave up and not by one that died: taking it back could hide
//! the claim of another one who was right to go on. It only ever costs a holder that had been silent for
//! a whole TTL by somebody's clock, and killing that one is safe. It names the token, so it can't hurt a later
//! grant; and claims on neighbouring tokens stand in different blocks.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use super::{Inner, locks, rows};
use crate::clock::{Boot, Wall};
use crate::lease::heartbeat::Wishes;
use crate::lease::holder::{Beat, By, FileRead, Lease, Step};
use crate::name::Token;
use crate::store::lockfile::side::{self, Asked, Side};
use crate::store::lockfile::slots::Slot;
use crate::store::record::{End, RunRecord, Tail};
use crate::store::{Expiry, Grant, Holder, LockRequest, Recorded, Renewal, StoreError, trouble};

pub struct SqliteGrant {
    inner: Arc<Inner>,
    side: Side,
    holder: Holder,
    record: RunRecord,
    lease: Lease,
}

impl SqliteGrant {
    pub fn new(inner: Arc<Inner>, side: Side, request: &LockRequest<'_>, lease: Lease) -> Self {
        let mut record = request.record.clone();
        record.token = Some(lease.token());
        let grant = SqliteGrant {
            inner,
            side,
            holder: request.holder.clone(),
            record,
            lease,
        };
        // The lock file knows the token from the beginning, so that it goes on growing whatever becomes of the database.
        // No heartbeat: it is not durable, and nobody's life hangs on it.
        let _ = grant.side.write(&grant.slot(0, Boot::now()), false);
        grant
    }

    fn slot(&self, seq: u64, sent: Boot) -> Slot {
        Slot {
            token: self.lease.token(),
            owner: self.record.run_id.clone(),
            seq,
            released: false,
            ttl_ms: u64::try_from(self.lease.timing().ttl().as_millis()).unwrap_or(u64::MAX),
            at: Wall::now(),
            sent,
            holder: self.holder.clone(),
        }
    }

    fn io(&self, error: &std::io::Error) -> StoreError {
        trouble::from_io(&self.side.lock.path, error)
    }

    /// The heartbeat's steps; what others ask for comes along.
    fn beat(&mut self, now: Boot) -> Result<(Beat, Asked), StoreError> {
        let mut asked = Asked::default();
        let mut step = self.lease.beat(now);
        loop {
            step = match step {
                Step::WriteSlot { seq, durable } => {
                    let written = self.side.write(&self.slot(seq, now), durable);
                    written.map_err(|e| self.io(&e))?;
                    self.lease.slot_written()
                }
                Step::ReadLock => {
                    let still = self.side.still_locked().map_err(|e| self.io(&e))?;
                    self.lease.lock_read(still)
                }
                Step::ReadFile => {
                    let (read, found) = self.read_file().map_err(|e| self.io(&e))?;
                    asked = found;
                    self.lease.file_read(read)
                }
                Step::RenewRow => {
                    let (record, token) = (&self.record, self.lease.token());
                    let ours = self
                        .inner
                        .db()
                        .write(|tx| locks::renew(tx, &record.lock, &record.run_id, token))?;
                    self.lease.row_renewed(ours)
                }
                Step::ReadWishes => {
                    let path = self.inner.lock_path(&self.record.lock);
                    let found = side::look(&path, Some(self.lease.token()))
                        .map_err(|e| trouble::from_io(&path, &e))?;
                    asked = found.map(|(_, asked)| asked).unwrap_or_default();
                    self.lease.wishes_read(asked.wishes)
                }
                Step::Over(beat) => return Ok((beat, asked)),
            }
        }
    }

    fn read_file(&self) -> std::io::Result<(FileRead, Asked)> {
        let mut read = FileRead {
            still_locked: self.side.still_locked()?,
            wishes: Wishes::default(),
            at_path: true,
        };
        let mut asked = Asked::default();
        if read.still_locked {
            asked = self.side.asked(self.lease.token())?;
            read.wishes = asked.wishes;
            // after the write, which brings the link count up to date on NFS
            read.at_path = self.side.lock.is_at_path()?;
        }
        Ok((read, asked))
    }
}

impl Grant for SqliteGrant {
    fn token(&self) -> Token {
        self.lease.token()
    }

    fn expiry(&self) -> Expiry {
        let ttl = self.lease.timing().ttl();
        let sent = self.lease.sent();
        sent.map_or(Expiry::Never, |sent| Expiry::After { sent, ttl })
    }

    fn renew(&mut self) -> Result<Renewal, StoreError> {
        let (beat, asked) = self.beat(Boot::now())?;
        if self.lease.by() == By::Kernel {
            self.inner.db().fold_if_long();
        }
        Ok(match (beat, asked.stop, asked.revoke) {
            (Beat::Stop, Some(stop), _) => Renewal::Stop(stop),
            (Beat::Revoked, _, Some(revoke)) => Renewal::Revoked(revoke),
            (Beat::Lost(loss), ..) => Renewal::Lost(loss.to_string()),
            _ => Renewal::Renewed,
        })
    }

    fn started(&mut self) {
        self.inner.db().fold_if_long();
    }

    fn inherit(&self) -> Option<BorrowedFd<'_>> {
        Some(self.side.as_fd())
    }

    fn save_tail(&mut self, tail: &Tail) -> Result<(), StoreError> {
        self.inner
            .db()
            .write(|tx| rows::save_tail(tx, &self.record.run_id, tail))
    }

    fn release(self: Box<Self>, end: &End, tail: Option<&Tail>) -> Result<Recorded, StoreError> {
        let stored = self
            .inner
            .finish(&end.of(&self.record, self.lease.token()), tail);
        // closes the lock file, after all is written
        drop(self);
        stored
    }
}

impl Inner {
    /// Writes a run's end and frees its lock if it still has it; into the spool if the database can't take it.
    pub fn finish(&self, record: &RunRecord, tail: Option<&Tail>) -> Result<Recorded, StoreError> {
        let written = self.db().write(|tx| rows::finish(tx, record, tail));
        self.recorded(written, record, tail)
    }

    /// What could not be written goes into the spool. Else what others left there is folded in: this process is through with what
    /// matters, and the next start need not do it.
    pub fn recorded(
        &self,
        written: Result<(), StoreError>,
        record: &RunRecord,
        tail: Option<&Tail>,
    ) -> Result<Recorded, StoreError> {
        let recorded = self.spool.instead(written, record, tail)?;
        if matches!(recorded, Recorded::Stored) {
            // what can't be folded in now stays for the next one
            let _ = self.fold();
        }
        Ok(recorded)
    }

    /// Folds in what stands in the spool.
    pub fn fold(&self) -> Result<(), StoreError> {
        self.spool
            .fold(|entries| self.db().write(|tx| rows::fold(tx, entries)))
    }
}
