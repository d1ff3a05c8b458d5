//! The commands that read tell what the store knows: to people as text, to programs as the JSON of docs/json.md.

mod records;

use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant};

use joblock::store::record::{Outcome, Tail, Trigger};
use joblock::supervise::process;
use records::{Past, Went};
use serde_json::{Value, json};

const MINUTE: i64 = 60;
const HOUR: i64 = 3_600;

/// The fields of an object that docs/json.md names in a section's table.
fn documented(section: &str) -> Vec<String> {
    let text = include_str!("../docs/json.md");
    let (_, rest) = text
        .split_once(&format!("### {section}\n"))
        .expect("the section is there");
    let table = rest.split("\n#").next().unwrap_or(rest);
    let firsts = table
        .lines()
        .filter(|l| l.starts_with("| `"))
        .filter_map(|l| l.split('|').nth(1));
    firsts
        .flat_map(|cell| {
            cell.split(',')
                .map(|f| f.trim().trim_matches('`').to_owned())
        })
        .collect()
}

fn keys(value: &Value) -> Vec<String> {
    let mut keys: Vec<String> = value
        .as_object()
        .expect("an object")
        .keys()
        .cloned()
        .collect();
    keys.sort();
    keys
}

fn sorted(mut keys: Vec<String>) -> Vec<String> {
    keys.sort();
    keys
}

#[test]
fn history_lists_attempts_newest_first_with_everything_that_people_ask_for() {
    let past = Past::local();
    past.ran("sync", &Went::new(Outcome::Succeeded, 2 * HOUR));
    past.ran(
        "sync",
        &Went::new(Outcome::Failed, 3 * MINUTE)
            .on("blue")
            .by(Trigger::Operator),
    );
    let text = past.text(&["history"]);
    let rows: Vec<&str> = text.lines().skip(1).collect();
    assert_eq!(rows.len(), 2, "{text}");
    for part in [
        "sync",
        "failed (exit 3)",
        "(3 min ago)",
        "1.0 s",
        "blue",
        "operator",
        "root (sudo: ann)",
        "2",
    ] {
        assert!(rows[0].contains(part), "{part} is missing in {:?}", rows[0]);
    }
    assert!(
        rows[1].contains("succeeded") && rows[1].contains("(2 h ago)"),
        "{}",
        rows[1]
    );
    assert!(!text.contains('\x1b'), "no colour in a pipe");
}

#[test]
fn history_says_who_held_the_lock_of_a_refused_attempt() {
    let past = Past::local();
    let (record, _grant) = past.begin("sync", &Went::new(Outcome::Running, HOUR));
    let holder = Past::holder(&record, process::own());
    past.attempted(
        "sync",
        &Went::new(Outcome::Refused, 60)
            .on("blue")
            .by(Trigger::Startup),
        Some(holder),
    );
    let text = past.text(&["history", "--outcome", "refused"]);
    assert!(
        text.contains("held by green") && text.contains("startup") && text.contains("blue"),
        "{text}"
    );
    let value = past.json(&["history", "--outcome", "refused"]);
    assert_eq!(value["runs"][0]["held_by"]["host"], "green");
    assert_eq!(
        value["runs"][0]["held_by"]["run_id"],
        record.run_id.as_str()
    );
}

#[test]
fn history_can_be_narrowed() {
    let past = Past::local();
    past.ran("sync", &Went::new(Outcome::Succeeded, 30 * HOUR));
    past.ran("sync", &Went::new(Outcome::Failed, 5 * HOUR).on("blue"));
    past.ran(
        "mail",
        &Went::new(Outcome::Succeeded, 2 * HOUR).by(Trigger::Operator),
    );
    let count = |args: &[&str]| {
        past.json(&[&["history"], args].concat())["runs"]
            .as_array()
            .map_or(0, Vec::len)
    };
    assert_eq!(count(&[]), 3);
    assert_eq!(count(&["sync"]), 2);
    assert_eq!(count(&["-n", "1"]), 1);
    assert_eq!(count(&["-n", "0"]), 3);
    assert_eq!(count(&["--since", "10h"]), 2);
    assert_eq!(count(&["--until", "10h"]), 1);
    assert_eq!(count(&["--outcome", "failed,lost"]), 1);
    assert_eq!(count(&["--host", "blue"]), 1);
    assert_eq!(count(&["--trigger", "operator"]), 1);
    assert_eq!(count(&["--trigger", "startup"]), 0);
}

#[test]
fn the_json_of_a_run_has_the_fields_that_are_documented_and_no_others() {
    let past = Past::local();
    past.ran("sync", &Went::new(Outcome::Failed, HOUR));
    let value = past.json(&["history"]);
    let run = &value["runs"][0];
    assert_eq!(keys(run), sorted(documented("run")));
    assert_eq!(run["outcome"], "failed");
    assert_eq!(run["exit_code"], 3);
    assert_eq!(run["token"], 1);
    assert_eq!(run["command"], json!(["sync", "all people"]));
    assert_eq!(run["tags"], json!({"team": "search"}));
    assert_eq!(
        run["who"],
        json!({"uid": 0, "user": "root", "sudo_user": "ann", "terminal": null})
    );
    assert_eq!(run["duration_seconds"], 1.0);
    assert_eq!(run["cpu_seconds"], 0.25);
}

#[test]
fn status_says_who_runs_what_where_and_since_when() {
    let past = Past::local();
    past.jobs_file("[jobs.nightly]\ncommand = [\"true\"]\nschedule = \"29 1 * * *\"\n");
    past.ran("sync", &Went::new(Outcome::Succeeded, 5 * HOUR));
    let (record, mut grant) = past.begin("sync", &Went::new(Outcome::Running, 3 * MINUTE));
    grant.renew().expect("a heartbeat");
    let text = past.text(&["status"]);
    let line = |job: &str| {
        text.lines()
            .find(|l| l.starts_with(job))
            .unwrap_or_else(|| panic!("no {job} in {text}"))
    };
    let pid = process::own().pid.to_string();
    for part in [
        "running",
        "3 min ago",
        "on green",
        &pid,
        "root (sudo: ann)",
        "schedule",
        record.run_id.short(),
        "token 2",
        "heartbeat",
        "4 h ago",
    ] {
        assert!(
            line("sync").contains(part),
            "{part} is missing in {:?}",
            line("sync")
        );
    }
    assert!(
        line("nightly").contains("never ran") && line("nightly").contains("in "),
        "{}",
        line("nightly")
    );
    assert!(
        text.contains(&format!("store {}", past.url)) && text.contains("local"),
        "{text}"
    );
}

#[test]
fn a_plan_has_the_parts_that_are_documented() {
    let past = Past::local();
    past.jobs_file(
        "store-id = \"0b7e2d0e-6f0a-4c55-9a55-2f6d3b1f2a10\"\n[jobs.sync]\ncommand = [\"true\"]\nreason = \"nightly\"\n",
    );
    let answer = past.json(&["run", "--explain", "sync"]);
    assert_eq!(keys(&answer), ["plan", "version"]);
    assert_eq!(
        keys(&answer["plan"]),
        sorted(documented("The plan of `run --explain --json`"))
    );
    for part in answer["plan"].as_object().expect("parts").values() {
        assert_eq!(keys(part), ["source", "value"]);
    }
}

#[test]
fn every_answer_has_the_fields_that_are_documented_for_it() {
    let past = Past::local();
    past.ran("sync", &Went::new(Outcome::Succeeded, HOUR).saying(b"x", 1));
    let documented = include_str!("../docs/json.md");
    let answers = documented.split_once("## Answers").expect("the section").1;
    for (args, fields) in [
        (&["history"][..], &["runs"][..]),
        (&["show", "sync"], &["run", "output"]),
        (&["logs", "sync"], &["run_id", "job", "outcome", "output"]),
        (&["status"], &["store", "jobs"]),
        (&["check"], &["status", "exit_code", "error", "jobs"]),
        (&["doctor"], &["store", "verdict", "findings", "peer"]),
    ] {
        let expected = fields
            .iter()
            .chain(&["version"])
            .map(ToString::to_string)
            .collect();
        assert_eq!(keys(&past.json(args)), sorted(expected), "{args:?}");
        let row = answers
            .lines()
            .find(|l| l.starts_with(&format!("| `{}`", args[0])))
            .expect("a row");
        assert!(
            fields.iter().all(|f| row.contains(&format!("`{f}`"))),
            "{row}"
        );
    }
}

#[test]
fn status_in_json_has_the_documented_fields() {
    let past = Past::local();
    let (_, _grant) = past.begin("sync", &Went::new(Outcome::Running, MINUTE));
    let value = past.json(&["status", "sync"]);
    let job = &value["jobs"][0];
    assert_eq!(job["state"], "running");
    assert_eq!(keys(&job["lock"]), sorted(documented("lock")));
    assert_eq!(job["lock"]["holder"]["host"], "green");
    assert_eq!(job["last_run"]["outcome"], "running");
    assert_eq!(
        keys(job),
        [
            "job",
            "last_run",
            "last_success",
            "lock",
            "next_due",
            "schedule",
            "state",
            "waiting"
        ]
    );
    assert_eq!(
        keys(&value["store"]),
        ["file_system", "format", "id", "kind", "url"]
    );
    assert_eq!(value["store"]["kind"], "local");
}

#[test]
fn a_run_whose_processes_are_gone_shows_as_abandoned() {
    let past = Past::local();
    let (record, grant) = past.begin_as("sync", &Went::new(Outcome::Running, MINUTE), Past::gone());
    drop(grant);
    assert_eq!(past.json(&["status"])["jobs"][0]["state"], "abandoned");
    assert_eq!(past.json(&["history"])["runs"][0]["outcome"], "abandoned");
    assert_eq!(
        past.json(&["show", record.run_id.as_str()])["run"]["outcome"],
        "abandoned"
    );
}

#[test]
fn a_job_that_nobody_knows_is_answered_with_a_guess() {
    let past = Past::local();
    past.ran("person-sync", &Went::new(Outcome::Succeeded, HOUR));
    for verb in ["status", "history", "show", "logs"] {
        let output = past
            .joblock(&[verb, "persn-sync"])
            .output()
            .expect("it starts");
        assert_eq!(output.status.code(), Some(125), "{verb}: {output:?}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            said.starts_with("joblock: ") && said.contains("\"person-sync\""),
            "{verb}: {said}"
        );
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn a_job_of_the_jobs_file_that_has_not_run_yet_is_no_error_for_status() {
    let past = Past::local();
    past.jobs_file("[jobs.nightly]\ncommand = [\"true\"]\n");
    assert!(past.text(&["status", "nightly"]).contains("never ran"));
    past.joblock(&["history", "nightly"])
        .assert()
        .code(0)
        .stdout("");
    past.joblock(&["show", "nightly"]).assert().code(125);
}

#[test]
fn show_finds_a_run_by_six_digits_and_a_jobs_last_run_by_its_name() {
    let past = Past::local();
    let first = past.ran(
        "sync",
        &Went::new(Outcome::Failed, 2 * HOUR).saying(b"no such index\n", 14),
    );
    let second = past.ran("sync", &Went::new(Outcome::Succeeded, HOUR));
    let by_digits = past.text(&["show", first.run_id.short()]);
    for part in [
        first.run_id.as_str(),
        "failed (exit 3)",
        "the nightly run",
        "team=search",
        "sync 'all people'",
        "  no such index",
    ] {
        assert!(by_digits.contains(part), "{part} is missing:\n{by_digits}");
    }
    assert_eq!(
        past.json(&["show", "sync"])["run"]["run_id"],
        second.run_id.as_str()
    );
    assert_eq!(
        past.json(&["show", first.run_id.as_str()])["output"]["text"],
        "no such index\n"
    );
}

#[test]
fn digits_that_could_mean_several_runs_list_them() {
    let past = Past::local();
    let ids = ["abcdef0000000001", "abcdef0000000002"];
    for id in ids {
        let mut record = Past::record("sync", &Went::new(Outcome::Fresh, HOUR));
        record.run_id = id.parse().expect("a run id");
        let attempted = joblock::store::record::Attempted {
            outcome: Outcome::Fresh,
            held_by: None,
            note: None,
        };
        past.store
            .attempted(&record, &attempted)
            .expect("it is written");
    }
    let output = past
        .joblock(&["show", "abcdef", "--json"])
        .output()
        .expect("it starts");
    assert_eq!(output.status.code(), Some(125));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(ids.iter().all(|id| said.contains(id)), "{said}");
    assert!(
        output.stdout.is_empty(),
        "nothing that a program could take for an answer"
    );
    past.joblock(&["show", "abcdef0000000002"]).assert().code(0);
}

#[test]
fn logs_come_out_byte_for_byte() {
    let past = Past::local();
    let odd = b"\x00\xff\r\n\x1b[31mred\nno line feed at the end";
    past.ran(
        "sync",
        &Went::new(Outcome::Succeeded, HOUR).saying(odd, odd.len() as u64),
    );
    past.joblock(&["logs", "sync"])
        .assert()
        .code(0)
        .stdout(&odd[..])
        .stderr("");
}

#[test]
fn logs_say_on_stderr_that_the_beginning_is_missing() {
    let past = Past::local();
    past.ran(
        "sync",
        &Went::new(Outcome::Succeeded, HOUR).saying(b"the end\n", 5_008),
    );
    let output = past.joblock(&["logs", "sync"]).output().expect("it starts");
    assert_eq!(output.stdout, b"the end\n");
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("first 5000 bytes"),
        "{output:?}"
    );
    let value = past.json(&["logs", "sync"]);
    assert_eq!(
        value["output"],
        json!({"text": "the end\n", "kept_bytes": 8, "total_bytes": 5_008})
    );
}

#[test]
fn logs_follow_a_run_to_its_end() {
    use std::io::{BufRead, BufReader};
    let past = Past::local();
    let (_, mut grant) = past.begin("sync", &Went::new(Outcome::Running, MINUTE));
    let tail = |text: &str| Tail {
        bytes: text.as_bytes().to_vec(),
        total: text.len() as u64,
    };
    grant.save_tail(&tail("one\n")).expect("a tail");
    let mut follower = past
        .plain(&["logs", "-f", "sync"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut lines = BufReader::new(follower.stdout.take().expect("a pipe")).lines();
    let mut line = || lines.next().map(|l| l.expect("text"));
    assert_eq!(line().as_deref(), Some("one"));
    grant.save_tail(&tail("one\ntwo\n")).expect("a tail");
    assert_eq!(line().as_deref(), Some("two"));
    let end = Past::end(&Went::new(Outcome::Succeeded, 1));
    grant
        .release(&end, Some(&tail("one\ntwo\nthree\n")))
        .expect("the end is written");
    assert_eq!(line().as_deref(), Some("three"));
    assert_eq!(line(), None);
    assert_eq!(follower.wait().expect("it ends").code(), Some(0));
}

#[test]
fn a_real_run_can_be_followed_while_it_runs() {
    use std::io::{BufRead, BufReader, Write};
    let past = Past::local();
    let script = "echo one; read go; echo two; exit 3";
    let mut command = past.plain(&["run", "sync", "--", "sh", "-c", script]);
    let mut run = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("it starts");
    let begun = Instant::now();
    while !past
        .store
        .jobs()
        .expect("the store works")
        .contains(&"sync".to_owned())
    {
        assert!(begun.elapsed() < Duration::from_secs(60), "it never ran");
        sleep(Duration::from_millis(20));
    }
    let mut follower = past
        .plain(&["logs", "-f", "sync"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut lines = BufReader::new(follower.stdout.take().expect("a pipe")).lines();
    let mut line = || lines.next().map(|l| l.expect("text"));
    assert_eq!(line().as_deref(), Some("one"), "while the job waits");
    run.stdin
        .take()
        .expect("a pipe")
        .write_all(b"go\n")
        .expect("it reads");
    assert_eq!(line().as_deref(), Some("two"));
    assert_eq!(line(), None);
    assert_eq!(
        follower.wait().expect("it ends").code(),
        Some(0),
        "that the job failed is not the follower's failure"
    );
    assert_eq!(run.wait().expect("it ends").code(), Some(3));
}

/// What `joblock history` shows on a terminal of so many columns.
fn on_a_terminal(past: &Past, columns: u16, variables: &str) -> String {
    let joblock = format!(
        "stty cols {columns}; {variables} TERM=xterm {} --store {} --config {} history",
        env!("CARGO_BIN_EXE_joblock"),
        past.url,
        past.path("joblock.toml").display()
    );
    let mut script = std::process::Command::new("script");
    script
        .env_remove("NO_COLOR")
        .env_remove("CLICOLOR")
        .args(["-qec", &joblock, "/dev/null"]);
    let output = script.stdin(Stdio::null()).output().expect("script(1)");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[test]
fn a_terminal_gets_its_own_width_and_colours_unless_it_wants_none() {
    let past = Past::local();
    past.ran(
        "person-placement-training-body",
        &Went::new(Outcome::Failed, HOUR),
    );
    for columns in [70, 110, 200] {
        let text = on_a_terminal(&past, columns, "NO_COLOR=1");
        assert!(!text.contains('\x1b'), "no colour: {text:?}");
        let widest = text.lines().map(|l| l.trim_end().chars().count()).max();
        assert!(
            widest.is_some_and(|w| w <= usize::from(columns)),
            "{columns} columns:\n{text}"
        );
        for word in ["failed", "(exit", "schedule", "(sudo:", "ann)"] {
            assert!(text.contains(word), "{word} is cut:\n{text}");
        }
    }
    assert!(on_a_terminal(&past, 80, "").contains("\x1b["));
}

#[test]
fn a_reader_that_leaves_is_no_error() {
    let past = Past::local();
    for _ in 0..3 {
        past.ran(
            "sync",
            &Went::new(Outcome::Succeeded, HOUR).saying(b"some output\n", 12),
        );
    }
    for args in [
        &["history"][..],
        &["history", "--json"],
        &["status"],
        &["show", "sync"],
        &["logs", "sync"],
        &["doctor"],
    ] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let child = past
            .plain(args)
            .stdout(writer)
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let output = child.wait_with_output().expect("it ends");
        assert_eq!(output.status.code(), Some(0), "{args:?}: {output:?}");
        assert!(output.stderr.is_empty(), "{args:?}: {output:?}");
    }
}

#[test]
fn a_store_that_is_not_there_is_69_and_is_not_made() {
    let past = Past::local();
    let missing = past.path("nowhere.db");
    for verb in ["status", "history"] {
        let store = format!("sqlite:{}", missing.display());
        let mut command = assert_cmd::Command::new(env!("CARGO_BIN_EXE_joblock"));
        command
            .args([verb, "--store", &store, "--config"])
            .arg(past.path("joblock.toml"));
        command
            .env_remove("JOBLOCK_STORE")
            .assert()
            .code(69)
            .stdout("");
    }
    assert!(!missing.exists());
}

#[test]
fn doctor_finds_a_good_store_good_and_a_missing_one_bad() {
    let past = Past::local();
    past.joblock(&["doctor"]).assert().code(0);
    let value = past.json(&["doctor"]);
    assert_ne!(value["verdict"], "bad", "{value}");
    assert_eq!(value["store"]["id"], past.store.about().id);
    assert!(
        value["findings"].as_array().is_some_and(|f| f.len() > 2),
        "{value}"
    );
    past.lose();
    let value = past.json(&["doctor"]);
    assert_eq!(
        (&value["verdict"], &value["store"]),
        (&json!("bad"), &Value::Null)
    );
    past.joblock(&["doctor"]).assert().code(69);
}
