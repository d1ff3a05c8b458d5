//! Command line + jobs file + environment → a checked [`RunPlan`]. Nothing here starts, locks or writes anything.

mod environment;
mod location;
mod trigger;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;

use crate::cli::{RerunArgs, RunArgs, StartArgs};
use crate::config::{At, Job, JobsFile, UnknownJob};
use crate::duration::Span;
use crate::guess;
use crate::name::{JobName, LockName, RunId};
use crate::store::StoreUrl;
use crate::store::record::{RunRecord, Trigger};

pub use environment::{Environment, SYSTEM_FOLDER};
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
    pub reason: Source,
    pub capture: Source,
}

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
    /// `rerun` of an attempt that has no command.
    #[error("run {0} has no command that could be run again")]
    NothingToRepeat(RunId),
}

/// The plan of `joblock run`.
pub fn plan(
    args: &RunArgs,
    file: Option<&JobsFile>,
    store: Located,
    environment: &Environment,
) -> Result<Planned, PlanError> {
    let entry = Entry::of(&args.job, file)?;
    let (command, command_source) = command_of(args, file, &entry)?;
    let (lock, lock_source) = match (&args.lock, entry.get(|j| j.lock.as_ref())) {
        (Some(lock), _) => (lock.clone(), Source::Option("--lock")),
        (None, Some((lock, source))) => (lock, source),
        (None, None) => (args.job.clone().into(), Source::Default("the job's name")),
    };
    let what = What {
        job: args.job.clone(),
        command,
        command_source,
        lock,
        lock_source,
        repeats: None,
    };
    let mut planned = assemble(what, &args.start, &entry, store, environment)?;
    match (
        args.unless_succeeded_within,
        entry.get(|j| j.unless_succeeded_within.as_ref()),
    ) {
        (Some(within), _) => {
            planned.plan.fresh = Some(Fresh { within });
            planned.sources.fresh = Source::Option("--unless-succeeded-within");
        }
        (None, Some((within, source))) => {
            planned.sources.fresh = source;
            if matches!(planned.plan.trigger, Trigger::Schedule | Trigger::Startup) {
                planned.plan.fresh = Some(Fresh { within });
            } else {
                planned.sources.fresh_out_of_force = Some(within);
            }
        }
        (None, None) => {}
    }
    Ok(planned)
}

/// The plan of `joblock rerun`: what `run` did, again, under the same lock. Never "fresh".
pub fn rerun(
    args: &RerunArgs,
    run: &RunRecord,
    file: Option<&JobsFile>,
    store: Located,
    environment: &Environment,
) -> Result<Planned, PlanError> {
    let entry = Entry::of(&run.job, file)?;
    let (command, command_source) = match entry.get(|j| j.command.as_ref()) {
        Some((words, source)) => (words.into_iter().map(OsString::from).collect(), source),
        None if run.command.is_empty() => {
            return Err(PlanError::NothingToRepeat(run.run_id.clone()));
        }
        None if run.who.uid != environment.uid => {
            return Err(PlanError::OthersCommand {
                run: run.run_id.clone(),
                user: run.who.user.clone(),
            });
        }
        None => (run.command.clone(), Source::History(run.run_id.clone())),
    };
    let (lock, lock_source) = entry
        .get(|j| j.lock.as_ref())
        .unwrap_or_else(|| (run.lock.clone(), Source::History(run.run_id.clone())));
    let repeats = Some(run.run_id.clone());
    let what = What {
        job: run.job.clone(),
        command,
        command_source,
        lock,
        lock_source,
        repeats,
    };
    assemble(what, &args.start, &entry, store, environment)
}

/// What the jobs file says of one job.
struct Entry<'a>(Option<(&'a JobsFile, &'a Job)>);

impl<'a> Entry<'a> {
    fn of(name: &JobName, file: Option<&'a JobsFile>) -> Result<Self, UnknownJob> {
        let Some(file) = file else {
            return Ok(Entry(None));
        };
        Ok(Entry(file.job(name)?.map(|job| (file, job))))
    }

    fn get<T: Clone + 'a>(
        &self,
        key: impl FnOnce(&'a Job) -> Option<&'a At<T>>,
    ) -> Option<(T, Source)> {
        let (file, job) = self.0?;
        let at = key(job)?;
        Some((
            at.value.clone(),
            Source::File {
                path: file.path.clone(),
                line: at.line,
            },
        ))
    }

    /// The option's value, else the file's, else the default, and which of them it is.
    fn choose<T: Clone + 'a>(
        &self,
        option: Option<T>,
        name: &'static str,
        key: impl FnOnce(&'a Job) -> Option<&'a At<T>>,
        default: T,
    ) -> (T, Source) {
        match option {
            Some(value) => (value, Source::Option(name)),
            None => self.get(key).unwrap_or((default, Source::Default(""))),
        }
    }
}

fn command_of(
    args: &RunArgs,
    file: Option<&JobsFile>,
    entry: &Entry<'_>,
) -> Result<(Vec<OsString>, Source), PlanError> {
    let job = || args.job.clone();
    match (args.command.is_empty(), entry.get(|j| j.command.as_ref())) {
        (false, Some((_, source))) if !args.override_command => Err(PlanError::TwoCommands {
            job: job(),
            place: source,
        }),
        (false, _) => Ok((args.command.clone(), Source::CommandLine)),
        (true, _) if args.override_command => Err(PlanError::NothingToOverride(job())),
        (true, Some((words, source))) => {
            Ok((words.into_iter().map(OsString::from).collect(), source))
        }
        (true, None) => {
            let why = match (file, entry.0) {
                (None, _) => "none is given, and there is no jobs file".to_owned(),
                (Some(file), Some((_, known))) => {
                    format!(
                        "none is given, and {}:{} has none",
                        file.path.display(),
                        known.line
                    )
                }
                (Some(file), None) => {
                    let guess = guess::did_you_mean(
                        args.job.as_str(),
                        file.jobs.keys().map(JobName::as_str),
                    );
                    format!(
                        "none is given, and {} doesn't name the job{guess}",
                        file.path.display()
                    )
                }
            };
            Err(PlanError::NoCommand { job: job(), why })
        }
    }
}

/// What is run, before it is known how.
struct What {
    job: JobName,
    command: Vec<OsString>,
    command_source: Source,
    lock: LockName,
    lock_source: Source,
    repeats: Option<RunId>,
}

fn assemble(
    what: What,
    start: &StartArgs,
    entry: &Entry<'_>,
    store: Located,
    environment: &Environment,
) -> Result<Planned, PlanError> {
    let (trigger, trigger_source) = trigger::trigger(start.trigger, environment)?;
    let no_wait = start
        .nonblock
        .then_some((Span::For(Duration::ZERO), Source::Option("--nonblock")));
    let (wait, wait_source) = no_wait.unwrap_or_else(|| {
        entry.choose(
            start.wait,
            "--wait",
            |j| j.wait.as_ref(),
            Span::For(Duration::ZERO),
        )
    });
    let (conflict_exit_code, conflict_source) = entry.choose(
        start.conflict_exit_code,
        "--conflict-exit-code",
        |j| j.conflict_exit_code.as_ref(),
        crate::exit::LOCK_HELD,
    );
    let (ttl, ttl_source) = match (start.ttl, entry.get(|j| j.ttl.as_ref())) {
        (Some(ttl), _) => (Some(ttl), Source::Option("--ttl")),
        (None, Some((ttl, source))) => (Some(ttl), source),
        (None, None) => (None, Source::Default("")),
    };
    let (time_limit, limit_source) = entry.choose(
        start.time_limit,
        "--time-limit",
        |j| j.time_limit.as_ref(),
        Span::Forever,
    );
    let (kill_after, kill_source) = entry.choose(
        start.kill_after,
        "--kill-after",
        |j| j.kill_after.as_ref(),
        KILL_AFTER,
    );
    let (signal, signal_source) = entry.choose(
        start.signal,
        "--signal",
        |j| j.signal.as_ref(),
        libc::SIGTERM,
    );
    let (waits_for_children, leftovers_source) = entry.choose(
        start.wait_for_children.then_some(true),
        "--wait-for-children",
        |j| j.wait_for_children.as_ref(),
        false,
    );
    let (capture, capture_source) = entry.choose(
        start.no_capture.then_some(None),
        "--no-capture",
        |j| j.capture.as_ref(),
        Some(CAPTURE),
    );
    let (reason, reason_source) = match (&start.reason, entry.get(|j| j.reason.as_ref())) {
        (Some(reason), _) => (Some(reason.clone()), Source::Option("--reason")),
        (None, Some((reason, source))) => (Some(reason), source),
        (None, None) => (None, Source::Default("none")),
    };
    let private_store = start.private_store
        || entry
            .get(|j| j.private_store.as_ref())
            .is_some_and(|(yes, _)| yes);
    let verbosity = match (start.quiet, start.verbose) {
        (true, _) => -1,
        (_, true) => 1,
        _ => entry.get(|j| j.verbosity.as_ref()).map_or(0, |(v, _)| v),
    };
    let mut tags = entry.0.map(|(_, job)| job.tags.clone()).unwrap_or_default();
    tags.extend(start.tags.iter().cloned());
    let plan = RunPlan {
        store: store.url,
        store_id: store.pinned,
        job: what.job,
        lock: what.lock,
        lock_is_declared: matches!(what.lock_source, Source::File { .. }),
        ttl,
        wait: match wait {
            Span::For(Duration::ZERO) => Wait::No,
            Span::For(length) => Wait::For(length),
            Span::Forever => Wait::Forever,
        },
        conflict_exit_code,
        fresh: None,
        time_limit: time_limit.limit(),
        kill_after,
        signal,
        leftovers: if waits_for_children {
            Leftovers::WaitFor
        } else {
            Leftovers::End
        },
        trigger,
        reason,
        tags,
        capture,
        verbosity,
        command: what.command,
        repeats: what.repeats,
    };
    let sources = Sources {
        store: store.source,
        command: what.command_source,
        lock: what.lock_source,
        ttl: ttl_source,
        wait: wait_source,
        conflict_exit_code: conflict_source,
        fresh: Source::Default(""),
        fresh_out_of_force: None,
        time_limit: limit_source,
        kill_after: kill_source,
        signal: signal_source,
        leftovers: leftovers_source,
        trigger: trigger_source,
        reason: reason_source,
        capture: capture_source,
    };
    Ok(Planned {
        plan,
        private_store,
        store_unasked: store.unasked,
        sources,
    })
}
