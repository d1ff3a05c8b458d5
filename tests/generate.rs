//! Man pages and completions: what is committed is what the program makes, and it works in a shell.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rstest::rstest;

fn joblock(args: &[&str]) -> Vec<u8> {
    let output = Command::new(env!("CARGO_BIN_EXE_joblock"))
        .args(args)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All files below `folder`, by their path from there.
fn files(folder: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(at) = folders.pop() {
        for entry in fs::read_dir(&at).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let text = fs::read_to_string(&path).unwrap();
                found.insert(path.strip_prefix(folder).unwrap().to_owned(), text);
            }
        }
    }
    found
}

#[test]
fn the_committed_man_pages_are_the_generated_ones() {
    let folder = tempfile::tempdir().unwrap();
    joblock(&["generate", "man", folder.path().to_str().unwrap()]);
    let (made, committed) = (files(folder.path()), files(&root().join("man")));
    assert!(
        made.keys().eq(committed.keys()),
        "made {:?}, committed {:?}",
        made.keys(),
        committed.keys()
    );
    for (file, text) in &made {
        assert!(
            committed[file] == *text,
            "man/{} is out of date: run `joblock generate man man`",
            file.display()
        );
    }
    assert!(
        made.contains_key(Path::new("man1/joblock-run.1"))
            && made.contains_key(Path::new("man5/joblock.toml.5"))
    );
}

#[test]
fn the_main_page_goes_to_stdout() {
    let page = joblock(&["generate", "man", "--stdout"]);
    assert_eq!(
        String::from_utf8(page).unwrap(),
        fs::read_to_string(root().join("man/man1/joblock.1")).unwrap()
    );
}

#[rstest]
#[case("bash")]
#[case("zsh")]
#[case("fish")]
fn the_committed_completions_are_the_generated_ones(#[case] shell: &str) {
    let made = String::from_utf8(joblock(&["generate", "completions", shell])).unwrap();
    let file = format!("completions/joblock.{shell}");
    let committed = fs::read_to_string(root().join(&file)).unwrap();
    assert!(
        made == committed,
        "{file} is out of date: run `joblock generate completions {shell} > {file}`"
    );
}

#[rstest]
#[case::a_job(&["run", "per"], "person-sync")]
#[case::a_job_after_options(&["run", "-w", "5m", "-n", "per"], "person-sync")]
#[case::a_job_for_show(&["show", "per"], "person-sync")]
#[case::jobs_for_status(&["status", "backup", "per"], "person-sync")]
#[case::a_command(&["hist"], "history")]
#[case::an_option(&["run", "--time"], "--time-limit")]
#[case::an_option_after_the_job(&["run", "backup", "--time"], "--time-limit")]
#[case::the_job_s_command(&["run", "backup", "--", "tru"], "true")]
#[case::no_job_as_a_duration(&["run", "-w", "per"], "")]
#[case::no_job_for_doctor(&["doctor", "per"], "")]
fn bash_completes(#[case] words: &[&str], #[case] expected: &str) {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("joblock.toml");
    fs::write(&config, "[jobs.person-sync]\n[jobs.backup]\n").unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_joblock")).parent().unwrap();
    let script = r#"
        source "$SCRIPT"
        COMP_WORDS=(joblock "$@")
        COMP_CWORD=$#
        set -- joblock "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
        _joblock_with_jobs "$@"
        printf '%s\n' "${COMPREPLY[@]}"
    "#;
    let output = Command::new("bash")
        .args(["--norc", "-c", script, "bash"])
        .args(words)
        .env("SCRIPT", root().join("completions/joblock.bash"))
        .env("PATH", format!("{}:/usr/bin:/bin", program.display()))
        .env("JOBLOCK_CONFIG", &config)
        .env("HOME", folder.path())
        .current_dir(folder.path())
        .output()
        .unwrap();
    let offered = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines: Vec<_> = offered.lines().filter(|l| !l.is_empty()).collect();
    if expected.is_empty() {
        assert!(!lines.contains(&"person-sync"), "{lines:?}");
    } else {
        assert!(
            lines.contains(&expected),
            "{lines:?} {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

#[test]
fn job_names_fail_silently() {
    let output = Command::new(env!("CARGO_BIN_EXE_joblock"))
        .args([
            "generate",
            "jobs",
            "--config",
            "/nowhere/joblock.toml",
            "--store",
            "sqlite:/nowhere/joblock.db",
        ])
        .output()
        .unwrap();
    assert_eq!(
        (
            output.status.code(),
            output.stdout.len(),
            output.stderr.len()
        ),
        (Some(0), 0, 0)
    );
}
