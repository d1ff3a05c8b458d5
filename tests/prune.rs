//! `prune` and `keep`: old attempts go with their output, in small slices; what anybody still looks at stays; a clock that
//! is wrong deletes nothing; nobody waits for it.

mod common;

use std::fs;
use std::os::unix::fs::FileExt;

use common::{Kind, Store, finish, start, wait_until};
use joblock::clock::Wall;
use joblock::store::pruning::{MOST, Prune};
use joblock::store::{Purpose, StoreUrl, open};
use rstest::rstest;
use rusqlite::Connection;

const DAY: i64 = 24 * 3600 * 1000;

fn database(store: &Store, kind: Kind) -> Connection {
    let name = match kind {
        Kind::Lockfile => "history.db",
        Kind::Local | Kind::Shared => "joblock.db",
    };
    let db = Connection::open(store.path().join(name)).expect("the database");
    db.busy_timeout(common::LIMIT).expect("a limit");
    db
}

fn number(db: &Connection, sql: &str) -> i64 {
    db.query_row(sql, [], |row| row.get(0))
        .unwrap_or_else(|e| panic!("{sql}: {e}"))
}

/// A store in which `a` and `b` have run, with output, once a day for the last `days` days, oldest first: `a` succeeded each
/// even day and failed each odd one, `b` succeeded on the first day and failed ever since.
fn with_history(kind: Kind, days: i64) -> Store {
    let store = Store::new(kind);
    store.sh(&[], "a", "echo out; exit 3").expect(3);
    store.sh(&[], "b", "echo out; exit 3").expect(3);
    repeat(&database(&store, kind), days);
    store
}

/// Makes the two rows of a new history many, of days gone by, and the newest of them those of yesterday.
fn repeat(db: &Connection, days: i64) {
    let columns: Vec<String> = db
        .prepare("SELECT name FROM pragma_table_info('runs')")
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    let values: Vec<String> = columns
        .iter()
        .map(|column| match column.as_str() {
            "id" => "NULL".to_owned(),
            "run_id" => "lower(hex(randomblob(8)))".to_owned(),
            "token" => "n".to_owned(),
            "started" | "ended" => format!("{column} - (:days - n) * {DAY}"),
            "outcome" => "iif(job = 'a' AND n % 2 = 0 OR n = 1, 'succeeded', 'failed')".to_owned(),
            other => other.to_owned(),
        })
        .collect();
    let sql = format!(
        "WITH RECURSIVE day (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM day WHERE n < :days)
         INSERT INTO runs ({}) SELECT {} FROM runs JOIN day WHERE id <= 2 ORDER BY n, id",
        columns.join(", "),
        values.join(", ")
    );
    db.execute(&sql, rusqlite::named_params! { ":days": days })
        .unwrap();
    db.execute_batch(
        "INSERT INTO tails SELECT id, randomblob(1000), 1000 FROM runs WHERE id > 2;
         DELETE FROM tails WHERE id <= 2; DELETE FROM runs WHERE id <= 2;",
    )
    .unwrap();
    db.execute("UPDATE locks SET token = ?1", [days]).unwrap();
    // nobody has to fold this log in his own time
    db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        .unwrap();
}

fn prune(store: &Store, arguments: &[&str]) -> common::Finished {
    finish(store.joblock("prune").args(arguments))
}

/// The ages in days of a job's attempts, oldest first.
fn ages(db: &Connection, job: &str) -> Vec<i64> {
    let now = Wall::now().0;
    let mut ages = db
        .prepare("SELECT (?2 - started) / ?3 FROM runs WHERE job = ?1 ORDER BY id")
        .unwrap();
    ages.query_map((job, now, DAY), |row| row.get(0))
        .unwrap()
        .map(Result::unwrap)
        .collect()
}

#[track_caller]
fn is_sound(db: &Connection) {
    let check: String = db
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .unwrap();
    assert_eq!(check, "ok");
    let orphans = "SELECT count(*) FROM tails WHERE id NOT IN (SELECT id FROM runs)";
    assert_eq!(number(db, orphans), 0, "output without its attempt");
}

// shows: prune local, shared, lockfile
#[rstest]
fn what_is_old_goes_and_what_is_looked_at_stays(
    #[values(Kind::Local, Kind::Shared, Kind::Lockfile)] kind: Kind,
) {
    let store = with_history(kind, 1000);
    let db = database(&store, kind);
    let wet = ["--keep", "90d", "--json"];
    let would = prune(&store, &[&wet[..], &["--dry-run"]].concat()).expect(0);
    assert_eq!(number(&db, "SELECT count(*) FROM runs"), 2000);
    let done = prune(&store, &wet).expect(0);
    let (would, done) = (would.out(), done.out());
    assert_eq!(
        would.replace("\"dry_run\": true", "\"dry_run\": false"),
        done
    );
    let (a, b) = (ages(&db, "a"), ages(&db, "b"));
    // the day on which the test began may be over
    let young = |ages: &[i64]| ages.iter().all(|age| *age <= 91);
    assert!(young(&a) && (90..=92).contains(&a.len()), "{a:?}");
    // the only success of b is its first run
    assert!((998..=1000).contains(&b[0]) && young(&b[1..]), "{b:?}");
    is_sound(&db);
    let answer: serde_json::Value = serde_json::from_str(&done).unwrap();
    assert_eq!(answer["jobs"].as_array().unwrap().len(), 2);
    let left = number(&db, "SELECT count(*) FROM runs");
    assert_eq!(answer["attempts"], 2000 - left);
    assert_eq!(answer["output_bytes"], (2000 - left) * 1000);
    // fresh, status, rerun and the next token are as they were
    let last = &store.json("status", &["b"])["jobs"][0]["last_success"];
    assert!(last.is_string(), "{last}");
    store
        .sh(&["--unless-succeeded-within", "2000d"], "b", "true")
        .expect(0);
    assert_eq!(
        store.outcomes("b").last().unwrap(),
        "succeeded",
        "a failure since: not fresh"
    );
    let rerun = finish(store.joblock("rerun").arg("a"));
    rerun.expect(3);
    assert_eq!(store.rows("a").last().unwrap()["token"], 1001);
}

#[rstest]
fn who_prune_at_once_count_each_attempt_once(
    #[values(Kind::Local, Kind::Shared, Kind::Lockfile)] kind: Kind,
) {
    let store = with_history(kind, 2000);
    let db = database(&store, kind);
    let at_once: Vec<_> = (0..4)
        .map(|_| start(store.joblock("prune").args(["--keep", "90d", "--json"])))
        .collect();
    let counted = |done: common::Finished| {
        let answer: serde_json::Value = serde_json::from_str(&done.expect(0).out()).unwrap();
        (
            answer["attempts"].as_i64().unwrap(),
            answer["output_bytes"].as_i64().unwrap(),
        )
    };
    let told: Vec<_> = at_once.into_iter().map(|p| counted(p.finish())).collect();
    let gone = 4000 - number(&db, "SELECT count(*) FROM runs");
    assert_eq!(told.iter().map(|(n, _)| n).sum::<i64>(), gone, "{told:?}");
    assert_eq!(
        told.iter().map(|(_, b)| b).sum::<i64>(),
        gone * 1000,
        "{told:?}"
    );
    is_sound(&db);
}

// shows: prune local, shared, lockfile
#[rstest]
fn a_run_with_a_keep_prunes_a_slice_of_its_job(
    #[values(Kind::Local, Kind::Shared, Kind::Lockfile)] kind: Kind,
) {
    let store = with_history(kind, 1000);
    let db = database(&store, kind);
    store.sh(&["--keep", "90d"], "a", "exit 0").expect(0);
    let most = i64::try_from(MOST).unwrap();
    wait_until("the slice", || ages(&db, "a").len() == 1001 - MOST);
    assert_eq!(ages(&db, "b").len(), 1000, "another job's");
    is_sound(&db);
    store.sh(&[], "a", "exit 0").expect(0);
    store.sh(&["--keep", "forever"], "a", "exit 0").expect(0);
    store.sh(&["--keep", "30d"], "b", "exit 0").expect(0);
    // the first of b is its last success until this run; at its end it is not
    wait_until("the slice", || ages(&db, "b").len() == 1001 - MOST);
    assert_eq!(
        number(&db, "SELECT count(*) FROM runs WHERE job = 'a'"),
        1003 - most
    );
}

#[rstest]
fn a_lock_file_that_is_lost_after_a_prune_costs_no_token(
    #[values(Kind::Local, Kind::Lockfile)] kind: Kind,
) {
    let store = with_history(kind, 500);
    let db = database(&store, kind);
    db.execute(
        "UPDATE runs SET started = started - ?1, ended = ended - ?1 WHERE job = 'a'",
        [400 * DAY],
    )
    .unwrap();
    prune(&store, &["a", "--keep", "90d", "--trust-clock"]).expect(0);
    assert_eq!(ages(&db, "a").len(), 2, "a success and a failure");
    let lock = match kind {
        Kind::Lockfile => store.path().join("a.lock"),
        Kind::Local | Kind::Shared => store.path().join("joblock.db.locks/a.lock"),
    };
    fs::remove_file(lock).unwrap();
    store.sh(&["--ttl", "2s"], "a", "true").expect(0);
    assert_eq!(store.rows("a").last().unwrap()["token"], 501);
}

// shows: prune local, shared, lockfile
#[rstest]
fn what_runs_stays_and_its_holder_and_its_waiter_notice_nothing(
    #[values(Kind::Local, Kind::Shared, Kind::Lockfile)] kind: Kind,
) {
    let store = with_history(kind, 2500);
    let db = database(&store, kind);
    let go = store.file("go");
    let script = format!("while ! [ -e {} ]; do sleep 0.01; done", go.display());
    let job = start(&mut store.run(&["--ttl", "10s"], "a", &["sh", "-c", &script]));
    let holder = store.holder("a");
    // begun long ago, as it were
    db.execute(
        "UPDATE runs SET started = started - ?1 WHERE outcome = 'running'",
        [4000 * DAY],
    )
    .unwrap();
    let waiter = start(&mut store.run(&["-w", "1h"], "a", &["true"]));
    let mut pruning = start(store.joblock("prune").args(["--keep", "90d"]));
    let mut others = 0;
    while !pruning.has_ended() {
        store.sh(&[], &format!("c{}", others % 3), "true").expect(0);
        others += 1;
    }
    pruning.finish().expect(0);
    assert!(others > 0);
    let running = "SELECT count(*) FROM runs WHERE outcome = 'running'";
    assert_eq!(number(&db, running), 1);
    assert!(holder.keeper.lives() && holder.guard.lives());
    fs::write(go, "").unwrap();
    job.finish().expect(0);
    waiter.finish().expect(0);
    is_sound(&db);
    let tokens: Vec<i64> = store
        .rows("a")
        .iter()
        .map(|row| row["token"].as_i64().unwrap())
        .collect();
    assert_eq!(tokens[tokens.len() - 3..], [2500, 2501, 2502]);
}

/// Neither the lock nor whoever started the run waits for the slice: its transaction is held up for a minute here.
#[test]
fn nobody_waits_for_the_slice_after_a_run() {
    let store = with_history(Kind::Local, 1000);
    let (go, over) = (store.file("go"), store.file("over"));
    let wait = format!("while ! [ -e {} ]; do sleep 0.01; done", go.display());
    let line = |options: &str| {
        let words = store.prefix("a").map(|word| format!("'{word}'")).join(" ");
        words.replace("'run'", &format!("'run' {options}"))
    };
    let strace = |inject: &str, script: &str| {
        let log = store.file("strace");
        let mut strace = store.program("strace");
        strace.args(["-f", "-qq", "-e", "trace=fdatasync", "-e", inject, "-o"]);
        strace.arg(log).args(["sh", "-c", script]);
        strace
    };
    // how many syncs a keeper needs, but for the slice; twice, since the log begins anew with the first
    let mut count = 0;
    for _ in 0..2 {
        finish(&mut strace(
            "inject=fdatasync:delay_enter=0",
            &format!("{} true", line("")),
        ))
        .expect(0);
        count = common::text(&store.file("strace"))
            .matches("fdatasync")
            .count();
    }
    let script = format!(
        "{} sh -c '{wait}'; echo $? > {}",
        line("--keep 90d"),
        over.display()
    );
    let later = format!("inject=fdatasync:delay_enter=60s:when={}+", count + 1);
    let strace = start(&mut strace(&later, &script));
    let keeper = store.holder("a").keeper;
    fs::write(go, "").unwrap();
    wait_until("the end of the run for its caller", || {
        common::text(&over) == "0\n"
    });
    assert!(
        keeper.lives(),
        "the slice is over: it was not held up, and this test shows nothing"
    );
    assert_eq!(store.json("status", &["a"])["jobs"][0]["state"], "idle");
    let lock = fs::File::open(store.path().join("joblock.db.locks/a.lock")).unwrap();
    assert!(
        fs2::FileExt::try_lock_exclusive(&lock).is_ok(),
        "the lock is free"
    );
    drop(lock);
    keeper.kill(9);
    // it would have ended after half a minute in any case, but not like this
    let said = strace.finish();
    assert!(!said.err().contains("does not answer"), "{said}");
    let db = database(&store, Kind::Local);
    is_sound(&db);
    let left = ages(&db, "a").len();
    assert!(
        left == 1003 || left == 1003 - MOST,
        "all of the slice or nothing: {left}"
    );
}

#[rstest]
fn one_killed_at_any_time_leaves_a_whole_history(#[values(Kind::Local, Kind::Shared)] kind: Kind) {
    let store = with_history(kind, 2500);
    let db = database(&store, kind);
    let mut left = number(&db, "SELECT count(*) FROM runs");
    for _ in 0..3 {
        let pruning = start(store.joblock("prune").args(["--keep", "90d"]));
        let goal = left - 200;
        let count = "SELECT count(*) FROM runs";
        wait_until("a slice", || number(&db, count) <= goal);
        pruning.process().kill(9);
        pruning.finish();
        is_sound(&db);
        left = number(&db, count);
    }
    prune(&store, &["--keep", "90d"]).expect(0);
    is_sound(&db);
    store.sh(&[], "a", "true").expect(0);
}

#[test]
fn a_slice_is_short() {
    let store = with_history(Kind::Local, 2000);
    let url = StoreUrl::Sqlite {
        path: store.path().join("joblock.db"),
        shared: false,
        server_lease: None,
    };
    let request = Prune {
        job: "a".into(),
        keep: std::time::Duration::from_secs(90 * 24 * 3600),
        now: Wall::now(),
        after: 0,
        trust_clock: false,
        dry_run: false,
    };
    let opened = open(&url, Purpose::Request, None).unwrap();
    let pruned = opened.prune(&request).unwrap();
    assert_eq!(pruned.attempts, u64::try_from(MOST).unwrap());
    let db = database(&store, Kind::Local);
    assert_eq!(ages(&db, "a").len(), 2000 - MOST);
    // 16 MiB of output at once would be a long transaction
    db.execute("UPDATE tails SET bytes = zeroblob(3000000) WHERE id IN (SELECT id FROM runs WHERE job = 'a' ORDER BY id LIMIT 2)", [])
        .unwrap();
    assert_eq!(opened.prune(&request).unwrap().attempts, 1);
}

/// The clock jumps ahead by twelve years, or all of the history is twelve years old: the same thing, seen from here.
// shows: clock-jump local, shared, lockfile
#[rstest]
fn a_clock_that_is_years_ahead_deletes_nothing(
    #[values(Kind::Local, Kind::Shared, Kind::Lockfile)] kind: Kind,
) {
    let store = with_history(kind, 300);
    let db = database(&store, kind);
    db.execute(
        "UPDATE runs SET started = started - ?1, ended = ended - ?1",
        [12 * 365 * DAY],
    )
    .unwrap();
    // the first run by the new clock, and its slice
    store.sh(&["--keep", "1000d"], "a", "true").expect(0);
    let done = prune(&store, &["--keep", "1000d"]).expect(0);
    assert!(done.out().contains("nothing to delete"), "{done}");
    // of the 300 of this job, the last failure would stay anyway (the last success is that by the new clock)
    assert!(
        done.err().contains("a: 299 attempts left alone") && done.err().contains("--trust-clock"),
        "{done}"
    );
    assert_eq!(number(&db, "SELECT count(*) FROM runs"), 601);
    // what was old by the old clock goes, also now
    prune(&store, &["--keep", "200d"]).expect(0);
    // but for the week that the history vouches for at most
    assert!((194..=195).contains(&ages(&db, "a").len()));
    // after more than a week by the new clock
    db.execute("UPDATE runs SET started = started - ?1, ended = ended - ?1 WHERE job = 'a' AND token = 301", [8 * DAY])
        .unwrap();
    let done = prune(&store, &["a", "--keep", "200d"]).expect(0);
    assert!(done.err().is_empty(), "{done}");
    let left = ages(&db, "a");
    assert!(
        left.len() == 2 && left[0] >= 12 * 365 && left[1] == 8,
        "the last failure, and the success: {left:?}"
    );
    // or if somebody says so
    prune(&store, &["b", "--keep", "200d", "--trust-clock"]).expect(0);
    assert_eq!(ages(&db, "b").len(), 2);
}

#[test]
fn two_clocks_that_contradict_each_other_delete_nothing() {
    let store = with_history(Kind::Local, 300);
    let db = database(&store, Kind::Local);
    // a's host is right; b's, which is as far ahead as this one, writes between
    db.execute(
        "UPDATE runs SET started = started - ?1, ended = ended - ?1 WHERE job = 'a'",
        [12 * 365 * DAY],
    )
    .unwrap();
    let done = prune(&store, &["a", "--keep", "1000d"]).expect(0);
    // the last success and the last failure would stay anyway
    assert!(done.err().contains("298 attempts left alone"), "{done}");
    assert_eq!(ages(&db, "a").len(), 300);
}

#[test]
fn attempts_of_the_future_are_left_alone_and_told() {
    let store = with_history(Kind::Local, 300);
    let db = database(&store, Kind::Local);
    db.execute(
        "UPDATE runs SET started = started + ?1, ended = ended + ?1 WHERE job = 'a' AND token < 10",
        [4000 * DAY],
    )
    .unwrap();
    let done = prune(&store, &["--keep", "90d"]).expect(0);
    assert!(
        done.err().contains("a: 9 attempts dated in the future"),
        "{done}"
    );
    let a = ages(&db, "a");
    assert_eq!(a.iter().filter(|age| **age < 0).count(), 9);
    assert!(a.iter().all(|age| *age < 92), "{a:?}");
}

#[test]
fn the_jobs_file_says_how_long() {
    let store = with_history(Kind::Local, 300);
    let db = database(&store, Kind::Local);
    let config = store.file("joblock.toml");
    let file = |text: &str| {
        fs::write(&config, text).unwrap();
        let mut command = store.joblock("prune");
        command.arg("--config").arg(&config);
        finish(&mut command)
    };
    let nothing = file("[jobs.a]").expect(125);
    assert!(nothing.err().contains("keep = \"90d\""), "{nothing}");
    file("keep = \"forever\"").expect(0);
    file("keep = \"100d\"\n[jobs.a]\nkeep = \"forever\"").expect(0);
    assert_eq!(ages(&db, "a").len(), 300);
    assert!((100..=103).contains(&ages(&db, "b").len()));
    // an option for all jobs is no reason to delete what somebody wants to keep
    let by_option = |arguments: &[&str]| {
        let mut command = store.joblock("prune");
        command.arg("--config").arg(&config).args(["--keep", "90d"]);
        finish(command.args(arguments))
    };
    let refused = by_option(&[]).expect(125);
    assert!(
        refused.err().contains("keeps a for ever") && ages(&db, "a").len() == 300,
        "{refused}"
    );
    by_option(&["--dry-run"]).expect(0);
    by_option(&["b"]).expect(0);
    assert_eq!(ages(&db, "a").len(), 300);
    let done = file("[jobs.a]\nkeep = \"50d\"").expect(0);
    assert!(
        done.out().starts_with("a: ") && !done.out().contains("b: "),
        "{done}"
    );
    assert!((50..=52).contains(&ages(&db, "a").len()));
    // a start takes it from there, too
    fs::write(&config, "keep = \"40d\"\n[jobs.a]\ncommand = [\"true\"]").unwrap();
    finish(store.joblock("run").arg("--config").arg(&config).arg("a")).expect(0);
    wait_until("the slice", || ages(&db, "a").len() <= 42);
}

#[test]
fn mistakes_are_answered() {
    let store = with_history(Kind::Local, 3);
    let unknown = prune(&store, &["aa", "--keep", "90d"]).expect(125);
    assert!(unknown.err().contains("did you mean \"a\"?"), "{unknown}");
    prune(&store, &["--keep", "0"]).expect(125);
    let no_unit = prune(&store, &["--keep", "90"]).expect(125);
    assert!(no_unit.err().contains("write 90d for days"), "{no_unit}");
    assert_eq!(ages(&database(&store, Kind::Local), "a").len(), 3);
    let other = Store::local();
    let none = prune(&other, &["--keep", "90d"]).expect(69);
    assert!(none.err().contains("no store there yet"), "{none}");
    assert!(!other.path().join("joblock.db").exists(), "it is not made");
    // damage is an error, and not a reason to delete
    let path = store.path().join("joblock.db");
    let db = database(&store, Kind::Local);
    db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        .unwrap();
    drop(db);
    let file = fs::File::options().write(true).open(path).unwrap();
    file.write_all_at(&[0xff; 4000], 4096).unwrap();
    prune(&store, &["--keep", "90d"]).expect(69);
}
