//! `joblock check` says what monitoring must know: one line, a Nagios code, and never a code that means something else.

mod records;

use chrono::Datelike;
use joblock::clock::Wall;
use joblock::name::RunId;
use joblock::store::record::Outcome;
use joblock::supervise::process;
use records::{Past, Went};
use rstest::rstest;

const HOUR: i64 = 3_600;

/// What `check` says, and its exit code.
fn check(past: &Past, args: &[&str]) -> (String, i32) {
    let output = past
        .joblock(&[&["check"], args].concat())
        .output()
        .expect("it starts");
    let line = String::from_utf8(output.stdout).expect("UTF-8");
    assert_eq!(line.lines().count(), 1, "one line: {line:?}");
    (line, output.status.code().expect("it exits"))
}

#[rstest]
#[case::succeeded(Outcome::Succeeded, 0, "JOBLOCK OK - ")]
#[case::stopped(Outcome::Stopped, 1, "JOBLOCK WARNING - sync was stopped")]
#[case::failed(Outcome::Failed, 2, "JOBLOCK CRITICAL - sync failed (exit 3) ")]
#[case::killed(Outcome::Signaled, 2, "JOBLOCK CRITICAL - sync signaled (KILL) ")]
#[case::out_of_memory(Outcome::OomKilled, 2, "JOBLOCK CRITICAL - sync oom-killed ")]
#[case::timed_out(Outcome::TimedOut, 2, "JOBLOCK CRITICAL - sync timed-out ")]
#[case::lost(Outcome::Lost, 2, "JOBLOCK CRITICAL - sync lost ")]
fn the_last_outcome_decides(#[case] outcome: Outcome, #[case] code: i32, #[case] says: &str) {
    let past = Past::local();
    past.ran("sync", &Went::new(Outcome::Succeeded, 3 * HOUR));
    past.ran("sync", &Went::new(outcome, HOUR));
    let (line, exit) = check(&past, &[]);
    assert_eq!(exit, code, "{line}");
    assert!(line.starts_with(says), "{line}");
    assert!(line.contains(" | jobs=1 "), "{line}");
}

#[test]
fn a_success_after_a_failure_is_well() {
    let past = Past::local();
    past.ran("sync", &Went::new(Outcome::Failed, 3 * HOUR));
    past.ran("sync", &Went::new(Outcome::Succeeded, HOUR));
    assert_eq!(check(&past, &[]).1, 0);
}

#[test]
fn a_refusal_hides_no_failure_and_is_none_itself() {
    let past = Past::local();
    past.ran("sync", &Went::new(Outcome::Failed, 3 * HOUR));
    for n in 0..60 {
        past.attempted("sync", &Went::new(Outcome::Refused, 60 + n), None);
    }
    assert_eq!(check(&past, &[]).1, 2);
    past.ran("sync", &Went::new(Outcome::Succeeded, HOUR));
    past.attempted("sync", &Went::new(Outcome::Refused, 60), None);
    assert_eq!(check(&past, &[]).1, 0);
}

#[test]
fn a_mistake_in_the_call_is_no_outcome_of_the_job_and_hides_none() {
    let past = Past::local();
    let start = |options: &[&str], command: &str, code: i32| {
        let args = [&["run", "b"], options, &["--", command]].concat();
        past.joblock(&args).assert().code(code);
    };
    start(&[], "true", 0);
    start(&["--lock", "other"], "true", 125);
    let (line, exit) = check(&past, &["b"]);
    assert_eq!(exit, 0, "{line}");
    assert_eq!(
        past.json(&["status"])["jobs"][0]["last_run"]["outcome"],
        "succeeded"
    );
    start(&[], "/no/such/command", 127);
    for _ in 0..2 {
        start(&["--lock", "other"], "true", 125);
    }
    let (line, exit) = check(&past, &["b"]);
    assert_eq!(exit, 2, "{line}");
    assert!(line.contains("not-started"), "{line}");
}

#[test]
fn a_run_whose_processes_were_killed_is_critical_at_once() {
    let past = Past::local();
    let (_, grant) = past.begin_as("sync", &Went::new(Outcome::Running, 5), process::own());
    assert_eq!(check(&past, &[]).1, 0, "it runs");
    drop(grant);
    let (_, grant) = past.begin_as("sync", &Went::new(Outcome::Running, 5), Past::gone());
    drop(grant);
    let (line, exit) = check(&past, &[]);
    assert_eq!(exit, 2, "{line}");
    assert!(line.contains("sync abandoned"), "{line}");
}

#[test]
fn a_job_that_its_schedule_asked_for_and_that_did_not_run_is_overdue() {
    let past = Past::local();
    past.ran("sync", &Went::new(Outcome::Succeeded, 3 * HOUR));
    // Due once a year, months away from today.
    let month = (Wall::now().to_datetime().month() + 5) % 12 + 1;
    past.jobs_file(&format!(
        "[jobs.sync]\ncommand = [\"true\"]\nschedule = \"0 0 1 {month} *\"\n"
    ));
    assert_eq!(check(&past, &[]).1, 0, "it has run since");
    past.jobs_file("[jobs.sync]\ncommand = [\"true\"]\nschedule = \"*/10 * * * *\"\n");
    let (line, exit) = check(&past, &[]);
    assert_eq!(exit, 2, "{line}");
    assert!(
        line.contains("sync was due ") && line.contains("last ran 3 h ago"),
        "{line}"
    );
}

#[test]
fn a_job_that_was_put_into_the_jobs_file_just_now_is_not_overdue() {
    let past = Past::local();
    past.jobs_file("[jobs.sync]\ncommand = [\"true\"]\nschedule = \"29 1 1 1 *\"\n");
    let (line, exit) = check(&past, &[]);
    assert_eq!(exit, 0, "{line}");
    assert!(line.contains("has not run yet"), "{line}");
}

#[test]
fn the_worst_job_decides_and_is_named_first() {
    let past = Past::local();
    past.ran("a-fine", &Went::new(Outcome::Succeeded, HOUR));
    past.ran("b-stopped", &Went::new(Outcome::Stopped, HOUR));
    past.ran("c-failed", &Went::new(Outcome::Failed, HOUR));
    let (line, exit) = check(&past, &[]);
    assert_eq!(exit, 2);
    assert!(
        line.find("c-failed") < line.find("b-stopped") && !line.contains("a-fine"),
        "{line}"
    );
    assert!(line.ends_with("| jobs=3 warning=1 critical=1\n"), "{line}");
    assert_eq!(check(&past, &["a-fine"]).1, 0);
    assert_eq!(check(&past, &["a-fine", "b-stopped"]).1, 1);
    let value = past.json(&["check"]);
    assert_eq!(
        (&value["status"], &value["exit_code"]),
        (&"critical".into(), &2.into())
    );
    assert_eq!(value["jobs"][1]["job"], "b-stopped");
    assert_eq!(value["jobs"][1]["status"], "warning");
}

#[test]
fn whatever_joblock_cannot_tell_is_unknown_and_on_stdout() {
    let past = Past::local();
    for (args, says) in [(&[][..], "no job has ever run"), (&["synk"], "synk")] {
        let (line, exit) = check(&past, args);
        assert_eq!(exit, 3, "{line}");
        assert!(
            line.starts_with("JOBLOCK UNKNOWN - ") && line.contains(says),
            "{line}"
        );
    }
    past.jobs_file("[jobs.sync]\ncolour = \"red\"\n");
    assert_eq!(check(&past, &[]).1, 3);
    past.jobs_file("");
    std::fs::write(past.path("store"), RunId::random().as_str().repeat(1_000))
        .expect("it can be spoilt");
    let (line, exit) = check(&past, &[]);
    assert_eq!(exit, 3, "{line}");
    let value = past.json(&["check"]);
    assert_eq!(
        (&value["status"], &value["exit_code"]),
        (&"unknown".into(), &3.into())
    );
    assert!(value["error"].is_string(), "{value}");
    let (line, exit) = check(&past, &["--no-such-flag"]);
    assert_eq!(exit, 3, "{line}");
    assert!(
        line.starts_with("JOBLOCK UNKNOWN - ") && line.contains("'--no-such-flag'"),
        "{line}"
    );
}

#[test]
fn the_code_stands_although_nobody_reads_the_line() {
    let past = Past::local();
    past.ran("sync", &Went::new(Outcome::Failed, HOUR));
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let status = past
        .plain(&["check"])
        .stdout(writer)
        .status()
        .expect("it starts");
    assert_eq!(status.code(), Some(2));
}
