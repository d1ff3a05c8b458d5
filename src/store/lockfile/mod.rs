//! `lockfile:DIRECTORY`: kernel locks on files, with holder and token inside them. Its parts serve `sqlite:` too.
//!
//! The kernel lock on `DIRECTORY/<lock>.lock` is the authority, on NFS together with the server's word. The
//! file's holder slots give token and holder, and are written in turn with a sync at grant and release.
//! The history is a database beside them, `history.db`, written at a gate of its own; what it can't take goes to `spool/`.
//!
//! A lock file that is deleted or replaced under its holder excludes nobody any more: the holder's next heartbeat says
//! *lost*. Whoever locks the new file learns from the history that its tokens go on further, and waits
//! a lease before it believes the old holder gone. So does whoever gets the kernel's lock on a network file system although
//! somebody on another machine did not release it: file servers may forget locks.
//!
//! Not guaranteed: anything where the mount's locks don't reach the other machine. What can be known of that is looked
//! at before a start, see `mount::lies`.

pub mod attempt;
pub mod file;
pub mod gate;
mod grant;
mod history;
pub mod probe;
pub mod queue;
pub mod side;
pub mod slots;
pub mod wait;

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::Boot;
use crate::lease::file_taker;
use crate::lease::takeover::Sighting;
use crate::lease::timing::Timing;
use crate::name::{LockName, Token};
use crate::store::mount::lease::{self, ServerLease};
use crate::store::mount::lies;
use crate::store::probe as store_probe;
use crate::store::spool::Spool;
use crate::store::sqlite::db::Db;
use crate::store::sqlite::locks::{self, LockRow};
use crate::store::sqlite::{rows, schema};
use crate::store::{
    About, Attempt, Finding, Holder, LockRequest, Locks, Observed, Place, Purpose, Request, Store,
    StoreError, mount, trouble, trust,
};
use file::LockFile;
use queue::Queued;
use slots::Slot;
use wait::Waiters;

/// The history, in the store's folder.
pub const HISTORY: &str = "history.db";

/// The store.
pub struct LockfileStore {
    inner: Arc<Inner>,
}

struct Inner {
    folder: PathBuf,
    local: bool,
    /// After how long a silent client's locks are given away; `None`: never, the kernel alone decides.
    server_lease: Option<ServerLease>,
    uuid: String,
    here: Place,
    spool: Spool,
    waiters: Waiters,
    /// What was seen by those who wait.
    watched: Mutex<HashMap<LockName, Sighting>>,
    db: Mutex<Db>,
}

/// What it consists of besides lock files.
pub fn parts(folder: &Path) -> Vec<PathBuf> {
    let names = ["history.db", "history.db-journal", "history.gate", "spool"];
    names.map(|name| folder.join(name)).into()
}

impl LockfileStore {
    /// Opens the store in `folder`, see [`super::open`].
    pub fn open(
        folder: &Path,
        server_lease: Option<Duration>,
        purpose: Purpose,
    ) -> Result<Self, StoreError> {
        let broken = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => trouble::no_folder(folder),
            _ => trouble::from_io(folder, &error),
        };
        let folder = trust::follow(folder)?.path;
        folder.symlink_metadata().map_err(broken)?;
        if !folder.is_dir() {
            return Err(trouble::unusable(
                &folder,
                "is a file, and a folder is needed: lockfile:DIRECTORY",
            ));
        }
        let (history, spool) = (folder.join(HISTORY), folder.join("spool"));
        trust::check_part(&spool, true)?;
        if purpose != Purpose::Read {
            trust::refuse_for_root(&folder, &parts(&folder))?;
        }
        let local = mount::is_local_at(&folder).map_err(broken)?;
        let server_lease = if local {
            None
        } else {
            lease::behind(&folder, server_lease)
        };
        if let Some(lease) = server_lease.filter(|lease| lease.length < Timing::MIN)
            && purpose == Purpose::Run
        {
            return Err(trouble::unusable(&folder, &lease.too_short()));
        }
        let db = Db::open_or_snapshot(&history, purpose, folder.join("history.gate"))?;
        let inner = Inner {
            local,
            server_lease,
            uuid: db.uuid.clone(),
            here: Place::here(),
            spool: Spool::at(spool),
            waiters: Waiters::default(),
            watched: Mutex::default(),
            db: Mutex::new(db),
            folder,
        };
        Ok(LockfileStore {
            inner: Arc::new(inner),
        })
    }
}

/// What stands about a lock, in the file and in the history.
struct Known {
    slot: Option<Slot>,
    row: Option<LockRow>,
    /// The newest token that the rows and the spool tell of.
    elsewhere: Option<Token>,
}

impl Known {
    /// The newest token that was ever granted.
    fn token(&self) -> Option<Token> {
        [
            self.slot.as_ref().map(|s| s.token),
            self.row.as_ref().map(|r| r.token),
            self.elsewhere,
        ]
        .into_iter()
        .flatten()
        .max()
    }

    /// The history was not told of the grant in the file, nor perhaps of others before that.
    fn has_gaps(&self) -> bool {
        let granted = self.slot.as_ref().map(|slot| slot.token);
        granted > self.row.as_ref().map(|row| row.token)
    }

    /// The row, if it knows a later grant than the lock file does: that file is not the one that was granted on.
    fn later_row(&self) -> Option<&LockRow> {
        file_taker::later(self.row.as_ref(), self.slot.as_ref().map(|slot| slot.token))
    }
}

impl Inner {
    fn db(&self) -> MutexGuard<'_, Db> {
        // a panic in a transaction rolled it back
        self.db.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn watched(&self) -> MutexGuard<'_, HashMap<LockName, Sighting>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_path(&self, lock: &LockName) -> PathBuf {
        self.folder.join(format!("{lock}.lock"))
    }

    fn queue_path(&self, lock: &LockName) -> PathBuf {
        self.folder.join(format!("{lock}.waiting"))
    }

    fn open_lock(&self, lock: &LockName) -> Result<LockFile, StoreError> {
        let path = self.lock_path(lock);
        LockFile::open_or_create(&path).map_err(|e| trouble::from_io(&path, &e))
    }

    /// The file server's lease, where it has one.
    fn lease(&self) -> Option<Duration> {
        self.server_lease.map(|lease| lease.length)
    }

    /// The lease's arithmetic: what the server does is not for us to choose, but how often a holder shows that it lives.
    fn timing(&self, asked: Option<Duration>) -> Timing {
        Timing::of(self.lease().or(asked).unwrap_or(Timing::DEFAULT))
    }

    fn known(&self, lock: &LockName, slot: Option<Slot>) -> Result<Known, StoreError> {
        // before the rows: what another folds in meanwhile is in both then, and not in neither
        let spooled = self.spool.records();
        let row = self.db().read(|conn| locks::get(conn, lock))?;
        // every row is looked at, but only for a lock file that is new
        let recorded = match slot {
            Some(_) => None,
            None => self.db().read(|conn| rows::newest_token(conn, lock))?,
        };
        let of_lock = spooled.iter().filter(|record| record.lock == *lock);
        let waiting = of_lock.filter_map(|record| record.token).max();
        Ok(Known {
            slot,
            row,
            elsewhere: waiting.max(recorded),
        })
    }

    fn inspect(&self, lock: &LockName) -> Result<Observed, StoreError> {
        let path = self.lock_path(lock);
        let seen = side::look(&path, None).map_err(|e| trouble::from_io(&path, &e))?;
        let (slot, asked) = seen.unwrap_or_default();
        let known = self.known(lock, slot)?;
        let mut observed = Observed {
            token: known.token(),
            ttl: self.lease(),
            ..Observed::nobody()
        };
        // the holder may have the store by another version of NFS than we
        let ttl_of = |holder: &Holder, ttl| match &holder.freeing {
            Some(freeing) => freeing.leased.then_some(ttl),
            None => self.lease(),
        };
        if let Some(row) = known.later_row() {
            if !row.released {
                observed.ttl = ttl_of(&row.holder, row.ttl);
                observed.holder = Some(row.holder.clone());
            }
        } else if let Some(slot) = known.slot {
            observed.seq = slot.seq;
            if !slot.released {
                observed.revoked = asked.revoke.filter(|r| r.token == slot.token);
                observed.stopping = asked.stop.filter(|r| r.token == slot.token);
                observed.heartbeat = Some(slot.at);
                observed.ttl = ttl_of(&slot.holder, slot.ttl());
                observed.holder = Some(slot.holder);
            }
        }
        Ok(observed)
    }

    fn leave(
        &self,
        lock: &LockName,
        place: slots::Place,
        request: &Request,
    ) -> Result<(), StoreError> {
        let file = self.open_lock(lock)?;
        side::leave(&file, place, request).map_err(|e| trouble::from_io(&file.path, &e))
    }
}

impl Locks for LockfileStore {
    fn try_acquire(
        &self,
        request: &LockRequest<'_>,
        until: Option<Boot>,
    ) -> Result<Attempt, StoreError> {
        attempt::attempt(&self.inner, request, until)
    }

    fn queue(
        &self,
        lock: &LockName,
        limit: Option<u32>,
    ) -> Result<Result<Queued, u32>, StoreError> {
        let path = self.inner.queue_path(lock);
        queue::enter(&path, limit).map_err(|e| trouble::from_io(&path, &e))
    }

    fn waiting(&self, lock: &LockName) -> Result<u32, StoreError> {
        let path = self.inner.queue_path(lock);
        queue::length(&path).map_err(|e| trouble::from_io(&path, &e))
    }

    fn inspect(&self, lock: &LockName) -> Result<Observed, StoreError> {
        self.inner.inspect(lock)
    }

    fn locks(&self) -> Result<Vec<LockName>, StoreError> {
        let broken = |e: io::Error| trouble::from_io(&self.inner.folder, &e);
        let mut names = self.inner.db().read(locks::names)?;
        for entry in std::fs::read_dir(&self.inner.folder).map_err(broken)? {
            let name = entry.map_err(broken)?.file_name();
            names.extend(
                name.to_str()
                    .and_then(|n| n.strip_suffix(".lock"))
                    .and_then(|n| n.parse().ok()),
            );
        }
        names.sort();
        names.dedup();
        Ok(names)
    }

    fn request_stop(&self, lock: &LockName, request: &Request) -> Result<(), StoreError> {
        self.inner.leave(lock, slots::Place::Stop, request)
    }

    fn revoke(&self, lock: &LockName, request: &Request) -> Result<(), StoreError> {
        self.inner.leave(lock, slots::Place::Revoke, request)
    }

    fn lock_file(&self, lock: &LockName) -> PathBuf {
        self.inner.lock_path(lock)
    }

    fn probe(&self) -> Vec<Finding> {
        let inner = &self.inner;
        let mut findings = probe::locks(&inner.folder, true);
        findings.extend(store_probe::file_system(&inner.folder, lies::LOCKFILE));
        findings.extend(inner.server_lease.as_ref().map(store_probe::server_lease));
        findings.push(store_probe::room(&inner.folder));
        findings.extend(
            [inner.folder.clone(), inner.folder.join("history.db")]
                .iter()
                .map(|path| store_probe::rights(path)),
        );
        findings.push(store_probe::trusted(&inner.folder, &parts(&inner.folder)));
        findings.extend(store_probe::database(&mut inner.db()));
        findings.push(store_probe::clock());
        findings.push(store_probe::spool(inner.spool.records().len()));
        findings
    }
}

impl Store for LockfileStore {
    fn about(&self) -> About {
        About {
            url: format!("lockfile:{}", self.inner.folder.display()),
            id: self.inner.uuid.clone(),
            shared: !self.inner.local,
            format: schema::FORMAT,
            file_system: mount::of(&self.inner.folder)
                .map(|m| m.kind)
                .unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {

    use super::*;
    use crate::lease::takeover::FileId;
    use crate::name::RunId;
    use crate::output::record::tests::{holder_of, run};
    use crate::store::History;
    use crate::store::record::{Attempted, Outcome, RunRecord};
    use crate::store::spool::Entry;

    /// A new store, and a lock.
    fn store(folder: &Path) -> (Arc<Inner>, LockName) {
        let store = LockfileStore::open(folder, None, Purpose::Run).unwrap();
        (store.inner, "sync".parse().unwrap())
    }

    #[test]
    fn a_store_on_a_disk_of_our_own_is_not_shared() {
        let disk = Path::new("/dev/shm");
        let dir = tempfile::tempdir_in(disk).unwrap();
        let store = LockfileStore::open(dir.path(), None, Purpose::Run).unwrap();
        assert!(!store.about().shared);
    }

    #[test]
    fn a_grant_that_only_the_history_knows_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let (store, lock) = store(dir.path());
        let holder = holder_of("sync");
        let row = LockRow {
            token: Token(5),
            owner: holder.run_id.clone(),
            released: false,
            seq: 0,
            ttl: Timing::DEFAULT,
            granted_on: FileId { dev: 1, ino: 2 },
            holder: holder.clone(),
        };
        store
            .db()
            .write(|tx| locks::grant(tx, &lock, &row))
            .unwrap();
        let seen = store.inspect(&lock).unwrap();
        assert_eq!((seen.token, seen.holder), (Some(Token(5)), Some(holder)));
        let release = |tx: &_| locks::release(tx, &lock, &row.owner, row.token);
        assert!(store.db().write(|tx| release(tx)).unwrap());
        let seen = store.inspect(&lock).unwrap();
        assert_eq!((seen.token, seen.holder), (Some(Token(5)), None));
    }

    #[test]
    fn tokens_in_the_spool_count_for_their_own_lock_alone() {
        let dir = tempfile::tempdir().unwrap();
        let (store, lock) = store(dir.path());
        for (job, token) in [("sync", 7), ("other", 9)] {
            let mut record = run(job, 60, Outcome::Succeeded);
            record.token = Some(Token(token));
            record.run_id = RunId::random();
            store.spool.write(&Entry::new(record, None)).unwrap();
        }
        assert_eq!(store.inspect(&lock).unwrap().token, Some(Token(7)));
    }

    #[test]
    fn what_waits_in_the_spool_is_found_as_if_it_were_stored() {
        let dir = tempfile::tempdir().unwrap();
        let (inner, _) = store(dir.path());
        let store = LockfileStore { inner };
        let spool = |job: &str, ago, outcome| {
            let mut record = run(job, ago, outcome);
            record.run_id = RunId::random();
            store
                .inner
                .spool
                .write(&Entry::new(record.clone(), None))
                .unwrap();
            record
        };
        let success = spool("sync", 60, Outcome::Succeeded);
        spool("sync", 50, Outcome::Failed);
        let other = spool("other", 40, Outcome::Succeeded);
        let end = |record: &RunRecord| record.end.as_ref().map(|end| end.at);
        assert_eq!(store.last_success("sync").unwrap(), end(&success));
        assert_eq!(store.last_success("other").unwrap(), end(&other));
        assert_eq!(store.last_success("third").unwrap(), None);
        let id = success.run_id.as_str();
        let by_prefix = |prefix: &str| store.by_prefix(prefix).unwrap();
        assert_eq!(by_prefix(id), std::slice::from_ref(&success));
        assert_eq!(
            by_prefix(&id[..RunId::SHORT]),
            std::slice::from_ref(&success)
        );
        assert_eq!(by_prefix(&id[..RunId::SHORT - 1]), []);
        assert_eq!(by_prefix(&"z".repeat(id.len())), []);
        // whoever writes stores it
        let refused = Attempted {
            outcome: Outcome::Cancelled,
            held_by: None,
            note: None,
        };
        store
            .attempted(&run("sync", 30, Outcome::Running), &refused)
            .unwrap();
        assert!(store.inner.spool.records().is_empty());
        assert_eq!(store.last_success("sync").unwrap(), end(&success));
    }
}
