//! Why there is no plan.

use thiserror::Error;

use super::{Source, UrlError};
use crate::config::UnknownJob;
use crate::name::{JobName, LockName, RunId};

/// Why there is no plan. Displays as a fragment that says what to do; exit code 125.
#[derive(Debug, Error)]
pub enum PlanError {
    /// A store's URL is none.
    #[error("{place}: {why}")]
    Store {
        /// Where it stands.
        place: Source,
        /// What is wrong with it.
        why: UrlError,
    },
    /// Jobs file and environment name different stores.
    #[error(
        "$JOBLOCK_STORE is {variable}, but {place} says {file}: two stores are two locks, and cron and sudo don't see the variable; unset the variable, or name the store with --store"
    )]
    TwoStores {
        /// The variable's.
        variable: String,
        /// The file's.
        file: String,
        /// Where in the file.
        place: Source,
    },
    /// There is no place for the user's own store.
    #[error(
        "no store is named, and without $HOME there is no place for one of your own: name one with --store"
    )]
    NoHome,
    /// `$JOBLOCK_TRIGGER` is none.
    #[error("$JOBLOCK_TRIGGER: {0}")]
    Trigger(String),
    /// A name that only-named-jobs refuses.
    #[error(transparent)]
    UnknownJob(#[from] UnknownJob),
    /// Two commands for one job.
    #[error(
        "{place} has a command for {job}: leave COMMAND out (joblock run {job}), or say --override if you mean another one this time"
    )]
    TwoCommands {
        /// The job.
        job: JobName,
        /// Where the other stands.
        place: Source,
    },
    /// Two locks for one job.
    #[error(
        "{place} has {job} under the lock {lock}, and a start under another one could run beside it: leave --lock out, or set `lock` there"
    )]
    TwoLocks {
        /// The job.
        job: JobName,
        /// Its lock in the jobs file.
        lock: LockName,
        /// Where the job stands there.
        place: Source,
    },
    /// `--max-waiters` without a wait.
    #[error(
        "--max-waiters is for a start that waits, and this one does not: give -w DURATION, or leave it out"
    )]
    NobodyWaits,
    /// No command.
    #[error("no command for {job}: {why}; write joblock run {job} -- COMMAND")]
    NoCommand {
        /// The job.
        job: JobName,
        /// Why there is none.
        why: String,
    },
    /// `--override` without a command.
    #[error(
        "--override needs the COMMAND that is meant, after --: joblock run --override {0} -- COMMAND"
    )]
    NothingToOverride(JobName),
    /// `rerun` of another user's command.
    #[error(
        "the command of run {run} was recorded by {user}, and is not run again for somebody else: start it as {user}, or give the job a command in the jobs file"
    )]
    OthersCommand {
        /// The run.
        run: RunId,
        /// Whose it was.
        user: String,
    },
    /// `rerun` of what was redacted.
    #[error(
        "parts of the command of run {0} were hidden when it was recorded, so it can't be run again from there: write joblock run {1} -- COMMAND, or give the job a command in the jobs file"
    )]
    Redacted(RunId, JobName),
    /// `rerun` of an attempt that has no command.
    #[error("run {0} has no command that could be run again")]
    NothingToRepeat(RunId),
}
