//! Requests for locks as a run would make them, with this process as all three of its processes.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use joblock::clock::Wall;
use joblock::name::RunId;
use joblock::store::record::{End, OomCounter, OutOfMemory, Outcome, RunRecord, Trigger, Who};
use joblock::store::{Cleared, Clearing, Holder, LockRequest, Place, ProcessId, Processes};

/// Answers always the same.
pub struct Says(pub Cleared);

impl Clearing for Says {
    fn clear(&self, _: &Holder, _: Option<BorrowedFd<'_>>) -> Cleared {
        self.0.clone()
    }
}

/// Nothing is left of anybody.
pub const GONE: Says = Says(Cleared::Gone { ended: 0 });

/// Looks whether the keeper lives; ends nobody.
pub struct Looks;

impl Clearing for Looks {
    fn clear(&self, holder: &Holder, _: Option<BorrowedFd<'_>>) -> Cleared {
        if process(holder.processes.keeper.pid) == Some(holder.processes.keeper) {
            Cleared::Alive
        } else {
            Cleared::Gone { ended: 0 }
        }
    }
}

fn process(pid: i32) -> Option<ProcessId> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    if fields.next()? == "Z" {
        return None;
    }
    Some(ProcessId {
        pid,
        start: fields.nth(18)?.parse().ok()?,
    })
}

/// A record of `job`, just begun.
pub fn record(job: &str) -> RunRecord {
    let place = Place::here();
    RunRecord {
        run_id: RunId::random(),
        job: job.parse().expect("a job's name"),
        lock: job.parse().expect("a lock's name"),
        token: None,
        trigger: Trigger::Other,
        who: Who {
            uid: 7,
            user: "somebody".into(),
            sudo_user: None,
            terminal: Some("pts/1".into()),
        },
        reason: Some("a test".into()),
        tags: BTreeMap::from([("key".into(), "value".into())]),
        repeats: None,
        host: place.host,
        boot_id: place.boot_id,
        container: None,
        oom_counters: vec![OomCounter {
            folder: "/a/b".into(),
            id: 4,
            kills: 3,
        }],
        pid: std::process::id().cast_signed(),
        command: vec![
            OsString::from("sleep"),
            OsString::new(),
            OsString::from("a b"),
        ],
        redacted: false,
        unsafe_mount: None,
        cwd: "/tmp".into(),
        started: Wall::now(),
        outcome: Outcome::Running,
        end: None,
        held_by: None,
        note: None,
    }
}

/// The holder that goes with `record`.
pub fn holder(record: &RunRecord) -> Holder {
    let this = process(std::process::id().cast_signed()).expect("this process");
    Holder {
        run_id: record.run_id.clone(),
        job: record.job.to_string(),
        trigger: record.trigger,
        who: record.who.clone(),
        place: Place::here(),
        processes: Processes {
            front: this,
            keeper: this,
            guard: this,
        },
        cgroup: None,
        nfs: None,
        freeing: None,
        since: Wall::now(),
    }
}

/// A request for `job`'s lock.
pub fn request<'a>(job: &str, clearing: &'a dyn Clearing) -> LockRequest<'a> {
    let record = record(job);
    LockRequest {
        lock: record.lock.clone(),
        holder: holder(&record),
        record,
        ttl: None,
        clearing,
        interrupted: &|| false,
    }
}

/// A success.
pub fn success() -> End {
    End {
        outcome: Outcome::Succeeded,
        at: Wall::now(),
        duration: Duration::from_nanos(1_234_567_891),
        exit_code: Some(0),
        signal: None,
        out_of_memory: OutOfMemory::No,
        peak_memory_kib: Some(1234),
        cpu: Some(Duration::from_nanos(5)),
        leaked: 1,
        note: Some("well".into()),
    }
}
