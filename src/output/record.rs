//! A history row in words.

use super::Page;
use super::table::{Tone, Words};
use super::text::visible;
use super::time::took;
use crate::clock::Wall;
use crate::store::Holder;
use crate::store::record::{Outcome, RunRecord, Who};

/// What became of the attempt: the outcome's word, and what makes it clearer, as in `failed (exit 3)`, `signaled (KILL)`, `refused (held by green)`.
pub fn outcome(run: &RunRecord) -> String {
    let end = run.end.as_ref();
    match run.outcome {
        Outcome::Failed => match end.and_then(|e| e.exit_code) {
            Some(code) => format!("failed (exit {code})"),
            None => "failed".to_owned(),
        },
        Outcome::Signaled => match end.and_then(|e| e.signal) {
            Some(number) => format!("signaled ({})", signal(number)),
            None => "signaled".to_owned(),
        },
        Outcome::Refused => match &run.held_by {
            Some(holder) if holder.job != run.job.as_str() => {
                format!("refused (held by {} on {})", holder.job, holder.place.host)
            }
            Some(holder) => format!("refused (held by {})", holder.place.host),
            None => "refused".to_owned(),
        },
        other => other.to_string(),
    }
}

/// How good that is.
pub fn tone(outcome: Outcome) -> Tone {
    match outcome {
        Outcome::Succeeded => Tone::Good,
        Outcome::Running => Tone::Busy,
        Outcome::Refused | Outcome::Stopped | Outcome::Cancelled => Tone::Warn,
        Outcome::Fresh => Tone::Faint,
        Outcome::Failed
        | Outcome::Signaled
        | Outcome::OomKilled
        | Outcome::TimedOut
        | Outcome::Lost
        | Outcome::Abandoned
        | Outcome::NotStarted => Tone::Bad,
    }
}

/// The outcome as a cell.
pub fn outcome_cell(run: &RunRecord) -> Words {
    Words::toned(outcome(run), tone(run.outcome))
}

/// A signal as people know it: `KILL`, or its number.
pub fn signal(number: i32) -> String {
    let name = match number {
        libc::SIGHUP => "HUP",
        libc::SIGINT => "INT",
        libc::SIGQUIT => "QUIT",
        libc::SIGILL => "ILL",
        libc::SIGTRAP => "TRAP",
        libc::SIGABRT => "ABRT",
        libc::SIGBUS => "BUS",
        libc::SIGFPE => "FPE",
        libc::SIGKILL => "KILL",
        libc::SIGUSR1 => "USR1",
        libc::SIGSEGV => "SEGV",
        libc::SIGUSR2 => "USR2",
        libc::SIGPIPE => "PIPE",
        libc::SIGALRM => "ALRM",
        libc::SIGTERM => "TERM",
        libc::SIGXCPU => "XCPU",
        libc::SIGXFSZ => "XFSZ",
        libc::SIGSYS => "SYS",
        _ => return number.to_string(),
    };
    name.to_owned()
}

/// A user, with the one behind sudo: `root (sudo: ann)`.
pub fn user(who: &Who) -> String {
    match &who.sudo_user {
        Some(sudo) if *sudo != who.user => format!("{} (sudo: {sudo})", who.user),
        _ => who.user.clone(),
    }
}

/// When a run ended; for what never ran that is when it was asked for.
pub fn ended(run: &RunRecord) -> Wall {
    run.end.as_ref().map_or(run.started, |end| end.at)
}

/// How long it took, or has been running for; nothing for what never ran.
pub fn duration(page: &Page, run: &RunRecord) -> String {
    match (&run.end, run.outcome) {
        (Some(end), _) => took(end.duration),
        (None, Outcome::Running) => page.now.since(run.started).map(took).unwrap_or_default(),
        (None, _) => String::new(),
    }
}

/// The token, or nothing.
pub fn token(run: &RunRecord) -> String {
    run.token.map(|t| t.to_string()).unwrap_or_default()
}

/// A holder in a line: `run abc123 of person-sync on green (pid 4711), schedule, root, since 01:29:03 (3 min ago)`.
pub fn holder(page: &Page, holder: &Holder) -> String {
    let line = format!(
        "run {} of {} on {} (pid {}), {}, {}, since {}",
        holder.run_id.short(),
        holder.job,
        holder.place.host,
        holder.processes.front.pid,
        holder.trigger,
        user(&holder.who),
        page.when(holder.since),
    );
    visible(&line).into_owned()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::name::{RunId, Token};
    use crate::store::record::{End, OutOfMemory, Trigger};
    use crate::store::{Place, ProcessId, Processes};
    use rstest::rstest;
    use std::collections::BTreeMap;
    use std::time::Duration;

    /// 2026-11-22 09:00:00 UTC, the "now" of the tests in this folder.
    pub(crate) const NOW: Wall = Wall(1_795_338_000_000);

    /// So many seconds before [`NOW`].
    pub(crate) fn ago(seconds: i64) -> Wall {
        Wall(NOW.0 - seconds * 1_000)
    }

    /// A page for tests: UTC, no colour.
    pub(crate) fn page(width: Option<u16>) -> Page {
        Page {
            now: NOW,
            width,
            colour: false,
            zone: crate::schedule::Zone::Named(chrono_tz::UTC),
        }
    }

    /// A run of `job` that began so many seconds before [`NOW`].
    pub(crate) fn run(job: &str, seconds: i64, outcome: Outcome) -> RunRecord {
        let took = 30;
        let never_ran = matches!(
            outcome,
            Outcome::Running
                | Outcome::Refused
                | Outcome::Fresh
                | Outcome::Cancelled
                | Outcome::NotStarted
        );
        let end = (!never_ran).then(|| End {
            outcome,
            at: ago(seconds - took),
            duration: Duration::from_secs(30),
            exit_code: match outcome {
                Outcome::Succeeded => Some(0),
                Outcome::Failed => Some(3),
                _ => None,
            },
            signal: (outcome == Outcome::Signaled).then_some(9),
            out_of_memory: OutOfMemory::No,
            peak_memory_kib: Some(12_300),
            cpu: Some(Duration::from_millis(1_250)),
            leaked: 0,
            note: None,
        });
        RunRecord {
            run_id: "a1b2c3d4e5f60718".parse().expect("a run id"),
            job: job.parse().expect("a job name"),
            lock: job.parse().expect("a lock name"),
            token: end.is_some().then_some(Token(5)),
            trigger: Trigger::Schedule,
            who: Who {
                uid: 0,
                user: "root".into(),
                sudo_user: Some("ann".into()),
                terminal: None,
            },
            reason: None,
            tags: BTreeMap::new(),
            repeats: None,
            host: "green".into(),
            boot_id: "boot".into(),
            container: None,
            oom_counters: Vec::new(),
            pid: 4711,
            command: vec!["sync".into(), "all people".into()],
            redacted: false,
            unsafe_mount: None,
            cwd: "/srv".into(),
            started: ago(seconds),
            outcome,
            end,
            held_by: (outcome == Outcome::Refused).then(|| holder_of(job)),
            note: None,
        }
    }

    /// A holder on BLUE.
    pub(crate) fn holder_of(job: &str) -> Holder {
        let process = |pid| ProcessId { pid, start: 1 };
        Holder {
            run_id: "00ff00ff00ff00ff".parse::<RunId>().expect("a run id"),
            job: job.into(),
            trigger: Trigger::Startup,
            who: Who {
                uid: 0,
                user: "root".into(),
                sudo_user: None,
                terminal: None,
            },
            place: Place {
                boot_id: "boot".into(),
                time_ns: String::new(),
                pid_ns: 1,
                host: "blue".into(),
            },
            cgroup: None,
            nfs: None,
            freeing: None,
            processes: Processes {
                front: process(7),
                keeper: process(8),
                guard: process(9),
            },
            since: ago(200),
        }
    }

    #[rstest]
    #[case(Outcome::Succeeded, "succeeded")]
    #[case(Outcome::Failed, "failed (exit 3)")]
    #[case(Outcome::Signaled, "signaled (KILL)")]
    #[case(Outcome::Refused, "refused (held by blue)")]
    #[case(Outcome::OomKilled, "oom-killed")]
    fn outcomes_in_words(#[case] what: Outcome, #[case] said: &str) {
        assert_eq!(outcome(&run("sync", 60, what)), said);
    }

    #[test]
    fn another_jobs_hold_names_that_job() {
        let mut refused = run("sync", 60, Outcome::Refused);
        refused.held_by = Some(holder_of("rebuild"));
        assert_eq!(outcome(&refused), "refused (held by rebuild on blue)");
    }

    #[test]
    fn the_user_behind_sudo_is_named() {
        assert_eq!(
            user(&run("sync", 60, Outcome::Running).who),
            "root (sudo: ann)"
        );
    }

    #[test]
    fn a_running_job_has_a_duration_so_far() {
        assert_eq!(
            duration(&page(None), &run("sync", 200, Outcome::Running)),
            "3 min 20 s"
        );
        assert_eq!(
            duration(&page(None), &run("sync", 200, Outcome::Refused)),
            ""
        );
    }

    #[test]
    fn a_holder_says_who_where_and_since_when() {
        assert_eq!(
            holder(&page(Some(80)), &holder_of("sync")),
            "run 00ff00 of sync on blue (pid 7), startup, root, since 08:56:40 (3 min ago)"
        );
    }
}
