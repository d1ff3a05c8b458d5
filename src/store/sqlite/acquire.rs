//! How a lock of the `sqlite:` store is taken: kernel lock first, then one transaction.

use std::sync::Arc;

use super::grant::SqliteGrant;
use super::locks::{self, LockRow};
use super::{Inner, rows};
use crate::clock::Boot;
use crate::lease::takeover::{Decision, Mark, Sighting, Unreleased, decide};
use crate::lease::timing::Timing;
use crate::name::Token;
use crate::store::lockfile::attempt::{Look, SOON, Steps};
use crate::store::lockfile::file::LockFile;
use crate::store::lockfile::side::Side;
use crate::store::lockfile::wait::Waiters;
use crate::store::record::{OutOfMemory, Outcome};
use crate::store::{Cleared, LockRequest, Observed, Place, StoreError, trouble};

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
    // before the looks at file and row, and before the grant is sent: it serves as both
    let before = Boot::now();
    let Some(side) = Side::of(file).map_err(broken)? else {
        return Ok(Look::Again);
    };
    // A database that was deleted, or put back from a backup, knows fewer grants than the lock file.
    let floor = side.holders().map_err(broken)?.newest.map(|s| s.token);
    match write_grant(inner, request, &side, floor, None)? {
        Written::Granted(token) => Ok(Look::Granted(Box::new(granted(
            inner, request, side, token, before,
        )))),
        Written::Not(Some(old)) => take_over(inner, request, side, &old, floor, before),
        Written::Not(None) => Ok(Look::Again),
    }
}

fn granted(
    inner: &Arc<Inner>,
    request: &LockRequest<'_>,
    side: Side,
    token: Token,
    sent: Boot,
) -> SqliteGrant {
    let timing = Timing::of(request.ttl.unwrap_or(Timing::DEFAULT));
    SqliteGrant::new(Arc::clone(inner), side, request, token, timing, sent)
}

enum Written {
    Granted(Token),
    /// The row is unreleased, and not the one that was expected.
    Not(Option<Box<LockRow>>),
}

/// The grant, in one transaction: token, owner and the run's begin. The token is newer than the row's and than `floor`. `old`: the unreleased grant that may be overwritten
/// if it is as it was seen, and what became of its run.
fn write_grant(
    inner: &Arc<Inner>,
    request: &LockRequest<'_>,
    side: &Side,
    floor: Option<Token>,
    old: Option<(&LockRow, Outcome, OutOfMemory)>,
) -> Result<Written, StoreError> {
    let timing = Timing::of(request.ttl.unwrap_or(Timing::DEFAULT));
    inner.db().write(|tx| {
        let row = locks::get(tx, &request.lock)?;
        let newest = row.as_ref().map(|row| row.token).max(floor);
        let token = newest.map_or(Token(1), Token::next);
        if let Some(row) = row {
            match old {
                _ if row.released => {}
                Some((seen, outcome, memory)) if seen.unchanged(&row) => {
                    rows::abandon(tx, &row.owner, outcome, memory)?;
                }
                _ => return Ok(Written::Not(Some(Box::new(row)))),
            }
        }
        let grant = LockRow {
            token,
            owner: request.holder.run_id.clone(),
            released: false,
            seq: 0,
            ttl: timing.ttl(),
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

fn mark(row: &LockRow, side: &Side) -> std::io::Result<Mark> {
    let slot = side
        .holders()?
        .newest
        .filter(|s| s.token == row.token && s.owner == row.owner);
    Ok(Mark {
        token: row.token,
        row_seq: row.seq,
        slot_seq: slot.map(|s| s.seq),
        file: side.lock.id,
    })
}

/// The row says that `old` was not released.
fn take_over(
    inner: &Arc<Inner>,
    request: &LockRequest<'_>,
    side: Side,
    old: &LockRow,
    floor: Option<Token>,
    before: Boot,
) -> Result<Look, StoreError> {
    let path = side.lock.path.clone();
    let broken = |e: std::io::Error| trouble::from_io(&path, &e);
    // its end may wait in the spool, and frees the lock
    inner.fold()?;
    let (row, known) = inner.db().read(|conn| {
        Ok((
            locks::get(conn, &request.lock)?,
            locks::sighting(conn, &request.lock, &inner.here)?,
        ))
    })?;
    if row.as_ref() != Some(old) {
        return Ok(Look::Again);
    }
    let place = &old.holder.place;
    let seen = Unreleased {
        mark: mark(old, &side).map_err(broken)?,
        granted_on: old.granted_on,
        same_boot: (!place.boot_id.is_empty() && !inner.here.boot_id.is_empty())
            .then(|| place.same_boot(&inner.here)),
        local_file: side.lock.local,
        local_store: !inner.shared,
        ttl: old.ttl,
    };
    let decision = decide(&seen, known.as_ref(), before, Boot::now());
    if let Decision::Wait { sighting, until } = decision {
        remember(inner, request, known.as_ref(), &sighting)?;
        return Ok(Look::Leased(
            inner.inspect(&request.lock)?,
            until.since(Boot::now()),
        ));
    }
    // we hold its kernel lock: nobody inherited it any more, only those who closed it can be left
    match request.clearing.clear(&old.holder, None) {
        // of its three processes only the one without the lock can be left, or, where kernel locks don't reach, any:
        // a front that is about to end, or one that is stopped. It is a holder until it is gone.
        Cleared::Alive => return Ok(Look::Leased(inner.inspect(&request.lock)?, SOON)),
        Cleared::Stuck(left) => {
            return Err(StoreError::Leftovers {
                run: old.owner.clone(),
                left,
            });
        }
        Cleared::Gone { .. } => {}
    }
    if decision == Decision::TakeLapsed {
        side.claim(old.token, &request.holder.run_id)
            .map_err(broken)?;
        let after = mark(old, &side).map_err(broken)?;
        if after != seen.mark {
            // alive after all. The claim stays: see `grant`
            return Ok(Look::Leased(inner.inspect(&request.lock)?, old.ttl));
        }
    }
    let record = inner.db().read(|conn| rows::by_id(conn, &old.owner))?;
    let memory = record.map_or(OutOfMemory::Unknown, |record| {
        request.clearing.out_of_memory(&record)
    });
    let outcome = if memory == OutOfMemory::Yes {
        Outcome::OomKilled
    } else {
        Outcome::Abandoned
    };
    let sent = Boot::now();
    match write_grant(inner, request, &side, floor, Some((old, outcome, memory)))? {
        Written::Granted(token) => Ok(Look::Granted(Box::new(granted(
            inner, request, side, token, sent,
        )))),
        Written::Not(_) => Ok(Look::Again),
    }
}

/// Keeps what was seen, so that an attempt a minute from now goes on counting.
fn remember(
    inner: &Inner,
    request: &LockRequest<'_>,
    known: Option<&Sighting>,
    seen: &Sighting,
) -> Result<(), StoreError> {
    if known == Some(seen) {
        return Ok(());
    }
    inner
        .db()
        .write(|tx| locks::keep_sighting(tx, &request.lock, &inner.here, seen))
}
