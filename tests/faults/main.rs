//! Every system call fails once: each process of a run is killed at each of its calls, and each call is made to fail in
//! every way that it can, once and from then on, on every store. Afterwards the database is whole, the next start works,
//! no row is lost, no lock is stuck, nothing is left, and the exit code and the message were right.
//!
//! `make faults` plays all of it; `make check` a sample that takes every kind of fault in every process of every scenario
//! on every store, in an order that a new seed gives each time. `JOBLOCK_FAULTS`: `all`, or for how many seconds.
//! `JOBLOCK_SEED`: the seed to repeat. `JOBLOCK_ONLY`: only faults whose words contain this.

#[path = "../common/tracer/mod.rs"]
mod tracer;

mod calls;
mod play;
mod verdict;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use calls::Kind;
use play::{Fault, Kept, Point, Scenario, Who, World, play};
use tempfile::TempDir;
use tracer::Role;

/// How long the sample in `make check` takes.
const SAMPLE: Duration = Duration::from_secs(80);
/// How many are played side by side.
const WORKERS: usize = 4;

/// A store with a history, made by joblock itself: what scenarios begin with.
struct Templates {
    folder: TempDir,
}

impl Templates {
    fn make() -> Templates {
        let folder = TempDir::new().expect("a folder");
        for kept in Kept::ALL {
            let mut points = Vec::new();
            let mut world = World::new(kept, Scenario::Earlier, None);
            play(&mut world, None, Some(&mut points));
            save(&world, &folder.path().join(format!("{kept:?}-false")));
            // the sync of the run's last record, which goes to the spool then; a lockfile is released after it
            let syncs = points
                .into_iter()
                .rev()
                .filter(|p| p.role == Role::Keeper && p.seen.name == "fdatasync");
            let last = syncs.into_iter().nth(usize::from(kept == Kept::Lockfile));
            let fault = Fault {
                point: last.expect("a sync"),
                kind: Kind::Io,
                forever: false,
            };
            let mut world = World::new(kept, Scenario::Earlier, None);
            assert!(play(&mut world, Some(&fault), None));
            let spool = std::fs::read_dir(kept.spool(&world.store())).expect("a spool");
            assert_eq!(spool.count(), 1, "{kept:?}: {:?}", world.done);
            save(&world, &folder.path().join(format!("{kept:?}-true")));
        }
        Templates { folder }
    }

    fn of(&self, kept: Kept, scenario: Scenario) -> Option<PathBuf> {
        let spooled = scenario == Scenario::Spooled;
        (scenario != Scenario::Creation)
            .then(|| self.folder.path().join(format!("{kept:?}-{spooled}")))
    }
}

fn save(world: &World, to: &Path) {
    let status = std::process::Command::new("cp")
        .arg("-a")
        .arg(world.store())
        .arg(to)
        .status();
    assert!(status.expect("cp").success());
}

fn points(kept: Kept, scenario: Scenario, template: Option<&Path>) -> Vec<Point> {
    let mut world = World::new(kept, scenario, template);
    let mut points = Vec::new();
    play(&mut world, None, Some(&mut points));
    let wrong = verdict::judge(&world, None);
    assert!(
        wrong.is_empty(),
        "{scenario:?} on {kept:?} without a fault: {wrong:#?}\n{:#?}",
        world.done
    );
    points
}

fn faults(points: &[Point]) -> Vec<Fault> {
    let mut all = Vec::new();
    for point in points {
        let kills = [(Kind::KillAtEntry, false), (Kind::KillAtExit, false)];
        for (kind, forever) in kills.into_iter().chain(point.seen.kinds.iter().copied()) {
            all.push(Fault {
                point: point.clone(),
                kind,
                forever,
            });
        }
    }
    all
}

#[test]
fn every_system_call_may_fail() {
    let templates = Templates::make();
    let only = std::env::var("JOBLOCK_ONLY").unwrap_or_default();
    let mut work = Vec::new();
    for scenario in Scenario::ALL {
        for kept in Kept::ALL {
            let points = points(kept, scenario, templates.of(kept, scenario).as_deref());
            println!("{scenario:?} on {kept:?}: {} calls", points.len());
            work.extend(
                faults(&points)
                    .into_iter()
                    .map(|fault| (scenario, kept, fault)),
            );
        }
    }
    work.retain(|(scenario, kept, fault)| format!("{scenario:?} {kept:?} {fault}").contains(&only));
    println!("{} faults", work.len());
    let next = AtomicUsize::new(0);
    let found = Mutex::new(BTreeMap::<String, Vec<String>>::new());
    let begun = Instant::now();
    let hits = AtomicUsize::new(0);
    std::thread::scope(|s| {
        for _ in 0..WORKERS {
            s.spawn(|| {
                while let Some((scenario, kept, fault)) =
                    work.get(next.fetch_add(1, Ordering::Relaxed))
                {
                    let mut world =
                        World::new(*kept, *scenario, templates.of(*kept, *scenario).as_deref());
                    let hit = play(&mut world, Some(fault), None);
                    hits.fetch_add(usize::from(hit), Ordering::Relaxed);
                    let wrong = verdict::judge(&world, Some(fault).filter(|_| hit));
                    for what in wrong {
                        println!("{scenario:?} {kept:?} {fault}: {what}");
                        found
                            .lock()
                            .expect("no panic")
                            .entry(what)
                            .or_default()
                            .push(format!("{scenario:?} {kept:?} {fault}"));
                    }
                }
            });
        }
    });
    println!("{hits:?} {:?}", begun.elapsed());
    let found = found.into_inner().expect("no panic");
    assert!(found.is_empty(), "{} sorts of violations", found.len());
    let _ = (SAMPLE, Who::First);
}
