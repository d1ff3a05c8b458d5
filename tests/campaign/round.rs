//! One round: an arena for each kind of store, workers in each, until there were enough acquisitions; then the verdict.
//! A campaign is as many rounds as it takes, each with a seed of its own, which is printed.

use std::thread;
use std::time::{Duration, Instant};

use super::arena::{Arena, Kind};
use super::fuse;
use super::plan::{Attempt, PATIENCE, Torment};
use super::random::Random;
use super::trouble;
use super::verdict::Verdict;
use super::witness::Witness;
use super::worker::{self, Tried};
use crate::common::evidence::Record;
use crate::common::wait_until;

/// The length of the whole campaign, in acquisitions.
const LENGTH: &str = "JOBLOCK_CAMPAIGN";
/// The seed of its first round.
const SEED: &str = "JOBLOCK_SEED";

/// The kinds of stores, if not all of them: `far,local`.
const STORES: &str = "JOBLOCK_STORES";

/// How a round is made up.
#[derive(Debug, Clone, Copy)]
pub struct Mix {
    /// The kind of store.
    pub kind: Kind,
    /// Locks in it.
    pub locks: usize,
    /// Workers for each lock.
    pub workers: usize,
    /// One attempt in so many is tormented.
    pub torments: u64,
    /// Its store is troubled as well.
    pub troubled: bool,
    /// Its part of the round's acquisitions, in hundredths.
    pub part: u64,
}

const fn mix(
    kind: Kind,
    locks: usize,
    workers: usize,
    torments: u64,
    troubled: bool,
    part: u64,
) -> Mix {
    Mix {
        kind,
        locks,
        workers,
        torments,
        troubled,
        part,
    }
}

const MIXES: [Mix; 8] = [
    mix(Kind::Local, 6, 3, 12, false, 40),
    mix(Kind::Shared, 8, 3, 20, false, 20),
    mix(Kind::Lockfile, 6, 3, 12, false, 25),
    mix(Kind::Far, 6, 3, 20, false, 6),
    mix(Kind::Local, 3, 2, 20, true, 3),
    mix(Kind::Shared, 3, 2, 20, true, 2),
    mix(Kind::Lockfile, 3, 2, 20, true, 2),
    mix(Kind::Far, 3, 3, 20, true, 2),
];

/// Acquisitions in a round of a long campaign.
const ROUND: u64 = 5_000;
/// Acquisitions in a short campaign, which is one round.
const SHORT: u64 = 1200;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable)
        .ok()
        .filter(|text| !text.is_empty())
        .map(|text| {
            text.parse()
                .unwrap_or_else(|_| panic!("{variable}: no number: {text}"))
        })
}

/// Of so many acquisitions one process is killed, or stopped, at least: what nobody torments proves nothing.
const TORMENTED: u64 = 50;

/// Runs it; panics at the first round in which something was wrong.
pub fn campaign() {
    let length = number(LENGTH);
    let seed_of_first = Random::seed();
    let mut total = Verdict::default();
    let began = Instant::now();
    for n in 0.. {
        let seed = if n == 0 {
            seed_of_first
        } else {
            Random::of(seed_of_first, &[n]).next()
        };
        let since = Instant::now();
        println!("round {n}: seed {seed}; repeat it with {SEED}={seed}");
        let verdict = round(seed, length.map_or(SHORT, |_| ROUND));
        let failed = !verdict.wrong.is_empty();
        let got = verdict.figures.get("acquisitions").copied().unwrap_or(0);
        for torment in ["kills", "stops"] {
            let n = verdict.figures.get(torment).copied().unwrap_or(0);
            assert!(n >= got / TORMENTED, "{n} {torment}");
        }
        println!(
            "round {n}: {got} acquisitions in {:.0?}\n{verdict}",
            since.elapsed()
        );
        assert!(!failed, "seed {seed}: {verdict}");
        total.add(verdict);
        let done = total.figures.get("acquisitions").copied().unwrap_or(0);
        if let Some(length) = length {
            record(&total, began.elapsed(), (length, seed_of_first));
        }
        if done >= length.unwrap_or(0) {
            break;
        }
        println!("{done} acquisitions in {:.0?}", began.elapsed());
    }
    println!("in all, {:.0?}:\n{total}", began.elapsed());
}

/// What there is so far: a campaign takes hours, and one that is cut off has been fought all the same.
fn record(total: &Verdict, elapsed: Duration, (length, seed): (u64, u64)) {
    let mut record = Record::new(
        "campaign",
        format!("make campaign ACQUISITIONS={length} SEED={seed}"),
    );
    for (figure, n) in &total.figures {
        record = record.figure(*figure, *n);
    }
    record.figure("seconds", elapsed.as_secs()).write();
}

/// Whether somebody asked for this kind of store, or for none.
fn is_wanted(kind: Kind) -> bool {
    let wanted = std::env::var(STORES).unwrap_or_default();
    wanted.is_empty() || wanted.split(',').any(|name| name == kind.name())
}

/// One round with the mixes of a campaign.
fn round(seed: u64, acquisitions: u64) -> Verdict {
    let witness = Witness::new();
    let fuse_is_there = fuse::is_there();
    let done: Vec<_> = thread::scope(|scope| {
        let running: Vec<_> = MIXES
            .iter()
            .enumerate()
            .filter(|(_, mix)| is_wanted(mix.kind) && (mix.kind != Kind::Far || fuse_is_there))
            .map(|(n, mix)| {
                let make = if mix.troubled && mix.kind != Kind::Far {
                    Arena::on_a_small_disk
                } else {
                    Arena::new
                };
                let mut arena = make(mix.kind, mix.locks, witness.address());
                arena.troubled = mix.troubled;
                let goal = acquisitions * mix.part / 100;
                let witness = &witness;
                scope.spawn(move || {
                    let (tried, troubles) = fill(&arena, witness, *mix, (seed, n as u64), goal);
                    (arena, tried, troubles)
                })
            })
            .collect();
        running
            .into_iter()
            .map(|r| r.join().expect("an arena"))
            .collect()
    });
    wait_until("the witness has read it all", || {
        !witness.is_watching() || !witness.is_content()
    });
    let findings = witness.finish();
    let mut verdict = Verdict::default();
    verdict.of_witness(&findings);
    verdict.count("rounds without far stores", u64::from(!fuse_is_there));
    for (arena, tried, troubles) in done {
        verdict.add(troubles);
        let before = verdict.wrong.len();
        verdict.of_arena(&arena, &tried, &findings);
        if verdict.wrong.len() > before {
            println!("kept: {}", arena.keep().display());
        }
    }
    verdict
}

/// How often the last one tries where the store was in trouble: a full disk has room only some moments after its files were removed.
const LAST_TRIES: u64 = 50;

/// Attempts of the `last` lock and host until one of them was granted. Where the store was in no trouble there is one.
fn run_once_more(arena: &Arena, witness: &Witness, n: u64, last: usize) -> Vec<Tried> {
    let mut all: Vec<Tried> = Vec::new();
    for turn in 0..LAST_TRIES {
        let attempt = Attempt {
            id: u64::MAX - (n << 16) - last as u64 * LAST_TRIES - turn,
            lock: last / arena.hosts.len(),
            host: last % arena.hosts.len(),
            wait: Some(PATIENCE),
            limit: None,
            family: "",
            takes: Duration::ZERO,
            code: 0,
            torment: Torment::None,
        };
        let tried = worker::make(arena, witness, attempt, 0);
        let again = arena.troubled && tried.code() == Some(69);
        all.push(tried);
        if !again {
            break;
        }
    }
    all
}

/// Workers, until there were enough acquisitions and a last attempt on each lock, which must be granted.
fn fill(
    arena: &Arena,
    witness: &Witness,
    mix: Mix,
    (seed, n): (u64, u64),
    goal: u64,
) -> (Vec<Tried>, Verdict) {
    let acquired = || {
        arena
            .locks
            .iter()
            .map(|lock| witness.count(lock))
            .sum::<u64>()
    };
    let is_enough = || acquired() >= goal || !witness.is_content();
    let (mut all, mut troubles): (Vec<Tried>, Verdict) = thread::scope(|scope| {
        let trouble = mix.troubled.then(|| {
            let random = Random::of(seed, &[n, u64::MAX]);
            let is_enough = &is_enough;
            scope.spawn(move || trouble::make(arena, random, is_enough))
        });
        let running: Vec<_> = (0..mix.workers * mix.locks)
            .map(|w| {
                let is_enough = &is_enough;
                let me = (n << 16) | w as u64;
                scope.spawn(move || {
                    worker::work(
                        arena,
                        witness,
                        (seed, me),
                        w % mix.locks,
                        mix.torments,
                        is_enough,
                    )
                })
            })
            .collect();
        let tried = running
            .into_iter()
            .flat_map(|r| r.join().expect("a worker"))
            .collect();
        let troubles = trouble.map(|t| t.join().expect("the trouble"));
        (tried, troubles.unwrap_or_default())
    });
    // on each host, as only a start there finds what is left there
    for last in 0..arena.locks.len() * arena.hosts.len() {
        let tries = run_once_more(arena, witness, n, last);
        if let Some(refused) = tries.last().filter(|last| last.code() != Some(0)) {
            let wrong = format!(
                "{}: the last one did not run: {refused:?}",
                arena.kind.name()
            );
            troubles.wrong.push(wrong);
        }
        all.extend(tries);
    }
    wait_until("nothing of the arena is left", || {
        // what lives on because of an overlap does not hide it
        arena.processes().is_empty() || !witness.is_content()
    });
    (all, troubles)
}
