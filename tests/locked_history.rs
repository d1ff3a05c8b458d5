//! A `lockfile:` store's history that somebody keeps locked in the midst of a commit: a stopped process, or a machine that lost its
//! power. Jobs run, nobody forgets what the history says, and what they did is written later.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rstest::rstest;
use serde_json::Value;

use common::{Holder, Kind, Running, Shell, Store, finish, joblock, start, wait_until};

/// Half of a transaction is in the database's file, and the other half in the journal.
const HALF: &str = "PRAGMA cache_size = 2; BEGIN IMMEDIATE; UPDATE runs SET outcome = 'lost', token = token + 100;
    UPDATE locks SET token = token + 100; CREATE TABLE much AS
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200) SELECT i, randomblob(3000) FROM n;
    SELECT 'half';\n";

/// Somebody who is stuck in the midst of a commit. Dropped, it is killed, and what it wrote is rolled back by whoever comes next.
fn half_a_commit(database: &Path) -> Shell {
    let before = fs::metadata(database).expect("a database").len();
    let (shell, line) = Shell::after(database, HALF);
    assert_eq!(line, "half\n");
    assert!(fs::metadata(database).expect("a database").len() > before + 100_000);
    assert!(database.with_extension("db-journal").exists());
    shell
}

/// Has sqlite3 do it to the history; what it says.
#[track_caller]
fn sql(store: &Store, statements: &str) -> String {
    let mut sqlite3 = store.program("sqlite3");
    let done = finish(sqlite3.arg(history(store)).arg(statements)).expect(0);
    done.out().trim().to_owned()
}

fn history(store: &Store) -> PathBuf {
    store.path().join("history.db")
}

/// A run of `sync` that lasts until the file is there.
fn waits_for_go(store: &Store, and_then: &str) -> (Running, PathBuf) {
    let go = store.file("go");
    let script = format!(
        "until [ -e {} ]; do sleep 0.02; done{and_then}",
        go.display()
    );
    let run = start(&mut store.run(&[], "sync", &["sh", "-c", &script]));
    (run, go)
}

fn spooled(store: &Store) -> usize {
    fs::read_dir(store.path().join("spool")).map_or(0, Iterator::count)
}

/// Token and outcome of each of a job's runs, the oldest first.
fn told(store: &Store, job: &str) -> Vec<(u64, String)> {
    let fact = |row: &Value| Some((row["token"].as_u64()?, row["outcome"].as_str()?.to_owned()));
    store.rows(job).iter().filter_map(fact).collect()
}

fn are(outcomes: &[&str]) -> Vec<(u64, String)> {
    (1..)
        .zip(outcomes.iter().map(|&outcome| outcome.to_owned()))
        .collect()
}

// shows: history-locked-by-the-dead lockfile
#[test]
fn a_commit_that_somebody_is_stuck_in_keeps_no_job_from_running_and_hides_nothing() {
    let store = Store::new(Kind::Lockfile);
    let temporary = store.file("tmp");
    fs::create_dir(&temporary).expect("a folder");
    let with = |mut command: Command| finish(command.env("TMPDIR", &temporary));
    store.sh(&[], "sync", "true").expect(0);
    store.sh(&[], "sync", "exit 3").expect(3);
    store.sh(&["--lock", "theirs"], "other", "true").expect(0);
    let id = store.json("doctor", &[])["store"]["id"]
        .as_str()
        .map(str::to_owned);
    let stuck = half_a_commit(&history(&store));

    let ran = with(store.run(&[], "sync", &["sh", "-c", "echo token $JOBLOCK_TOKEN"])).expect(0);
    assert_eq!(ran.out(), "token 3\n", "{ran}");
    assert!(ran.err().contains("the end of this run waits in"), "{ran}");
    assert!(
        ran.err().contains("kept locked by another process"),
        "{ran}"
    );
    assert_eq!(
        told(&store, "sync"),
        are(&["succeeded", "failed", "succeeded"])
    );
    // what the history is asked for before a start is asked for all the same
    let fresh = with(store.run(
        &["-v", "--unless-succeeded-within", "1h"],
        "sync",
        &["false"],
    ))
    .expect(0);
    assert!(fresh.err().contains("skipped: sync succeeded"), "{fresh}");
    let other = with(store.run(&[], "other", &["true"])).expect(125);
    assert!(
        other.err().contains("ran under the lock theirs before"),
        "{other}"
    );
    let doctor = finish(&mut store.joblock("doctor")).expect(69);
    assert!(
        doctor.out().contains("kept locked by another process"),
        "{doctor}"
    );
    assert_eq!(
        store.json("status", &["sync"])["jobs"][0]["last_run"]["outcome"],
        "succeeded"
    );
    assert_eq!(fs::read_dir(&temporary).expect("a folder").count(), 0);
    assert!(spooled(&store) > 0);
    assert!(id.is_none_or(|id| !id.is_empty()));

    drop(stuck);
    store.sh(&[], "sync", "exit 4").expect(4);
    assert_eq!(spooled(&store), 0);
    assert_eq!(
        told(&store, "sync"),
        are(&["succeeded", "failed", "succeeded", "failed"])
    );
    let again = ["-v", "--unless-succeeded-within", "1h"];
    let ran = store.sh(&again, "sync", "echo ran").expect(0);
    assert_eq!(ran.out(), "ran\n", "the newest run failed: {ran}");
    assert_eq!(store.outcomes("other"), ["succeeded", "not-started"]);
}

/// A store of an older joblock gets what is new when it can be written; until then its copy has it.
#[test]
fn a_history_of_an_older_version_is_read_as_well() {
    let store = Store::new(Kind::Lockfile);
    store.sh(&[], "sync", "true").expect(0);
    sql(
        &store,
        "ALTER TABLE runs DROP COLUMN unsafe_mount; ALTER TABLE runs DROP COLUMN redacted; DROP TABLE unswept;",
    );
    let stuck = half_a_commit(&history(&store));
    store.sh(&[], "sync", "exit 3").expect(3);
    assert_eq!(told(&store, "sync"), are(&["succeeded", "failed"]));
    drop(stuck);
    store.sh(&[], "sync", "true").expect(0);
    assert_eq!(
        told(&store, "sync"),
        are(&["succeeded", "failed", "succeeded"])
    );
}

/// What its log holds is not in the copy: it might tell of less than was committed.
#[test]
fn a_history_with_a_write_ahead_log_is_not_copied() {
    let store = Store::new(Kind::Lockfile);
    store.sh(&[], "sync", "true").expect(0);
    // its log is folded in and gone when the last one closes it
    sql(&store, "PRAGMA journal_mode = wal;");
    let (stuck, line) = Shell::after(
        &history(&store),
        "PRAGMA locking_mode = exclusive; BEGIN EXCLUSIVE; UPDATE runs SET token = 2;\n",
    );
    assert_eq!(line, "exclusive\n");
    // of whose file the lock is, it is only known when it was taken
    let log = history(&store).with_extension("db-wal");
    wait_until("its log", || log.exists());
    let refused = store.sh(&["-n"], "sync", "echo ran").expect(69);
    assert_eq!(refused.out(), "");
    assert!(
        refused.err().contains("the job was not started"),
        "{refused}"
    );
    drop(stuck);
}

/// What they know of the history is not older than the history.
#[test]
fn who_began_while_the_history_was_locked_goes_on_with_it_when_it_is_free() {
    let store = Store::new(Kind::Lockfile);
    store.sh(&[], "sync", "true").expect(0);
    let stuck = half_a_commit(&history(&store));
    let (holder, go) = waits_for_go(&store, "");
    wait_until("a begin in the spool", || spooled(&store) == 1);
    let waiter = start(&mut store.run(
        &["-w", "1m"],
        "sync",
        &["sh", "-c", "echo token $JOBLOCK_TOKEN"],
    ));
    wait_until("a waiter", || {
        store.json("status", &["sync"])["jobs"][0]["waiting"] == 1
    });
    drop(stuck);
    fs::write(&go, "").expect("go");
    let held = holder.finish().expect(0);
    assert_eq!(held.err(), "", "{held}");
    assert_eq!(waiter.finish().expect(0).out(), "token 3\n");
    assert_eq!(spooled(&store), 0);
    assert_eq!(told(&store, "sync"), are(&["succeeded"; 3]));
}

/// The copy is for nobody else's eyes, and nothing is read of the temporary files once it is gone, where anybody may put others.
#[test]
fn nobody_else_reads_the_copy_or_puts_another_in_its_place() {
    let store = Store::new(Kind::Lockfile);
    store.sh(&[], "sync", "echo secret").expect(0);
    let stuck = half_a_commit(&history(&store));
    let (calls, temporary) = (store.file("calls"), store.file("tmp"));
    fs::create_dir(&temporary).expect("a folder");
    let mut strace = store.program("strace");
    strace.args(["-f", "-e", "trace=%file", "-o"]).arg(&calls);
    strace.args([joblock(), "status", "--store", store.url(), "sync"]);
    let told = finish(strace.env("TMPDIR", &temporary)).expect(0);
    assert!(told.out().contains("sync"), "{told}");
    let calls = fs::read_to_string(&calls).expect("the calls");
    let folder = format!("{}/joblock-", temporary.display());
    let of_copy: Vec<_> = calls.lines().filter(|l| l.contains(&folder)).collect();
    let made = of_copy
        .iter()
        .find(|l| l.contains("mkdir"))
        .expect("a folder");
    assert!(made.contains("0700"), "{made}");
    let created = of_copy.iter().filter(|l| l.contains("O_CREAT|O_EXCL"));
    let created: Vec<_> = created.collect();
    assert_eq!(created.len(), 2, "{of_copy:#?}");
    assert!(created.iter().all(|l| l.contains("0600")), "{created:#?}");
    let removed = of_copy
        .iter()
        .rposition(|l| l.contains("rmdir(") || l.contains("AT_REMOVEDIR"));
    assert_eq!(removed, Some(of_copy.len() - 1), "{of_copy:#?}");
    drop(stuck);
}

/// What waits in the spool is as good as what stands in the history.
#[test]
fn a_run_that_waits_in_the_spool_can_be_asked_for_and_stopped() {
    let store = Store::new(Kind::Lockfile);
    store.sh(&[], "sync", "true").expect(0);
    let stuck = half_a_commit(&history(&store));
    let other = start(&mut store.run(&[], "other", &["sh", "-c", "echo words; exec sleep 1000"]));
    Holder::of_front(other.process());
    let id = store.rows("other")[0]["run_id"].clone();
    let id = id.as_str().expect("an id").to_owned();
    let ask = |verb: &str, args: &[&str]| finish(store.joblock(verb).args(args));
    ask("show", &[&id[..8]]).expect(0);
    ask("stop", &["--reason", "enough", "other"]).expect(0);
    other.finish();
    assert_eq!(ask("logs", &["other"]).expect(0).out(), "words\n");
    assert_eq!(store.outcomes("other"), ["stopped"]);
    drop(stuck);
    store.sh(&[], "sync", "true").expect(0);
    assert_eq!(store.outcomes("other"), ["stopped"]);
    assert_eq!(ask("logs", &["other"]).expect(0).out(), "words\n");
}

/// The newest run is the newest, wherever its begin waited.
#[test]
fn what_waited_comes_into_the_history_before_what_was_later() {
    let store = Store::new(Kind::Lockfile);
    store.sh(&[], "sync", "true").expect(0);
    let stuck = half_a_commit(&history(&store));
    store.sh(&[], "sync", "true").expect(0);
    let (last, go) = waits_for_go(&store, "; exit 3");
    wait_until("its begin in the spool", || spooled(&store) == 3);
    drop(stuck);
    fs::write(&go, "").expect("go");
    last.finish().expect(3);
    assert_eq!(
        told(&store, "sync"),
        are(&["succeeded", "succeeded", "failed"])
    );
    let again = store.sh(&["--unless-succeeded-within", "1h"], "sync", "echo ran");
    assert_eq!(again.expect(0).out(), "ran\n");
}

/// Nor does it hold up those who had the history open already.
#[test]
fn who_waits_goes_on_when_the_history_is_locked_meanwhile() {
    let store = Store::new(Kind::Lockfile);
    let (holder, go) = waits_for_go(&store, "");
    store.holder("sync");
    let command = ["sh", "-c", "echo token $JOBLOCK_TOKEN"];
    let waiter = start(&mut store.run(&["-w", "1m"], "sync", &command));
    wait_until("a waiter", || {
        store.json("status", &["sync"])["jobs"][0]["waiting"] == 1
    });
    let stuck = half_a_commit(&history(&store));
    fs::write(&go, "").expect("go");
    let held = holder.finish().expect(0);
    assert!(
        held.err().contains("the end of this run waits in"),
        "{held}"
    );
    assert_eq!(waiter.finish().expect(0).out(), "token 2\n");
    drop(stuck);
    store.sh(&[], "sync", "true").expect(0);
    assert_eq!(told(&store, "sync"), are(&["succeeded"; 3]));
    assert_eq!(spooled(&store), 0);
}

/// A run whose begin waited in the spool, and whose end could be written nowhere, is over once others ran after it; be it that its
/// begin comes into the history with the next one, or after others.
#[rstest]
#[case::at_once(false, "succeeded,abandoned,succeeded,succeeded")]
#[case::late(true, "succeeded,succeeded,succeeded,abandoned,succeeded")]
fn a_run_whose_end_was_lost_meanwhile_does_not_run_for_ever(
    #[case] late: bool,
    #[case] outcomes: &str,
) {
    let store = Store::new(Kind::Lockfile);
    store.sh(&[], "sync", "true").expect(0);
    let stuck = half_a_commit(&history(&store));
    let (spool, away) = (store.path().join("spool"), store.file("away"));
    let script = format!(
        "mv {spool} {away} && echo > {spool}",
        spool = spool.display(),
        away = away.display()
    );
    let lost = store.sh(&[], "sync", &script).expect(0);
    assert!(lost.err().contains("could NOT be recorded"), "{lost}");
    fs::remove_file(&spool).expect("what stands in its place");
    if !late {
        fs::rename(&away, &spool).expect("it is back");
    }
    store.sh(&[], "sync", "true").expect(0);
    drop(stuck);
    store.sh(&[], "sync", "true").expect(0);
    if late {
        for file in fs::read_dir(&away).expect("a folder").flatten() {
            fs::rename(file.path(), spool.join(file.file_name())).expect("it is back");
        }
        store.sh(&[], "sync", "true").expect(0);
    }
    let stands = sql(&store, "SELECT outcome FROM runs ORDER BY id").replace('\n', ",");
    assert_eq!(stands, outcomes);
}
