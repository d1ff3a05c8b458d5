//! `status`: each job's present and last past.

use std::time::Duration;

use serde::Serialize;

use super::Page;
use super::doctor::store_line;
use super::json::{LockJson, RunJson, StoreJson, moment};
use super::record::{ended, outcome, tone, user};
use super::table::{Tone, Words, list, paint, table};
use crate::clock::Wall;
use crate::store::record::{Outcome, RunRecord};
use crate::store::{About, Holder, Observed, Request};

/// What is known of a job.
#[derive(Debug, Clone)]
pub struct JobStatus {
    /// Its name.
    pub job: String,
    /// The name of its lock.
    pub lock: String,
    /// That lock, if it was ever granted.
    pub seen: Option<Observed>,
    /// How many wait for that lock.
    pub waiting: u32,
    /// For how long its holder has been silent, if its processes can't be seen from here.
    pub silent: Option<Duration>,
    /// What to do about it, if its holder's machine is gone and no time frees it.
    pub to_free: Option<String>,
    /// Its newest run; attempts that were refused or skipped are none.
    pub last: Option<RunRecord>,
    /// The end of its newest success.
    pub last_success: Option<Wall>,
    /// When its schedule asks for it next.
    pub next_due: Option<Wall>,
    /// Its schedule, as it stands in the jobs file.
    pub schedule: Option<String>,
}

/// What a job is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Nothing.
    Idle,
    /// It runs.
    Running,
    /// It runs, and was asked to stop.
    Stopping,
    /// It runs, and its lock was taken away: its guard is about to kill it.
    Revoked,
    /// The lock names a run of it whose processes are gone, or that is elsewhere and silent: the next start takes over, unless they live.
    Abandoned,
    /// Another job has the lock that it needs.
    Blocked,
}

impl JobStatus {
    fn holder(&self) -> Option<&Holder> {
        self.seen.as_ref()?.holder.as_ref()
    }

    /// What the job is doing.
    pub fn state(&self) -> State {
        let Some((seen, holder)) = self.seen.as_ref().zip(self.holder()) else {
            return State::Idle;
        };
        if holder.job != self.job {
            return State::Blocked;
        }
        let vanished = self
            .last
            .as_ref()
            .is_some_and(|run| run.run_id == holder.run_id && run.outcome != Outcome::Running);
        match (vanished, &seen.revoked, &seen.stopping) {
            (true, ..) => State::Abandoned,
            (_, Some(_), _) => State::Revoked,
            (_, _, Some(_)) => State::Stopping,
            _ => State::Running,
        }
    }

    /// What it is doing, line by line.
    fn now(&self, page: &Page) -> Words {
        let state = self.state();
        let (tone, headline) = match state {
            State::Idle => return Words::toned("idle", Tone::Faint),
            State::Running => (Tone::Busy, "running"),
            State::Stopping => (Tone::Warn, "stopping"),
            State::Revoked => (Tone::Warn, "lock revoked"),
            State::Abandoned if self.to_free.is_some() => (
                Tone::Bad,
                "silent: its machine is gone, or cut off; the lock stays taken",
            ),
            State::Abandoned => (
                Tone::Bad,
                "abandoned: its processes are gone, the next start takes over",
            ),
            State::Blocked => (Tone::Warn, "blocked"),
        };
        let Some((seen, holder)) = self.seen.as_ref().zip(self.holder()) else {
            return headline.into();
        };
        let mut lines = match self.silent {
            // nobody here knows what became of it
            Some(silent) if state == State::Abandoned && self.to_free.is_none() => {
                vec![
                    format!(
                        "silent for {} s: once the kernel's lock is free, the next start takes over",
                        silent.as_secs()
                    ),
                    format!(
                        "if they are stopped, its processes keep it: {}",
                        holder.processes
                    ),
                ]
            }
            _ => vec![headline.to_owned()],
        };
        if state == State::Blocked {
            lines.push(format!("lock {} is held by job {}", self.lock, holder.job));
        }
        lines.push(format!("since {}", page.short_stamp(holder.since)));
        lines.push(page.distance(holder.since));
        lines.push(format!(
            "on {}, pid {}",
            holder.place.host, holder.processes.front.pid
        ));
        lines.push(format!("by {}, {}", user(&holder.who), holder.trigger));
        let token = seen
            .token
            .map(|t| format!(", token {t}"))
            .unwrap_or_default();
        lines.push(format!("run {}{token}", holder.run_id.short()));
        if let Some(at) = seen.heartbeat {
            lines.push(format!("heartbeat {}", page.distance(at)));
        }
        match self.waiting {
            0 => {}
            1 => lines.push("1 waits for the lock".into()),
            n => lines.push(format!("{n} wait for the lock")),
        }
        lines.extend(seen.stopping.as_ref().map(|r| asked(page, "stop asked", r)));
        lines.extend(seen.revoked.as_ref().map(|r| asked(page, "revoked", r)));
        Words::lines(lines, tone)
    }

    fn last(&self, page: &Page) -> Words {
        match &self.last {
            None => Words::toned("never ran", Tone::Faint),
            Some(run) if run.outcome == Outcome::Running => Words::toned("running", Tone::Busy),
            Some(run) => Words::lines(
                vec![
                    outcome(run),
                    page.when(ended(run)),
                    format!("on {}", run.host),
                ],
                tone(run.outcome),
            ),
        }
    }
}

fn asked(page: &Page, what: &str, request: &Request) -> String {
    format!(
        "{what} {} by {}: {}",
        page.distance(request.at),
        request.by,
        request.reason
    )
}

fn moment_or(page: &Page, at: Option<Wall>, otherwise: &str) -> Words {
    match at {
        Some(at) => Words::lines(vec![page.short_stamp(at), page.distance(at)], Tone::Plain),
        None => Words::toned(otherwise, Tone::Faint),
    }
}

/// All jobs as a table, with the store below.
pub fn text(page: &Page, about: &About, jobs: &[JobStatus]) -> String {
    let mut out = String::new();
    if !jobs.is_empty() {
        let row = |job: &JobStatus| {
            vec![
                job.job.as_str().into(),
                job.now(page),
                job.last(page),
                moment_or(page, job.last_success, "never"),
                moment_or(page, job.next_due, ""),
            ]
        };
        out = table(
            page,
            &["job", "now", "last run", "last success", "next due"],
            jobs.iter().map(row).collect(),
        );
    }
    for (job, way) in jobs
        .iter()
        .filter_map(|j| Some((&j.job, j.to_free.as_ref()?)))
    {
        out.push_str(&paint(page, Tone::Bad, &format!("{job}: {way}")));
        out.push('\n');
    }
    out.push_str(&paint(page, Tone::Faint, &store_line(about)));
    out.push('\n');
    out
}

/// A job that was asked for by name, as a list of its own.
pub fn detail(page: &Page, job: &JobStatus) -> String {
    let mut rows = vec![("job", job.job.as_str().into())];
    if job.lock != job.job {
        rows.push(("lock", job.lock.as_str().into()));
    }
    rows.push(("now", job.now(page)));
    if let Some(way) = &job.to_free {
        rows.push(("what to do", Words::toned(way, Tone::Bad)));
    }
    rows.push(("last run", job.last(page)));
    rows.push(("last success", moment_or(page, job.last_success, "never")));
    if let Some(schedule) = &job.schedule {
        rows.push(("schedule", schedule.as_str().into()));
        rows.push(("next due", moment_or(page, job.next_due, "never")));
    }
    list(page, &rows)
}

/// `status --json`.
#[derive(Debug, Serialize)]
pub struct StatusJson<'a> {
    store: StoreJson<'a>,
    jobs: Vec<JobJson<'a>>,
}

#[derive(Debug, Serialize)]
struct JobJson<'a> {
    job: &'a str,
    state: State,
    lock: Option<LockJson<'a>>,
    waiting: u32,
    last_run: Option<RunJson<'a>>,
    last_success: Option<String>,
    schedule: Option<&'a str>,
    next_due: Option<String>,
}

impl<'a> StatusJson<'a> {
    /// Of these jobs at `now`.
    pub fn new(about: &'a About, jobs: &'a [JobStatus], now: Wall) -> Self {
        let job = |status: &'a JobStatus| JobJson {
            job: &status.job,
            state: status.state(),
            lock: status
                .seen
                .as_ref()
                .map(|seen| LockJson::new(&status.lock, seen, now)),
            waiting: status.waiting,
            last_run: status.last.as_ref().map(RunJson::from),
            last_success: status.last_success.map(moment),
            schedule: status.schedule.as_deref(),
            next_due: status.next_due.map(moment),
        };
        StatusJson {
            store: about.into(),
            jobs: jobs.iter().map(job).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::Token;
    use crate::output::record::tests::{NOW, ago, holder_of, page, run};
    use rstest::rstest;

    fn about() -> About {
        About {
            url: "sqlite:/j.db".into(),
            id: "0d9f".into(),
            shared: false,
            format: 1,
            file_system: "ext4".into(),
        }
    }

    fn seen() -> Observed {
        Observed {
            token: Some(Token(5)),
            holder: Some(holder_of("sync")),
            seq: 9,
            heartbeat: Some(ago(2)),
            ttl: None,
            revoked: None,
            stopping: None,
        }
    }

    fn request() -> Request {
        Request {
            token: Token(5),
            by: "ann@green".into(),
            reason: "wrong file".into(),
            at: ago(60),
        }
    }

    fn status(seen: Option<Observed>, last: Option<RunRecord>) -> JobStatus {
        JobStatus {
            waiting: 0,
            job: "sync".into(),
            lock: "sync".into(),
            seen,
            silent: None,
            to_free: None,
            last,
            last_success: Some(ago(90_000)),
            next_due: Some(ago(-18_100)),
            schedule: Some("29 1 * * *".into()),
        }
    }

    #[rstest]
    #[case::idle(None, State::Idle)]
    #[case::released(Some(Observed { holder: None, ..seen() }), State::Idle)]
    #[case::running(Some(seen()), State::Running)]
    #[case::stopping(Some(Observed { stopping: Some(request()), ..seen() }), State::Stopping)]
    #[case::revoked(Some(Observed { stopping: Some(request()), revoked: Some(request()), ..seen() }), State::Revoked)]
    #[case::blocked(Some(Observed { holder: Some(holder_of("rebuild")), ..seen() }), State::Blocked)]
    fn states(#[case] seen: Option<Observed>, #[case] expected: State) {
        assert_eq!(status(seen, None).state(), expected);
    }

    #[test]
    fn a_holder_whose_run_is_over_is_abandoned() {
        let mut last = run("sync", 200, Outcome::Abandoned);
        last.run_id = holder_of("sync").run_id;
        assert_eq!(
            status(Some(seen()), Some(last.clone())).state(),
            State::Abandoned
        );
        last.outcome = Outcome::Running;
        assert_eq!(status(Some(seen()), Some(last)).state(), State::Running);
    }

    #[test]
    fn a_lock_that_no_time_frees_comes_with_what_to_do() {
        let mut last = run("sync", 200, Outcome::Abandoned);
        last.run_id = holder_of("sync").run_id;
        let stuck = JobStatus {
            to_free: Some("boot blue".into()),
            ..status(Some(seen()), Some(last))
        };
        let all = text(&page(None), &about(), std::slice::from_ref(&stuck));
        assert!(all.contains("\nsync: boot blue\nstore "), "{all}");
        let one = detail(&page(None), &stuck);
        for part in ["silent: its machine is gone", "what to do", "boot blue"] {
            assert!(one.contains(part), "{part} is missing:\n{one}");
        }
        assert!(!one.contains("takes over"), "{one}");
    }

    #[test]
    fn of_a_silent_holder_elsewhere_is_said_what_is_known() {
        let mut last = run("sync", 200, Outcome::Abandoned);
        last.run_id = holder_of("sync").run_id;
        let silent = JobStatus {
            silent: Some(Duration::from_secs(83)),
            ..status(Some(seen()), Some(last))
        };
        let said = detail(&page(None), &silent);
        for part in [
            "silent for 83 s: once the kernel's lock is free, the next start takes over",
            "front 7, keeper 8, guard 9",
        ] {
            assert!(said.contains(part), "{part} is missing:\n{said}");
        }
        assert!(!said.contains("are gone"), "{said}");
    }

    #[test]
    fn who_what_where_since_when() {
        let status = status(
            Some(Observed {
                stopping: Some(request()),
                ..seen()
            }),
            None,
        );
        let text = text(&page(None), &about(), std::slice::from_ref(&status));
        for part in [
            "sync",
            "stopping",
            "since 2026-11-22 08:56:40, 3 min ago",
            "on blue, pid 7",
            "by root, startup",
            "run 00ff00, token 5, heartbeat",
            "2 s ago",
            "stop asked 1 min ago by ann@green: wrong file",
            "25 h ago",
            "in 5 h",
            "store sqlite:/j.db (local, ext4, id 0d9f, format 1)",
        ] {
            assert!(text.contains(part), "{part} is missing:\n{text}");
        }
    }

    #[test]
    fn eighty_columns_are_enough() {
        let status = status(
            Some(Observed {
                stopping: Some(request()),
                ..seen()
            }),
            Some(run("sync", 60, Outcome::Failed)),
        );
        let text = text(&page(Some(80)), &about(), &[status]);
        assert!(text.lines().all(|l| l.chars().count() <= 80), "{text}");
    }

    #[test]
    fn json_has_the_state_and_the_age() {
        let statuses = [status(Some(seen()), None)];
        let text =
            crate::output::json::document(StatusJson::new(&about(), &statuses, NOW)).expect("JSON");
        let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(value["jobs"][0]["state"], "running");
        assert_eq!(value["jobs"][0]["lock"]["heartbeat_age_seconds"], 2.0);
        assert_eq!(value["store"]["kind"], "local");
    }
}
