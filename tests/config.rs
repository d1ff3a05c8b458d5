//! The jobs file: every key is read and checked, every mistake is answered with its place and a way out.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use assert_cmd::Command;
use joblock::config::{JobsFile, keys};
use joblock::duration::Span;
use joblock::store::record::Outcome;
use rstest::rstest;
use tempfile::TempDir;

const PATH: &str = "/etc/joblock/joblock.toml";

fn parse(text: &str) -> Result<JobsFile, String> {
    JobsFile::parse(Path::new(PATH), text).map_err(|e| e.to_string())
}

fn job(lines: &str) -> Result<JobsFile, String> {
    parse(&format!("[jobs.sync]\n{lines}"))
}

#[rstest]
#[case::key(
    "tiem-limit = \"3h\"",
    "unknown key \"tiem-limit\" in [jobs.sync], did you mean \"time-limit\"?"
)]
#[case::underscore("time_limit = \"3h\"", "did you mean \"time-limit\"?")]
#[case::user("user = \"www\"", "joblock never changes users")]
#[case::timeout("timeout = 5", "time-limit = DURATION")]
#[case::trigger("trigger = \"schedule\"", "--trigger or $JOBLOCK_TRIGGER")]
#[case::tag("tag = \"a=b\"", "write tags = {")]
#[case::too_low("store = \"sqlite:/x\"", "belongs to the top of the file")]
#[case::command_text(
    "command = \"ls -l /tmp\"",
    r#"write ["ls", "-l", "/tmp"], or ["sh", "-c", "ls -l /tmp"]"#
)]
#[case::command_type(
    "command = 5",
    "jobs.sync.command wants an array of strings, this is of type integer"
)]
#[case::command_element(
    "command = [\"ls\", 5]",
    "jobs.sync.command wants an array of strings, its element 2 is of type integer: write command = ["
)]
#[case::command_empty("command = []", "give a program")]
#[case::command_no_program("command = [\"\"]", "the program's name is empty")]
#[case::command_nul(r#"command = ["a", "b\u0000"]"#, "NUL")]
#[case::lock("lock = \"a b\"", "jobs.sync.lock: \"a b\" has the character ' '")]
#[case::ttl("ttl = \"1s\"", "at least 2s")]
#[case::wait("wait = \"5x\"", "jobs.sync.wait: \"5x\" has the unit \"x\"")]
#[case::wait_type(
    "wait = true",
    "wants a duration or \"forever\", this is of type boolean: write wait = \"10m\""
)]
#[case::wait_negative("wait = -5", "can't be negative")]
#[case::nonblock("wait = \"5m\"\nnonblock = true", "contradict each other")]
#[case::exit_code("conflict-exit-code = 256", "write 0 to 255")]
#[case::exit_code_negative("conflict-exit-code = -1", "write 0 to 255")]
#[case::fresh("unless-succeeded-within = 0", "more than 0")]
#[case::fresh_forever("unless-succeeded-within = \"forever\"", "has no end")]
#[case::kill_after("kill-after = \"forever\"", "has no end")]
#[case::signal("signal = \"STOP\"", "no signal that ends a job")]
#[case::signal_number("signal = 19", "can't end a job")]
#[case::flag(
    "wait-for-children = \"yes\"",
    "wants true or false, this is of type string"
)]
#[case::tags("tags = { \"a b\" = \"c\" }", "has the character ' '")]
#[case::tags_type(
    "tags = { a = 5 }",
    "wants a table of texts, its a is of type integer: write tags = {"
)]
#[case::name_begins(
    "lock = \".a\"",
    "\".a\" begins with '.': a name begins with a letter or digit"
)]
#[case::capture("capture = \"17M\"", "no size up to 16M")]
#[case::capture_both("capture = 5\nno-capture = true", "contradict each other")]
#[case::verbosity("quiet = true\nverbose = true", "contradict each other")]
#[case::schedule("schedule = \"29 1 * *\"", "it has 4 fields")]
#[case::schedule_array("schedule = [\"29 1 * * *\"]", "wants five fields as in crontab(5)")]
#[case::zone(
    "schedule = \"29 1 * * *\"\ntimezone = \"Europe/Lodnon\"",
    "did you mean \"Europe/London\"?"
)]
#[case::zone_alone("timezone = \"Europe/London\"", "there is no schedule")]
#[case::after(
    "after = [\"snyc\"]",
    "no job \"snyc\" in this file, did you mean \"sync\"?"
)]
#[case::after_itself("after = [\"sync\"]", "in a circle: sync after sync")]
#[case::notify_key(
    "notify = { no = [] }",
    "unknown key \"no\" in [jobs.sync.notify], did you mean \"on\"?"
)]
#[case::notify_type("notify = \"x\"", "jobs.sync.notify wants a table")]
#[case::notify_on("notify = { webhook = \"https://h/x\" }", "on = [OUTCOMES] is missing")]
#[case::notify_whom(
    "notify = { on = [\"failed\"] }",
    "webhook = URL or command = [PROGRAM] is missing"
)]
#[case::notify_outcome(
    "notify = { on = [\"faild\"], webhook = \"https://h/x\" }",
    "unknown outcome \"faild\", did you mean \"failed\"?"
)]
#[case::notify_running(
    "notify = { on = [\"running\"], webhook = \"https://h/x\" }",
    "unknown outcome \"running\""
)]
#[case::notify_url(
    "notify = { on = [\"failed\"], webhook = \"ftp://h/x\" }",
    "write https://HOST/PATH"
)]
#[case::syntax("command = [\"ls\"", "array")]
#[case::twice("ttl = 5\nttl = 6", "duplicate key")]
fn a_mistake_in_a_job_is_named_with_its_line(#[case] lines: &str, #[case] says: &str) {
    let message = job(lines).unwrap_err();
    let last = 1 + lines.lines().count();
    let line: usize = message
        .strip_prefix(&format!("{PATH}:"))
        .unwrap()
        .split(':')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    assert!((2..=last).contains(&line), "line {line}: {message}");
    assert!(message.contains(says), "{message}");
}

#[rstest]
#[case::key(
    "stroe = \"sqlite:/x\"",
    "1: unknown key \"stroe\", did you mean \"store\"?"
)]
#[case::too_high(
    "command = [\"ls\"]",
    "1: unknown key \"command\": it belongs to a job, below [jobs.NAME]"
)]
#[case::store("\n\nstore = \"sqlite:///x\"", "3: store: \"sqlite:///x\" has slashes")]
#[case::store_later("store = \"postgres://h/d\"", "1: store: postgres: is not there yet")]
#[case::store_id("store-id = \"x\"", "1: store-id: \"x\" is no UUID")]
#[case::only(
    "only-named-jobs = 1",
    "1: only-named-jobs wants true or false, this is of type integer: write only-named-jobs = true"
)]
#[case::jobs("jobs = 5", "1: jobs wants a table")]
#[case::name("[jobs.\"a b\"]", "1: \"a b\" has the character ' '")]
#[case::run_id(
    "[jobs.0123456789abcdef]",
    "1: \"0123456789abcdef\" is shaped like a run id"
)]
#[case::job("[jobs]\nsync = 5", "2: jobs.sync wants a table")]
#[case::circle(
    "[jobs.a]\nafter = [\"b\"]\n[jobs.b]\nafter = [\"c\"]\n[jobs.c]\nafter = [\"a\"]",
    "2: jobs.a.after: these wait for each other in a circle: a after b after c after a"
)]
fn a_mistake_at_the_top_is_named_with_its_line(#[case] text: &str, #[case] says: &str) {
    let message = parse(text).unwrap_err();
    assert!(message.starts_with(&format!("{PATH}:{says}")), "{message}");
}

#[test]
fn every_key_of_the_table_is_read() {
    for key in keys::JOB {
        let schedule = if key.name == "timezone" {
            "\nschedule = \"@daily\""
        } else {
            ""
        };
        job(&format!("{} = {}{schedule}", key.name, key.example))
            .unwrap_or_else(|e| panic!("{}: {e}", key.name));
        // A key that nobody looks at would accept this.
        let message = job(&format!("{} = 1979-05-27{schedule}", key.name)).unwrap_err();
        assert!(
            message.contains(&format!("jobs.sync.{} wants {}", key.name, key.value)),
            "{message}"
        );
    }
    for key in keys::TOP {
        parse(&format!("{} = {}", key.name, key.example))
            .unwrap_or_else(|e| panic!("{}: {e}", key.name));
        assert!(
            parse(&format!("{} = 1979-05-27", key.name)).is_err(),
            "{}",
            key.name
        );
    }
    for key in keys::NOTIFY {
        let rest = if key.name == "on" {
            "webhook = \"https://h/x\""
        } else {
            "on = [\"failed\"]"
        };
        job(&format!(
            "notify = {{ {rest}, {} = {} }}",
            key.name, key.example
        ))
        .unwrap();
        assert!(
            job(&format!("notify = {{ {rest}, {} = 1979-05-27 }}", key.name)).is_err(),
            "{}",
            key.name
        );
    }
}

#[test]
fn every_option_of_run_is_a_key_or_says_why_not() {
    use clap::CommandFactory;
    let root = joblock::cli::Cli::command();
    let run = root.find_subcommand("run").unwrap();
    let options: Vec<_> = run
        .get_arguments()
        .filter_map(clap::Arg::get_long)
        .collect();
    assert!(options.len() > 15, "{options:?}");
    // --json is a part of --explain.
    for option in options.into_iter().filter(|o| *o != "json") {
        let known = keys::names(keys::JOB).any(|k| k == option)
            || keys::NOT_KEYS.iter().any(|(k, _)| *k == option);
        assert!(known, "--{option}");
    }
}

#[test]
fn a_whole_file_is_read() {
    let file = parse(
        r#"
        store = "sqlite:/var/lib/joblock/joblock.db"
        [jobs.person-owner-rebuild]
        [jobs.person-sync]
        command  = ["java", "-jar", "/opt/sync.jar", "person"]
        schedule = "29 1 * * *"
        timezone = "Europe/London"
        after    = ["person-owner-rebuild"]
        time-limit = "3h"
        wait = 90
        unless-succeeded-within = "6h"
        notify   = { on = ["failed", "oom-killed"], webhook = "https://example.org/x" }
        "#,
    )
    .unwrap();
    let job = &file.jobs[&"person-sync".parse().unwrap()];
    let command = job.command.as_ref().unwrap();
    assert_eq!((command.line, command.value[3].as_str()), (5, "person"));
    assert_eq!(
        job.wait.as_ref().unwrap().value,
        Span::For(Duration::from_secs(90))
    );
    assert_eq!(
        job.notify.as_ref().unwrap().on,
        [Outcome::Failed, Outcome::OomKilled]
    );
    assert!(job.schedule.is_some());
}

#[test]
fn a_relative_store_is_taken_from_the_file_s_folder() {
    let file = parse("store = \"sqlite:db/joblock.db\"").unwrap();
    let text = joblock::plan::store_url_text(&file.store.unwrap().value);
    assert_eq!(text, "sqlite:/etc/joblock/db/joblock.db");
}

/// A bare name has no folder in it: the store was once looked for in the root folder, and two runs went on at once.
#[rstest]
#[case("joblock.toml")]
#[case("./joblock.toml")]
fn a_relative_store_of_a_file_that_is_named_without_its_folder_is_in_that_folder(
    #[case] config: &str,
) {
    let place = Place::new("store = \"sqlite:db.sqlite\"\n[jobs.sync]\ncommand = [\"true\"]\n");
    let done = place
        .joblock()
        .args(["run", "sync", "--config", config])
        .output()
        .unwrap();
    assert!(
        done.status.success(),
        "{}",
        String::from_utf8_lossy(&done.stderr)
    );
    assert!(place.folder.path().join("db.sqlite").exists());
    let other = place
        .joblock()
        .args(["run", "sync"])
        .env("JOBLOCK_CONFIG", config)
        .output()
        .unwrap();
    assert!(
        other.status.success(),
        "{}",
        String::from_utf8_lossy(&other.stderr)
    );
}

/// A folder with a jobs file that is out of others' reach.
struct Place {
    folder: TempDir,
}

impl Place {
    fn new(text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("joblock.toml");
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        Place { folder }
    }

    fn file(&self) -> String {
        self.folder
            .path()
            .join("joblock.toml")
            .display()
            .to_string()
    }

    fn joblock(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_joblock"));
        for variable in ["JOBLOCK_STORE", "JOBLOCK_CONFIG", "JOBLOCK_TRIGGER"] {
            command.env_remove(variable);
        }
        command.current_dir(self.folder.path());
        command
    }

    /// The exit code and what was said.
    fn explain(&self, args: &[&str]) -> (i32, String) {
        let output = self
            .joblock()
            .args(["run", "--explain", "--config", &self.file()])
            .args(args)
            .output()
            .unwrap();
        let said = [output.stdout, output.stderr].concat();
        (
            output.status.code().unwrap(),
            String::from_utf8(said).unwrap(),
        )
    }
}

#[test]
fn the_program_names_file_line_and_guess() {
    let place = Place::new("\n[jobs.sync]\ncomand = [\"true\"]\n");
    let (code, said) = place.explain(&["sync"]);
    assert_eq!(code, 125);
    let expected = format!(
        "joblock: {}:3: unknown key \"comand\" in [jobs.sync], did you mean \"command\"?\n",
        place.file()
    );
    assert_eq!(said, expected);
}

#[test]
fn a_typing_error_in_a_job_s_name_is_found_out() {
    let place = Place::new("only-named-jobs = true\n[jobs.person-sync]\ncommand = [\"true\"]\n");
    let (code, said) = place.explain(&["person-snyc", "--", "true"]);
    assert_eq!(code, 125);
    assert!(
        said.contains("no job \"person-snyc\"") && said.contains("did you mean \"person-sync\"?"),
        "{said}"
    );
    assert_eq!(place.explain(&["person-sync"]).0, 0);
}

#[test]
fn a_command_for_a_named_job_needs_override() {
    let place = Place::new("[jobs.sync]\ncommand = [\"true\"]\n[jobs.bare]\n");
    let (code, said) = place.explain(&["sync", "--", "false"]);
    assert_eq!(code, 125);
    assert!(
        said.contains(":2 has a command for sync") && said.contains("--override"),
        "{said}"
    );
    let (code, said) = place.explain(&["--override", "sync", "--", "false"]);
    assert_eq!(code, 0);
    assert!(said.contains("false"), "{said}");
    assert_eq!(
        place.explain(&["--override", "sync"]).0,
        125,
        "nothing to override with"
    );
    assert_eq!(
        place.explain(&["bare", "--", "true"]).0,
        0,
        "the file has no command for it"
    );
    assert_eq!(place.explain(&["bare"]).0, 125);
    let (code, said) = place.explain(&["syn"]);
    assert_eq!(code, 125);
    assert!(said.contains("did you mean \"sync\"?"), "{said}");
}

#[test]
fn a_window_from_the_file_holds_for_schedule_and_startup_only() {
    let place = Place::new("[jobs.sync]\ncommand = [\"true\"]\nunless-succeeded-within = \"6h\"\n");
    let window = |args: &[&str]| {
        let (_, said) = place.explain(&[&["sync", "--json"], args].concat());
        serde_json::from_str::<serde_json::Value>(&said).unwrap()["plan"]["freshness"]["value"]
            .clone()
    };
    for (trigger, in_force) in [
        ("schedule", true),
        ("startup", true),
        ("operator", false),
        ("other", false),
    ] {
        assert_eq!(
            window(&["--trigger", trigger]).is_string(),
            in_force,
            "{trigger}"
        );
    }
    let always = window(&["--trigger", "operator", "--unless-succeeded-within", "1h"]);
    assert_eq!(always, "1h", "on the command line it holds always");
}

#[test]
fn a_named_file_must_be_there_and_the_variable_counts() {
    let place = Place::new("[jobs.sync]\ncommand = [\"true\"]\n");
    let run = |args: &[&str], variable: &str| {
        let mut command = place.joblock();
        command
            .args(["run", "--explain", "sync"])
            .args(args)
            .env("JOBLOCK_CONFIG", variable);
        let output = command.output().unwrap();
        (
            output.status.code().unwrap(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let (code, said) = run(&["--config", "/nowhere/joblock.toml"], "");
    assert!(
        code == 125 && said.contains("(named by --config)"),
        "{said}"
    );
    let (code, said) = run(&[], "/nowhere/joblock.toml");
    assert!(
        code == 125 && said.contains("(named by $JOBLOCK_CONFIG)"),
        "{said}"
    );
    assert_eq!(run(&[], &place.file()).0, 0);
    assert_eq!(
        run(&["--config", &place.file()], "/nowhere/joblock.toml").0,
        0,
        "the option wins"
    );
}

#[test]
fn the_store_of_the_file_and_of_the_environment_must_not_differ() {
    let place = Place::new("store = \"sqlite:/a.db\"\n[jobs.sync]\ncommand = [\"true\"]\n");
    let run = |args: &[&str], variable: &str| {
        let mut command = place.joblock();
        command
            .args(["run", "--explain", "sync", "--config", &place.file()])
            .args(args)
            .env("JOBLOCK_STORE", variable);
        command.output().unwrap()
    };
    let output = run(&[], "sqlite:/b.db");
    assert_eq!(output.status.code(), Some(125));
    assert!(String::from_utf8_lossy(&output.stderr).contains("two stores are two locks"));
    assert_eq!(run(&[], "sqlite:/a.db").status.code(), Some(0));
    assert_eq!(
        run(&["--store", "sqlite:/c.db"], "sqlite:/b.db")
            .status
            .code(),
        Some(0)
    );
}

fn i_am_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[rstest]
#[case::file_for_others(0o646, 0o755)]
#[case::file_for_group(0o664, 0o755)]
#[case::folder_for_others(0o644, 0o757)]
#[case::folder_for_group(0o644, 0o775)]
#[case::sticky_folder(0o644, 0o1777)]
fn root_reads_no_file_that_others_can_write(#[case] file: u32, #[case] folder: u32) {
    let place = Place::new("[jobs.sync]\ncommand = [\"true\"]\n");
    let modes = |file, folder| {
        fs::set_permissions(place.file(), fs::Permissions::from_mode(file)).unwrap();
        fs::set_permissions(place.folder.path(), fs::Permissions::from_mode(folder)).unwrap();
    };
    modes(file, folder);
    let (code, said) = place.explain(&["sync"]);
    assert_eq!(code, if i_am_root() { 125 } else { 0 }, "{said}");
    let of_file = format!("chmod go-w {}\n", place.file());
    assert!(
        !i_am_root()
            || said.contains("can write it")
                && if file == 0o644 {
                    said.contains("in /etc/joblock for example") && !said.contains("chmod")
                } else {
                    said.contains(&of_file)
                },
        "{said}"
    );
    modes(0o600, 0o700);
    assert_eq!(
        place.explain(&["sync"]).0,
        0,
        "the same file, out of others' reach"
    );
}

#[test]
fn root_reads_no_file_of_another_user_nor_one_behind_such_a_folder() {
    let place = Place::new("[jobs.sync]\ncommand = [\"true\"]\n");
    if !i_am_root() {
        assert_eq!(place.explain(&["sync"]).0, 0, "only root is that careful");
        return;
    }
    std::os::unix::fs::chown(place.file(), Some(12345), None).unwrap();
    let (code, said) = place.explain(&["sync"]);
    assert!(
        code == 125 && said.contains("belongs to user id 12345"),
        "{said}"
    );

    let above = tempfile::tempdir().unwrap();
    let (own, others) = (above.path().join("own"), above.path().join("others"));
    fs::create_dir_all(others.join("inner")).unwrap();
    fs::create_dir(&own).unwrap();
    fs::write(
        others.join("inner/joblock.toml"),
        "[jobs.sync]\ncommand = [\"true\"]\n",
    )
    .unwrap();
    std::os::unix::fs::symlink("../others/inner/joblock.toml", own.join("link.toml")).unwrap();
    let explain = |path: &Path| {
        place
            .joblock()
            .args(["run", "--explain", "sync", "--config"])
            .arg(path)
            .output()
            .unwrap()
    };
    assert_eq!(explain(&own.join("link.toml")).status.code(), Some(0));
    std::os::unix::fs::chown(&others, Some(12345), None).unwrap();
    for path in [others.join("inner/joblock.toml"), own.join("link.toml")] {
        let output = explain(&path);
        assert_eq!(output.status.code(), Some(125), "{}", path.display());
    }
}
