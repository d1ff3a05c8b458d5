//! Command line + jobs file + environment → a checked [`RunPlan`]. Nothing here starts, locks or writes anything.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::time::Duration;

use crate::name::{JobName, LockName, RunId};
use crate::store::StoreUrl;
use crate::store::record::Trigger;

/// Whether and how long to wait for the lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Not at all.
    No,
    /// At most so long.
    For(Duration),
    /// Until it is there.
    Forever,
}

/// The freshness window in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fresh {
    /// A success that ended within this long before now makes the attempt `fresh`.
    pub within: Duration,
}

/// What to do with processes that the job left when it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leftovers {
    /// TERM, then KILL after `kill_after`.
    End,
    /// Wait for them: the lock is held until the last is gone.
    WaitFor,
}

/// Everything that is known before the first process is forked.
#[derive(Debug, Clone)]
pub struct RunPlan {
    /// Where the lock and the history are.
    pub store: StoreUrl,
    /// The UUID that the jobs file pins.
    pub store_id: Option<String>,
    /// The job.
    pub job: JobName,
    /// Its lock.
    pub lock: LockName,
    /// The lock was named by the jobs file: a lock that differs from the last run's is meant so.
    pub lock_is_declared: bool,
    /// `--ttl`.
    pub ttl: Option<Duration>,
    /// `-n`, `-w`.
    pub wait: Wait,
    /// `-E`.
    pub conflict_exit_code: u8,
    /// `--unless-succeeded-within`, where it is in force for this trigger.
    pub fresh: Option<Fresh>,
    /// `-t`.
    pub time_limit: Option<Duration>,
    /// `-k`; 10 s unless said otherwise.
    pub kill_after: Duration,
    /// `-s`; SIGTERM unless said otherwise.
    pub signal: i32,
    /// `--wait-for-children`.
    pub leftovers: Leftovers,
    /// What asked for it.
    pub trigger: Trigger,
    /// `--reason`.
    pub reason: Option<String>,
    /// `--tag`.
    pub tags: BTreeMap<String, String>,
    /// How many bytes of output to keep; `None`: hand the streams over untouched (`--no-capture`).
    pub capture: Option<usize>,
    /// `-q` (-1), nothing (0), `-v` (1).
    pub verbosity: i8,
    /// Program and arguments.
    pub command: Vec<OsString>,
    /// The run that `rerun` repeats.
    pub repeats: Option<RunId>,
}
