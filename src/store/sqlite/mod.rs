//! `sqlite:PATH`: a lease row and a kernel lock on a side file, with the history in the same database.
//!
//! The row of table `locks` says who has a lock and under which token; the side file `PATH.locks/<lock>.lock` carries
//! the kernel lock, the heartbeats and the requests. A run costs two durable commits: the grant with
//! the row's begin, and the release with its end.
//!
//! **Local** store: the kernel lock is the authority, a grant never expires, and a heartbeat that fails kills nothing.
//! If the lock file is deleted or renamed under the holder, the kernel lock protects no more: from its next heartbeat
//! on the holder renews through its row, as a lease. Whoever gets the lock on another file meanwhile waits the TTL.
//! **Shared** store: kernel lock and lease. See the module `grant` for how a holder and somebody who takes over can't miss each other.
//!
//! Not guaranteed: anything once the database *and* its locks are deleted. Nor, in a local store whose lock file was
//! deleted, against a holder in another pid namespace whose keeper is stopped at the same time.

mod acquire;
pub mod db;
mod grant;
mod history;
pub mod locks;
pub mod path;
pub mod prune;
pub mod rows;
pub mod schema;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::Boot;
use crate::name::LockName;
use crate::store::lockfile;
use crate::store::lockfile::attempt::attempt;
use crate::store::lockfile::file::{self, LockFile};
use crate::store::lockfile::queue::{self, Queued};
use crate::store::lockfile::side;
use crate::store::lockfile::slots;
use crate::store::lockfile::wait::Waiters;
use crate::store::probe;
use crate::store::spool::Spool;
use crate::store::{
    About, Attempt, Finding, LockRequest, Locks, Observed, Place, Purpose, Request, Store,
    StoreError,
    mount::{self, lies},
    trouble, trust,
};
use db::{Db, Make};
use path::beside;

/// The store.
pub struct SqliteStore {
    inner: Arc<Inner>,
}

struct Inner {
    path: PathBuf,
    locks: PathBuf,
    shared: bool,
    /// `?server-lease=`. The lease in the row has a length of its own, so this is for `doctor` alone.
    server_lease: Option<Duration>,
    uuid: String,
    here: Place,
    spool: Spool,
    waiters: Waiters,
    db: Mutex<Db>,
}

/// All that a store may consist of.
pub fn parts(path: &Path) -> Vec<PathBuf> {
    ["", "-wal", "-shm", "-journal", ".locks", ".spool"]
        .map(|end| beside(path, end))
        .into()
}

impl SqliteStore {
    /// Opens the store at `path`, see [`super::open`].
    pub fn open(
        path: &Path,
        shared: bool,
        server_lease: Option<Duration>,
        purpose: Purpose,
    ) -> Result<Self, StoreError> {
        let path = path::real_path(path)?;
        let (locks, spool) = (beside(&path, ".locks"), beside(&path, ".spool"));
        for folder in [&locks, &spool] {
            trust::check_part(folder, true)?;
        }
        let folder = path.parent().unwrap_or(&path);
        if purpose != Purpose::Read && folder.is_dir() {
            trust::refuse_for_root(folder, &parts(&path))?;
        }
        let make = if shared {
            Make::Shared
        } else {
            Make::ByFileSystem
        };
        let db = Db::open(&path, make, purpose, locks.join("gate"))?;
        if purpose == Purpose::Run {
            file::create_folder(&locks).map_err(|e| trouble::from_io(&locks, &e))?;
        }
        let inner = Inner {
            spool: Spool::at(spool),
            shared: db.shared,
            server_lease,
            uuid: db.uuid.clone(),
            here: Place::here(),
            waiters: Waiters::default(),
            db: Mutex::new(db),
            locks,
            path,
        };
        Ok(SqliteStore {
            inner: Arc::new(inner),
        })
    }
}

impl Inner {
    fn db(&self) -> MutexGuard<'_, Db> {
        // a panic in a transaction rolled it back
        self.db.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_path(&self, lock: &LockName) -> PathBuf {
        self.locks.join(format!("{lock}.lock"))
    }

    fn queue_path(&self, lock: &LockName) -> PathBuf {
        self.locks.join(format!("{lock}.waiting"))
    }

    fn open_lock(&self, lock: &LockName) -> Result<LockFile, StoreError> {
        let path = self.lock_path(lock);
        LockFile::open_or_create(&path).map_err(|e| trouble::from_io(&path, &e))
    }

    fn inspect(&self, lock: &LockName) -> Result<Observed, StoreError> {
        let row = self.db().read(|conn| locks::get(conn, lock))?;
        let Some(row) = row else {
            return Ok(Observed::nobody());
        };
        let mut observed = Observed {
            token: Some(row.token),
            seq: row.seq,
            ttl: self.shared.then_some(row.ttl),
            ..Observed::nobody()
        };
        if row.released {
            return Ok(observed);
        }
        let path = self.lock_path(lock);
        if let Some((slot, asked)) =
            side::look(&path, Some(row.token)).map_err(|e| trouble::from_io(&path, &e))?
        {
            if let Some(slot) = slot.filter(|s| s.token == row.token && s.owner == row.owner) {
                observed.seq = observed.seq.saturating_add(slot.seq);
                observed.heartbeat = Some(slot.at);
            }
            observed.revoked = asked.revoke.filter(|r| r.token == row.token);
            observed.stopping = asked.stop.filter(|r| r.token == row.token);
        }
        observed.holder = Some(row.holder);
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

impl Locks for SqliteStore {
    fn try_acquire(
        &self,
        request: &LockRequest<'_>,
        until: Option<Boot>,
    ) -> Result<Attempt, StoreError> {
        attempt(&self.inner, request, until)
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
        self.inner.db().read(locks::names)
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
        let mut findings = lockfile::probe::locks(&inner.locks, true);
        let locks = if inner.shared { lies::SQLITE } else { &[] };
        findings.extend(probe::file_system(&inner.path, locks));
        findings.extend(probe::lease_beside_rows(&inner.path, inner.server_lease));
        findings.push(probe::room(&inner.path));
        let folder = inner.path.parent().map(Path::to_owned);
        let paths = folder
            .into_iter()
            .chain([inner.path.clone(), inner.locks.clone()]);
        findings.extend(paths.map(|path| probe::rights(&path)));
        if let Some(folder) = inner.path.parent() {
            findings.push(probe::trusted(folder, &parts(&inner.path)));
        }
        findings.extend(probe::database(&mut inner.db()));
        findings.push(probe::clock());
        findings.push(probe::spool(inner.spool.records().len()));
        findings
    }
}

impl Store for SqliteStore {
    fn about(&self) -> About {
        let query = if self.inner.shared { "?shared" } else { "" };
        About {
            url: format!("sqlite:{}{query}", self.inner.path.display()),
            id: self.inner.uuid.clone(),
            shared: self.inner.shared,
            format: schema::FORMAT,
            file_system: mount::of(&self.inner.path)
                .map(|m| m.kind)
                .unwrap_or_default(),
        }
    }
}
