//! Both machines start one job as fast as they can.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::lab::{self, CLIENTS};
use super::stage::{Kind, Stage, tokens};
use crate::common::{Running, wait_until};

/// Loops on each machine whose starts wait.
const WAITERS: u64 = 2;

/// What it came to.
pub struct Contended {
    pub runs: u64,
    pub refused: u64,
    pub took: Duration,
}

/// `runs` of them on each machine wait for the lock and run; beside them others don't wait. No two lived at once by the witness, tokens have
/// no gap, and each start has its one row, the same on both machines. `None`: the lab can't run here.
#[track_caller]
pub fn contend(kind: Kind, name: &str, mounts: [&str; 2], runs: u64) -> Option<Contended> {
    let lab = lab::borrow_each(mounts)?;
    let stage = Stage::of(
        kind,
        &lab,
        &format!("{kind:?}-{name}").to_lowercase().replace(' ', "-"),
    );
    let url = stage.store.strip_prefix("--store ").expect("a store");
    let began = Instant::now();
    let mut loads: Vec<Running> = CLIENTS
        .map(|host| {
            let witness = stage.witness.arguments();
            let line = format!(
                "exec bash /host/load.sh {url} sync {witness} {WAITERS} {}",
                runs / WAITERS
            );
            lab.start(host, &line)
        })
        .into();
    wait_while_they_run(&stage, &mut loads);
    let took = began.elapsed();
    let mut codes = Vec::new();
    for load in loads {
        let done = load.finish().expect(0);
        for line in done.out().lines() {
            let code = line.strip_prefix("exit ").and_then(|c| c.parse().ok());
            codes.push(code.unwrap_or_else(|| panic!("not expected: {done}")));
        }
    }
    let ran = codes.iter().filter(|&&code: &&i32| code == 0).count() as u64;
    let refused = codes.iter().filter(|&&code| code == 75).count() as u64;
    assert_eq!(ran + refused, codes.len() as u64, "{codes:?}");
    assert!(ran >= 2 * runs, "{ran} of {} ran", 2 * runs);

    let seen = stage.witness.never_two("sync", &[]);
    assert_eq!(tokens(&seen), (1..=ran).collect::<Vec<_>>(), "{name}");
    let [blue, green] = CLIENTS.map(|host| stage.json(host, "history", "-n 0 sync"));
    assert_eq!(blue, green, "the history is another on each machine");
    let rows = green["runs"].as_array().expect("a list of runs");
    assert_eq!(rows.len(), codes.len(), "each start has its row");
    let ids: BTreeSet<_> = rows.iter().map(|row| row["run_id"].as_str()).collect();
    assert_eq!(ids.len(), rows.len(), "and one only");
    let with = |outcome: &str| rows.iter().filter(|row| row["outcome"] == outcome).count() as u64;
    assert_eq!((with("succeeded"), with("refused")), (ran, refused));
    for run in &seen {
        let has = |row: &&Value| row["token"] == run.token;
        let row = rows.iter().find(has).expect("a row for each token");
        assert_eq!(row["host"], run.host.as_str(), "{run:?}");
    }
    lab.give_back();
    println!("{name}: {ran} runs and {refused} refused starts in {took:?}");
    Some(Contended {
        runs: ran,
        refused,
        took,
    })
}

/// To their end, however long that takes as long as there is a new run now and then.
#[track_caller]
fn wait_while_they_run(stage: &Stage, loads: &mut [Running]) {
    loop {
        let before = stage.witness.runs("sync").len();
        let mut over = false;
        wait_until("another run, or the end", || {
            over = loads.iter_mut().all(Running::has_ended);
            over || stage.witness.runs("sync").len() > before
        });
        if over {
            return;
        }
    }
}
