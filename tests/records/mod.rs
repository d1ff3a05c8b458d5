//! A store with a past, made through the library, for tests of the commands that read it.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use joblock::clock::Wall;
use joblock::name::{JobName, RunId};
use joblock::plan::parse_store_url;
use joblock::store::freeing::Freeing;
use joblock::store::lockfile::{file, slots};
use joblock::store::record::{Attempted, End, OutOfMemory, Outcome, RunRecord, Tail, Trigger, Who};
use joblock::store::{
    self, Attempt, Cleared, Clearing, Grant, Holder, LockRequest, Place, ProcessId, Processes,
    Purpose, Store,
};
use joblock::supervise::process;

/// Nothing is left anywhere.
struct Tidy;

impl Clearing for Tidy {
    fn clear(&self, _: &Holder, _: Option<std::os::fd::BorrowedFd<'_>>) -> Cleared {
        Cleared::Gone { ended: 0 }
    }
}

/// The name of a store, file or folder, in its folder.
const STORE: &str = "store";

/// A store in a folder of its own, and a jobs file beside it.
pub struct Past {
    folder: tempfile::TempDir,
    pub url: String,
    pub store: Box<dyn Store>,
}

/// How an attempt of the past went.
#[derive(Clone)]
pub struct Went {
    pub outcome: Outcome,
    pub exit_code: Option<i32>,
    pub signal: Option<i32>,
    pub seconds_ago: i64,
    pub host: &'static str,
    pub trigger: Trigger,
    pub output: &'static [u8],
    pub total: u64,
}

impl Went {
    pub fn new(outcome: Outcome, seconds_ago: i64) -> Self {
        let exit_code = match outcome {
            Outcome::Succeeded => Some(0),
            Outcome::Failed => Some(3),
            _ => None,
        };
        let signal = (outcome == Outcome::Signaled).then_some(9);
        let (host, trigger, output) = ("green", Trigger::Schedule, &b""[..]);
        Went {
            outcome,
            exit_code,
            signal,
            seconds_ago,
            host,
            trigger,
            output,
            total: 0,
        }
    }

    pub fn on(self, host: &'static str) -> Self {
        Went { host, ..self }
    }

    pub fn by(self, trigger: Trigger) -> Self {
        Went { trigger, ..self }
    }

    /// With this output, of `total` bytes in all.
    pub fn saying(self, output: &'static [u8], total: u64) -> Self {
        Went {
            output,
            total,
            ..self
        }
    }
}

impl Past {
    /// An empty local store.
    pub fn local() -> Self {
        Self::new("sqlite:", "")
    }

    /// An empty shared store.
    pub fn shared() -> Self {
        Self::new("sqlite:", "?shared")
    }

    /// An empty store of lock files.
    pub fn lockfile() -> Self {
        Self::new("lockfile:", "")
    }

    fn new(scheme: &str, parameter: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("joblock.toml"), "").expect("a jobs file");
        let path = folder.path().join(STORE);
        if scheme == "lockfile:" {
            fs::create_dir(&path).expect("a folder");
        }
        let text = format!("{scheme}{}{parameter}", path.display());
        let url = parse_store_url(text.as_ref(), folder.path()).expect("a URL");
        let store = store::open(&url, Purpose::Run, None).expect("a new store");
        Past {
            folder,
            url: text,
            store,
        }
    }

    /// Takes the whole store away.
    pub fn lose(&self) {
        fs::rename(self.path(STORE), self.path("elsewhere")).expect("it was there");
    }

    /// Where a file of that name would be.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The jobs file says this from now on.
    pub fn jobs_file(&self, text: &str) {
        fs::write(self.path("joblock.toml"), text).expect("a jobs file");
    }

    /// `joblock` with this store and jobs file, away from the tester's own.
    pub fn joblock(&self, args: &[&str]) -> assert_cmd::Command {
        assert_cmd::Command::from_std(self.plain(args))
    }

    /// The same, to be spawned.
    pub fn plain(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_joblock"));
        for name in [
            "JOBLOCK_STORE",
            "JOBLOCK_CONFIG",
            "JOBLOCK_RUN_ID",
            "JOBLOCK_TOKEN",
            "JOBLOCK_JOB",
        ] {
            command.env_remove(name);
        }
        command.env("TZ", "UTC").arg("--store").arg(&self.url);
        command
            .arg("--config")
            .arg(self.path("joblock.toml"))
            .args(args);
        command
    }

    /// What `joblock` says as JSON.
    pub fn json(&self, args: &[&str]) -> serde_json::Value {
        let output = self
            .joblock(&[args, &["--json"]].concat())
            .output()
            .expect("it starts");
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        let value: serde_json::Value =
            serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text:?}"));
        assert_eq!(value["version"], 1, "every answer has its version");
        value
    }

    /// What `joblock` prints, when all goes well.
    pub fn text(&self, args: &[&str]) -> String {
        let output = self.joblock(args).output().expect("it starts");
        assert!(output.status.success(), "{args:?}: {output:?}");
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// A record of an attempt of `job`, as it stands before anything has happened.
    pub fn record(job: &str, went: &Went) -> RunRecord {
        let job: JobName = job.parse().expect("a name");
        RunRecord {
            run_id: RunId::random(),
            lock: job.clone().into(),
            job,
            token: None,
            trigger: went.trigger,
            who: Who {
                uid: 0,
                user: "root".into(),
                sudo_user: Some("ann".into()),
                terminal: None,
            },
            reason: Some("the nightly run".into()),
            tags: BTreeMap::from([("team".to_owned(), "search".to_owned())]),
            repeats: None,
            host: went.host.into(),
            boot_id: Place::here().boot_id,
            container: None,
            oom_counters: Vec::new(),
            pid: 4711,
            command: vec!["sync".into(), "all people".into()],
            redacted: false,
            unsafe_mount: None,
            cwd: "/srv".into(),
            started: Wall(Wall::now().0 - went.seconds_ago * 1_000),
            outcome: Outcome::Running,
            end: None,
            held_by: None,
            note: None,
        }
    }

    /// A holder for `record`, whose three processes are all `process`.
    pub fn holder(record: &RunRecord, process: ProcessId) -> Holder {
        Holder {
            run_id: record.run_id.clone(),
            job: record.job.to_string(),
            trigger: record.trigger,
            who: record.who.clone(),
            place: Place {
                host: record.host.clone(),
                ..Place::here()
            },
            cgroup: None,
            nfs: None,
            freeing: None,
            processes: Processes {
                front: process,
                keeper: process,
                guard: process,
            },
            since: record.started,
        }
    }

    /// A run that goes on, held by this test.
    pub fn begin(&self, job: &str, went: &Went) -> (RunRecord, Box<dyn Grant>) {
        self.begin_as(job, went, process::own())
    }

    /// A run that goes on, in the name of `process`.
    pub fn begin_as(
        &self,
        job: &str,
        went: &Went,
        process: ProcessId,
    ) -> (RunRecord, Box<dyn Grant>) {
        self.begin_with(job, went, process, None)
    }

    /// The same, with a TTL of its own.
    pub fn begin_with(
        &self,
        job: &str,
        went: &Went,
        process: ProcessId,
        ttl: Option<Duration>,
    ) -> (RunRecord, Box<dyn Grant>) {
        let record = Self::record(job, went);
        let holder = Self::holder(&record, process);
        self.begin_by(record, holder, ttl)
    }

    /// A run that goes on on another machine, BLUE, which has the store as `freeing` tells.
    pub fn begin_elsewhere(
        &self,
        job: &str,
        freeing: Option<Freeing>,
        ttl: Duration,
    ) -> Box<dyn Grant> {
        let record = Self::record(job, &Went::new(Outcome::Running, 1_000).on("blue"));
        let mut holder = Self::holder(&record, process::own());
        holder.place.boot_id = "another".into();
        holder.freeing = freeing;
        self.begin_by(record, holder, Some(ttl)).1
    }

    /// The last heartbeat of the run that has the lock of `job` was so long ago, by the clock on the wall.
    pub fn grow_silent(&self, job: &str, seconds: i64) {
        let path = self.store.lock_file(&job.parse().expect("a name"));
        let file = file::open(&path, true, false).expect("a lock file");
        let slot = slots::holders(&file).expect("slots").newest;
        let mut slot = slot.expect("a holder");
        slot.seq += 1;
        slot.at = Wall(Wall::now().0 - seconds * 1_000);
        let place = slots::Place::Slot(slot.token, slot.seq);
        slots::write(&file, place, &slot, true).expect("it is written");
    }

    fn begin_by(
        &self,
        record: RunRecord,
        holder: Holder,
        ttl: Option<Duration>,
    ) -> (RunRecord, Box<dyn Grant>) {
        let request = LockRequest {
            lock: record.lock.clone(),
            holder,
            record: record.clone(),
            ttl,
            clearing: &Tidy,
            interrupted: &|| false,
        };
        match self
            .store
            .try_acquire(&request, None)
            .expect("the store works")
        {
            Attempt::Granted(grant) => (
                RunRecord {
                    token: Some(grant.token()),
                    ..record
                },
                grant,
            ),
            Attempt::Held(seen) => panic!("{} is held: {seen:?}", record.lock),
        }
    }

    /// A process that is gone.
    pub fn gone() -> ProcessId {
        let mut child = Command::new("true").spawn().expect("true");
        let gone = process::identify(i32::try_from(child.id()).expect("a pid"));
        child.wait().expect("it ends");
        gone
    }

    /// The end that `went` names.
    pub fn end(went: &Went) -> End {
        End {
            outcome: went.outcome,
            at: Wall(Wall::now().0 - (went.seconds_ago - 1) * 1_000),
            duration: Duration::from_secs(1),
            exit_code: went.exit_code,
            signal: went.signal,
            out_of_memory: OutOfMemory::No,
            peak_memory_kib: Some(2_048),
            cpu: Some(Duration::from_millis(250)),
            leaked: 0,
            note: None,
        }
    }

    /// A run that is over.
    pub fn ran(&self, job: &str, went: &Went) -> RunRecord {
        let (record, grant) = self.begin(job, went);
        let tail = Tail {
            bytes: went.output.to_vec(),
            total: went.total,
        };
        grant
            .release(&Self::end(went), Some(&tail))
            .expect("the end is written");
        record
    }

    /// An attempt that did not run; the lock was held by `holder`.
    pub fn attempted(&self, job: &str, went: &Went, held_by: Option<Holder>) -> RunRecord {
        let record = Self::record(job, went);
        let attempted = Attempted {
            outcome: went.outcome,
            held_by,
            note: None,
        };
        self.store
            .attempted(&record, &attempted)
            .expect("the attempt is written");
        record
    }
}
