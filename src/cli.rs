//! The command line: clap's types and the help texts. No I/O, and nothing of the environment: what
//! stands in jobs files and variables comes in with [`crate::plan`].

mod foreign;
pub mod mistakes;
mod values;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::duration::{self, Span};
use crate::name::{JobName, LockName};
use crate::redact::{self, Pattern};
use crate::store::record::{Outcome, Trigger};
use crate::when::When;

pub use values::{REASON_LIMIT, Target, reason, signal, signal_name, tag, unsafe_reason};

/// Runs a command under an exclusive lock and records what came of it.
///
/// cron, an operator and a container's entrypoint that say `joblock run JOB` share one lock and one
/// history: whoever comes second is refused, or waits, and can see who came first.
#[derive(Debug, Clone, Parser)]
#[command(
    name = "joblock",
    version,
    max_term_width = 100,
    override_usage = "joblock COMMAND [OPTIONS] [ARG]...",
    subcommand_required = true,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    after_help = "Try: joblock run hello -- echo hello; joblock history hello"
)]
pub struct Cli {
    /// Which store, which jobs file.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// Options that every command has.
#[derive(Debug, Clone, Default, Args)]
pub struct Global {
    /// Where locks and history are: sqlite:PATH, sqlite:PATH?shared or lockfile:DIRECTORY, with ?server-lease=DURATION if need be
    #[arg(
        long,
        value_name = "URL",
        global = true,
        help_heading = "Global options"
    )]
    pub store: Option<OsString>,
    /// The jobs file.
    #[arg(long, help = "The jobs file [default: $JOBLOCK_CONFIG, else /etc/joblock/joblock.toml]", value_name = "FILE", global = true, help_heading = "Global options", value_hint = clap::ValueHint::FilePath)]
    pub config: Option<PathBuf>,
}

/// The commands.
#[derive(Debug, Clone, Subcommand)]
pub enum Verb {
    /// Run a command under a job's lock
    ///
    /// Takes the lock, runs COMMAND (or the jobs file's command for JOB) and records what came of it.
    /// While another run has the lock, the start is refused, unless -w says to wait. The lock is held
    /// until the last process that the job started is gone.
    Run(Box<RunArgs>),
    /// Show who runs what, where and since when
    ///
    /// One line for each job: the run that holds its lock, the last success, and when it is due next
    /// if the jobs file gives it a schedule.
    Status(StatusArgs),
    /// List the attempts of the past, newest first
    ///
    /// Every start that was asked for has its line, those that were refused or skipped too.
    History(HistoryArgs),
    /// Show everything about one run
    ///
    /// Who asked for it, where it ran, how it ended, what it used, and for a refused start who held
    /// the lock.
    Show(ShowArgs),
    /// Print the kept output of a run
    ///
    /// The end of what the job wrote to standard output and standard error, 64 KiB unless the start
    /// said otherwise. What went to a terminal was not kept. Printed byte for byte, but on a terminal, where
    /// control characters other than line feed, tab and carriage return are shown as \x1b: pipe it to have them.
    Logs(LogsArgs),
    /// Run a job again: the same command under the same lock
    ///
    /// The command of a job in the jobs file comes from there; any other from the history, and only
    /// for the user who ran it. Options such as --time-limit are not repeated from the history: give them
    /// again (a job of the jobs file has them there). The new run is linked to the one that it repeats,
    /// and is never skipped because the job succeeded a while ago.
    Rerun(Box<RerunArgs>),
    /// Ask a running job to stop, from any host
    ///
    /// The run sees it at its next heartbeat, sends its job the first signal and, if need be, KILL.
    Stop(StopArgs),
    /// Take a lock away from its holder, whose job is then killed
    ///
    /// The lock is free once the holder's job is dead, or its lease is over: never before. What is
    /// left, and where, is printed. Of a holder that does not answer the kernel's lock is tried: 75 if
    /// somebody still has it.
    Unlock(UnlockArgs),
    /// Inside a job: tell by the exit code whether the lock is still held
    ///
    /// For scripts that want to be sure before they write.
    Assert(AssertArgs),
    /// Tell a monitoring system how the jobs are
    ///
    /// Looks at each job's last outcome, at its schedule in the jobs file, and for runs that vanished.
    /// Prints one line and exits as Nagios and its like want.
    Check(CheckArgs),
    /// Prove that the store does what locks need
    ///
    /// Takes locks of its own in the store and looks whether they exclude, outlive exec and end with a
    /// killed process; looks at file system, access, journal and clocks, and prints the store's UUID.
    Doctor(DoctorArgs),
    /// Delete old attempts from the history, with their output
    ///
    /// What ended longer ago than --keep says, or keep in the jobs file. Of each job the newest attempt of each
    /// outcome stays, whatever its age (the last success, the last failure, …), and so does what runs. It is
    /// done in small slices, between which starts come in. A start of a job that has a keep deletes a slice itself,
    /// after it has let go of the lock: prune is for the rest.
    Prune(PruneArgs),
    /// Create a store
    ///
    /// run creates a store by itself; init is for those that a group or several hosts share. Doing it
    /// twice does no harm.
    Init(InitArgs),
    /// Print man pages and shell completions
    Generate(GenerateArgs),
}

impl Verb {
    /// The command's name as typed.
    pub fn name(&self) -> &'static str {
        match self {
            Verb::Run(_) => "run",
            Verb::Status(_) => "status",
            Verb::History(_) => "history",
            Verb::Show(_) => "show",
            Verb::Logs(_) => "logs",
            Verb::Rerun(_) => "rerun",
            Verb::Stop(_) => "stop",
            Verb::Unlock(_) => "unlock",
            Verb::Assert(_) => "assert",
            Verb::Check(_) => "check",
            Verb::Doctor(_) => "doctor",
            Verb::Prune(_) => "prune",
            Verb::Init(_) => "init",
            Verb::Generate(_) => "generate",
        }
    }
}

const RUN_EXAMPLES: &str = "\
Examples:
  joblock run backup -- pg_dump -f /backup/app.sql app
  joblock run backup -w 10m -t 2h -- pg_dump -f /backup/app.sql app
  joblock run person-sync          (the command stands in the jobs file)
  joblock run report --unless-succeeded-within 6h -- ./report.sh

Exit code: the job's own, or 128+n if signal n ended it; 0 if it was skipped as fresh; 69 the
store can't be used; 75 the lock is held; 79 the lock was lost; 124 over the time limit;
125 a mistake in the call; 126 and 127 the command can't be executed, is not found.";

/// `joblock run`.
#[derive(Debug, Clone, Args)]
#[command(
    override_usage = "joblock run [OPTIONS] JOB [-- COMMAND [ARG]...]",
    after_help = RUN_EXAMPLES
)]
pub struct RunArgs {
    /// The job's name, also the name of its lock
    #[arg(value_name = "JOB")]
    pub job: JobName,
    /// The command and its arguments, as they are, after --
    #[arg(value_name = "COMMAND", last = true, value_hint = clap::ValueHint::CommandWithArguments)]
    pub command: Vec<OsString>,

    /// Take this lock instead of the job's own; several jobs can share it
    #[arg(long, value_name = "NAME", help_heading = "The lock")]
    pub lock: Option<LockName>,
    /// Skip, with exit code 0, if the job succeeded within this time
    #[arg(long, value_name = "DURATION", value_parser = duration::window, help_heading = "The lock")]
    pub unless_succeeded_within: Option<Duration>,
    /// Run COMMAND although the jobs file has another for JOB
    #[arg(long = "override", help_heading = "The job")]
    pub override_command: bool,
    /// How to start it.
    #[command(flatten)]
    pub start: StartArgs,

    /// Print what would be done, and where each part comes from; start and write nothing
    #[arg(long, help_heading = "Output")]
    pub explain: bool,
    /// With --explain: print JSON
    #[arg(long, requires = "explain", help_heading = "Output")]
    pub json: bool,
}

/// What `run` and `rerun` share.
#[derive(Debug, Clone, Default, Args)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a flag of the command line"
)]
pub struct StartArgs {
    /// Don't wait while the lock is held (the default)
    #[arg(short = 'n', long, help_heading = "The lock")]
    pub nonblock: bool,
    /// Wait at most this long for the lock, or forever; 0 is -n
    #[arg(short, long, value_name = "DURATION", value_parser = duration::span, help_heading = "The lock")]
    pub wait: Option<Span>,
    /// With -w: don't wait if N wait already
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000), help_heading = "The lock")]
    pub max_waiters: Option<u32>,
    /// Exit with N instead of 75 if the lock is held
    #[arg(short = 'E', long, value_name = "N", value_parser = clap::value_parser!(u8), help_heading = "The lock")]
    pub conflict_exit_code: Option<u8>,
    /// How long a shared store's lock outlives a host that vanished [default: 45s]
    #[arg(long, value_name = "DURATION", value_parser = duration::ttl, help_heading = "The lock")]
    pub ttl: Option<Duration>,
    /// As a container's PID 1: accept a store that no other container can see
    #[arg(long, help_heading = "The lock")]
    pub private_store: bool,
    /// Start although the store's mount lies (its locks don't reach other machines, for example); REASON and what was
    /// accepted stand in the history
    #[arg(long, value_name = "REASON", value_parser = unsafe_reason, help_heading = "The lock")]
    pub accept_unsafe_mount: Option<String>,

    /// End the job when it takes longer; 0 is no limit
    #[arg(short, long, value_name = "DURATION", value_parser = duration::span, help_heading = "The job")]
    pub time_limit: Option<Span>,
    /// Send KILL this long after the first signal of a time limit, stop or unlock [default: 10s]
    ///
    /// A signal that is sent to joblock is passed on to the job, and nothing follows: a job may take its time to end by it.
    #[arg(short, long, value_name = "DURATION", value_parser = duration::finite, help_heading = "The job")]
    pub kill_after: Option<Duration>,
    /// The first signal: TERM, SIGTERM or 15 [default: TERM]
    #[arg(short, long, value_name = "SIGNAL", value_parser = signal, help_heading = "The job")]
    pub signal: Option<i32>,
    /// Wait for processes that the job leaves behind, instead of ending them
    #[arg(long, help_heading = "The job")]
    pub wait_for_children: bool,

    /// What asks for it: schedule, startup, operator or other [default: found out]
    #[arg(long, value_name = "WHAT", help_heading = "The record")]
    pub trigger: Option<Trigger>,
    /// Why; it stands in the history
    #[arg(long, value_name = "TEXT", value_parser = reason, help_heading = "The record")]
    pub reason: Option<String>,
    /// A label for the history; can be given several times
    #[arg(long = "tag", value_name = "KEY=VALUE", value_parser = tag, help_heading = "The record")]
    pub tags: Vec<(String, String)>,
    /// Keep no output in the history, and hand the streams over untouched
    #[arg(long, help_heading = "The record")]
    pub no_capture: bool,
    /// Hide what matches this regular expression (its first group, if it has one) in each argument of COMMAND before it
    /// is recorded; can be given several times
    #[arg(long, value_name = "PATTERN", value_parser = redact::pattern, help_heading = "The record")]
    pub redact: Vec<Pattern>,
    /// After the run, delete what of the job's history ended longer ago; forever: nothing [default: the jobs file's, else forever]
    #[arg(long, value_name = "DURATION", value_parser = duration::keep, help_heading = "The record")]
    pub keep: Option<Span>,

    /// Say nothing but errors
    #[arg(short, long, conflicts_with = "verbose", help_heading = "Output")]
    pub quiet: bool,
    /// Say what happens. Without it a refused start is silent where stderr is no terminal, as in cron: the exit code tells, and the history why
    #[arg(short, long, help_heading = "Output")]
    pub verbose: bool,
}

/// `joblock status`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example: joblock status person-sync")]
pub struct StatusArgs {
    /// Only these jobs
    #[arg(value_name = "JOB")]
    pub jobs: Vec<JobName>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `joblock history`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Moments: 2026-11-22, \"2026-11-22 01:30\" (local time), 2026-11-22T01:30:00Z, today, yesterday,
or a duration for that long ago: 12h.

Example: joblock history person-sync --since yesterday --outcome failed,oom-killed")]
pub struct HistoryArgs {
    /// Only this job
    #[arg(value_name = "JOB")]
    pub job: Option<JobName>,
    /// At most N attempts; 0: all
    #[arg(short = 'n', long = "limit", value_name = "N", default_value_t = 20)]
    pub limit: usize,
    /// Begun at this moment or later
    #[arg(long, value_name = "MOMENT")]
    pub since: Option<When>,
    /// Begun before this moment
    #[arg(long, value_name = "MOMENT")]
    pub until: Option<When>,
    /// Only with this outcome; several with commas
    #[arg(long = "outcome", value_name = "OUTCOME", value_delimiter = ',')]
    pub outcomes: Vec<Outcome>,
    /// Only on this host
    #[arg(long, value_name = "NAME", value_hint = clap::ValueHint::Hostname)]
    pub host: Option<String>,
    /// Only asked for by this: schedule, startup, operator or other
    #[arg(long, value_name = "WHAT")]
    pub trigger: Option<Trigger>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `joblock show`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example: joblock show 3fa9c1")]
pub struct ShowArgs {
    /// A run id (its first 6 characters do) or a job, for its last run
    #[arg(value_name = "RUN|JOB")]
    pub target: Target,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `joblock logs`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example: joblock logs -f person-sync")]
pub struct LogsArgs {
    /// A run id (its first 6 characters do) or a job, for its last run
    #[arg(value_name = "RUN|JOB")]
    pub target: Target,
    /// Go on while the job runs
    #[arg(short, long)]
    pub follow: bool,
    /// Print JSON
    #[arg(long, conflicts_with = "follow")]
    pub json: bool,
}

/// `joblock rerun`.
#[derive(Debug, Clone, Args)]
#[command(
    override_usage = "joblock rerun [OPTIONS] JOB|RUN",
    after_help = "\
Exit code: as of joblock run.

Example: joblock rerun person-sync --reason \"duplicates in the list of people\""
)]
pub struct RerunArgs {
    /// A job, for its last run, or a run id (its first 6 characters do)
    #[arg(value_name = "JOB|RUN")]
    pub target: Target,
    /// How to start it.
    #[command(flatten)]
    pub start: StartArgs,
}

/// `joblock stop`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example: joblock stop person-sync --reason \"wrong input file\"")]
pub struct StopArgs {
    /// The job
    #[arg(value_name = "JOB")]
    pub job: JobName,
    /// Why; it stands in the history
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    pub reason: String,
}

/// `joblock unlock`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Exit code: 0 the lock is free, or the next start takes it over; 75 the holder does not answer,
and the lock is still held.

Example: joblock unlock person-sync --reason \"host blue is gone\"")]
pub struct UnlockArgs {
    /// The job
    #[arg(value_name = "JOB")]
    pub job: JobName,
    /// Why; it stands in the history
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    pub reason: String,
    /// Kill what is left of the run on this machine
    #[arg(long)]
    pub kill: bool,
}

/// `joblock assert`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Exit code: 0 the caller runs under a live lock, 1 it does not, 69 that can't be told.

Example, in a job's script before each page: joblock assert || exit 1")]
pub struct AssertArgs {
    /// The job.
    #[arg(help = "The job [default: $JOBLOCK_JOB]", value_name = "JOB")]
    pub job: Option<JobName>,
}

/// `joblock check`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Critical: a job's last run failed, was killed, ran out of memory or time, lost its lock,
vanished or could not be started, and it has not succeeded since; or its schedule asked for it
more than 5 minutes ago (the grace that every start has), and it has not run since.

Warning: somebody stopped it, and it has not succeeded since; or it has run for more than
5 minutes over its time limit; or another job that shares its lock kept it from running.

Unknown: a mistake in the call of check, a job that neither the jobs file nor the history has, a
store that can't be read. The line on standard output says which, in these cases too.

A start that was refused because the job ran already is no run, nor is one that joblock turned
down for a mistake in its call.

Exit code: 0 ok, 1 warning, 2 critical, 3 unknown.

Example: joblock check person-sync")]
pub struct CheckArgs {
    /// Only these jobs [default: those of the jobs file, else all that ever ran]
    #[arg(value_name = "JOB")]
    pub jobs: Vec<JobName>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `joblock doctor`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
--peer is for two machines that share a store. Start it on both within two minutes. Each holds locks of its own
in a folder beside the store and looks whether the other one is refused them: at once, after they were closed and
opened again, after seconds, and while only a child process has them; how long a lock takes to be free once its
holder was killed; whether data and SQLite transactions of the one reach the other. Clocks, host names, mounts and
versions of both are compared. It takes about 20 seconds, touches nothing that a run looks at, and removes
what it made. Both print the same, each as seen from its side.

Exit code: 0 all is well, or could be better; 69 something is bad, the other side did not come, or a mount does
not answer.

Examples:
  joblock doctor --store sqlite:/srv/nfs/joblock.db
  joblock doctor --peer            (on blue, and at the same time on green)")]
pub struct DoctorArgs {
    /// Meet a doctor on another machine in the store, and prove that the locks of one are seen by the other
    #[arg(long)]
    pub peer: bool,
    /// With --peer: wait so long for the other one [default: 2m]
    #[arg(short, long, value_name = "DURATION", value_parser = duration::finite, requires = "peer")]
    pub wait: Option<Duration>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `joblock prune`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
The age of an attempt is counted from its end. Attempts dated in the future are left alone. So that a wrong clock
doesn't delete the history, ages are counted from what the history itself vouches for: not before attempts by a
clock have been on record for an eighth of the time to keep, a week at most, are ages counted by it. What is
old by the clock alone is left alone and told; --trust-clock deletes it.

The file does not shrink: what is free in it is used again.

Examples:
  joblock prune                    (as the jobs file says)
  joblock prune --keep 30d --dry-run
  joblock prune person-sync --keep 1w")]
pub struct PruneArgs {
    /// Only these jobs [default: all that have a history]
    #[arg(value_name = "JOB")]
    pub jobs: Vec<JobName>,
    /// Keep what ended within this time, given with its unit [default: keep in the jobs file]. Jobs that the jobs file
    /// keeps for ever must be named
    #[arg(long, value_name = "DURATION", value_parser = duration::keep)]
    pub keep: Option<Span>,
    /// Count ages by this machine's clock, even if nothing on record shows that it is right
    #[arg(long)]
    pub trust_clock: bool,
    /// Say what would be deleted, and delete nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `joblock init`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example: joblock init --system --group adm")]
pub struct InitArgs {
    /// Make it a shared store, for several hosts, although its file system is a local one
    #[arg(long)]
    pub shared: bool,
    /// Make the machine's store, /var/lib/joblock/joblock.db, unless --store names another
    #[arg(long)]
    pub system: bool,
    /// Let this group's members use it: folder 2770, database 0660
    #[arg(long, value_name = "GROUP")]
    pub group: Option<String>,
}

/// `joblock generate`.
#[derive(Debug, Clone, Args)]
#[command(arg_required_else_help = true)]
pub struct GenerateArgs {
    /// What.
    #[command(subcommand)]
    pub what: Generate,
}

/// What `generate` makes.
#[derive(Debug, Clone, Subcommand)]
pub enum Generate {
    /// Man pages, one for each command and one for the jobs file
    #[command(after_help = "Example: joblock generate man /usr/local/share/man")]
    Man {
        /// Write them here, below man1 and man5
        #[arg(value_name = "DIR", required_unless_present = "stdout", value_hint = clap::ValueHint::DirPath)]
        directory: Option<PathBuf>,
        /// Print joblock(1) instead
        #[arg(long, conflicts_with = "directory")]
        stdout: bool,
    },
    /// A completion script
    #[command(
        after_help = "Example: joblock generate completions bash > /etc/bash_completion.d/joblock"
    )]
    Completions {
        /// For this shell
        shell: Shell,
    },
    /// The names of all jobs, for completion scripts
    #[command(hide = true)]
    Jobs,
}

/// The shells that there are completions for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Shell {
    /// GNU bash with bash-completion.
    Bash,
    /// The Z shell.
    Zsh,
    /// fish.
    Fish,
}
