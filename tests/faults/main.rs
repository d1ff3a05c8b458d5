//! Every system call fails once: each process of a run is killed at each of its calls, and each call is made to fail in
//! every way that it can, once and from then on, on every store. Afterwards the database is whole, the next start works,
//! no row is lost, no lock is stuck, nothing is left, and the exit code and the message were right.
//!
//! `make faults` plays all of it; `make check` a sample, in an order that a new seed gives each time: one of every kind of fault in every
//! process of every scenario on every store comes first, as far as its time goes, and it says how many it got to. `JOBLOCK_FAULTS`: `all`,
//! or for how many seconds. `JOBLOCK_SEED`: the seed to repeat. `JOBLOCK_SCENARIOS`: only these, such as `Takeover,Older`. `JOBLOCK_ONLY`:
//! only faults whose words contain this. `JOBLOCK_PART`: `3/20`, the third of twenty parts.

#[path = "../common/tracer/mod.rs"]
mod tracer;

#[path = "../common/evidence.rs"]
mod evidence;
#[path = "../common/random.rs"]
mod random;

mod apart;
mod calls;
mod play;
mod verdict;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::hash::Hash;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use apart::apart;
use calls::{Kind, Target};
use evidence::Record;
use joblock::store::sqlite::schema::ADDED;
use play::{Done, Fault, Kept, Point, Scenario, Who, World, play};
use random::Random;
use tempfile::TempDir;
use tracer::{Role, Status};

/// How long the sample in `make check` takes.
const SAMPLE: Duration = Duration::from_secs(75);
/// How many are played side by side.
const WORKERS: usize = 8;
/// And in a run of all: most of the time they wait for leases and heartbeats.
const MANY: usize = 24;

/// Of how many faults one may not be reached at most. What comes in another order than when the calls were listed makes fewer of a sort,
/// and who waits looks again as often as it comes to it: on a busy machine that is one in forty.
const REACHED_BUT_ONE_IN: usize = 20;

/// A store with a history, made by joblock itself: what scenarios begin with.
struct Templates {
    folder: TempDir,
}

/// What a scenario's store is like.
#[derive(Debug, Clone, Copy)]
enum Past {
    /// All of its history is in the database.
    Whole,
    /// Its newest record waits in the spool.
    Spooled,
    /// It was made before joblock knew all of today's columns and tables.
    Older,
}

impl Templates {
    fn make() -> Templates {
        let folder = TempDir::new().expect("a folder");
        for kept in Kept::ALL {
            let mut points = Vec::new();
            let mut world = World::new(kept, Scenario::Earlier, None);
            play(&mut world, None, Some(&mut points));
            let at = |past| Self::at(&folder, kept, past);
            save(&world.store(), &at(Past::Whole));
            change(&at(Past::Whole), kept, AGE);
            save(&spooled(kept, &points).store(), &at(Past::Spooled));
            save(&at(Past::Whole), &at(Past::Older));
            change(&at(Past::Older), kept, &without_what_was_added());
        }
        Templates { folder }
    }

    fn at(folder: &TempDir, kept: Kept, past: Past) -> PathBuf {
        folder.path().join(format!("{kept:?}-{past:?}"))
    }

    fn of(&self, kept: Kept, scenario: Scenario) -> Option<PathBuf> {
        let past = match scenario {
            Scenario::Creation => return None,
            Scenario::Spooled => Past::Spooled,
            Scenario::Older => Past::Older,
            _ => Past::Whole,
        };
        Some(Self::at(&self.folder, kept, past))
    }
}

/// A store whose newest record waits in the spool. `points`: of the same run without a fault.
fn spooled(kept: Kept, points: &[Point]) -> World {
    // the sync of the run's last record, which goes to the spool then; a lockfile is released after it
    let mut syncs = points
        .iter()
        .rev()
        .filter(|p| p.role == Role::Keeper && p.seen.name == "fdatasync");
    let last = syncs.nth(usize::from(kept == Kept::Lockfile));
    let fault = Fault {
        point: last.expect("a sync").clone(),
        kind: Kind::Io,
        forever: false,
    };
    // who was slower or faster may have had a heartbeat more or less, and then it is another sync
    for _ in 0..20 {
        let mut world = World::new(kept, Scenario::Earlier, None);
        play(&mut world, Some(&fault), None);
        let spool = std::fs::read_dir(kept.spool(&world.store()));
        if spool.is_ok_and(|spool| spool.count() == 1) {
            return world;
        }
    }
    panic!("{kept:?}: no record comes into the spool");
}

fn save(store: &Path, to: &Path) {
    let status = std::process::Command::new("cp")
        .arg("-a")
        .arg(store)
        .arg(to)
        .status();
    assert!(status.expect("cp").success());
}

/// Adds what is old enough to be pruned, whatever columns there are. The run itself was ten minutes ago: long enough for ages to be
/// counted by its clock.
const AGE: &str = "UPDATE runs SET id = id + 10, started = started - 600000, ended = ended - 600000;
    UPDATE tails SET id = id + 10;
    CREATE TEMP TABLE old AS SELECT * FROM runs WHERE reason = 'earlier';
    UPDATE old SET reason = 'old', token = NULL, started = started - 86400000, ended = ended - 86400000;
    UPDATE old SET id = 1, run_id = '1111111111111111'; INSERT INTO runs SELECT * FROM old;
    UPDATE old SET id = 2, run_id = '2222222222222222'; INSERT INTO runs SELECT * FROM old;
    UPDATE old SET id = 3, run_id = '3333333333333333'; INSERT INTO runs SELECT * FROM old;";

/// Drops each table that [`ADDED`] makes, and each column that it adds to another.
fn without_what_was_added() -> String {
    let drop = |&(column, adds): &(&str, &str)| {
        let (table, column) = column.split_once('.').expect("a table and a column");
        if adds.starts_with("CREATE TABLE") {
            format!("DROP TABLE {table};")
        } else {
            format!("ALTER TABLE {table} DROP COLUMN {column};")
        }
    };
    ADDED.iter().map(drop).collect()
}

fn change(store: &Path, kept: Kept, sql: &str) {
    let database = rusqlite::Connection::open(kept.database(store)).expect("the database");
    database.execute_batch(sql).expect(sql);
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
        // nobody comes back from exit_group(2): who is killed there has ended by itself
        let comes_back = point.number != libc::SYS_exit_group;
        let kills = kills
            .into_iter()
            .filter(|(kind, _)| comes_back || *kind != Kind::KillAtExit);
        for (kind, forever) in kills.chain(point.seen.kinds.iter().copied()) {
            all.push(Fault {
                point: point.clone(),
                kind,
                forever,
            });
        }
    }
    all
}

/// One thing to play.
struct Case {
    scenario: Scenario,
    kept: Kept,
    fault: Fault,
}

impl std::fmt::Display for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} {:?} {}", self.scenario, self.kept, self.fault)
    }
}

type Stratum = (Scenario, Kept, Role, Kind);

impl Case {
    /// What a sample must have one of at least.
    fn stratum(&self) -> Stratum {
        (
            self.scenario,
            self.kept,
            self.fault.point.role,
            self.fault.kind,
        )
    }
}

/// The scenarios that were asked for: all, unless some are named.
fn scenarios() -> Vec<Scenario> {
    let asked = std::env::var("JOBLOCK_SCENARIOS").unwrap_or_default();
    if asked.is_empty() {
        return Scenario::ALL.to_vec();
    }
    let named = asked.split(',').map(|name| {
        Scenario::ALL
            .into_iter()
            .find(|scenario| format!("{scenario:?}") == name)
            .unwrap_or_else(|| panic!("JOBLOCK_SCENARIOS={asked}: {:?} there are", Scenario::ALL))
    });
    named.collect()
}

/// Every fault of the scenarios on every store; the number of system calls that they are in.
fn cases(scenarios: &[Scenario], templates: &Templates) -> (Vec<Case>, usize) {
    let mut cases = Vec::new();
    let mut calls = 0;
    let only = std::env::var("JOBLOCK_ONLY").unwrap_or_default();
    for &scenario in scenarios {
        for kept in Kept::ALL {
            let points = points(kept, scenario, templates.of(kept, scenario).as_deref());
            calls += points.len();
            cases.extend(faults(&points).into_iter().map(|fault| Case {
                scenario,
                kept,
                fault,
            }));
        }
    }
    cases.retain(|case| case.to_string().contains(&only));
    (cases, calls)
}

/// The part that was asked for: those of every scenario, store and process, one in so many.
fn part(cases: Vec<Case>) -> Vec<Case> {
    let asked = std::env::var("JOBLOCK_PART").unwrap_or_default();
    if asked.is_empty() {
        return cases;
    }
    let number = |text: &str| text.parse::<usize>().ok().filter(|n| *n > 0);
    let parts = asked.split_once('/').map(|(n, of)| (number(n), number(of)));
    let Some((Some(n), Some(of))) = parts else {
        panic!("JOBLOCK_PART={asked}: such as 3/20 is needed");
    };
    let cases = cases.into_iter().skip(n - 1);
    cases.step_by(of).collect()
}

/// Where this test once found something: always played.
const MENDED: [(Scenario, Role, &str, Target, Kind); 8] = [
    (
        Scenario::Refused,
        Role::Front,
        "stat",
        Target::Kernel,
        Kind::Io,
    ),
    (
        Scenario::Refused,
        Role::Front,
        "open",
        Target::Kernel,
        Kind::Descriptors,
    ),
    (
        Scenario::Run,
        Role::Guard,
        "timerfd_create",
        Target::Other,
        Kind::Descriptors,
    ),
    (
        Scenario::Creation,
        Role::Guard,
        "signalfd",
        Target::Other,
        Kind::KillAtEntry,
    ),
    (
        Scenario::Stopped,
        Role::Guard,
        "getdents",
        Target::Kernel,
        Kind::Io,
    ),
    (
        Scenario::Takeover,
        Role::Keeper,
        "getdents",
        Target::Kernel,
        Kind::Io,
    ),
    (
        Scenario::Takeover,
        Role::Keeper,
        "fdatasync",
        Target::Store,
        Kind::NoSpace,
    ),
    (
        Scenario::Run,
        Role::Guard,
        "sendmsg",
        Target::Other,
        Kind::KillAtEntry,
    ),
];

impl Case {
    fn place(&self) -> impl Eq + Hash + use<> {
        let Fault {
            point,
            kind,
            forever,
        } = &self.fault;
        (
            self.scenario,
            self.kept,
            point.role,
            point.seen.name,
            *kind,
            *forever,
        )
    }

    fn was_mended(&self) -> bool {
        let Fault { point, kind, .. } = &self.fault;
        MENDED.contains(&(
            self.scenario,
            point.role,
            point.seen.name,
            point.seen.target,
            *kind,
        ))
    }
}

/// Puts what was once wrong first, then one of each stratum, then a second of each, and so on, each in an order of chance.
fn in_rounds(mut cases: Vec<Case>, random: &mut Random) -> Vec<Case> {
    random.shuffle(&mut cases);
    let mut seen = BTreeMap::new();
    let mut mended = HashSet::new();
    let mut rounds: Vec<(usize, Case)> = Vec::new();
    for case in cases {
        let count = seen.entry(case.stratum()).or_insert(1);
        let round = if case.was_mended() && mended.insert(case.place()) {
            0
        } else {
            *count
        };
        rounds.push((round, case));
        *count += 1;
    }
    rounds.sort_by_key(|(round, _)| *round);
    rounds.into_iter().map(|(_, case)| case).collect()
}

/// What came of playing.
#[derive(Default)]
struct Tally {
    played: BTreeMap<&'static str, usize>,
    took: BTreeMap<Scenario, (u32, Duration)>,
    strata: BTreeSet<Stratum>,
    missed: usize,
    /// A sort of violation, and the cases where it was seen.
    wrong: BTreeMap<String, Vec<String>>,
}

fn play_all(
    cases: &[Case],
    templates: &Templates,
    limit: Option<Duration>,
    workers: usize,
) -> Tally {
    let next = AtomicUsize::new(0);
    let tally = Mutex::new(Tally::default());
    let begun = Instant::now();
    std::thread::scope(|s| {
        for _ in 0..workers {
            let worker = || {
                while limit.is_none_or(|limit| begun.elapsed() < limit)
                    && let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed))
                {
                    let Case {
                        scenario,
                        kept,
                        fault,
                    } = case;
                    let mut world =
                        World::new(*kept, *scenario, templates.of(*kept, *scenario).as_deref());
                    let since = Instant::now();
                    let hit = play(&mut world, Some(fault), None);
                    let wrong = verdict::judge(&world, Some(fault).filter(|_| hit));
                    let mut tally = tally.lock().expect("no panic");
                    let took = tally.took.entry(*scenario).or_default();
                    *took = (took.0 + 1, took.1 + since.elapsed());
                    if hit {
                        *tally.played.entry(fault.kind.name()).or_default() += 1;
                        tally.strata.insert(case.stratum());
                    } else {
                        tally.missed += 1;
                    }
                    for what in wrong {
                        println!("WRONG: {case}: {what}");
                        tally.wrong.entry(what).or_default().push(case.to_string());
                    }
                }
            };
            s.spawn(move || apart(worker));
        }
    });
    tally.into_inner().expect("no panic")
}

fn ended(world: &mut World, who: Who) -> &mut Done {
    world.done.get_mut(&who).expect("it ended")
}

/// Makes something wrong.
type Change = fn(&mut World);

/// The judge can find something: after a run without a fault, each of these is a violation.
#[test]
fn the_judge_notices_what_is_wrong() {
    apart(notices_what_is_wrong);
}

fn notices_what_is_wrong() {
    let templates = Templates::make();
    for kept in Kept::ALL {
        let played = || {
            let mut world = World::new(
                kept,
                Scenario::Run,
                templates.of(kept, Scenario::Run).as_deref(),
            );
            play(&mut world, None, None);
            assert_eq!(
                verdict::judge(&world, None),
                Vec::<String>::new(),
                "{kept:?}"
            );
            world
        };
        for sql in [
            "UPDATE runs SET outcome = 'running' WHERE reason = 'first'",
            "UPDATE runs SET exit_code = 8 WHERE reason = 'first'",
            "UPDATE runs SET token = token + 1 WHERE reason = 'first'",
            "DELETE FROM runs WHERE reason = 'first'",
            "DELETE FROM runs WHERE reason = 'next'",
            "DROP TABLE unswept",
        ] {
            let world = played();
            let database =
                rusqlite::Connection::open(kept.database(&world.store())).expect("the database");
            database.execute(sql, []).expect(sql);
            drop(database);
            assert_ne!(
                verdict::judge(&world, None),
                Vec::<String>::new(),
                "{kept:?}: {sql}"
            );
        }
        let changes: [Change; 5] = [
            |world| ended(world, Who::First).status = Status::Exited(0),
            |world| ended(world, Who::First).stdout.clear(),
            |world| ended(world, Who::Next).status = Status::Exited(75),
            |world| ended(world, Who::First).stderr.push_str("panicked"),
            |world| {
                let witness = world.path().join("witness");
                let text = std::fs::read_to_string(&witness).expect("the witness");
                let text = text.replace("begin first 2", "begin first 3");
                std::fs::write(&witness, text).expect("the witness");
            },
        ];
        for (number, change) in changes.into_iter().enumerate() {
            let mut world = played();
            change(&mut world);
            assert_ne!(
                verdict::judge(&world, None),
                Vec::<String>::new(),
                "{kept:?}: change {number}"
            );
        }
    }
}

// shows: disk-full local, shared, lockfile
// shows: disk-error local, shared, lockfile
// shows: front-killed local, shared, lockfile
// shows: keeper-killed local, shared, lockfile
// shows: guard-killed local, shared, lockfile
// shows: all-killed local, shared, lockfile
#[test]
fn every_system_call_may_fail() {
    let scenarios = scenarios();
    let (templates, (cases, calls)) = apart(|| {
        let templates = Templates::make();
        let cases = cases(&scenarios, &templates);
        (templates, cases)
    });
    let seed = Random::seed();
    let all = cases.len();
    let cases = in_rounds(part(cases), &mut Random(seed));
    let asked = std::env::var("JOBLOCK_FAULTS");
    let (limit, workers) = match asked.as_deref() {
        Ok("all") => (None, MANY),
        Ok(seconds) => (
            Some(Duration::from_secs(seconds.parse().expect("seconds"))),
            WORKERS,
        ),
        Err(_) => (Some(SAMPLE), WORKERS),
    };
    let strata: BTreeSet<_> = cases.iter().map(Case::stratum).collect();
    let begun = Instant::now();
    let tally = play_all(&cases, &templates, limit, workers);
    let played: usize = tally.played.values().sum();
    println!(
        "{played} faults of {all} in {calls} calls, {} of {} sorts of them, {} not reached, seed {seed}, in {:?}",
        tally.strata.len(),
        strata.len(),
        tally.missed,
        begun.elapsed()
    );
    for (scenario, (count, took)) in &tally.took {
        println!("{count:7} {scenario:?}, {:?} each", *took / *count);
    }
    for (what, count) in &tally.played {
        println!("{count:7} {what}");
    }
    for (what, cases) in &tally.wrong {
        println!("{:5} times: {what}; such as {}", cases.len(), cases[0]);
    }
    assert!(
        tally.wrong.is_empty(),
        "JOBLOCK_SEED={seed}: {} sorts of violations, see above",
        tally.wrong.len()
    );
    let missed = tally.missed;
    assert!(
        missed <= played.div_ceil(REACHED_BUT_ONE_IN) + WORKERS,
        "JOBLOCK_SEED={seed}: {missed} faults were not reached, and {played} were"
    );
    // what was played of some is added to what is on record of all, and told apart
    let of = if scenarios == Scenario::ALL {
        format!("{} scenarios", scenarios.len())
    } else {
        let names = scenarios.iter().map(|scenario| format!("{scenario:?}"));
        names.collect::<Vec<_>>().join(", ")
    };
    let mut record = Record::new(
        "faults",
        format!("make faults FAULTS={}", asked.as_deref().unwrap_or("")),
    )
    .figure(
        format!("system calls of {of} on three stores"),
        calls.to_string(),
    )
    .figure(format!("faults that {of} can have"), all.to_string())
    .figure(format!("faults of {of} that were played"), played)
    .figure(format!("faults of {of} that were not reached"), missed)
    .figure("faults played", played);
    for (what, count) in &tally.played {
        record = record.figure(format!("of these, {what}"), *count);
    }
    record.figure("sorts of violations", 0).write();
}
