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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::record::tests::{holder_of, run};
    use crate::store::sqlite::SqliteStore;
    use crate::store::{Attempt, Clearing, Locks, Purpose, RunRecord};
    use std::os::fd::BorrowedFd;
    use std::sync::Mutex;
    use std::time::Duration;

    /// Answers always the same, and keeps in mind of whom it was asked.
    struct Says(Cleared, Mutex<Vec<RunId>>);

    impl Clearing for Says {
        fn clear(&self, holder: &Holder, _: Option<BorrowedFd<'_>>) -> Cleared {
            self.1.lock().unwrap().push(holder.run_id.clone());
            self.0.clone()
        }
    }

    fn says(cleared: Cleared) -> Says {
        Says(cleared, Mutex::default())
    }

    fn store(folder: &std::path::Path) -> SqliteStore {
        SqliteStore::open(&folder.join("x.db"), true, None, Purpose::Run).unwrap()
    }

    fn request<'a>(clearing: &'a Says, interrupted: &'a dyn Fn() -> bool) -> LockRequest<'a> {
        let mut record: RunRecord = run("sync", 0, Outcome::Running);
        record.run_id = RunId::random();
        let mut holder = holder_of("sync");
        holder.run_id = record.run_id.clone();
        LockRequest {
            lock: record.lock.clone(),
            holder,
            record,
            ttl: None,
            clearing,
            interrupted,
        }
    }

    #[test]
    fn what_was_taken_over_elsewhere_is_swept_here_before_a_start_and_once() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path());
        let mut left = holder_of("sync");
        left.place = Place::here();
        let lock = "sync".parse().unwrap();
        let keep = |tx: &rusqlite::Transaction<'_>| locks::keep_unswept(tx, &lock, &left);
        store.inner.db().write(keep).unwrap();
        let alive = says(Cleared::Alive);
        let attempt = store
            .try_acquire(&request(&alive, &|| false), None)
            .unwrap();
        assert!(matches!(attempt, Attempt::Held(_)));
        let gone = says(Cleared::Gone { ended: 1 });
        for _ in 0..2 {
            let attempt = store.try_acquire(&request(&gone, &|| false), None).unwrap();
            let Attempt::Granted(grant) = attempt else {
                panic!("held");
            };
            let end = run("sync", 0, Outcome::Succeeded).end.unwrap();
            grant.release(&end, None).unwrap();
        }
        assert_eq!(gone.1.into_inner().unwrap(), [left.run_id]);
        assert!(!alive.1.into_inner().unwrap().is_empty());
    }

    #[test]
    fn a_lock_that_is_taken_while_nobody_is_named_is_looked_at_again_for_a_moment() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path());
        let gone = says(Cleared::Gone { ended: 0 });
        let taken = || {
            let file = store.inner.open_lock(&"sync".parse().unwrap()).unwrap();
            assert!(file.try_lock().unwrap());
            file
        };
        let began = Boot::now();
        let file = taken();
        let interrupted = store.try_acquire(&request(&gone, &|| true), None).unwrap();
        assert!(matches!(interrupted, Attempt::Held(_)));
        assert!(Boot::now().since(began) < Duration::from_secs(1));
        std::thread::scope(|scope| {
            scope.spawn(move || {
                std::thread::sleep(Duration::from_millis(300));
                drop(file);
            });
            let attempt = store.try_acquire(&request(&gone, &|| false), None).unwrap();
            assert!(matches!(attempt, Attempt::Granted(_)));
        });
    }

    #[test]
    fn whom_a_lapsed_lease_is_taken_from_on_another_machine_is_kept_in_mind() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path());
        let gone = says(Cleared::Gone { ended: 0 });
        let mut old = request(&gone, &|| false);
        old.ttl = Some(Timing::MIN);
        let Ok(Attempt::Granted(grant)) = store.try_acquire(&old, None) else {
            panic!("held");
        };
        // its machine is gone
        drop(grant);
        let mut new = request(&gone, &|| false);
        new.holder.place = Place::here();
        let until = Boot::now() + Duration::from_secs(60);
        let Ok(Attempt::Granted(grant)) = store.try_acquire(&new, Some(until)) else {
            panic!("held");
        };
        let kept = |place: &Place| {
            let unswept = |conn: &_| locks::unswept(conn, &old.lock, place);
            let kept = store.inner.db().read(unswept).unwrap();
            kept.into_iter()
                .map(|holder| holder.run_id)
                .collect::<Vec<_>>()
        };
        assert_eq!(kept(&old.holder.place), [old.holder.run_id.clone()]);
        // what was on this machine was swept
        drop(grant);
        let Ok(Attempt::Granted(_)) = store.try_acquire(&request(&gone, &|| false), Some(until))
        else {
            panic!("held");
        };
        assert_eq!(kept(&Place::here()), []);
    }
}
