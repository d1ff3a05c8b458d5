//! How a lock of the `lockfile:` store is taken, and what its holder does with it.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use super::attempt::{Look, SOON, Steps};
use super::file::{LockFile, id_at};
use super::side::{Asked, Side};
use super::slots::{self, Slot};
use super::wait::Waiters;
use super::{Inner, Known};
use crate::clock::{Boot, Wall};
use crate::lease::file_taker::{FileTaker, Found, Over, Step, may_begin, watch};
use crate::lease::holder::{Beat, By, FileRead, Lease, Step as HolderStep};
use crate::lease::takeover::{Mark, Sighting, Unreleased};
use crate::name::{LockName, RunId, Token};
use crate::store::record::{End, OutOfMemory, Outcome, RunRecord, Tail};
use crate::store::sqlite::db::Db;
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

    fn shared_db(&self) -> Option<MutexGuard<'_, Db>> {
        (!self.local).then(|| self.db())
    }

    fn open(&self, request: &LockRequest<'_>) -> Result<LockFile, StoreError> {
        self.open_lock(&request.lock)
    }

    fn look(&self, request: &LockRequest<'_>) -> Result<Observed, StoreError> {
        self.watch(&request.lock)
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
        let own = &request.holder.run_id;
        let found = known.slot.as_ref().map(|s| self.found(&side, s, Some(own)));
        let row = known.row.as_ref();
        let (mut taker, mut step) =
            FileTaker::begin(before, side.lock.id, found.as_ref(), row, known.elsewhere);
        let mut old = None;
        loop {
            step = match step {
                Step::Look(row) => {
                    let seen = self.unreleased(&side, &row).map_err(broken)?;
                    let kept = self
                        .db()
                        .read(|conn| locks::sighting(conn, &request.lock, &self.here))?;
                    let known = self.first_sight(&request.lock, seen.mark, kept);
                    taker.looked(&seen, known, Boot::now())
                }
                Step::Remember(sighting) => {
                    let place = &self.here;
                    let kept = self
                        .db()
                        .write(|tx| locks::keep_sighting(tx, &request.lock, place, &sighting));
                    match kept {
                        // then it is kept for this attempt only
                        Err(StoreError::Timeout(_)) => {
                            self.watched().insert(request.lock.clone(), sighting);
                        }
                        kept => kept?,
                    }
                    taker.remembered()
                }
                // nobody inherited the lock any more: only those who closed it can be left
                Step::Clear(holder) => match request.clearing.clear(&holder, None) {
                    Cleared::Stuck(left) => {
                        return Err(StoreError::Leftovers {
                            run: holder.run_id,
                            left,
                        });
                    }
                    Cleared::Alive => taker.cleared(true, Boot::now()),
                    Cleared::Gone { .. } => {
                        old = Some(holder);
                        taker.cleared(false, Boot::now())
                    }
                },
                Step::Claim(token) => {
                    let claimed = side.claim(token, &request.holder.run_id);
                    claimed.map_err(broken)?;
                    taker.claimed()
                }
                Step::LookAgain(row) => {
                    let seen = self.unreleased(&side, &row).map_err(broken)?;
                    taker.looked_again(seen.mark, Boot::now())
                }
                Step::Write(token) => {
                    let ttl = self.timing(request.ttl).ttl();
                    let slot = slot(&request.holder, token, ttl, 1, false);
                    side.write(&slot, true).map_err(broken)?;
                    taker.written()
                }
                Step::ReadLock => {
                    let still = is_ours(&side, &request.holder.run_id);
                    taker.lock_read(still.map_err(broken)?)
                }
                Step::Over(Over::Granted { token, sent }) => {
                    let by = match self.server_lease {
                        Some(_) => By::Server,
                        None => By::File,
                    };
                    let lease = Lease::new(token, self.timing(request.ttl), by, 1, sent);
                    return self.begin(request, side, lease, &known, old);
                }
                Step::Over(Over::Again) => return Ok(Look::Again),
                Step::Over(Over::Until(until)) => {
                    let seen = self.inspect(&request.lock)?;
                    return Ok(Look::Leased(seen, until.since(Boot::now())));
                }
                Step::Over(_) => return Ok(Look::Leased(self.inspect(&request.lock)?, SOON)),
            }
        }
    }
}

impl Inner {
    /// `own`: what this run wrote before it lost the lock again, or had it taken away, is nobody's.
    fn found(&self, side: &Side, slot: &Slot, own: Option<&RunId>) -> Found<Holder> {
        Found {
            token: slot.token,
            owner: slot.owner.clone(),
            released: slot.released || own == Some(&slot.owner),
            seq: slot.seq,
            ttl: slot.ttl(),
            proven: side.lock.local || slot.holder.place.same_pids(&self.here),
            holder: slot.holder.clone(),
        }
    }

    /// A grant that was not released: on this file by somebody on another machine, or on a file that is not here any more.
    fn unreleased(&self, side: &Side, row: &LockRow) -> std::io::Result<Unreleased> {
        let place = &row.holder.place;
        let newest = side.holders()?.newest;
        let found = newest.map(|slot| self.found(side, &slot, None));
        let (mark, ttl) = watch(row, found.as_ref(), side.lock.id);
        Ok(Unreleased {
            mark,
            granted_on: row.granted_on,
            same_boot: place.known_same_boot(&self.here),
            local_file: side.lock.local,
            local_store: side.lock.local,
            ttl,
        })
    }

    /// Who has the lock, and since when it has looked like that: one who waits needs not begin to count when the kernel's lock is free.
    fn watch(&self, lock: &LockName) -> Result<Observed, StoreError> {
        let path = self.lock_path(lock);
        let id = || id_at(&path).map_err(|e| trouble::from_io(&path, &e));
        let before = id()?;
        let seen = self.inspect(lock)?;
        let mark = match (before, seen.heartbeat, seen.token) {
            (Some(file), Some(_), Some(token)) if id()? == before => Some(Mark {
                token,
                row_seq: 0,
                slot_seq: Some(seen.seq),
                file,
            }),
            _ => None,
        };
        let mut watched = self.watched();
        match mark {
            Some(mark) if watched.get(lock).is_some_and(|seen| seen.mark == mark) => {}
            Some(mark) => {
                let first = Boot::now();
                watched.insert(lock.clone(), Sighting { mark, first });
            }
            None => {
                watched.remove(lock);
            }
        }
        Ok(seen)
    }

    /// Since when this has been seen: by a waiter while it waited for the kernel's lock, or by another attempt, which kept it.
    fn first_sight(&self, lock: &LockName, mark: Mark, kept: Option<Sighting>) -> Option<Sighting> {
        let watched = self.watched().get(lock).copied();
        let same = |sighting: &Sighting| sighting.mark == mark;
        let both = [watched, kept].into_iter().flatten().filter(same);
        both.min_by_key(|sighting| sighting.first.0).or(kept)
    }

    /// The lock is ours by its file; now by the history too. `old`: whose run was cleared away.
    fn begin(
        self: &Arc<Self>,
        request: &LockRequest<'_>,
        side: Side,
        lease: Lease,
        known: &Known,
        old: Option<Holder>,
    ) -> Result<Look, StoreError> {
        // the end of the run before may wait there
        let folded = self.fold();
        // One who took the lock over wrote that into the file, and then could not write the history, or was gone:
        // the history still waits for the end of the run before, which was ended when it was taken over.
        let unended = known.row.as_ref().filter(|row| !row.released);
        let holders: BTreeMap<_, _> = old
            .into_iter()
            .chain(unended.map(|row| row.holder.clone()))
            .map(|holder| (holder.run_id.clone(), holder))
            .collect();
        let abandoned: Vec<_> = holders
            .into_values()
            .map(|holder| self.abandoned(request, holder))
            .collect::<Result<_, _>>()?;
        let seen = known.row.as_ref().map(|row| row.token);
        let grant = LockfileGrant::begin(
            self,
            request,
            side,
            lease,
            seen,
            Before {
                folded,
                abandoned,
                gaps: known.has_gaps(),
            },
        )?;
        Ok(grant.map_or(Look::Again, |grant| Look::Granted(Box::new(grant))))
    }

    fn abandoned(
        &self,
        request: &LockRequest<'_>,
        holder: Holder,
    ) -> Result<Abandoned, StoreError> {
        let run = &holder.run_id;
        let record = self.db().read(|conn| rows::by_id(conn, run))?;
        let (outcome, memory) = request.clearing.became(record.as_ref());
        Ok(Abandoned {
            holder,
            outcome,
            memory,
        })
    }
}

fn slot(holder: &Holder, token: Token, ttl: Duration, seq: u64, released: bool) -> Slot {
    Slot {
        token,
        owner: holder.run_id.clone(),
        seq,
        released,
        ttl_ms: u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX),
        at: Wall::now(),
        sent: Boot::now(),
        holder: holder.clone(),
    }
}

/// Whether the kernel lock is still `owner`'s, its file at its path, and no other's grant in it newer: a server may have forgotten the lock of one
/// who was stopped, and given it to another.
fn is_ours(side: &Side, owner: &RunId) -> io::Result<bool> {
    if !(side.still_locked()? && side.lock.is_at_path()?) {
        return Ok(false);
    }
    let newest = side.holders()?.newest;
    Ok(newest.is_some_and(|slot| slot.owner == *owner))
}

struct Abandoned {
    holder: Holder,
    outcome: Outcome,
    memory: OutOfMemory,
}

/// What was before a grant.
struct Before {
    /// Whether what waited in the spool is in the history.
    folded: Result<(), StoreError>,
    /// Whose runs were not ended by themselves.
    abandoned: Vec<Abandoned>,
    /// There were grants that the history does not know.
    gaps: bool,
}

struct LockfileGrant {
    inner: Arc<Inner>,
    side: Side,
    holder: Holder,
    record: RunRecord,
    lease: Lease,
    lost: bool,
}

impl LockfileGrant {
    /// The grant stands in the file; the run's begin goes into the history or the spool. `None`: somebody else has been granted the lock,
    /// on a file that was put in the place of ours.
    fn begin(
        inner: &Arc<Inner>,
        request: &LockRequest<'_>,
        side: Side,
        lease: Lease,
        seen: Option<Token>,
        before: Before,
    ) -> Result<Option<Self>, StoreError> {
        let token = lease.token();
        let mut record = request.record.clone();
        record.token = Some(token);
        let row = LockRow {
            token,
            owner: record.run_id.clone(),
            released: false,
            seq: 0,
            ttl: lease.timing().ttl(),
            granted_on: side.lock.id,
            holder: request.holder.clone(),
        };
        let Before {
            folded,
            abandoned,
            gaps,
        } = before;
        let written = inner.write_behind(folded, |tx| {
            if !may_begin(locks::get(tx, &request.lock)?.as_ref(), seen) {
                return Ok(false);
            }
            for old in &abandoned {
                rows::abandon(tx, &old.holder.run_id, old.outcome, old.memory)?;
                if !inner.here.same_pids(&old.holder.place) {
                    locks::keep_unswept(tx, &request.lock, &old.holder)?;
                }
            }
            if gaps {
                // whose begin came out of the spool, and whose end could be written nowhere
                rows::abandon_before(tx, &request.lock, token)?;
            }
            locks::grant(tx, &request.lock, &row)?;
            rows::upsert(tx, &record)?;
            Ok(true)
        });
        if let Ok(false) = written {
            return Ok(None);
        }
        let written = written.map(drop);
        let path = &side.lock.path;
        // the spool could not tell whether another was granted the lock
        if written.is_err()
            && !is_ours(&side, &record.run_id).map_err(|e| trouble::from_io(path, &e))?
        {
            return Ok(None);
        }
        let grant = LockfileGrant {
            inner: Arc::clone(inner),
            side,
            holder: request.holder.clone(),
            record,
            lease,
            lost: false,
        };
        if let Err(error) = inner.spool.instead(written, &grant.record, None) {
            // not started, so the lock is given back; if even that fails, the next one sweeps
            let _ = grant.write_slot(grant.lease.seq() + 1, true, true);
            return Err(error);
        }
        Ok(Some(grant))
    }

    fn write_slot(&self, seq: u64, released: bool, durable: bool) -> Result<(), StoreError> {
        let ttl = self.lease.timing().ttl();
        let slot = slot(&self.holder, self.lease.token(), ttl, seq, released);
        self.side.write(&slot, durable).map_err(|e| self.io(&e))
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
                HolderStep::ReadLock => {
                    let still = self.side.still_locked().map_err(|e| self.io(&e))?;
                    self.lease.lock_read(still)
                }
                HolderStep::WriteSlot { seq, durable } => {
                    self.write_slot(seq, false, durable)?;
                    self.lease.slot_written()
                }
                HolderStep::ReadFile => {
                    asked = self
                        .side
                        .asked(self.lease.token())
                        .map_err(|e| self.io(&e))?;
                    let at_path = self.side.lock.is_at_path().map_err(|e| self.io(&e))?;
                    self.lease.file_read(FileRead {
                        still_locked: true,
                        wishes: asked.wishes,
                        at_path,
                    })
                }
                // nothing but the kernel's lock keeps this grant
                HolderStep::RenewRow | HolderStep::ReadWishes => self.lease.row_renewed(false),
                HolderStep::Over(beat) => return Ok((beat, asked)),
            }
        }
    }
}

impl Grant for LockfileGrant {
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
        self.lost |= matches!(beat, Beat::Lost(_));
        Ok(match (beat, asked.stop, asked.revoke) {
            (Beat::Stop, Some(stop), _) => Renewal::Stop(stop),
            (Beat::Revoked, _, Some(revoke)) => Renewal::Revoked(revoke),
            (Beat::Lost(loss), ..) => Renewal::Lost(loss.to_string()),
            _ => Renewal::Renewed,
        })
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
        let recorded = self
            .inner
            .finish(&end.of(&self.record, self.lease.token()), tail);
        // a file that may be another's by now is left alone; one that can't be written is freed all the same, by
        // closing it, and the next holder finds the run's end in the history
        if !self.lost
            && self
                .side
                .holders()
                .is_ok_and(|found| found.newest.is_some_and(|s| s.owner == self.record.run_id))
        {
            let _ = self.write_slot(self.lease.seq() + 1, true, true);
        }
        recorded
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lease::takeover::FileId;
    use crate::lease::timing::Timing;
    use crate::name::LockName;
    use crate::output::record::tests::{holder_of, run};
    use crate::store::lockfile::LockfileStore;
    use crate::store::{Attempt, Clearing, History, Locks, Purpose};
    use std::os::unix::fs::MetadataExt;
    use std::path::Path;

    struct Nobody;

    impl Clearing for Nobody {
        fn clear(&self, _: &Holder, _: Option<BorrowedFd<'_>>) -> Cleared {
            Cleared::Gone { ended: 0 }
        }
    }

    /// A new store with a run under its lock.
    fn granted(folder: &Path) -> (LockfileStore, RunRecord, Box<dyn Grant>) {
        let store = LockfileStore::open(folder, None, Purpose::Run).unwrap();
        let mut record = run("sync", 0, Outcome::Running);
        record.end = None;
        let mut holder = holder_of("sync");
        holder.run_id = record.run_id.clone();
        holder.place = Place::here();
        let request = LockRequest {
            lock: record.lock.clone(),
            holder,
            record: record.clone(),
            ttl: None,
            clearing: &Nobody,
            interrupted: &|| false,
        };
        let Ok(Attempt::Granted(grant)) = store.try_acquire(&request, None) else {
            panic!("not granted");
        };
        (store, record, grant)
    }

    fn new(folder: &Path) -> (Arc<Inner>, LockName) {
        let store = LockfileStore::open(folder, None, Purpose::Run).unwrap();
        (store.inner, "sync".parse().unwrap())
    }

    fn newest(path: &Path) -> Slot {
        let file = std::fs::File::open(path).unwrap();
        slots::holders(&file).unwrap().newest.unwrap()
    }

    #[test]
    fn a_grant_on_a_file_that_is_not_at_its_path_is_nobodys() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.lock");
        let file = LockFile::open_or_create(&path).unwrap();
        assert!(file.try_lock().unwrap());
        let side = Side::of(file).unwrap().unwrap();
        let holder = holder_of("sync");
        let slot = slot(&holder, Token(1), Timing::DEFAULT, 1, false);
        side.write(&slot, true).unwrap();
        assert!(is_ours(&side, &holder.run_id).unwrap());
        assert!(!is_ours(&side, &RunId::random()).unwrap());
        std::fs::rename(&path, dir.path().join("b.lock")).unwrap();
        assert!(!is_ours(&side, &holder.run_id).unwrap());
    }

    #[test]
    fn a_lock_file_has_room_for_all_heartbeats_from_the_grant_on() {
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        let (_store, _, _grant) = granted(dir.path());
        let meta = std::fs::metadata(dir.path().join("sync.lock")).unwrap();
        assert_eq!(
            (meta.size(), meta.blocks() * 512),
            (slots::SIZE, slots::SIZE)
        );
    }

    #[test]
    fn output_is_kept_while_the_run_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let (store, record, mut grant) = granted(dir.path());
        let (bytes, total) = (b"so far".to_vec(), 6);
        grant.save_tail(&Tail { bytes, total }).unwrap();
        let kept = store.tail(&record.run_id).unwrap().unwrap();
        assert_eq!((&kept.bytes[..], kept.total), (&b"so far"[..], 6));
    }

    #[test]
    fn who_lost_the_lock_writes_no_release() {
        let dir = tempfile::tempdir().unwrap();
        let end = run("sync", 0, Outcome::Lost).end.unwrap();
        let (path, moved) = (dir.path().join("sync.lock"), dir.path().join("moved"));
        let (_store, _, mut grant) = granted(dir.path());
        std::fs::rename(&path, &moved).unwrap();
        assert!(matches!(grant.renew().unwrap(), Renewal::Lost(_)));
        grant.release(&end, None).unwrap();
        assert!(!newest(&moved).released);
    }

    #[test]
    fn the_end_of_a_run_that_another_writes_frees_its_own_grant_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sync.lock");
        let (store, record, grant) = granted(dir.path());
        let (token, lock): (_, LockName) = (grant.token(), record.lock.clone());
        let end = |record: &RunRecord, token: Token| {
            let end = run("sync", 0, Outcome::Abandoned).end.unwrap();
            store.end_of(record, token, &end, None).unwrap();
            newest(&path)
        };
        // its keeper lives
        assert!(!end(&record, token).released);
        drop(grant);
        let before = newest(&path);
        assert!(!end(&record, token.next()).released);
        let mut other = record.clone();
        other.run_id = RunId::random();
        assert!(!end(&other, token).released);
        let freed = end(&record, token);
        assert!(freed.released && freed.at >= before.at);
        assert_eq!(freed.seq, before.seq + 1);
        // once
        assert_eq!(end(&record, token).seq, freed.seq);
        assert_eq!(store.inspect(&lock).unwrap().holder, None);
    }

    #[test]
    fn what_was_seen_first_counts_while_it_looks_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let (store, lock) = new(dir.path());
        let mark = |seq| Mark {
            token: Token(5),
            row_seq: 0,
            slot_seq: Some(seq),
            file: FileId { dev: 1, ino: 2 },
        };
        let seen = |seq, at| Sighting {
            mark: mark(seq),
            first: Boot(at),
        };
        let first = |kept| store.first_sight(&lock, mark(1), kept);
        assert_eq!(first(None), None);
        assert_eq!(first(Some(seen(1, 30))), Some(seen(1, 30)));
        store.watched().insert(lock.clone(), seen(1, 20));
        assert_eq!(first(Some(seen(1, 30))), Some(seen(1, 20)));
        assert_eq!(first(Some(seen(1, 10))), Some(seen(1, 10)));
        assert_eq!(first(None), Some(seen(1, 20)));
        // what looked otherwise tells the lease's own decision that it changed
        store.watched().insert(lock.clone(), seen(2, 20));
        assert_eq!(first(Some(seen(3, 30))), Some(seen(3, 30)));
        assert_eq!(first(None), None);
    }

    #[test]
    fn a_waiter_counts_from_when_the_lock_last_changed() {
        let dir = tempfile::tempdir().unwrap();
        let (store, lock) = new(dir.path());
        let write = |seq: u64| {
            let side = Side::of(store.open_lock(&lock).unwrap()).unwrap().unwrap();
            let slot = slot(&holder_of("sync"), Token(5), Timing::DEFAULT, seq, false);
            side.write(&slot, false).unwrap();
        };
        let watched = || {
            store.watch(&lock).unwrap();
            store.watched().get(&lock).copied()
        };
        assert_eq!(watched(), None);
        write(1);
        let first = watched().unwrap();
        assert_eq!(first.mark.slot_seq, Some(1));
        assert_eq!(watched(), Some(first));
        write(2);
        let second = watched().unwrap();
        assert_eq!(second.mark.slot_seq, Some(2));
        assert!(second.first > first.first);
        // another file, with the same in it
        let path = store.lock_path(&lock);
        let (copy, moved) = (dir.path().join("copy"), dir.path().join("moved"));
        std::fs::copy(&path, &copy).unwrap();
        std::fs::rename(&path, &moved).unwrap();
        std::fs::rename(&copy, &path).unwrap();
        assert_ne!(watched().unwrap().mark, second.mark);
    }
}
