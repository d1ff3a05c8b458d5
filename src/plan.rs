//! Command line + jobs file + environment → a checked [`RunPlan`]. Nothing here starts, locks or writes anything.

mod assemble;
mod environment;
mod error;
mod location;
mod trigger;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::name::{JobName, LockName, RunId};
use crate::redact::{Pattern, redacted};
use crate::store::StoreUrl;
use crate::store::record::Trigger;

pub use assemble::{plan, rerun};
pub use environment::{Environment, SYSTEM_FOLDER, name_and_parent};
pub use error::PlanError;
pub use location::{
    Located, UrlError, locate_store, machines_store, parse_store_url, refuse_private_store,
    store_url_text,
};

/// `--kill-after` unless said otherwise.
pub const KILL_AFTER: Duration = Duration::from_secs(10);
/// How much of the output's end is kept unless said otherwise, in bytes.
pub const CAPTURE: usize = 64 << 10;

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
    /// `--max-waiters`.
    pub max_waiters: Option<u32>,
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
    /// `--accept-unsafe-mount`: why to start although the store's mount lies.
    pub accept_unsafe_mount: Option<String>,
    /// `--reason`.
    pub reason: Option<String>,
    /// `--tag`.
    pub tags: BTreeMap<String, String>,
    /// How many bytes of output to keep; `None`: hand the streams over untouched (`--no-capture`).
    pub capture: Option<usize>,
    /// `--keep`: how long attempts stay in the history; `None`: for ever.
    pub keep: Option<Duration>,
    /// `-q` (-1), nothing (0), `-v` (1).
    pub verbosity: i8,
    /// Program and arguments.
    pub command: Vec<OsString>,
    /// `--redact`: what is hidden of the command wherever it is stored or shown.
    pub redact: Vec<Pattern>,
    /// The run that `rerun` repeats.
    pub repeats: Option<RunId>,
}

impl RunPlan {
    /// The command as others may see it.
    pub fn shown_command(&self) -> Vec<OsString> {
        redacted(&self.command, &self.redact)
    }
}

/// Where a part of the plan comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// An option, by its name.
    Option(&'static str),
    /// The command line itself.
    CommandLine,
    /// The jobs file.
    File {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// An environment variable, by its name with `$`.
    Variable(&'static str),
    /// The surroundings; what was seen there.
    Found(String),
    /// The run that is repeated.
    History(RunId),
    /// Nothing says otherwise; a word about the default, or nothing.
    Default(&'static str),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Option(name) | Source::Variable(name) => f.write_str(name),
            Source::CommandLine => f.write_str("command line"),
            Source::File { path, line } => write!(f, "{}:{line}", path.display()),
            Source::Found(what) => f.write_str(what),
            Source::History(run) => write!(f, "history, run {}", run.short()),
            Source::Default("") => f.write_str("default"),
            Source::Default(word) => write!(f, "default ({word})"),
        }
    }
}

/// A plan, and where each of its parts comes from.
#[derive(Debug, Clone)]
pub struct Planned {
    /// The plan.
    pub plan: RunPlan,
    /// Accept a store that no other container can see.
    pub private_store: bool,
    /// The store's URL came from nowhere: the user's own store is used.
    pub store_unasked: bool,
    /// Where the parts come from.
    pub sources: Sources,
}

/// Where each part of a plan comes from.
#[derive(Debug, Clone)]
#[expect(
    missing_docs,
    reason = "each is named after the part of the plan that it tells about"
)]
pub struct Sources {
    pub store: Source,
    pub command: Source,
    pub lock: Source,
    pub ttl: Source,
    pub wait: Source,
    pub max_waiters: Source,
    pub conflict_exit_code: Source,
    /// Of the window in force, or of the one that the trigger puts out of force.
    pub fresh: Source,
    /// The jobs file has a window that isn't in force for this trigger.
    pub fresh_out_of_force: Option<Duration>,
    pub time_limit: Source,
    pub kill_after: Source,
    pub signal: Source,
    pub leftovers: Source,
    pub trigger: Source,
    pub accept_unsafe_mount: Source,
    pub reason: Source,
    pub capture: Source,
    pub keep: Source,
}

impl Sources {
    /// These four, and the default for everything else.
    fn of(store: Source, command: Source, lock: Source, trigger: Source) -> Self {
        let default = || Source::Default("");
        Sources {
            store,
            command,
            lock,
            trigger,
            ttl: default(),
            wait: default(),
            max_waiters: default(),
            conflict_exit_code: default(),
            fresh: default(),
            fresh_out_of_force: None,
            time_limit: default(),
            kill_after: default(),
            signal: default(),
            leftovers: default(),
            accept_unsafe_mount: default(),
            reason: default(),
            capture: default(),
            keep: default(),
        }
    }
}
