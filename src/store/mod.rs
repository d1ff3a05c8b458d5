//! Where locks and history live. A store knows nothing of processes: what it must know of them
//! (is the old holder's tree gone?) it asks through [`Clearing`].
//!
//! What a store does not guarantee: that its file system tells the truth. `doctor` proves what can
//! be proved and [`open`] refuses the mounts that are known to lie.

pub mod folder;
pub mod freeing;
pub mod lockfile;
pub mod mount;
mod place;
mod probe;
pub mod pruning;
pub mod record;
pub mod remote;
pub mod spool;
pub mod sqlite;
mod trouble;
pub mod trust;
pub mod twin;
pub mod vanished;

pub use lockfile::queue::Queued;
pub use place::{Place, ProcessId, Processes};

use std::fmt;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::clock::{Boot, Wall};
use crate::name::{LockName, RunId, Token};
use pruning::{Prune, Pruned};
use record::{Attempted, End, OutOfMemory, Outcome, Query, RunRecord, Tail, Trigger, Who};

/// A store's address as the user gave it: `sqlite:PATH`, `sqlite:PATH?shared`, `lockfile:DIRECTORY`, each with `?server-lease=` if need be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreUrl {
    /// A SQLite file and a folder of lock files beside it.
    Sqlite {
        /// The database file, absolute.
        path: PathBuf,
        /// `?shared`: create it as shared although its file system is local.
        shared: bool,
        /// `?server-lease=`: after how long the file server gives a silent machine's locks away.
        server_lease: Option<Duration>,
    },
    /// A folder of lock files with a history database in it.
    Lockfile {
        /// The folder, absolute.
        directory: PathBuf,
        /// `?server-lease=`.
        server_lease: Option<Duration>,
    },
}

impl StoreUrl {
    /// The database file.
    pub fn database(&self) -> PathBuf {
        match self {
            StoreUrl::Sqlite { path, .. } => path.clone(),
            StoreUrl::Lockfile { directory, .. } => directory.join(lockfile::HISTORY),
        }
    }

    /// All files that the store may consist of, besides lock files.
    pub fn parts(&self) -> Vec<PathBuf> {
        match self {
            StoreUrl::Sqlite { path, .. } => sqlite::parts(path),
            StoreUrl::Lockfile { directory, .. } => lockfile::parts(directory),
        }
    }

    /// `?server-lease=`.
    pub fn server_lease(&self) -> Option<Duration> {
        match self {
            StoreUrl::Sqlite { server_lease, .. } | StoreUrl::Lockfile { server_lease, .. } => {
                *server_lease
            }
        }
    }
}

/// What a store is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To run a job: what is missing is made (never the folder that the store lies in).
    Run,
    /// To look.
    Read,
    /// To ask something of a holder.
    Request,
}

/// Opens a store. `pinned`: the UUID that it must have; a new one could not have it, so none is made then.
pub fn open(
    url: &StoreUrl,
    purpose: Purpose,
    pinned: Option<&str>,
) -> Result<Box<dyn Store>, StoreError> {
    let purpose = match pinned {
        Some(_) if purpose == Purpose::Run && !url.database().exists() => Purpose::Read,
        _ => purpose,
    };
    let store: Box<dyn Store> = match url {
        StoreUrl::Sqlite {
            path,
            shared,
            server_lease,
        } => Box::new(sqlite::SqliteStore::open(
            path,
            *shared,
            *server_lease,
            purpose,
        )?),
        StoreUrl::Lockfile {
            directory,
            server_lease,
        } => Box::new(lockfile::LockfileStore::open(
            directory,
            *server_lease,
            purpose,
        )?),
    };
    let Some(pinned) = pinned else {
        return Ok(store);
    };
    let About { url, id, .. } = store.about();
    if id == pinned {
        return Ok(store);
    }
    Err(StoreError::Unusable(format!(
        "{url} has the id {id}, and the jobs file pins {pinned}: this is another store than the one that was meant; correct store or store-id there"
    )))
}

/// Why the store can't be used. Every one of them ends in exit code 69 and in a job that was not started.
/// Displays as a lower-case fragment that says what to do.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The path can't be opened, read, written, locked: with the path, the system's words, and a hint.
    #[error("{0}")]
    Unusable(String),
    /// It belongs to a newer joblock.
    #[error(
        "{path} has store format {found}, this joblock knows {known}: use the joblock that made it, or a newer one"
    )]
    Newer {
        /// The store.
        path: String,
        /// The format that stands in it.
        found: i64,
        /// The newest format that this program knows.
        known: i64,
    },
    /// A step took longer than the store's time limit. Nothing is known about whether it happened.
    #[error("{0} did not answer in time")]
    Timeout(String),
    /// What the old holder left behind on this machine could not be ended; each is named.
    #[error(
        "the run {run} ended without a release and left {left} behind, which can't be ended: end it by hand, then start again"
    )]
    Leftovers {
        /// The old run.
        run: RunId,
        /// Pids and names.
        left: String,
    },
}

/// Who has a lock, as it stands in the store for others to read. At most 3800 bytes as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The owner of the grant.
    pub run_id: RunId,
    /// The job that runs under it.
    pub job: String,
    /// What asked for it.
    pub trigger: Trigger,
    /// User, user behind sudo, terminal.
    pub who: Who,
    /// Machine, boot and namespaces.
    pub place: Place,
    /// Its three processes.
    pub processes: Processes,
    /// The cgroup that its job may have to itself, as a path of its mount namespace.
    #[serde(default)]
    pub cgroup: Option<String>,
    /// What the NFSv4 server that the store lies on knows its machine by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nfs: Option<twin::NfsClient>,
    /// What becomes of the lock if its machine is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub freeing: Option<freeing::Freeing>,
    /// When the lock was taken.
    pub since: Wall,
}

/// What somebody asked of a holder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// The grant that is meant; a later grant is not touched by it.
    pub token: Token,
    /// The user and host that asked.
    pub by: String,
    /// Why.
    pub reason: String,
    /// When.
    pub at: Wall,
}

/// What a look at a lock saw. A look never takes the kernel lock.
#[derive(Debug, Clone)]
pub struct Observed {
    /// The newest token that was ever granted; `None` before the first grant.
    pub token: Option<Token>,
    /// The holder; `None` when the lock was released (or never taken).
    pub holder: Option<Holder>,
    /// How often the holder has renewed; it only grows within one token.
    pub seq: u64,
    /// Wall time of the last heartbeat, for people.
    pub heartbeat: Option<Wall>,
    /// How long without a sign of life until another host may take over; `None`: never (the kernel lock alone decides).
    pub ttl: Option<Duration>,
    /// A revocation that waits for the holder's next heartbeat.
    pub revoked: Option<Request>,
    /// A stop that waits for the holder's next heartbeat.
    pub stopping: Option<Request>,
}

impl Observed {
    /// A lock that was never granted.
    pub fn nobody() -> Self {
        Observed {
            token: None,
            holder: None,
            seq: 0,
            heartbeat: None,
            ttl: None,
            revoked: None,
            stopping: None,
        }
    }
}

/// What became of the processes that an unreleased grant left on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cleared {
    /// None is left that can be seen from here; `ended` of them had to be killed.
    Gone {
        /// How many had to be killed.
        ended: u32,
    },
    /// Front, keeper or guard of that run is alive: it is a holder, not a leftover. Nothing was touched.
    Alive,
    /// Some can't be ended (another user's, or in D state): pids and names.
    Stuck(String),
}

/// How a store gets rid of what an old run left on this machine. `supervise::tree` does it.
pub trait Clearing: Send + Sync {
    /// Ends what is left of `holder`'s job here. `lock_file`: also ends who still has that file *locked* by inheritance
    /// from `holder`'s keeper. Those who merely have it open (waiters), or the next run that got the lock meanwhile, must not be
    /// touched: the `lock:` line of `/proc/PID/fdinfo/FD` tells them apart, as it names the pid that took the lock.
    fn clear(&self, holder: &Holder, lock_file: Option<BorrowedFd<'_>>) -> Cleared;

    /// Whether the OOM killer has struck in the cgroup of a run that left no end, since it began.
    fn out_of_memory(&self, _run: &RunRecord) -> OutOfMemory {
        OutOfMemory::Unknown
    }

    /// What is to be recorded of a run that left no end; `None`: there is no record of its begin.
    fn became(&self, run: Option<&RunRecord>) -> (Outcome, OutOfMemory) {
        let memory = run.map_or(OutOfMemory::Unknown, |run| self.out_of_memory(run));
        match memory {
            OutOfMemory::Yes => (Outcome::OomKilled, memory),
            _ => (Outcome::Abandoned, memory),
        }
    }
}

/// Everything that a store must know to grant a lock and to write the attempt's row in the same step.
pub struct LockRequest<'a> {
    /// The lock.
    pub lock: LockName,
    /// What will stand in the store as its holder.
    pub holder: Holder,
    /// The row: written with the grant, its token filled in by the store.
    pub record: RunRecord,
    /// Asked for TTL; `None`: the default of 45 s. Used by stores with a lease.
    pub ttl: Option<Duration>,
    /// How leftovers are ended.
    pub clearing: &'a dyn Clearing,
    /// Asked a few times a second while the attempt waits: whether it should give up, as one that is held.
    pub interrupted: &'a dyn Fn() -> bool,
}

/// What came of asking for a lock. Contention is a value, not an error.
pub enum Attempt {
    /// It is ours; the row with outcome `running` is on the disk.
    Granted(Box<dyn Grant>),
    /// Somebody else has it; nothing was written but, where a lease must be watched, what was seen and when.
    Held(Box<Observed>),
}

impl fmt::Debug for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Attempt::Granted(grant) => write!(f, "Granted(token {})", grant.token()),
            Attempt::Held(observed) => write!(f, "Held({observed:?})"),
        }
    }
}

/// When a grant ends if it is not renewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expiry {
    /// The kernel lock is the authority.
    Never,
    /// `ttl` after `sent`, the moment before the last renewal that succeeded was sent.
    After {
        /// On this machine's BOOTTIME.
        sent: Boot,
        /// The lease's whole length.
        ttl: Duration,
    },
}

/// What a heartbeat came back with. An error from [`Grant::renew`] is neither: it is *unknown*, try again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Renewal {
    /// Still ours; ask [`Grant::expiry`] again.
    Renewed,
    /// Still ours, and somebody asks the run to stop.
    Stop(Request),
    /// Not ours any more: kill.
    Lost(String),
    /// Taken away by `unlock`: kill.
    Revoked(Request),
}

/// A lock that was granted. Dropping it without [`Grant::release`] is a crash: the next holder sweeps.
pub trait Grant: Send {
    /// The fencing token.
    fn token(&self) -> Token;
    /// When it ends by itself.
    fn expiry(&self) -> Expiry;
    /// Called once the job is being started: for work on the store that its start need not wait for.
    fn started(&mut self) {}
    /// A heartbeat: says that we live, and learns what others want.
    fn renew(&mut self) -> Result<Renewal, StoreError>;
    /// The locked descriptor, for guard and job to inherit: as long as one of them has it, the kernel lock stands.
    fn inherit(&self) -> Option<BorrowedFd<'_>>;
    /// Writes the job's output so far, for `logs` while it runs. May fail without harm.
    fn save_tail(&mut self, tail: &Tail) -> Result<(), StoreError>;
    /// Writes the run's end and frees the lock, in one step, comparing the owner. The descriptor is closed
    /// only after the end is written (or spooled; then the `Ok` is `Recorded::Spooled`).
    fn release(self: Box<Self>, end: &End, tail: Option<&Tail>) -> Result<Recorded, StoreError>;
}

/// Where a record went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recorded {
    /// Into the history.
    Stored,
    /// Into a spool file, which the next writer folds in; why, and the file.
    Spooled {
        /// The database's complaint.
        why: String,
        /// The spool file.
        file: PathBuf,
    },
}

/// Something that `probe` found out, for `doctor`.
#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    /// How bad.
    pub level: Level,
    /// What was looked at, a few words: `lock excludes a second process`.
    pub what: String,
    /// What came out, and what to do if it is bad.
    pub detail: String,
}

/// How bad a [`Finding`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// Works; could be better.
    Warning,
    /// Not safe, or does not work.
    Bad,
}

/// What a store says of itself.
#[derive(Debug, Clone, Serialize)]
pub struct About {
    /// Its URL, with the path made absolute.
    pub url: String,
    /// Its UUID, made when it was created.
    pub id: String,
    /// `local`: the kernel lock decides. `shared`: kernel lock and lease.
    pub shared: bool,
    /// The format's version.
    pub format: i64,
    /// The file system's kind, as in mountinfo (`ext4`, `nfs4`, …).
    pub file_system: String,
}

/// The locks of a store.
pub trait Locks {
    /// One attempt. Waits for the lock until `until` at the longest (`None`: not at all), woken by the kernel
    /// where the holder's kernel is ours. Other jobs' heartbeats and starts are not held up by it.
    fn try_acquire(
        &self,
        request: &LockRequest<'_>,
        until: Option<Boot>,
    ) -> Result<Attempt, StoreError>;
    /// Takes a place among those who wait for the lock; with a `limit`, only if fewer than that wait, else the error is how
    /// many do. Whoever dies gives it up.
    fn queue(&self, lock: &LockName, limit: Option<u32>)
    -> Result<Result<Queued, u32>, StoreError>;
    /// How many wait for the lock, as far as the mount's record locks tell of other machines' waiters.
    fn waiting(&self, lock: &LockName) -> Result<u32, StoreError>;
    /// A look, without the kernel lock.
    fn inspect(&self, lock: &LockName) -> Result<Observed, StoreError>;
    /// Every lock that was ever granted.
    fn locks(&self) -> Result<Vec<LockName>, StoreError>;
    /// Asks the holder to stop its job; it sees that at its next heartbeat. Nothing is taken away.
    fn request_stop(&self, lock: &LockName, request: &Request) -> Result<(), StoreError>;
    /// Revokes: the holder's next heartbeat fails and its guard kills. The lock is free once the holder has released
    /// it or its lease is over, never before.
    fn revoke(&self, lock: &LockName, request: &Request) -> Result<(), StoreError>;
    /// The lock's file, as those who have it open know it.
    fn lock_file(&self, lock: &LockName) -> PathBuf;
    /// Proves what can be proved here, for `doctor`.
    fn probe(&self) -> Vec<Finding>;
}

/// The history of a store. Readers copy out and close before they return: they hold up nobody.
pub trait History {
    /// Writes the row of an attempt that did not run: refused, fresh, cancelled, not-started.
    fn attempted(&self, record: &RunRecord, outcome: &Attempted) -> Result<Recorded, StoreError>;
    /// Writes the end of a run whose keeper is gone, if it has none yet, and frees its lock if it still owns it.
    fn end_of(
        &self,
        record: &RunRecord,
        token: Token,
        end: &End,
        tail: Option<&Tail>,
    ) -> Result<Recorded, StoreError>;
    /// Rows, newest first. A row still `running` whose grant is gone comes as `abandoned` (and stays as it is in the store).
    fn runs(&self, query: &Query) -> Result<Vec<RunRecord>, StoreError>;
    /// Rows whose run id begins so (6 digits at least).
    fn by_prefix(&self, prefix: &str) -> Result<Vec<RunRecord>, StoreError>;
    /// The end of the newest success of `job`, on the wall clock.
    fn last_success(&self, job: &str) -> Result<Option<Wall>, StoreError>;
    /// Every job that has a row.
    fn jobs(&self) -> Result<Vec<String>, StoreError>;
    /// The kept output of a run.
    fn tail(&self, run: &RunId) -> Result<Option<Tail>, StoreError>;
    /// Deletes old attempts of a job with their output, or counts them: one slice, in one short transaction, so that
    /// nobody's grant, heartbeat or start waits for long. See [`pruning`].
    fn prune(&self, request: &Prune) -> Result<Pruned, StoreError>;
}

/// A store: its locks, its history, and what it says of itself.
pub trait Store: Locks + History + Send + Sync {
    /// What it is.
    fn about(&self) -> About;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::record::tests::run;

    #[test]
    fn a_pinned_store_that_is_there_is_opened_like_any_other() {
        let dir = tempfile::tempdir().unwrap();
        let lease = Some(Duration::from_secs(9));
        let url = StoreUrl::Sqlite {
            path: dir.path().join("x.db"),
            shared: false,
            server_lease: lease,
        };
        assert_eq!(url.server_lease(), lease);
        let id = open(&url, Purpose::Run, None).unwrap().about().id;
        let locks = dir.path().join("x.db.locks");
        std::fs::remove_dir_all(&locks).unwrap();
        open(&url, Purpose::Read, Some(&id)).unwrap();
        assert!(!locks.exists());
        open(&url, Purpose::Run, Some(&id)).unwrap();
        assert!(locks.exists());
    }

    #[test]
    fn a_run_that_left_no_end_was_killed_for_memory_if_the_kernel_says_so() {
        struct Counter(OutOfMemory);
        impl Clearing for Counter {
            fn clear(&self, _: &Holder, _: Option<BorrowedFd<'_>>) -> Cleared {
                Cleared::Alive
            }
            fn out_of_memory(&self, _: &RunRecord) -> OutOfMemory {
                self.0
            }
        }
        let left = run("sync", 60, Outcome::Running);
        for (memory, outcome) in [
            (OutOfMemory::Yes, Outcome::OomKilled),
            (OutOfMemory::No, Outcome::Abandoned),
            (OutOfMemory::Unknown, Outcome::Abandoned),
        ] {
            let became = Counter(memory).became(Some(&left));
            assert_eq!(became, (outcome, memory));
        }
        let unknown = (Outcome::Abandoned, OutOfMemory::Unknown);
        assert_eq!(Counter(OutOfMemory::Yes).became(None), unknown);
    }
}
