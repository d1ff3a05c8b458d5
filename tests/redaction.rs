//! `--redact` hides parts of the command before anything is stored or printed, and the environment is never stored: looked
//! for in every byte of every file of the store, while the job runs, after it, and where its end had to be spooled.

mod common;

use std::fs;
use std::path::Path;

use common::{Kind, Store, finish, start, wait_until};
use rstest::rstest;
use rusqlite::Connection;

/// In the command, hidden.
const SECRET: &str = "hunter2-in-the-command";
/// In the environment, under several names.
const OF_ENVIRONMENT: &str = "hunter2-in-the-environment";

fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("the store's folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if let Ok(bytes) = fs::read(&path) {
            found.push((path.display().to_string(), bytes));
        }
    }
    found
}

fn holds(bytes: &[u8], word: &str) -> bool {
    bytes.windows(word.len()).any(|w| w == word.as_bytes())
}

/// Where `word` stands in the store.
fn places(store: &Store, word: &str) -> Vec<String> {
    let files = files(&store.path());
    assert!(files.len() > 2, "{files:?}");
    let with = files.into_iter().filter(|(_, bytes)| holds(bytes, word));
    with.map(|(path, _)| path).collect()
}

#[track_caller]
fn keeps_secrets(store: &Store, when: &str) {
    for secret in [SECRET, OF_ENVIRONMENT] {
        assert_eq!(
            places(store, secret),
            Vec::<String>::new(),
            "{secret} {when}"
        );
    }
}

fn with_secrets(store: &Store, options: &[&str], script: &str) -> std::process::Command {
    let argument = format!("--password={SECRET}");
    let mut run = store.run(options, "a", &["sh", "-c", script, "sh", &argument]);
    run.env("PGPASSWORD", OF_ENVIRONMENT)
        .env("JOBLOCK_SECRET", OF_ENVIRONMENT)
        .env("TOKEN_OF_SOMETHING", OF_ENVIRONMENT);
    run
}

const HIDE: [&str; 2] = ["--redact", "password=(.*)"];

#[rstest]
fn secrets_stand_nowhere_in_the_store(
    #[values(Kind::Local, Kind::Shared, Kind::Lockfile)] kind: Kind,
) {
    let store = Store::new(kind);
    let (go, got) = (store.file("go"), store.file("got"));
    let script = format!(
        "echo \"$1 $PGPASSWORD\" > {}; while ! [ -e {} ]; do sleep 0.01; done; exit 3",
        got.display(),
        go.display()
    );
    let running = start(&mut with_secrets(&store, &HIDE, &script));
    store.holder("a");
    keeps_secrets(&store, "while it runs");
    // the search finds what is there
    assert!(!places(&store, "--password=***").is_empty());
    let refused = finish(&mut with_secrets(
        &store,
        &[&HIDE[..], &["-v"]].concat(),
        "true",
    ))
    .expect(75);
    keeps_secrets(&store, "after a refusal");
    fs::write(go, "").unwrap();
    let ended = running.finish().expect(3);
    keeps_secrets(&store, "after it");
    for said in [ended.err(), refused.err()] {
        assert!(!said.contains(SECRET), "{said}");
    }
    // the job itself got everything as it was
    let got = common::text(&got);
    assert_eq!(got.trim(), format!("--password={SECRET} {OF_ENVIRONMENT}"));
    let row = store.rows("a").remove(0);
    assert_eq!(row["redacted"], true);
    assert_eq!(row["command"][4], "--password=***");
    let shown = finish(store.joblock("show").arg("a"));
    assert!(
        shown.out().contains("***") && shown.out().contains("redacted"),
        "{shown}"
    );
}

#[rstest]
fn a_record_that_is_spooled_keeps_them_too(#[values(Kind::Local, Kind::Lockfile)] kind: Kind) {
    let store = Store::new(kind);
    store.sh(&[], "b", "true").expect(0);
    let go = store.file("go");
    let script = format!("while ! [ -e {} ]; do sleep 0.01; done", go.display());
    let running = start(&mut with_secrets(&store, &HIDE, &script));
    store.holder("a");
    let (name, spool) = match kind {
        Kind::Lockfile => ("history.db", "spool"),
        Kind::Local | Kind::Shared => ("joblock.db", "joblock.db.spool"),
    };
    let db = Connection::open(store.path().join(name)).unwrap();
    wait_until("the database to be ours", || {
        db.execute_batch("BEGIN IMMEDIATE").is_ok()
    });
    fs::write(go, "").unwrap();
    let ended = running.finish().expect(0);
    assert!(
        ended.err().contains("the end of this run waits in"),
        "{ended}"
    );
    let spooled = files(&store.path().join(spool));
    assert!(
        spooled
            .iter()
            .any(|(_, bytes)| holds(bytes, "redacted\":true")),
        "{spooled:?}"
    );
    keeps_secrets(&store, "in the spool");
    db.execute_batch("ROLLBACK").unwrap();
    store.sh(&[], "b", "true").expect(0);
    keeps_secrets(&store, "folded in");
    assert_eq!(store.rows("a")[0]["redacted"], true);
}

#[test]
fn a_redacted_run_is_run_again_from_the_jobs_file_or_not_at_all() {
    let store = Store::local();
    finish(&mut with_secrets(&store, &HIDE, "exit 3")).expect(3);
    let refused = finish(store.joblock("rerun").arg("a")).expect(125);
    assert!(
        refused.err().contains("joblock run a -- COMMAND") && refused.err().contains("jobs file"),
        "{refused}"
    );
    assert_eq!(store.rows("a").len(), 1, "nothing was run");
    let config = store.file("joblock.toml");
    fs::write(&config, "[jobs.a]\ncommand = [\"sh\", \"-c\", \"exit 4\"]").unwrap();
    finish(store.joblock("rerun").arg("--config").arg(&config).arg("a")).expect(4);
    // of which nothing was hidden
    finish(&mut store.run(&["--redact", "nothing"], "b", &["sh", "-c", "exit 5"])).expect(5);
    finish(store.joblock("rerun").arg("b")).expect(5);
}

#[test]
fn patterns_of_the_jobs_file_are_added_to_each_other() {
    let store = Store::local();
    let config = store.file("joblock.toml");
    let file = "redact = ['top-(\\w+)']\n[jobs.a]\nredact = ['job-(\\w+)']\ncommand = ['true', 'top-1', 'job-2', 'line-3']\n[jobs.b]";
    fs::write(&config, file).unwrap();
    let run = |arguments: &[&str]| {
        let mut run = store.joblock("run");
        run.arg("--config").arg(&config).args(arguments);
        finish(&mut run)
    };
    let command = |job: &str| store.rows(job).pop().unwrap()["command"].clone();
    run(&["a", "--redact", "line-(.)"]).expect(0);
    assert_eq!(
        command("a"),
        serde_json::json!(["true", "top-***", "job-***", "line-***"])
    );
    run(&["b", "--", "true", "top-1", "job-2"]).expect(0);
    assert_eq!(
        command("b"),
        serde_json::json!(["true", "top-***", "job-2"])
    );
    // what is only shown is hidden as well
    let explained = run(&["--explain", "a"]).expect(0);
    assert!(
        explained.out().contains("job-***") && !explained.out().contains("job-2"),
        "{explained}"
    );
    let missing = run(&["b", "--redact", "miss(ing)", "--", "/no/missing"]).expect(127);
    assert!(missing.err().contains("can't run /no/miss***"), "{missing}");
}

#[test]
fn a_bad_pattern_is_a_mistake_with_its_place() {
    let store = Store::local();
    let refused = finish(&mut store.run(&["--redact", "pass(word"], "a", &["true"])).expect(125);
    assert!(
        refused.err().contains("at character 5: unclosed group"),
        "{refused}"
    );
    let config = store.file("joblock.toml");
    fs::write(&config, "[jobs.a]\nredact = ['fine', '[']").unwrap();
    let refused = finish(
        store
            .joblock("run")
            .arg("--config")
            .arg(&config)
            .args(["a", "--", "true"]),
    )
    .expect(125);
    assert!(
        refused.err().contains("joblock.toml:2: jobs.a.redact: ")
            && refused.err().contains("at character 1"),
        "{refused}"
    );
}

/// A store of before there was redaction: read as it is, and made new by the first run.
#[rstest]
fn an_older_store_is_read_and_then_written(
    #[values(Kind::Local, Kind::Shared, Kind::Lockfile)] kind: Kind,
) {
    let store = Store::new(kind);
    store.sh(&[], "a", "exit 3").expect(3);
    let name = if matches!(kind, Kind::Lockfile) {
        "history.db"
    } else {
        "joblock.db"
    };
    let db = Connection::open(store.path().join(name)).unwrap();
    db.execute_batch("ALTER TABLE runs DROP COLUMN redacted")
        .unwrap();
    assert_eq!(store.rows("a")[0]["redacted"], false);
    let starts: Vec<_> = ["b", "c", "d", "e"]
        .map(|job| start(&mut store.run(&HIDE, job, &["true", "password=x"])))
        .into();
    for run in starts {
        run.finish().expect(0);
    }
    assert_eq!(store.rows("b")[0]["redacted"], true);
    finish(store.joblock("rerun").arg("a")).expect(3);
}
