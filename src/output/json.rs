//! JSON as `docs/json.md` describes it. What stands here is a promise: a field that goes or changes
//! its meaning needs a new [`VERSION`], one that is added does not.
//!
//! Moments are RFC 3339 in UTC with milliseconds, durations are seconds. Text that is no UTF-8
//! (arguments, folders) comes with U+FFFD in the place of what is none.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::SecondsFormat;
use serde::Serialize;

use super::text;
use crate::clock::Wall;
use crate::name::Token;
use crate::store::record::{Outcome, RunRecord, Tail, Trigger, UnsafeMount, Who};
use crate::store::{About, Holder, Observed, Processes, Request};

/// The version of all JSON that joblock prints.
pub const VERSION: u32 = 1;

/// Every answer: the version, then what was asked for.
#[derive(Debug, Serialize)]
struct Versioned<T> {
    version: u32,
    #[serde(flatten)]
    answer: T,
}

/// `answer` as a document with its version, with a line feed at the end.
///
/// # Errors
/// None of our types can fail to be JSON; should one, its complaint.
pub fn document<T: Serialize>(answer: T) -> serde_json::Result<String> {
    let mut json = serde_json::to_string_pretty(&Versioned {
        version: VERSION,
        answer,
    })?;
    json.push('\n');
    Ok(text::json(json))
}

/// A moment as RFC 3339.
pub fn moment(at: Wall) -> String {
    at.to_datetime()
        .to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// A history row.
#[derive(Debug, Serialize)]
#[expect(
    missing_docs,
    reason = "docs/json.md describes each field to those who read it"
)]
pub struct RunJson<'a> {
    pub run_id: &'a str,
    pub job: &'a str,
    pub lock: &'a str,
    pub token: Option<Token>,
    pub outcome: Outcome,
    pub trigger: Trigger,
    pub who: &'a Who,
    pub reason: Option<&'a str>,
    pub tags: &'a BTreeMap<String, String>,
    pub repeats: Option<&'a str>,
    pub host: &'a str,
    pub boot_id: &'a str,
    pub container: Option<&'a str>,
    pub cgroup: Option<String>,
    pub oom_kills_before: Option<u64>,
    pub pid: i32,
    pub command: Vec<String>,
    pub redacted: bool,
    pub unsafe_mount: Option<&'a UnsafeMount>,
    pub cwd: String,
    pub started: String,
    pub ended: Option<String>,
    pub duration_seconds: Option<f64>,
    pub exit_code: Option<i32>,
    pub signal: Option<i32>,
    pub out_of_memory: Option<&'static str>,
    pub peak_memory_kib: Option<u64>,
    pub cpu_seconds: Option<f64>,
    pub leaked_processes: Option<u32>,
    pub held_by: Option<HolderJson<'a>>,
    pub notes: Vec<&'a str>,
}

impl<'a> From<&'a RunRecord> for RunJson<'a> {
    fn from(run: &'a RunRecord) -> Self {
        let end = run.end.as_ref();
        RunJson {
            run_id: run.run_id.as_str(),
            job: run.job.as_str(),
            lock: run.lock.as_str(),
            token: run.token,
            outcome: run.outcome,
            trigger: run.trigger,
            who: &run.who,
            reason: run.reason.as_deref(),
            tags: &run.tags,
            repeats: run.repeats.as_ref().map(crate::name::RunId::as_str),
            host: &run.host,
            boot_id: &run.boot_id,
            container: run.container.as_deref(),
            cgroup: run
                .oom_counters
                .first()
                .map(|c| c.folder.to_string_lossy().into_owned()),
            oom_kills_before: run.oom_counters.first().map(|c| c.kills),
            pid: run.pid,
            command: run
                .command
                .iter()
                .map(|word| word.to_string_lossy().into_owned())
                .collect(),
            redacted: run.redacted,
            unsafe_mount: run.unsafe_mount.as_ref(),
            cwd: run.cwd.to_string_lossy().into_owned(),
            started: moment(run.started),
            ended: end.map(|e| moment(e.at)),
            duration_seconds: end.map(|e| e.duration.as_secs_f64()),
            exit_code: end.and_then(|e| e.exit_code),
            signal: end.and_then(|e| e.signal),
            // a run that was found dead has no end, but its outcome may tell
            out_of_memory: end
                .map(|e| e.out_of_memory.as_str())
                .or((run.outcome == Outcome::OomKilled).then_some("yes")),
            peak_memory_kib: end.and_then(|e| e.peak_memory_kib),
            cpu_seconds: end.and_then(|e| e.cpu).map(|d| d.as_secs_f64()),
            leaked_processes: end.map(|e| e.leaked),
            held_by: run.held_by.as_ref().map(HolderJson::from),
            notes: [run.note.as_deref(), end.and_then(|e| e.note.as_deref())]
                .into_iter()
                .flatten()
                .collect(),
        }
    }
}

/// Who has, or had, a lock.
#[derive(Debug, Serialize)]
#[expect(
    missing_docs,
    reason = "docs/json.md describes each field to those who read it"
)]
pub struct HolderJson<'a> {
    pub run_id: &'a str,
    pub job: &'a str,
    pub trigger: Trigger,
    pub who: &'a Who,
    pub host: &'a str,
    pub boot_id: &'a str,
    pub pid: i32,
    pub processes: Processes,
    pub cgroup: Option<&'a str>,
    pub since: String,
}

impl<'a> From<&'a Holder> for HolderJson<'a> {
    fn from(holder: &'a Holder) -> Self {
        HolderJson {
            run_id: holder.run_id.as_str(),
            job: &holder.job,
            trigger: holder.trigger,
            who: &holder.who,
            host: &holder.place.host,
            boot_id: &holder.place.boot_id,
            pid: holder.processes.front.pid,
            processes: holder.processes,
            cgroup: holder.cgroup.as_deref(),
            since: moment(holder.since),
        }
    }
}

/// A stop or a revocation that waits for the holder.
#[derive(Debug, Serialize)]
#[expect(
    missing_docs,
    reason = "docs/json.md describes each field to those who read it"
)]
pub struct RequestJson<'a> {
    pub token: Token,
    pub by: &'a str,
    pub reason: &'a str,
    pub at: String,
}

impl<'a> From<&'a Request> for RequestJson<'a> {
    fn from(request: &'a Request) -> Self {
        RequestJson {
            token: request.token,
            by: &request.by,
            reason: &request.reason,
            at: moment(request.at),
        }
    }
}

/// A lock as a look saw it.
#[derive(Debug, Serialize)]
#[expect(
    missing_docs,
    reason = "docs/json.md describes each field to those who read it"
)]
pub struct LockJson<'a> {
    pub name: &'a str,
    pub token: Option<Token>,
    pub holder: Option<HolderJson<'a>>,
    pub heartbeat: Option<String>,
    pub heartbeat_age_seconds: Option<f64>,
    pub heartbeats: u64,
    pub ttl_seconds: Option<f64>,
    pub stop_requested: Option<RequestJson<'a>>,
    pub revoked: Option<RequestJson<'a>>,
}

impl<'a> LockJson<'a> {
    /// The lock `name` at `now`.
    pub fn new(name: &'a str, seen: &'a Observed, now: Wall) -> Self {
        LockJson {
            name,
            token: seen.token,
            holder: seen.holder.as_ref().map(HolderJson::from),
            heartbeat: seen.heartbeat.map(moment),
            heartbeat_age_seconds: seen
                .heartbeat
                .and_then(|at| now.since(at))
                .map(|d| d.as_secs_f64()),
            heartbeats: seen.seq,
            ttl_seconds: seen.ttl.map(|d: Duration| d.as_secs_f64()),
            stop_requested: seen.stopping.as_ref().map(RequestJson::from),
            revoked: seen.revoked.as_ref().map(RequestJson::from),
        }
    }
}

/// The kept output of a run.
#[derive(Debug, Serialize)]
#[expect(
    missing_docs,
    reason = "docs/json.md describes each field to those who read it"
)]
pub struct TailJson {
    pub text: String,
    pub kept_bytes: usize,
    pub total_bytes: u64,
}

impl From<&Tail> for TailJson {
    fn from(tail: &Tail) -> Self {
        TailJson {
            text: String::from_utf8_lossy(&tail.bytes).into_owned(),
            kept_bytes: tail.bytes.len(),
            total_bytes: tail.total,
        }
    }
}

/// The store.
#[derive(Debug, Serialize)]
#[expect(
    missing_docs,
    reason = "docs/json.md describes each field to those who read it"
)]
pub struct StoreJson<'a> {
    pub url: &'a str,
    pub id: &'a str,
    pub kind: &'static str,
    pub format: i64,
    pub file_system: &'a str,
}

impl<'a> From<&'a About> for StoreJson<'a> {
    fn from(about: &'a About) -> Self {
        StoreJson {
            url: &about.url,
            id: &about.id,
            kind: kind(about),
            format: about.format,
            file_system: &about.file_system,
        }
    }
}

/// `local` or `shared`.
pub fn kind(about: &About) -> &'static str {
    if about.shared { "shared" } else { "local" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::record::tests::{NOW, run};
    use serde_json::{Value, json};
    use std::os::unix::ffi::OsStringExt;

    fn parsed<T: Serialize>(answer: T) -> Value {
        serde_json::from_str(&document(answer).expect("JSON")).expect("what we print is JSON")
    }

    #[test]
    fn a_run_is_plain_fields() {
        let value = parsed(RunJson::from(&run("sync", 60, Outcome::Failed)));
        assert_eq!(value["version"], 1);
        assert_eq!(value["outcome"], "failed");
        assert_eq!(value["exit_code"], 3);
        assert_eq!(value["duration_seconds"], 30.0);
        assert_eq!(value["started"], "2026-11-22T08:59:00.000Z");
        assert_eq!(value["ended"], "2026-11-22T08:59:30.000Z");
        assert_eq!(value["command"], json!(["sync", "all people"]));
        assert_eq!(value["held_by"], Value::Null);
    }

    #[test]
    fn a_refused_attempt_says_who_held_the_lock() {
        let value = parsed(RunJson::from(&run("sync", 60, Outcome::Refused)));
        assert_eq!(value["held_by"]["host"], "blue");
        assert_eq!(value["held_by"]["pid"], 7);
        assert_eq!(value["held_by"]["processes"]["guard"]["pid"], 9);
        assert_eq!(value["duration_seconds"], Value::Null);
    }

    #[test]
    fn a_run_that_was_found_killed_for_want_of_memory_says_so_without_an_end() {
        let found = RunRecord {
            end: None,
            ..run("sync", 60, Outcome::OomKilled)
        };
        assert_eq!(parsed(RunJson::from(&found))["out_of_memory"], "yes");
        let gone = RunRecord {
            end: None,
            ..run("sync", 60, Outcome::Abandoned)
        };
        assert_eq!(parsed(RunJson::from(&gone))["out_of_memory"], Value::Null);
    }

    #[test]
    fn arguments_that_are_no_utf8_are_still_json() {
        let mut record = run("sync", 60, Outcome::Running);
        record.command = vec![std::ffi::OsString::from_vec(vec![b'a', 0xff])];
        assert_eq!(
            parsed(RunJson::from(&record))["command"],
            json!(["a\u{fffd}"])
        );
    }

    #[test]
    fn a_heartbeat_from_the_future_has_no_age() {
        let seen = Observed {
            token: Some(Token(3)),
            holder: None,
            seq: 2,
            heartbeat: Some(Wall(NOW.0 + 5_000)),
            ttl: None,
            revoked: None,
            stopping: None,
        };
        assert_eq!(
            parsed(LockJson::new("sync", &seen, NOW))["heartbeat_age_seconds"],
            Value::Null
        );
        assert_eq!(
            parsed(LockJson::new("sync", &seen, Wall(NOW.0 + 7_500)))["heartbeat_age_seconds"],
            2.5
        );
    }
}
