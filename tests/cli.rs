//! The command line as the real program answers it: exit codes, streams, and the way out of each mistake.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::process::Output;

use assert_cmd::Command;
use rstest::rstest;
use tempfile::TempDir;

/// Runs joblock where neither the machine nor the caller has a say.
fn joblock<A: Into<OsString> + Clone>(args: &[A]) -> Output {
    let home = tempfile::tempdir().unwrap();
    command(&home, args).output().unwrap()
}

fn command<A: Into<OsString> + Clone>(home: &TempDir, args: &[A]) -> Command {
    let config = home.path().join("joblock.toml");
    if !config.exists() {
        std::fs::write(&config, "").unwrap();
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_joblock"));
    command
        .args(args.iter().cloned().map(Into::into))
        .current_dir(home.path())
        .env_clear();
    command
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", home.path())
        .env("JOBLOCK_CONFIG", config);
    command
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn plan(args: &[&str]) -> serde_json::Value {
    let output = joblock(&[&["run", "--explain", "--json"], args].concat());
    assert_eq!(output.status.code(), Some(0), "{args:?}: {}", said(&output));
    serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()["plan"].take()
}

#[rstest]
#[case::nothing(&[], "Usage: joblock COMMAND")]
#[case::unknown_command(&["hisory"], "'history'")]
#[case::unknown_option(&["run", "--wiat", "5", "job", "--", "true"], "'--wait'")]
#[case::no_job(&["run"], "JOB")]
#[case::no_command(&["run", "--explain", "job"], "no command for job")]
#[case::missing_dashes(&["run", "job", "echo", "hi"], "\n  joblock run job -- echo hi\n")]
#[case::empty_dashes(&["run", "job", "--"], "\n  joblock run job\n")]
#[case::needless_dashes(&["run", "--", "job"], "\n  joblock run job\n")]
#[case::dashes_elsewhere(&["status", "--", "job"], "\n  joblock status job\n")]
#[case::timeout(&["run", "--timeout", "5", "job", "--", "true"], "--time-limit")]
#[case::exclusive(&["run", "-x", "job", "--", "true"], "exclusive")]
#[case::close(&["run", "-o", "job", "--", "true"], "--wait-for-children")]
#[case::unlock(&["run", "-u", "job", "--", "true"], "joblock unlock")]
#[case::no_fork(&["run", "-F", "job", "--", "true"], "--no-fork")]
#[case::shell(&["run", "job", "-c", "true"], "sh -c")]
#[case::both_waits(&["run", "-n", "-w", "5", "job", "--", "true"], "leave one of them out")]
#[case::both_voices(&["run", "-q", "-v", "job", "--", "true"], "--verbose")]
#[case::bad_name(&["run", "a/b", "--", "true"], "\"a/b\" has the character '/'")]
#[case::empty_name(&["run", "", "--", "true"], "can't be empty")]
#[case::dotted_name(&["run", ".a", "--", "true"], "begins with a letter or digit")]
#[case::run_id_as_name(&["run", "0123456789abcdef", "--", "true"], "shaped like a run id")]
#[case::bad_lock(&["run", "--lock", "a b", "job", "--", "true"], "has the character ' '")]
#[case::bad_wait(&["run", "-w", "5x", "job", "--", "true"], "has the unit \"x\"")]
#[case::empty_wait(&["run", "-w", "", "job", "--", "true"], "can't be empty")]
#[case::negative_limit(&["run", "-t=-5", "job", "--", "true"], "can't be negative")]
#[case::nan(&["run", "-t", "NaN", "job", "--", "true"], "is no duration")]
#[case::overflow(&["run", "-t", "99999999999999999999d", "job", "--", "true"], "too long")]
#[case::endless_kill(&["run", "-k", "forever", "job", "--", "true"], "has no end")]
#[case::empty_window(&["run", "--unless-succeeded-within", "0", "job", "--", "true"], "more than 0")]
#[case::short_ttl(&["run", "--ttl", "1", "job", "--", "true"], "at least 2s")]
#[case::big_code(&["run", "-E", "256", "job", "--", "true"], "0..=255")]
#[case::no_signal(&["run", "-s", "FOO", "job", "--", "true"], "TERM, SIGTERM or 15")]
#[case::signal_0(&["run", "-s", "0", "job", "--", "true"], "can't end a job")]
#[case::signal_stop(&["run", "-s", "19", "job", "--", "true"], "can't end a job")]
#[case::no_trigger(&["run", "--trigger", "cron", "job", "--", "true"], "schedule, startup, operator, other")]
#[case::no_tag(&["run", "--tag", "a", "job", "--", "true"], "KEY=VALUE")]
#[case::bad_tag(&["run", "--tag", "a b=c", "job", "--", "true"], "has the character ' '")]
#[case::empty_reason(&["run", "--reason", "", "job", "--", "true"], "say why")]
#[case::json_alone(&["run", "--json", "job", "--", "true"], "--explain")]
#[case::bad_store(&["run", "--explain", "--store", "sqlite://x", "job", "--", "true"], "slashes")]
#[case::later_store(&["run", "--explain", "--store", "postgres://h/d", "job", "--", "true"], "postgres: is not there yet")]
#[case::empty_program(&["run", "job", "--", ""], "is empty")]
#[case::bad_moment(&["history", "--since", "soonish"], "is no moment")]
#[case::bad_outcome(&["history", "--outcome", "faild"], "succeeded, failed")]
#[case::bad_target(&["show", "a/b"], "has the character '/'")]
#[case::stop_without_reason(&["stop", "job"], "--reason")]
#[case::unlock_without_reason(&["unlock", "job"], "--reason")]
#[case::unknown_shell(&["generate", "completions", "tcsh"], "bash, zsh, fish")]
fn a_mistake_is_125_and_answered_on_stderr(#[case] args: &[&str], #[case] says: &str) {
    let output = joblock(args);
    assert_eq!(output.status.code(), Some(125), "{}", said(&output));
    assert!(said(&output).contains(says), "{}", said(&output));
    assert!(output.stdout.is_empty(), "stdout belongs to the job");
    assert!(
        args.is_empty() || said(&output).starts_with("joblock: "),
        "{}",
        said(&output)
    );
}

#[test]
fn a_reason_has_at_most_1000_characters() {
    let explain = |length: usize| {
        let reason = "ä".repeat(length);
        joblock(&["run", "--explain", "--reason", &reason, "job", "--", "true"])
            .status
            .code()
    };
    assert_eq!((explain(1000), explain(1001)), (Some(0), Some(125)));
}

#[rstest]
#[case::check(&["check", "--what"], 3)]
#[case::check_name(&["check", "a/b"], 3)]
#[case::check_store(&["check", "--store", "what"], 3)]
#[case::assert(&["assert", "--what"], 69)]
fn monitoring_and_scripts_get_the_codes_that_they_are_promised(
    #[case] args: &[&str],
    #[case] code: i32,
) {
    let output = joblock(args);
    assert_eq!(output.status.code(), Some(code), "{}", said(&output));
}

#[rstest]
#[case(&["--help"], "Usage: joblock COMMAND")]
#[case(&["-h"], "Usage: joblock COMMAND")]
#[case(&["--version"], concat!("joblock ", env!("CARGO_PKG_VERSION")))]
#[case(&["run", "--help"], "joblock run backup -w 10m")]
#[case(&["history", "-h"], "Example: joblock history")]
fn help_is_0_on_stdout(#[case] args: &[&str], #[case] says: &str) {
    let output = joblock(args);
    assert_eq!(output.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&output.stdout).contains(says));
    assert!(output.stderr.is_empty());
}

#[rstest]
#[case(&["job", "-w", "5m", "--", "ls", "-w"])]
#[case(&["-w", "5m", "job", "--", "ls", "-w"])]
#[case(&["-w5m", "job", "--", "ls", "-w"])]
#[case(&["--wait=5m", "job", "--", "ls", "-w"])]
#[case(&["-vw", "5m", "job", "--", "ls", "-w"])]
fn options_stand_before_or_after_the_job(#[case] args: &[&str]) {
    let plan = plan(args);
    assert_eq!(
        (&plan["wait"]["value"], &plan["wait"]["source"]),
        (&"5m".into(), &"--wait".into())
    );
    assert_eq!(plan["command"]["value"], serde_json::json!(["ls", "-w"]));
}

#[rstest]
#[case::none(&[], "wait", "0s")]
#[case::not_at_all(&["-n"], "wait", "0s")]
#[case::zero(&["-n", "-w", "0"], "wait", "0s")]
#[case::ever(&["-w", "infinity"], "wait", "forever")]
#[case::unlimited(&["-t", "0"], "time_limit", "none")]
#[case::unlimited_too(&["-t", "forever"], "time_limit", "none")]
#[case::limited(&["-t", "1h30m"], "time_limit", "1h30m")]
#[case::kill_after(&["-k", "0.5"], "kill_after", "500ms")]
#[case::lock(&["--lock", "people"], "lock", "people")]
#[case::own_lock(&[], "lock", "job")]
#[case::trigger(&["--trigger", "startup"], "trigger", "startup")]
#[case::fresh(&["--unless-succeeded-within", "26h"], "freshness", "1d2h")]
fn options_arrive_in_the_plan(#[case] options: &[&str], #[case] part: &str, #[case] value: &str) {
    let plan = plan(&[options, &["job", "--", "true"]].concat());
    assert_eq!(plan[part]["value"], value, "{plan:#}");
}

#[rstest]
#[case("TERM", 15)]
#[case("SIGTERM", 15)]
#[case("sigterm", 15)]
#[case("15", 15)]
#[case("KILL", 9)]
#[case("34", 34)]
fn signals_by_name_and_number(#[case] text: &str, #[case] number: i32) {
    assert_eq!(
        plan(&["-s", text, "job", "--", "true"])["signal"]["value"],
        number
    );
}

#[test]
fn the_conflict_exit_code_goes_from_0_to_255() {
    for code in ["0", "255"] {
        assert_eq!(
            plan(&["-E", code, "job", "--", "true"])["if_held"]["value"].to_string(),
            code
        );
    }
    assert_eq!(plan(&["job", "--", "true"])["if_held"]["value"], 75);
}

#[test]
fn arguments_and_the_store_s_path_need_not_be_utf8() {
    let odd = |prefix: &[u8]| OsString::from_vec([prefix, &[0xff, 0xfe]].concat());
    let args: Vec<OsString> = vec![
        "run".into(),
        "--explain".into(),
        "--store".into(),
        odd(b"sqlite:/tmp/"),
        "job".into(),
        "--".into(),
        "cat".into(),
        odd(b"x"),
    ];
    let output = joblock(&args);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let name: Vec<OsString> = vec!["run".into(), odd(b"job"), "--".into(), "true".into()];
    assert_eq!(
        joblock(&name).status.code(),
        Some(125),
        "a name must be UTF-8, and no panic says so"
    );
}

#[test]
fn explain_starts_writes_and_creates_nothing() {
    let home = tempfile::tempdir().unwrap();
    let (store, mark) = (
        home.path().join("below/joblock.db"),
        home.path().join("mark"),
    );
    let args = [
        "run",
        "--explain",
        "--store",
        &format!("sqlite:{}", store.display()),
        "job",
        "--",
        "touch",
        mark.to_str().unwrap(),
    ];
    let output = command(&home, &args).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let text = String::from_utf8(output.stdout).unwrap();
    for part in [
        "store",
        "lock",
        "command",
        "trigger",
        "freshness",
        "wait",
        "time limit",
    ] {
        assert!(
            text.lines()
                .any(|l| l.starts_with(part) && l.ends_with(']')),
            "{part}: {text}"
        );
    }
    let left: Vec<_> = std::fs::read_dir(home.path())
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(left, ["joblock.toml"]);
}

#[test]
fn explain_says_where_each_part_comes_from() {
    let home = tempfile::tempdir().unwrap();
    let text = "store = \"sqlite:here.db\"\n\n[jobs.sync]\ncommand = [\"true\"]\ntime-limit = \"3h\"\nkill-after = 5\n";
    std::fs::write(home.path().join("joblock.toml"), text).unwrap();
    let output = command(&home, &["run", "--explain", "--json", "sync", "-t", "1h"])
        .output()
        .unwrap();
    let plan: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let source = |part: &str| plan["plan"][part]["source"].as_str().unwrap().to_owned();
    let file = home.path().join("joblock.toml").display().to_string();
    assert_eq!(source("store"), format!("{file}:1"));
    assert_eq!(source("command"), format!("{file}:4"));
    assert_eq!(source("kill_after"), format!("{file}:6"));
    assert_eq!(source("time_limit"), "--time-limit");
    assert_eq!(source("lock"), "default (the job's name)");
    assert_eq!(source("wait"), "default");
    assert_eq!(
        plan["plan"]["store"]["value"],
        format!("sqlite:{}/here.db", home.path().display())
    );
}

#[test]
fn the_trigger_is_the_option_else_the_variable() {
    let home = tempfile::tempdir().unwrap();
    let trigger = |args: &[&str]| {
        let mut command = command(
            &home,
            &[
                &["run", "--explain", "--json", "job"],
                args,
                &["--", "true"],
            ]
            .concat(),
        );
        let output = command.env("JOBLOCK_TRIGGER", "startup").output().unwrap();
        let plan: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let part = plan["plan"]["trigger"].clone();
        (
            part["value"].as_str().unwrap().to_owned(),
            part["source"].as_str().unwrap().to_owned(),
        )
    };
    assert_eq!(
        trigger(&[]),
        ("startup".to_owned(), "$JOBLOCK_TRIGGER".to_owned())
    );
    assert_eq!(
        trigger(&["--trigger", "operator"]),
        ("operator".to_owned(), "--trigger".to_owned())
    );
}
