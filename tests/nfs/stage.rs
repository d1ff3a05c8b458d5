//! A store on the lab's machines, with a witness, and what is asked of it there.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::time::Duration;

use serde_json::Value;

use super::lab::{HERE, Lab};
use super::witness::{Seen, Witness};
use crate::common::{Running, wait_for, wait_until};

/// Of every lease here. The machines are slow: on a busy computer a grant may take seconds, and one that takes F, four
/// ninths of this, is lost before its job begins.
pub const TTL: Duration = Duration::from_secs(12);

/// A store of the test's own, on both machines, and a witness.
pub struct Stage<'a> {
    pub lab: &'a Lab,
    pub witness: Witness,
    pub store: String,
    /// Of the leases of its runs.
    pub ttl: Duration,
}

/// A store that both machines use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Sqlite,
    Lockfile,
}

impl Stage<'_> {
    /// With a shared database.
    pub fn new<'a>(lab: &'a Lab, name: &str) -> Stage<'a> {
        Stage::of(Kind::Sqlite, lab, name)
    }

    /// With a store of this kind on the export.
    pub fn of<'a>(kind: Kind, lab: &'a Lab, name: &str) -> Stage<'a> {
        let folder = lab.folder(name);
        Stage::with(
            lab,
            &match kind {
                Kind::Sqlite => format!("sqlite:{folder}/joblock.db?shared"),
                Kind::Lockfile => format!("lockfile:{folder}"),
            },
        )
    }

    /// With a local store, which is on green alone.
    pub fn local<'a>(lab: &'a Lab, name: &str) -> Stage<'a> {
        Stage::with(lab, &format!("sqlite:/run/{name}.db"))
    }

    /// With any store.
    pub fn with<'a>(lab: &'a Lab, url: &str) -> Stage<'a> {
        Stage {
            lab,
            witness: Witness::new(&lab.network(), HERE),
            store: format!("--store '{url}'"),
            ttl: TTL,
        }
    }

    /// Where the store is.
    pub fn folder(&self) -> String {
        let path = self.store.trim_matches('\'').rsplit(':').next();
        let path = path.unwrap_or_default();
        path.strip_suffix("/joblock.db?shared")
            .unwrap_or(path)
            .to_owned()
    }

    /// Starts a run of `job` on a machine.
    pub fn run(&self, host: &str, options: &str, job: &str) -> Running {
        let line = format!(
            "cd / && exec /host/joblock run {} --ttl {}s {options} {job} -- perl /host/job.pl {}",
            self.store,
            self.ttl.as_secs(),
            self.witness.arguments()
        );
        self.lab.start(host, &line)
    }

    /// Starts a run of `job` on a machine where nobody is in its way, and waits until its job lives.
    #[track_caller]
    pub fn begin(&self, host: &str, job: &str, token: u64) -> Running {
        let mut run = self.run(host, "-n", job);
        wait_until(&format!("the beginning of {job} on {host}"), || {
            assert!(
                !run.has_ended(),
                "{job} on {host} ended before its job lived: {:?}",
                self.history(job)
            );
            self.witness.run(job, token).is_some()
        });
        self.witness.lives(job, token, host);
        run
    }

    #[track_caller]
    pub fn json(&self, host: &str, verb: &str, arguments: &str) -> Value {
        let line = format!("/host/joblock {verb} {} --json {arguments}", self.store);
        let done = self.lab.x(host, &line).expect(0);
        serde_json::from_slice(&done.stdout).unwrap_or_else(|e| panic!("no JSON: {e}\n{done}"))
    }

    /// The attempts at a job, oldest first, as they are told on green.
    #[track_caller]
    pub fn history(&self, job: &str) -> Vec<Attempt> {
        let answer = self.json("green", "history", job);
        let runs = answer["runs"].as_array().expect("a list of runs");
        let text = |run: &Value, key: &str| run[key].as_str().unwrap_or_default().to_owned();
        let attempt = |run| Attempt {
            host: text(run, "host"),
            outcome: text(run, "outcome"),
            token: run["token"].as_u64(),
        };
        runs.iter().rev().map(attempt).collect()
    }

    /// Waits until the run with `token` has its end in the history.
    #[track_caller]
    pub fn outcome(&self, job: &str, token: u64) -> String {
        wait_for(&format!("the end of {job} {token} in the history"), || {
            let history = self.history(job);
            let run = history.into_iter().find(|a| a.token == Some(token))?;
            (run.outcome != "running").then_some(run.outcome)
        })
    }

    /// The three processes of the run that holds a job's lock, on its machine.
    #[track_caller]
    pub fn holder(&self, host: &str, job: &str) -> Processes {
        let status = self.json(host, "status", job);
        let holder = find(&status, "processes").unwrap_or_else(|| panic!("no holder: {status}"));
        let pid = |name: &str| holder[name]["pid"].as_i64().expect("a pid");
        Processes {
            front: pid("front"),
            keeper: pid("keeper"),
            guard: pid("guard"),
        }
    }

    /// Waits until no process of a job's runs, nor joblock's own, is left on a machine.
    #[track_caller]
    pub fn nothing_left(&self, host: &str, job: &str) {
        wait_until(&format!("nothing of {job} on {host}"), || {
            let line = format!(
                "grep -lzx JOBLOCK_JOB={job} /proc/[0-9]*/environ 2>/dev/null; \
                 pgrep -fx '/host/joblock run .* {job} -- .*'"
            );
            self.lab.x(host, &line).out().is_empty()
        });
    }

    #[track_caller]
    pub fn signal(&self, host: &str, name: &str, pid: i64) {
        self.lab.x(host, &format!("kill -{name} {pid}")).expect(0);
    }
}

/// An attempt as the history tells of it.
#[derive(Debug, PartialEq, Eq)]
pub struct Attempt {
    pub host: String,
    pub outcome: String,
    pub token: Option<u64>,
}

/// The pids of a run's own processes.
#[derive(Debug, Clone, Copy)]
pub struct Processes {
    pub front: i64,
    pub keeper: i64,
    pub guard: i64,
}

/// The first value called `name`, however deep.
pub fn find<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    match value {
        Value::Array(list) => list.iter().find_map(|v| find(v, name)),
        Value::Object(map) => map
            .get(name)
            .or_else(|| map.values().find_map(|v| find(v, name))),
        _ => None,
    }
}

/// Of all of them, in their order.
pub fn tokens(runs: &[Seen]) -> Vec<u64> {
    runs.iter().map(|run| run.token).collect()
}
