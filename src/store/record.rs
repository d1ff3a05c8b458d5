//! One history row for every attempt, run or refused. The environment is never in it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Holder;
use crate::clock::Wall;
use crate::name::{JobName, LockName, RunId, Token};

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum $name { $($(#[$vdoc])* #[serde(rename = $text)] $variant),+ }

        impl $name {
            /// Every value, in the order of the documentation.
            pub const ALL: &'static [$name] = &[$($name::$variant),+];
            /// The word that stands in the store, in JSON and on the command line.
            pub fn as_str(self) -> &'static str {
                match self { $($name::$variant => $text),+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = String;
            fn from_str(text: &str) -> Result<Self, String> {
                Self::ALL.iter().copied().find(|w| w.as_str() == text).ok_or_else(|| {
                    let all: Vec<_> = Self::ALL.iter().map(|w| w.as_str()).collect();
                    format!("{text:?} is none of {}", all.join(", "))
                })
            }
        }
    };
}

words!(
    /// What asked for the attempt.
    Trigger {
        /// cron or a systemd timer.
        Schedule = "schedule",
        /// A container's entrypoint, a boot.
        Startup = "startup",
        /// A person.
        Operator = "operator",
        /// Anything else.
        Other = "other",
    }
);

words!(
    /// What became of an attempt.
    Outcome {
        /// It goes on.
        Running = "running",
        /// Exit code 0.
        Succeeded = "succeeded",
        /// Another exit code.
        Failed = "failed",
        /// A signal ended it.
        Signaled = "signaled",
        /// The kernel killed it for want of memory: its cgroup's `oom_kill` counter says so.
        OomKilled = "oom-killed",
        /// Over its time limit.
        TimedOut = "timed-out",
        /// `joblock stop`.
        Stopped = "stopped",
        /// The lock was lost or revoked, and the job killed.
        Lost = "lost",
        /// Its processes vanished.
        Abandoned = "abandoned",
        /// The lock was held.
        Refused = "refused",
        /// Skipped: it succeeded within the window.
        Fresh = "fresh",
        /// Interrupted while it waited.
        Cancelled = "cancelled",
        /// The command, the store or joblock failed before the job was there.
        NotStarted = "not-started",
    }
);

words!(
    /// Whether the kernel's OOM killer ended the job.
    OutOfMemory {
        /// The counter of the job's cgroup grew.
        Yes = "yes",
        /// It did not.
        No = "no",
        /// There is no counter that can be read.
        Unknown = "unknown",
    }
);

/// An `oom_kill` counter as it was once read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OomCounter {
    /// The cgroup's folder, as the mount namespace saw it.
    pub folder: PathBuf,
    /// The folder's inode number, which no other cgroup of this boot has.
    pub id: u64,
    /// How often the OOM killer had struck.
    pub kills: u64,
}

/// Who asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Who {
    /// The real user id.
    pub uid: u32,
    /// Its name in /etc/passwd, or the number.
    pub user: String,
    /// `$SUDO_USER`, where there is one.
    pub sudo_user: Option<String>,
    /// The controlling terminal, without `/dev/`.
    pub terminal: Option<String>,
}

/// One attempt. Times on the wall clock are for people; `duration` is BOOTTIME.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunRecord {
    /// Random.
    pub run_id: RunId,
    /// Its job.
    pub job: JobName,
    /// Its lock.
    pub lock: LockName,
    /// Its fencing token; `None` for what never got the lock.
    pub token: Option<Token>,
    /// What asked for it.
    pub trigger: Trigger,
    /// Who asked for it.
    pub who: Who,
    /// `--reason`.
    pub reason: Option<String>,
    /// `--tag KEY=VALUE`.
    pub tags: BTreeMap<String, String>,
    /// The run that `rerun` repeats.
    pub repeats: Option<RunId>,
    /// Host name.
    pub host: String,
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
    /// A container's id, as far as its cgroup or mountinfo tells.
    pub container: Option<String>,
    /// The `oom_kill` counters of the cgroup that front was started in and of its ancestors, before the start, nearest first.
    pub oom_counters: Vec<OomCounter>,
    /// Pid of front.
    pub pid: i32,
    /// The command as it was run, byte for byte, but for what `--redact` hides.
    pub command: Vec<OsString>,
    /// Parts of the command were hidden before it was recorded: it can't be run again from here.
    #[serde(default)]
    pub redacted: bool,
    /// `--accept-unsafe-mount`.
    #[serde(default)]
    pub unsafe_mount: Option<UnsafeMount>,
    /// The working folder.
    pub cwd: PathBuf,
    /// When the attempt began.
    pub started: Wall,
    /// `running` until it ends.
    pub outcome: Outcome,
    /// How it ended, once it has.
    pub end: Option<End>,
    /// Who held the lock, for a refused one.
    pub held_by: Option<Holder>,
    /// A word more for people: why it was not started, that its guard was killed, …
    pub note: Option<String>,
}

/// That somebody started a job although the store's mount lies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnsafeMount {
    /// Why.
    pub reason: String,
    /// What it does not do; empty where it would have been started without.
    pub accepted: Vec<String>,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// Any outcome but `running`.
    pub outcome: Outcome,
    /// The wall clock then.
    pub at: Wall,
    /// From spawn to the end of the tree, BOOTTIME.
    pub duration: Duration,
    /// The job's exit code, if it exited.
    pub exit_code: Option<i32>,
    /// The signal that ended it, if one did.
    pub signal: Option<i32>,
    /// Whether it was the OOM killer.
    pub out_of_memory: OutOfMemory,
    /// Largest resident set of any one process of the tree, in KiB (`ru_maxrss`, getrusage(2)).
    pub peak_memory_kib: Option<u64>,
    /// User and system CPU time of the whole tree.
    pub cpu: Option<Duration>,
    /// Processes that the job left running and that were ended with it (or waited for).
    pub leaked: u32,
    /// A word more for people: who stopped it and why, how the lock was lost, …
    pub note: Option<String>,
}

impl End {
    /// The record of a run that ended so.
    pub fn of(&self, record: &RunRecord, token: Token) -> RunRecord {
        RunRecord {
            token: Some(token),
            outcome: self.outcome,
            end: Some(self.clone()),
            ..record.clone()
        }
    }
}

/// What became of an attempt that never ran.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempted {
    /// `refused`, `fresh`, `cancelled` or `not-started`.
    pub outcome: Outcome,
    /// Who held the lock, if it was refused or cancelled.
    pub held_by: Option<Holder>,
    /// A word more for people.
    pub note: Option<String>,
}

impl Attempted {
    /// The record of an attempt that ended so.
    pub fn of(&self, record: &RunRecord) -> RunRecord {
        let note = self.note.clone().or_else(|| record.note.clone());
        RunRecord {
            outcome: self.outcome,
            held_by: self.held_by.clone(),
            note,
            ..record.clone()
        }
    }
}

/// The kept output of a run: the last bytes of it, as they came.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tail {
    /// The last bytes, at most the run's limit.
    pub bytes: Vec<u8>,
    /// How many bytes the job wrote in all.
    pub total: u64,
}

/// Which rows.
#[derive(Debug, Clone, Default)]
pub struct Query {
    /// Of this job only.
    pub job: Option<String>,
    /// At most so many.
    pub limit: Option<usize>,
    /// Begun at this moment or later.
    pub since: Option<Wall>,
    /// Begun before this moment.
    pub until: Option<Wall>,
    /// With one of these outcomes; empty: any.
    pub outcomes: Vec<Outcome>,
    /// On this host.
    pub host: Option<String>,
    /// Asked for by this.
    pub trigger: Option<Trigger>,
    /// Tells whether a holder's processes live, for holders whose pids can be compared with ours. Without it, and for
    /// all others, heartbeats tell.
    pub alive: Option<fn(&Holder) -> Option<bool>>,
}
