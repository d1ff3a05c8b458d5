//! Every key of the jobs file: what the reader accepts, what it guesses from, and what
//! joblock.toml(5) is made of. One table, so that the three can't drift apart.

/// A key.
#[derive(Debug)]
pub struct Key {
    /// As it stands in the file.
    pub name: &'static str,
    /// What kind of value it has, for messages and the man page.
    pub value: &'static str,
    /// A value that is right, in TOML.
    pub example: &'static str,
    /// What it does.
    pub help: &'static str,
}

const fn key(
    name: &'static str,
    value: &'static str,
    example: &'static str,
    help: &'static str,
) -> Key {
    Key {
        name,
        value,
        example,
        help,
    }
}

/// Keys at the top of the file.
pub const TOP: &[Key] = &[
    key(
        "store",
        "a URL",
        r#""sqlite:/var/lib/joblock/joblock.db""#,
        "Where locks and history are: sqlite:PATH, sqlite:PATH?shared or lockfile:DIRECTORY. A relative path is taken from the jobs file's own folder. ?server-lease=90s (or &server-lease=90s) says after how long the file server gives a silent machine's locks away, where the kernel can't tell.",
    ),
    key(
        "store-id",
        "a UUID",
        r#""0b7e2d0e-6f0a-4c55-9a55-2f6d3b1f2a10""#,
        "The UUID that the store must have, as joblock doctor prints it. A store with another one is not used (exit code 69): a mount that is missing, for example.",
    ),
    key(
        "only-named-jobs",
        "true or false",
        "true",
        "Refuse jobs that this file doesn't name, so that a typing error can't make a new lock. Default: false.",
    ),
    key(
        "keep",
        "a duration or \"forever\"",
        r#""90d""#,
        "How long attempts are kept in the history after they ended, for each job that says nothing else. Older ones are deleted a slice at a time, after a run has let go of its lock, and by joblock prune. Default: \"forever\".",
    ),
    key(
        "redact",
        "an array of regular expressions",
        r"['(?is)(?:password|token|secret)=(.*)', '://[^:/@]*:([^@]*)@']",
        "What matches one of these regular expressions is hidden in each argument of a command before it is stored or shown: the first group, or the whole match if there is none, becomes ***. What is spread over two arguments (--password SECRET) is matched by none. The patterns of the job and of the command line are added. A run of which something was hidden is run again from this file's command, or not at all. Output, reasons and tags are not looked at. The syntax is that of the regex crate, over bytes: no look-around, no back-references; . matches a line feed only with (?s).",
    ),
    key(
        "jobs",
        "tables",
        "{}",
        "The jobs, each a table of its own: [jobs.NAME].",
    ),
];

/// Keys of a job.
pub const JOB: &[Key] = &[
    key(
        "command",
        "an array of strings",
        r#"["/opt/sync", "person"]"#,
        "The program and its arguments. It is not given to a shell; for one, write [\"sh\", \"-c\", \"LINE\"]. Without it, the command stands on the command line.",
    ),
    key(
        "lock",
        "a name",
        r#""people""#,
        "The lock to take instead of the job's own. Several jobs can share one.",
    ),
    key(
        "ttl",
        "a duration of at least 2s",
        r#""45s""#,
        "On a shared store: how long the lock outlives a host that vanished. Default: 45s.",
    ),
    key(
        "nonblock",
        "true or false",
        "true",
        "Don't wait while the lock is held. This is the default.",
    ),
    key(
        "wait",
        "a duration or \"forever\"",
        r#""10m""#,
        "Wait at most this long for the lock.",
    ),
    key(
        "max-waiters",
        "a number from 1 to 1000",
        "1",
        "With wait: refuse a start at once if so many wait for the lock already. Default: no limit.",
    ),
    key(
        "conflict-exit-code",
        "a number from 0 to 255",
        "75",
        "The exit code if the lock is held. Default: 75.",
    ),
    key(
        "unless-succeeded-within",
        "a duration",
        r#""6h""#,
        "Skip, with exit code 0, if the job succeeded within this time, counted from the end of the success. From this file it holds for starts by the schedule and at startup only: an operator's start is never skipped because of it.",
    ),
    key(
        "time-limit",
        "a duration",
        r#""3h""#,
        "End the job when it takes longer. 0 is no limit, the default.",
    ),
    key(
        "kill-after",
        "a duration",
        r#""10s""#,
        "Send KILL this long after the first signal. Default: 10s.",
    ),
    key(
        "signal",
        "a signal",
        r#""TERM""#,
        "The first signal: a name or a number. Default: TERM.",
    ),
    key(
        "wait-for-children",
        "true or false",
        "true",
        "Wait for processes that the job leaves behind, instead of ending them. Default: false.",
    ),
    key(
        "private-store",
        "true or false",
        "true",
        "As a container's PID 1, accept a store that no other container can see. Default: false.",
    ),
    key(
        "accept-unsafe-mount",
        "a text",
        r#""both sides are one machine""#,
        "Start the job although the mount that the store is on lies: its locks don't reach other machines, for example. The text says why, and stands in each run's record with what was accepted. It is warned of at each start. A mount that is read-only, and a store made as a local one, are never accepted. Default: such a start is refused (exit code 69).",
    ),
    key(
        "reason",
        "a text",
        r#""nightly""#,
        "Stands in the history, if the start gives none of its own.",
    ),
    key(
        "tags",
        "a table of texts",
        r#"{ team = "search" }"#,
        "Labels for the history. Those of the command line are added, and win.",
    ),
    key(
        "capture",
        "a number of bytes, or a text like \"64K\"",
        r#""64K""#,
        "How much of the end of the job's output the history keeps; at most 16M, 0 is no-capture. Default: 64K.",
    ),
    key(
        "no-capture",
        "true or false",
        "true",
        "Keep no output in the history, and hand the streams over untouched. Default: false.",
    ),
    key(
        "keep",
        "a duration or \"forever\"",
        r#""90d""#,
        "How long its attempts are kept in the history after they ended. Of each outcome the newest stays, whatever its age. Default: the keep at the top of the file, else \"forever\".",
    ),
    key(
        "redact",
        "an array of regular expressions",
        r"['(?s)--key=(.*)']",
        "Regular expressions for what is to be hidden in the arguments of the job's command, added to those at the top of the file: see there.",
    ),
    key(
        "quiet",
        "true or false",
        "true",
        "Say nothing but errors. Default: false.",
    ),
    key(
        "verbose",
        "true or false",
        "true",
        "Say what happens. Default: false.",
    ),
    key(
        "schedule",
        "five fields as in crontab(5)",
        r#""29 1 * * *""#,
        "When the job is due. joblock starts nothing by itself: this is what check and status compare with. @hourly, @daily, @weekly, @monthly and @yearly do as well.",
    ),
    key(
        "timezone",
        "a name of the IANA database",
        r#""Europe/London""#,
        "The time zone of the schedule. Default: the machine's.",
    ),
    key(
        "after",
        "an array of job names",
        "[]",
        "The jobs that come before this one when the night's jobs run in order. They must stand in this file, and not in a circle. Read and checked, and not acted on yet.",
    ),
    key(
        "notify",
        "a table",
        r#"{ on = ["failed"], webhook = "https://example.org/hook" }"#,
        "Whom to tell about which outcomes. Read and checked, and not acted on yet: this version tells nobody; let joblock-check(1) do it.",
    ),
];

/// Keys of `notify`.
pub const NOTIFY: &[Key] = &[
    key(
        "on",
        "an array of outcomes",
        r#"["failed", "oom-killed", "lost", "abandoned"]"#,
        "The outcomes to tell about: succeeded, failed, signaled, oom-killed, timed-out, stopped, lost, abandoned, refused, fresh, cancelled or not-started.",
    ),
    key(
        "webhook",
        "an http or https URL",
        r#""https://example.org/hook""#,
        "Where to send them.",
    ),
    key(
        "command",
        "an array of strings",
        r#"["/usr/local/bin/tell", "ops"]"#,
        "The program to start for each.",
    ),
];

/// Names that people try, and what to do instead.
pub const NOT_KEYS: &[(&str, &str)] = &[
    (
        "user",
        "joblock never changes users: start it as the user whom the job needs (sudo -u USER joblock run …, or the crontab's user)",
    ),
    (
        "trigger",
        "what asks for a start differs from start to start: use --trigger or $JOBLOCK_TRIGGER",
    ),
    ("explain", "--explain is for the command line only"),
    ("override", "--override is for the command line only"),
    ("tag", "write tags = { KEY = \"VALUE\" }"),
    (
        "timeout",
        "to flock(1) it is the wait, here wait = DURATION; to timeout(1) the limit, here time-limit = DURATION",
    ),
    (
        "retries",
        "it is not there yet: let the caller start the job again",
    ),
    (
        "retry-delay",
        "it is not there yet: let the caller start the job again",
    ),
    (
        "env",
        "joblock passes its own environment on: write command = [\"env\", \"NAME=VALUE\", \"PROGRAM\"]",
    ),
    (
        "cwd",
        "the job runs where joblock was started: write command = [\"env\", \"-C\", \"FOLDER\", \"PROGRAM\"]",
    ),
];

/// The names of `keys`.
pub fn names(keys: &'static [Key]) -> impl Iterator<Item = &'static str> {
    keys.iter().map(|k| k.name)
}
