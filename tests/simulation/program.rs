//! The simulator as a program of its own, built with optimisation from the product's own files: see `tests/simulation.rs`.
//!
//! `simulator FIRST COUNT SECONDS THREADS`: worlds from seed FIRST on, COUNT of them, or as many as SECONDS allow if
//! COUNT is 0. `simulator trace SEED`: one world, told line by line. Ends with 1 if a rule was broken.

#[expect(dead_code, reason = "the program asks no real clock")]
#[path = "../../src/clock.rs"]
mod clock;
#[allow(dead_code, reason = "some is for the product alone")]
#[path = "../../src/lease/mod.rs"]
mod lease;
#[path = "../../src/name.rs"]
mod name;

mod attempts;
mod chance;
mod delays;
mod effects;
mod excuses;
mod faults;
mod guard;
mod holding;
mod keeper;
mod kernel;
mod machine;
mod processes;
mod rules;
mod run;
mod statement;
mod store;
mod world;

use std::collections::BTreeMap;
use std::io::Write;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use excuses::EXCUSES;
use world::{Tallies, World};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [word, seed] = &args[..]
        && word == "trace"
    {
        return trace(number(seed));
    }
    let [first, count, seconds, threads] = &args[..] else {
        eprintln!("simulator FIRST COUNT SECONDS THREADS, or: simulator trace SEED");
        return ExitCode::from(2);
    };
    many(
        number(first),
        number(count),
        number(seconds),
        number(threads),
    )
}

fn number(text: &str) -> u64 {
    text.parse()
        .unwrap_or_else(|_| panic!("{text:?} is no number"))
}

fn trace(seed: u64) -> ExitCode {
    let mut world = World::new(seed, true);
    world.go();
    let mut out = std::io::stdout().lock();
    for line in &world.lines {
        if writeln!(out, "{line}").is_err() {
            return ExitCode::FAILURE;
        }
    }
    match world.violation {
        Some(violation) => {
            println!("seed {seed}: {violation}");
            ExitCode::FAILURE
        }
        None => ExitCode::SUCCESS,
    }
}

/// Each by its name.
fn figures(tallies: &Tallies) -> impl Iterator<Item = (String, u64)> {
    let counted = [
        ("grants", tallies.grants),
        ("from_gone", tallies.at_once),
        ("lapsed", tallies.lapsed),
        ("lost", tallies.lost),
        ("faults", tallies.faults),
        ("fenced", tallies.fenced),
    ];
    let excused = EXCUSES.iter().zip(tallies.excused);
    counted
        .into_iter()
        .map(|(name, n)| (name.to_owned(), n))
        .chain(excused.map(|(excuse, n)| (format!("{excuse:?}"), n)))
}

fn many(first: u64, count: u64, seconds: u64, threads: u64) -> ExitCode {
    let began = Instant::now();
    let next = AtomicU64::new(0);
    let broken = AtomicBool::new(false);
    let sums = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                while !broken.load(Ordering::Relaxed) {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if count > 0 && n >= count
                        || seconds > 0 && began.elapsed().as_secs() >= seconds
                    {
                        break;
                    }
                    let seed = first.wrapping_add(n);
                    let mut world = World::new(seed, false);
                    world.go();
                    let mut sums = sums.lock().expect("nobody panicked");
                    let one = ("seeds".to_owned(), 1);
                    for (name, n) in figures(&world.tallies).chain([one]) {
                        *sums.entry(name).or_insert(0) += n;
                    }
                    drop(sums);
                    if let Some(violation) = world.violation {
                        println!("seed {seed}: {violation}");
                        broken.store(true, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    for (name, sum) in sums.into_inner().expect("nobody panicked") {
        println!("{name} {sum}");
    }
    ExitCode::from(u8::from(broken.load(Ordering::Relaxed)))
}
