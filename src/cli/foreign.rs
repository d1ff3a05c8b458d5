//! Options of flock(1), timeout(1) and others that people try with `run`, and what to write instead.

/// Long ones.
pub(super) const LONG: &[(&str, &str)] = &[
    (
        "timeout",
        "--timeout means two things: for flock(1) how long to wait for the lock, here -w, --wait DURATION; \
         for timeout(1) how long the command may run, here -t, --time-limit DURATION",
    ),
    ("exclusive", EXCLUSIVE),
    (
        "shared",
        "--shared is flock's shared lock: joblock has only exclusive ones, because a job runs once at a time. Leave it out",
    ),
    ("close", CLOSE),
    ("unlock", UNLOCK),
    ("no-fork", NO_FORK),
    ("command", COMMAND),
    (
        "nb",
        "--nb is flock's word for not waiting, which is the default here. Leave it out, or write -n",
    ),
    (
        "foreground",
        "--foreground is for timeout(1): here the job keeps the terminal anyway. Leave it out",
    ),
    (
        "preserve-status",
        "--preserve-status is for timeout(1): here a job over its time limit ends with 124, always. Leave it out",
    ),
    (
        "retries",
        "--retries is not there yet: let the caller start the job again",
    ),
    (
        "user",
        "joblock never changes users: start it as the user whom the job needs (`sudo -u USER joblock run …`, or the crontab's user)",
    ),
];

/// Short ones.
pub(super) const SHORT: &[(&str, &str)] = &[
    ("x", EXCLUSIVE),
    ("e", EXCLUSIVE),
    ("o", CLOSE),
    ("u", UNLOCK),
    ("F", NO_FORK),
    ("c", COMMAND),
];

const EXCLUSIVE: &str = "flock's -x (--exclusive) asks for an exclusive lock: joblock's are never anything else. Leave it out";
const CLOSE: &str = "flock's -o (--close) keeps the lock from the command's children: joblock holds the lock until the last \
                     process of the job is gone, and ends what is left. Leave it out, or see --wait-for-children";
const UNLOCK: &str = "flock's -u (--unlock) drops a lock: joblock drops it when the job ends. \
                      To take it away from a run: joblock unlock JOB --reason TEXT";
const NO_FORK: &str = "flock's -F (--no-fork) runs the command in flock's own process: joblock has to stay, to record how the job ends. Leave it out";
const COMMAND: &str = "flock's -c (--command) gives a line to a shell: say so yourself, after --, like this:\n  \
                       joblock run JOB -- sh -c 'LINE'";
