//! The jobs file: `--config`, `$JOBLOCK_CONFIG`, `/etc/joblock/joblock.toml`.
//!
//! It is read and checked as a whole, before anything is started: an unknown key or a bad value
//! anywhere is an error with file, line and what to write instead, because a setting that is
//! silently ignored is found out at night.

pub mod keys;
mod read;
mod trust;
mod values;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;

use crate::duration::Span;
use crate::guess;
use crate::name::{JobName, LockName};
use crate::redact::Pattern;
use crate::schedule::Schedule;
use crate::store::StoreUrl;
use crate::store::record::Outcome;

/// Where the jobs file is unless named.
pub const DEFAULT_PATH: &str = "/etc/joblock/joblock.toml";

/// A file of so many bytes is something else, /dev/zero for example.
const LONGEST: u64 = 1 << 20;

/// A value and the line of the file that it stands on, from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct At<T> {
    /// The value.
    pub value: T,
    /// Its line.
    pub line: usize,
}

/// A jobs file that was read and found to be right.
#[derive(Debug, Clone)]
pub struct JobsFile {
    /// Where it is.
    pub path: PathBuf,
    /// `store`.
    pub store: Option<At<StoreUrl>>,
    /// `store-id`.
    pub store_id: Option<At<String>>,
    /// `only-named-jobs`.
    pub only_named_jobs: bool,
    /// `keep` of the jobs that have none of their own.
    pub keep: Option<At<Span>>,
    /// `redact`, for all jobs.
    pub redact: Vec<Pattern>,
    /// `jobs`.
    pub jobs: BTreeMap<JobName, Job>,
}

/// What the file says of a job. `None`: nothing.
#[derive(Debug, Clone, Default)]
pub struct Job {
    /// The line of its `[jobs.NAME]`.
    pub line: usize,
    /// `command`, never empty.
    pub command: Option<At<Vec<String>>>,
    /// `lock`.
    pub lock: Option<At<LockName>>,
    /// `ttl`.
    pub ttl: Option<At<Duration>>,
    /// `wait`, or `nonblock` as a wait of 0.
    pub wait: Option<At<Span>>,
    /// `max-waiters`.
    pub max_waiters: Option<At<u32>>,
    /// `conflict-exit-code`.
    pub conflict_exit_code: Option<At<u8>>,
    /// `unless-succeeded-within`: for schedule and startup only.
    pub unless_succeeded_within: Option<At<Duration>>,
    /// `time-limit`.
    pub time_limit: Option<At<Span>>,
    /// `kill-after`.
    pub kill_after: Option<At<Duration>>,
    /// `signal`.
    pub signal: Option<At<i32>>,
    /// `wait-for-children`.
    pub wait_for_children: Option<At<bool>>,
    /// `private-store`.
    pub private_store: Option<At<bool>>,
    /// `accept-unsafe-mount`: why.
    pub accept_unsafe_mount: Option<At<String>>,
    /// `reason`.
    pub reason: Option<At<String>>,
    /// `tags`.
    pub tags: BTreeMap<String, String>,
    /// `capture` in bytes, or `no-capture` as an inner `None`.
    pub capture: Option<At<Option<usize>>>,
    /// `keep`.
    pub keep: Option<At<Span>>,
    /// `redact`.
    pub redact: Vec<Pattern>,
    /// `quiet` (-1) or `verbose` (1).
    pub verbosity: Option<At<i8>>,
    /// `schedule` with `timezone`.
    pub schedule: Option<At<Schedule>>,
    /// `after`.
    pub after: Vec<JobName>,
    /// `notify`.
    pub notify: Option<Notify>,
}

/// Whom to tell about what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notify {
    /// The outcomes, at least one.
    pub on: Vec<Outcome>,
    /// Where to send them.
    pub webhook: Option<String>,
    /// What to start.
    pub command: Option<Vec<String>>,
}

/// Why the jobs file can't be used. Displays as `FILE:LINE: what is wrong and what to write`.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// It can't be read.
    #[error("can't read the jobs file {}{named_by}: {why}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// ` (named by …)`, or nothing.
        named_by: &'static str,
        /// The system's word.
        why: io::Error,
    },
    /// Something in it is wrong.
    #[error("{}:{line}: {message}", path.display())]
    Wrong {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What, and what to do.
        message: String,
    },
    /// Others could make root run what they like.
    #[error("root doesn't read the jobs file {}: {at} is not root's alone, {who}; {}", path.display(), way_out(path, at), at = at.display())]
    Untrusted {
        /// The file.
        path: PathBuf,
        /// It, or the folder above it that is at fault.
        at: PathBuf,
        /// Who could write there.
        who: String,
    },
}

/// What makes an untrusted file a trusted one. A folder's rights are others' business, /tmp's above all: only the
/// one that is for jobs files is to be changed.
fn way_out(path: &Path, at: &Path) -> String {
    let folder = Path::new(DEFAULT_PATH).parent().unwrap_or(Path::new("/"));
    if at == path || at == folder {
        let at = at.display();
        return format!("change that: chown root:root {at}; chmod go-w {at}");
    }
    format!(
        "put the jobs file where only root can write, in {} for example",
        folder.display()
    )
}

/// Reads the jobs file: the one that `option` (`--config`) names, else `variable` (`$JOBLOCK_CONFIG`,
/// empty is unset), else the default one, which alone may be missing. For user id `euid` 0 it must be
/// out of others' reach.
pub fn load(
    option: Option<&Path>,
    variable: Option<&OsStr>,
    euid: u32,
) -> Result<Option<JobsFile>, ConfigError> {
    let variable = variable.filter(|v| !v.is_empty()).map(Path::new);
    let (path, named_by) = match (option, variable) {
        (Some(path), _) => (path, " (named by --config)"),
        (None, Some(path)) => (path, " (named by $JOBLOCK_CONFIG)"),
        (None, None) => (Path::new(DEFAULT_PATH), ""),
    };
    match read_text(path, euid) {
        Ok(text) => JobsFile::parse(path, &text).map(Some),
        Err(Trouble::Io(e)) if named_by.is_empty() && e.kind() == io::ErrorKind::NotFound => {
            Ok(None)
        }
        Err(Trouble::Io(why)) => Err(ConfigError::Unreadable {
            path: path.to_owned(),
            named_by,
            why,
        }),
        Err(Trouble::Untrusted { at, who }) => Err(ConfigError::Untrusted {
            path: path.to_owned(),
            at,
            who,
        }),
    }
}

enum Trouble {
    Io(io::Error),
    Untrusted { at: PathBuf, who: String },
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Trouble::Io(error)
    }
}

fn read_text(path: &Path, euid: u32) -> Result<String, Trouble> {
    let file = File::open(path)?;
    if euid == 0
        && let Some((at, who)) = trust::reach_of_others(path, &file)?
    {
        return Err(Trouble::Untrusted { at, who });
    }
    let mut text = String::new();
    if file.take(LONGEST).read_to_string(&mut text)? as u64 == LONGEST {
        return Err(io::Error::other("it has over a million bytes: that is no jobs file").into());
    }
    Ok(text)
}

impl JobsFile {
    /// Reads `text`, the contents of the file at `path`.
    pub fn parse(path: &Path, text: &str) -> Result<JobsFile, ConfigError> {
        read::jobs_file(path, text)
    }

    /// How long attempts of `name` are kept, if the file says so.
    pub fn keep(&self, name: &JobName) -> Option<&At<Span>> {
        let own = self.jobs.get(name).and_then(|job| job.keep.as_ref());
        own.or(self.keep.as_ref())
    }

    /// The job called `name`; an error with a guess if the file wants only named jobs and has none such.
    pub fn job(&self, name: &JobName) -> Result<Option<&Job>, UnknownJob> {
        match self.jobs.get(name) {
            None if self.only_named_jobs => Err(UnknownJob {
                name: name.clone(),
                path: self.path.clone(),
                guess: guess::did_you_mean(name.as_str(), self.jobs.keys().map(JobName::as_str)),
            }),
            found => Ok(found),
        }
    }
}

/// A job that the jobs file doesn't name, although it wants only named ones.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("no job {name:?} in {}{guess}{}", path.display(), if guess.is_empty() { "; add it there, only-named-jobs is set" } else { "" }, name = name.as_str())]
pub struct UnknownJob {
    /// As given.
    pub name: JobName,
    /// The jobs file.
    pub path: PathBuf,
    /// `, did you mean …?`, or nothing.
    guess: String,
}

/// For messages about places in the file.
struct Source<'t> {
    path: &'t Path,
    text: &'t str,
}

impl Source<'_> {
    fn line(&self, span: &Range<usize>) -> usize {
        1 + self.text[..span.start.min(self.text.len())]
            .matches('\n')
            .count()
    }

    fn wrong(&self, span: &Range<usize>, message: impl fmt::Display) -> ConfigError {
        ConfigError::Wrong {
            path: self.path.to_owned(),
            line: self.line(span),
            message: message.to_string(),
        }
    }
}
