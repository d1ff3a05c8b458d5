//! The lease under simulation: worlds of several machines, in which everything goes wrong that may, run the product's own
//! decisions (`src/lease/`), and what must hold is looked at after every step. `tests/simulation/` is the simulator, built here
//! as a program of its own, with optimisation; planted bugs must be found by it.
//!
//! `make simulate SEEDS=1000000` runs many worlds, from seed FROM on if that is given, `make simulate SEED=7` one, told line by line,
//! `make mutants` all planted bugs.

#[path = "simulation/attempts.rs"]
mod attempts;
#[path = "simulation/chance.rs"]
mod chance;
#[path = "simulation/delays.rs"]
mod delays;
#[path = "simulation/effects.rs"]
mod effects;
#[path = "common/evidence.rs"]
mod evidence;
#[path = "simulation/excuses.rs"]
mod excuses;
#[path = "simulation/faults.rs"]
mod faults;
#[path = "simulation/guard.rs"]
mod guard;
#[path = "simulation/holding.rs"]
mod holding;
#[path = "simulation/keeper.rs"]
mod keeper;
#[path = "simulation/kernel.rs"]
mod kernel;
#[path = "simulation/machine.rs"]
mod machine;
#[path = "simulation/planted.rs"]
mod planted;
#[path = "simulation/processes.rs"]
mod processes;
#[expect(dead_code, reason = "records alone are needed here")]
#[path = "common/request.rs"]
mod request;
#[path = "simulation/rules.rs"]
mod rules;
#[path = "simulation/run.rs"]
mod run;
#[path = "simulation/statement.rs"]
mod statement;
#[path = "simulation/store.rs"]
mod store;
#[path = "simulation/world.rs"]
mod world;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use excuses::{EXCUSES, Excuse};
use joblock::lease::row::Row;
use joblock::lease::takeover::FileId;
use joblock::name::{LockName, RunId, Token};
use joblock::store::Holder;
use joblock::store::record::{OutOfMemory, Outcome as Real, RunRecord};
use joblock::store::sqlite::{locks, rows, schema};
use joblock::{clock, lease, name};
use planted::{BUGS, Bug, Change};
use proptest::prelude::*;
use rusqlite::Connection;
use store::{Outcome, Tables};
use world::World;

/// How long fresh seeds are tried by `make check`, and how many there must have been at least.
const FRESH: (u64, u64) = (180, 2_000);
/// How long planted bugs are tried by `make check`, and how many at least.
const PLANTED: (Duration, usize) = (Duration::from_secs(80), 5);
/// What excuses two trees at once, in words, and how many pairs of a million grants it may excuse: three times what it does in 80,000 worlds.
const EXCUSED: [(Excuse, &str, u64); EXCUSES.len()] = [
    (Excuse::Frozen, "the machine of one is frozen", 9_000),
    (Excuse::Thawed, "it was just thawed", 120),
    (
        Excuse::ClockStopped,
        "its clock had stood still unseen",
        700,
    ),
    (
        Excuse::LockFileDeleted,
        "lock file deleted, guard or keeper dead or stopped",
        190,
    ),
    (
        Excuse::LockFileDeletedUnwritten,
        "lock file deleted, and the history can't be written",
        20,
    ),
    (
        Excuse::GrantUnknown,
        "lock file deleted, and the history does not know the grant",
        90,
    ),
    (
        Excuse::TokenHidden,
        "database put back, and the lock file has lost the newest token",
        10,
    ),
    (
        Excuse::PutBackWithoutLockFile,
        "lock file deleted, and the database put back",
        15,
    ),
    (
        Excuse::ForgottenBeforeGrant,
        "the server forgot a lock before the grant was through",
        5,
    ),
    (
        Excuse::ForgottenUnattended,
        "the server forgot a lock whose keeper is dead or cut off",
        100,
    ),
    (
        Excuse::ForgottenSilent,
        "the server forgot a lock whose keeper was silent otherwise",
        10,
    ),
    (
        Excuse::AllKilled,
        "all three killed, and no kernel lock reaches the other",
        750,
    ),
    (Excuse::KeeperLeft, "the same, the keeper being left", 20),
    (Excuse::FrontStopped, "guard dead, front stopped", 320),
    (
        Excuse::FrontGoesOn,
        "guard dead, front stopped until just now",
        10,
    ),
    (
        Excuse::DescriptorClosed,
        "lockfile: guard and keeper dead, descriptor closed",
        60,
    ),
    (
        Excuse::DescriptorClosedLocal,
        "local sqlite: guard and keeper dead, descriptor closed",
        210,
    ),
];
/// So many pairs of one excuse are no sign of anything: one world may have several.
const FEW: u64 = 20;
/// Within so many seeds each planted bug must be found.
const WITHIN: u64 = 60_000;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Where simulators are built: apart from what cargo itself builds here.
fn workshop() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("simulator")
}

const MANIFEST: &str = r#"[package]
name = "simulator"
version = "0.0.0"
edition = "2024"

[workspace]

[[bin]]
name = "simulator"
path = "tests/simulation/program.rs"

[dependencies]
chrono = { version = "0.4", default-features = false, features = ["clock", "std"] }
rustix = { version = "1.1", features = ["rand", "time"] }
serde = { version = "1", features = ["derive"] }
thiserror = "2"

[profile.dev]
opt-level = 2
debug = false

[profile.dev.package."*"]
opt-level = 0
"#;

/// Writes `text` unless it stands there already, so that cargo builds only what has changed.
fn put(path: &Path, text: &str) {
    if fs::read_to_string(path).is_ok_and(|old| old == text) {
        return;
    }
    fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
    fs::write(path, text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
}

/// Every file that a simulator is made of, by its path in the project.
fn sources() -> BTreeMap<String, String> {
    let folder = |path: &str| {
        let entries = fs::read_dir(root().join(path)).expect("a folder");
        entries
            .map(|entry| {
                format!(
                    "{path}/{}",
                    entry.expect("a file").file_name().to_string_lossy()
                )
            })
            .filter(|path| Path::new(path).extension().is_some_and(|e| e == "rs"))
            .collect::<Vec<_>>()
    };
    let mut paths = vec!["src/clock.rs".to_owned(), "src/name.rs".to_owned()];
    paths.extend(folder("src/lease"));
    paths.extend(folder("tests/simulation"));
    paths
        .into_iter()
        .map(|path| {
            let text = fs::read_to_string(root().join(&path)).expect("it can be read");
            (path, text)
        })
        .collect()
}

/// Builds a simulator in the workshop's folder `name`; the words of the compiler if it does not compile.
fn build(name: &str, sources: &BTreeMap<String, String>) -> Result<PathBuf, String> {
    let folder = workshop().join(name);
    put(&folder.join("Cargo.toml"), MANIFEST);
    if !folder.join("Cargo.lock").exists() {
        fs::copy(root().join("Cargo.lock"), folder.join("Cargo.lock")).expect("a copy");
    }
    for (path, text) in sources {
        put(&folder.join(path), text);
    }
    let target = workshop().join(format!("target-{name}"));
    let output = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--offline", "--target-dir"])
        .arg(&target)
        .current_dir(&folder)
        .env_remove("CARGO_BUILD_TARGET")
        .output()
        .expect("cargo starts");
    if output.status.success() {
        Ok(target.join("debug/simulator"))
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

fn simulator() -> PathBuf {
    build("as-built", &sources()).unwrap_or_else(|error| panic!("{error}"))
}

/// What a simulator said: its figures, and the violation if it found one.
struct Said {
    figures: BTreeMap<String, u64>,
    violation: Option<String>,
}

fn worlds(simulator: &Path, first: u64, count: u64, seconds: u64, threads: usize) -> Said {
    let output = Command::new(simulator)
        .args([first, count, seconds].map(|n| n.to_string()))
        .arg(threads.to_string())
        .output()
        .expect("it starts");
    let text = String::from_utf8_lossy(&output.stdout);
    let violation = text.lines().find(|line| line.starts_with("seed "));
    assert_eq!(
        output.status.success(),
        violation.is_none(),
        "it must say what it found: {text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Said {
        violation: violation.map(str::to_owned),
        figures: text
            .lines()
            .filter_map(|line| {
                let (name, n) = line.split_once(' ')?;
                Some((name.to_owned(), n.parse().ok()?))
            })
            .collect(),
    }
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name)
        .ok()
        .filter(|text| !text.is_empty())
        .map(|text| {
            text.parse()
                .unwrap_or_else(|_| panic!("{name}={text}: a number is needed"))
        })
}

fn fresh() -> u64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970");
    // room for what comes after it
    u64::try_from(now.as_nanos() / 1_000 % 1_000_000_000_000).expect("small") * 1_000_000
}

// shows: front-killed local, shared, lockfile
// shows: keeper-killed local, shared, lockfile
// shows: guard-killed local, shared, lockfile
// shows: all-killed local, shared, lockfile
// shows: stopped-past-ttl shared
// shows: frozen-past-ttl shared, lockfile
// shows: host-lost shared, lockfile
// shows: partition shared, lockfile
// shows: clock-jump local, shared, lockfile
// shows: time-namespace local, shared
// shows: restored-backup local, shared, lockfile
// shows: lock-file-deleted local, shared, lockfile
// shows: leaked-children local, shared, lockfile
// shows: late-write shared
// shows: unlock local, shared, lockfile
// shows: contention local, shared, lockfile
#[test]
fn worlds_with_fresh_seeds_break_no_rule() {
    let simulator = simulator();
    if let Some(seed) = setting("JOBLOCK_SIMULATE_SEED") {
        let told = Command::new(&simulator)
            .args(["trace", &seed.to_string()])
            .status();
        assert!(
            told.expect("it starts").success(),
            "seed {seed} breaks a rule"
        );
        return;
    }
    let first = setting("JOBLOCK_SIMULATE_FROM").unwrap_or_else(fresh);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let threads =
        setting("JOBLOCK_SIMULATE_THREADS").map_or(threads, |n| usize::try_from(n).expect("small"));
    let seeds = setting("JOBLOCK_SIMULATE_SEEDS");
    println!("from seed {first} on; `make simulate SEED=n` tells one");
    let said = match seeds {
        Some(count) => worlds(&simulator, first, count, 0, threads),
        None => worlds(&simulator, first, 0, FRESH.0, threads),
    };
    println!("{:?}", said.figures);
    assert_eq!(
        said.violation, None,
        "`make simulate SEED=n` tells it line by line; keep it in tests/simulation/seeds"
    );
    let figure = |name: &str| said.figures[name];
    assert!(
        figure("seeds") >= seeds.unwrap_or(FRESH.1),
        "{:?}",
        said.figures
    );
    // a world in which nothing happens breaks no rule either
    for (name, least) in [
        ("grants", 10),
        ("faults", 5),
        ("fenced", 0),
        ("lapsed", 0),
        ("from_gone", 0),
        ("lost", 0),
    ] {
        assert!(
            figure(name) > least * figure("seeds"),
            "{name}: {:?}",
            said.figures
        );
    }
    for (excuse, words, most) in EXCUSED {
        assert!(
            figure(&format!("{excuse:?}")) <= FEW + figure("grants") * most / 1_000_000,
            "too much is excused by \"{words}\": {:?}",
            said.figures
        );
    }
    if seeds.is_some() {
        let mut record = evidence::Record::new(
            "simulation",
            format!("make simulate FROM={first} SEEDS={}", figure("seeds")),
        );
        let words = [
            ("seeds", "worlds"),
            ("grants", "grants"),
            (
                "from_gone",
                "taken over from runs of which nothing was left",
            ),
            (
                "lapsed",
                "taken over from leases that had lapsed, something of their runs being left",
            ),
            ("fenced", "jobs ended by their own deadline"),
            ("faults", "faults injected"),
        ];
        for (name, words) in words {
            record = record.figure(words, figure(name));
        }
        record = record.figure("violations", 0);
        for (excuse, words, _) in EXCUSED {
            record = record.figure(
                format!("two trees at once, excused: {words}"),
                figure(&format!("{excuse:?}")),
            );
        }
        record.write();
    }
}

#[test]
fn seeds_that_ever_failed_hold() {
    let seeds = fs::read_to_string(root().join("tests/simulation/seeds")).expect("the seeds");
    let mut tried = 0;
    for line in seeds.lines().filter(|line| !line.starts_with('#')) {
        let seed = line.split_whitespace().next().expect("a seed");
        let mut world = World::new(seed.parse().expect("a number"), false);
        world.go();
        assert_eq!(world.violation, None, "{line}");
        tried += 1;
    }
    assert!(tried > 0);
}

#[test]
fn a_seed_makes_the_same_world_again() {
    let told = |seed| {
        let mut world = World::new(seed, true);
        world.go();
        world.lines
    };
    for seed in 1..20 {
        assert_eq!(told(seed), told(seed), "{seed}");
    }
}

/// The sources with `bug` in them; what does not fit goes to `unfit`.
fn planted(
    bug: &Bug,
    sources: &BTreeMap<String, String>,
    unfit: &mut Vec<String>,
) -> BTreeMap<String, String> {
    let mut sources = sources.clone();
    for Change { file, from, to } in bug.changes {
        let text = sources.get_mut(*file).expect("a file of the simulator");
        let times = text.matches(from).count();
        if times == 1 {
            *text = text.replace(from, to);
        } else {
            unfit.push(format!(
                "{}: stands {times} times in {file}: {from}",
                bug.name
            ));
        }
    }
    sources
}

#[test]
fn planted_bugs_are_found() {
    let all = setting("JOBLOCK_MUTANTS").is_some();
    let sources = sources();
    // each text must be there, also of those that are not tried now
    let mut unfit = Vec::new();
    let planted: Vec<_> = BUGS
        .iter()
        .map(|bug| (bug, planted(bug, &sources, &mut unfit)))
        .collect();
    assert!(unfit.is_empty(), "{unfit:#?}");
    let first = usize::try_from(fresh() / 1_000_000).expect("64 bits") % BUGS.len();
    let began = Instant::now();
    let (mut found, mut missed) = (0, Vec::new());
    for (bug, sources) in planted.iter().cycle().skip(first).take(BUGS.len()) {
        if !all && began.elapsed() > PLANTED.0 && found >= PLANTED.1 {
            break;
        }
        let simulator = build("planted", sources).unwrap_or_else(|e| panic!("{}: {e}", bug.name));
        let said = worlds(&simulator, 1, WITHIN, 0, 1);
        match said.violation {
            Some(violation) => {
                println!(
                    "{}: after {} worlds, {violation}",
                    bug.name, said.figures["seeds"]
                );
                found += 1;
            }
            None => missed.push(bug.name),
        }
    }
    assert_eq!(
        missed,
        Vec::<&str>::new(),
        "planted, and not found in {WITHIN} worlds"
    );
    if all {
        evidence::Record::new("mutants", "make mutants")
            .figure("bugs planted in the protocol, one at a time", BUGS.len())
            .figure("found by the simulator", found)
            .write();
    }
}

/// A statement on a lock's row, by which of three runs.
#[derive(Debug, Clone)]
enum Statement {
    Grant(u64, usize),
    Renew(u64, usize),
    Release(u64, usize),
    GiveBack(usize),
}

fn statements() -> impl Strategy<Value = Vec<Statement>> {
    let (token, run) = (1u64..4, 0usize..3);
    let one = prop_oneof![
        2 => (token.clone(), run.clone()).prop_map(|(t, r)| Statement::Grant(t, r)),
        3 => (token.clone(), run.clone()).prop_map(|(t, r)| Statement::Renew(t, r)),
        2 => (token, run.clone()).prop_map(|(t, r)| Statement::Release(t, r)),
        1 => run.prop_map(Statement::GiveBack),
    ];
    prop::collection::vec(one, 1..30)
}

fn holders() -> Vec<Holder> {
    let process = serde_json::json!({"pid": 7, "start": 8});
    let holder = |n: u64| {
        serde_json::from_value(serde_json::json!({
            "run_id": format!("{n:016x}"),
            "job": "sync",
            "trigger": "schedule",
            "who": {"uid": 0, "user": "root", "sudo_user": null, "terminal": null},
            "place": {"boot_id": "b", "time_ns": "t", "pid_ns": 1, "host": "blue"},
            "processes": {"front": process, "keeper": process, "guard": process},
            "since": 0,
        }))
        .expect("a holder")
    };
    (1..=3).map(holder).collect()
}

proptest! {
    /// What the simulator plays on a value, SQLite does to a row.
    #[test]
    fn the_simulators_statements_are_the_databases(statements in statements()) {
        let conn = Connection::open_in_memory().expect("a database");
        conn.execute_batch(schema::TABLES).expect("tables");
        let lock: LockName = "sync".parse().expect("a name");
        let holders = holders();
        let owners: Vec<RunId> = holders.iter().map(|h| h.run_id.clone()).collect();
        let mut row: Option<Row<Holder>> = None;
        for statement in statements {
            let (played, real) = match statement {
                Statement::Grant(token, run) => {
                    let (ttl, file) = (Duration::from_secs(45), FileId { dev: 1, ino: 2 });
                    let (token, owner, holder) = (Token(token), owners[run].clone(), holders[run].clone());
                    statement::grant(&mut row, token, owner, ttl, file, holder);
                    locks::grant(&conn, &lock, row.as_ref().expect("a row")).expect("it is written");
                    (true, true)
                }
                Statement::Renew(token, run) => (
                    statement::renew(&mut row, &owners[run], Token(token)),
                    locks::renew(&conn, &lock, &owners[run], Token(token)).expect("it works"),
                ),
                Statement::Release(token, run) => (
                    statement::release(&mut row, &owners[run], Token(token)),
                    locks::release(&conn, &lock, &owners[run], Token(token)).expect("it works"),
                ),
                Statement::GiveBack(run) => (
                    statement::give_back(&mut row, &owners[run]),
                    locks::give_back(&conn, &lock, &owners[run]).expect("it works"),
                ),
            };
            prop_assert_eq!(played, real);
            prop_assert_eq!(&row, &locks::get(&conn, &lock).expect("it is read"));
        }
    }

    /// What the simulator plays on a list, SQLite does to the history.
    #[test]
    fn the_simulators_history_is_the_databases(
        writes in prop::collection::vec((0usize..3, 0usize..5, any::<bool>()), 1..30)
    ) {
        let conn = Connection::open_in_memory().expect("a database");
        conn.execute_batch(schema::TABLES).expect("tables");
        let records = [(); 3].map(|()| request::record("sync"));
        let mut tables = Tables::default();
        for (run, outcome, by_another) in writes {
            let begun = &records[run];
            if by_another {
                tables.abandon(run);
                rows::abandon(&conn, &begun.run_id, Real::Abandoned, OutOfMemory::No).expect("it works");
            } else {
                let (played, outcome) = [
                    (Outcome::Running, Real::Running),
                    (Outcome::Ended, Real::Succeeded),
                    (Outcome::Abandoned, Real::Abandoned),
                    (Outcome::Refused, Real::Refused),
                    (Outcome::NotStarted, Real::NotStarted),
                ][outcome];
                tables.upsert(run, played);
                let end = (played == Outcome::Ended).then(request::success);
                let record = RunRecord { outcome, end, ..begun.clone() };
                rows::upsert(&conn, &record).expect("it works");
            }
            let mut statement = conn.prepare("SELECT run_id, outcome FROM runs ORDER BY id").expect("SQL");
            let real: Vec<(String, String)> = statement
                .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
                .expect("rows")
                .collect::<Result<_, _>>()
                .expect("rows");
            let word = |outcome| match outcome {
                Outcome::Running => "running",
                Outcome::Ended => "succeeded",
                Outcome::Abandoned => "abandoned",
                Outcome::Refused => "refused",
                Outcome::NotStarted => "not-started",
            };
            let played: Vec<_> = tables
                .history
                .iter()
                .map(|(run, outcome)| (records[*run].run_id.to_string(), word(*outcome).to_owned()))
                .collect();
            prop_assert_eq!(played, real);
        }
    }
}
