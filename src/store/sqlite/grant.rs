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
use crate::lease::heartbeat::{Answer, answer, may_renew};
use crate::lease::timing::Timing;
use crate::name::Token;
use crate::store::lockfile::side::{self, Asked, Side};
use crate::store::lockfile::slots::Slot;
use crate::store::record::{End, RunRecord, Tail};
use crate::store::{Expiry, Grant, Holder, LockRequest, Recorded, Renewal, StoreError, trouble};

/// What keeps the grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    /// The kernel lock.
    Kernel,
    /// The lease, renewed in the lock file.
    Slot,
    /// The lease, renewed in the database: the lock file is not where others look any more.
    Row,
}

pub struct SqliteGrant {
    inner: Arc<Inner>,
    side: Side,
    holder: Holder,
    record: RunRecord,
    token: Token,
    timing: Timing,
    by: By,
    seq: u64,
    sent: Boot,
}

impl SqliteGrant {
    pub fn new(
        inner: Arc<Inner>,
        side: Side,
        request: &LockRequest<'_>,
        token: Token,
        timing: Timing,
        sent: Boot,
    ) -> Self {
        let mut record = request.record.clone();
        record.token = Some(token);
        let by = if inner.shared { By::Slot } else { By::Kernel };
        let grant = SqliteGrant {
            inner,
            side,
            holder: request.holder.clone(),
            record,
            token,
            timing,
            by,
            seq: 0,
            sent,
        };
        // The lock file knows the token from the beginning, so that it goes on growing whatever becomes of the database. In
        // a shared store this waits for the first heartbeat, as it would have to be durable to count.
        if by == By::Kernel {
            let _ = grant.side.write(&grant.slot(sent), false);
        }
        grant
    }

    fn slot(&self, sent: Boot) -> Slot {
        Slot {
            token: self.token,
            owner: self.record.run_id.clone(),
            seq: self.seq,
            released: false,
            ttl_ms: u64::try_from(self.timing.ttl().as_millis()).unwrap_or(u64::MAX),
            at: Wall::now(),
            sent,
            holder: self.holder.clone(),
        }
    }

    fn io(&self, error: &std::io::Error) -> StoreError {
        trouble::from_io(&self.side.lock.path, error)
    }

    /// Says in the lock file that we live, and reads what others want. `None`: the server took the lock away.
    fn beat(&mut self, now: Boot) -> std::io::Result<Option<Asked>> {
        let slot = Slot {
            seq: self.seq + 1,
            ..self.slot(now)
        };
        // in a local store nobody's life hangs on it, and a sync would cost every job one each h
        self.side.write(&slot, self.by == By::Slot)?;
        self.seq += 1;
        if self.side.still_locked()? {
            self.side.asked(self.token).map(Some)
        } else {
            Ok(None)
        }
    }

    fn renew_by_file(&mut self, now: Boot) -> Result<Renewal, StoreError> {
        let Some(asked) = self.beat(now).map_err(|e| self.io(&e))? else {
            return Ok(Renewal::Lost(
                "the file server gave the lock to somebody else".into(),
            ));
        };
        // after the write, which brings the link count up to date on NFS
        if !self.side.lock.is_at_path().map_err(|e| self.io(&e))? {
            self.by = By::Row;
            return self.renew_by_row(now);
        }
        Ok(self.heard(now, asked))
    }

    fn renew_by_row(&mut self, now: Boot) -> Result<Renewal, StoreError> {
        if !may_renew(self.timing, self.sent, now) {
            return Ok(Renewal::Lost(
                "its lease ran out before it could be renewed".into(),
            ));
        }
        let (lock, owner, token) = (&self.record.lock, &self.record.run_id, self.token);
        if !self
            .inner
            .db()
            .write(|tx| locks::renew(tx, lock, owner, token))?
        {
            return Ok(Renewal::Lost("another run took it over".into()));
        }
        let path = self.inner.lock_path(lock);
        let asked = side::look(&path, Some(token)).map_err(|e| trouble::from_io(&path, &e))?;
        Ok(self.heard(now, asked.map(|(_, asked)| asked).unwrap_or_default()))
    }

    fn heard(&mut self, sent: Boot, asked: Asked) -> Renewal {
        match (answer(self.token, asked.wishes), asked.revoke, asked.stop) {
            (Answer::Lost, ..) => return Renewal::Lost("another run takes it over".into()),
            (Answer::Revoked, Some(revoke), _) => return Renewal::Revoked(revoke),
            (Answer::Stop, _, Some(stop)) => {
                self.sent = sent;
                return Renewal::Stop(stop);
            }
            _ => {}
        }
        self.sent = sent;
        Renewal::Renewed
    }
}

impl Grant for SqliteGrant {
    fn token(&self) -> Token {
        self.token
    }

    fn expiry(&self) -> Expiry {
        match self.by {
            By::Kernel => Expiry::Never,
            By::Slot | By::Row => Expiry::After {
                sent: self.sent,
                ttl: self.timing.ttl(),
            },
        }
    }

    fn renew(&mut self) -> Result<Renewal, StoreError> {
        let now = Boot::now();
        if self.by != By::Kernel && !may_renew(self.timing, self.sent, now) {
            return Ok(Renewal::Lost(
                "its lease ran out before it could be renewed".into(),
            ));
        }
        let renewal = match self.by {
            By::Row => self.renew_by_row(now),
            By::Kernel | By::Slot => self.renew_by_file(now),
        }?;
        if self.by == By::Kernel {
            self.inner.db().fold_if_long();
        }
        Ok(renewal)
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
        let stored = self.inner.finish(&end.of(&self.record, self.token), tail);
        // closes the lock file, after all is written
        drop(self);
        stored
    }
}

impl Inner {
    /// Writes a run's end and frees its lock if it still has it; into the spool if the database can't take it.
    pub fn finish(&self, record: &RunRecord, tail: Option<&Tail>) -> Result<Recorded, StoreError> {
        let written = self.db().write(|tx| rows::finish(tx, record, tail));
        self.spool.instead(written, record, tail, || self.fold())
    }

    /// Folds in what stands in the spool.
    pub fn fold(&self) -> Result<(), StoreError> {
        self.spool
            .fold(|entries| self.db().write(|tx| rows::fold(tx, entries)))
    }
}
