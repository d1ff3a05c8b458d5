//! Whatever stands in the environment: an exit code of the table, words without control characters, no panic, and
//! no more memory than a program of this size needs.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rstest::rstest;
use rustix::process::{Resource, Rlimit, setrlimit};

const VARIABLES: &[&str] = &[
    "JOBLOCK_STORE",
    "JOBLOCK_CONFIG",
    "JOBLOCK_TRIGGER",
    "JOBLOCK_RUN_ID",
    "JOBLOCK_TOKEN",
    "JOBLOCK_JOB",
    "HOME",
    "XDG_STATE_HOME",
    "SUDO_USER",
    "TRIGGER_UNIT",
    "TZ",
    "TERM",
    "COLUMNS",
    "PATH",
];

/// Address space for everything, its libraries included.
const MEMORY: u64 = 512 << 20;

fn values() -> Vec<OsString> {
    let bytes: [&[u8]; 9] = [
        b"",
        b"\xff\xfe",
        b"\x1b[2J\x07\n",
        b"sqlite:x\x1b]0;t\x07.db",
        b"lockfile:.\xff",
        b"/dev/zero",
        b"-1",
        b"18446744073709551616",
        b"%s%n",
    ];
    let mut values: Vec<_> = bytes
        .iter()
        .map(|v| OsString::from_vec(v.to_vec()))
        .collect();
    values.push(OsString::from_vec(vec![b'A'; 100_000]));
    values
}

// shows: bad-input local
#[rstest]
#[case::run(&["run", "job", "--", "/bin/true"], &[0, 69, 125])]
#[case::check(&["check"], &[0, 2, 3])]
#[case::assert(&["assert"], &[0, 1, 69])]
fn any_value_of_any_variable_gets_an_answer(#[case] args: &[&str], #[case] codes: &[i32]) {
    let folder = tempfile::tempdir().expect("a folder");
    for variable in VARIABLES {
        for value in values() {
            let mut command = Command::new(env!("CARGO_BIN_EXE_joblock"));
            command.args(args).current_dir(folder.path()).env_clear();
            if *variable != "JOBLOCK_STORE" {
                let mut store = OsString::from("sqlite:");
                store.push(folder.path().join("s.db"));
                command.env("JOBLOCK_STORE", store);
            }
            command.env(variable, &value);
            // SAFETY: setrlimit(2) is async-signal-safe.
            unsafe {
                command.pre_exec(|| {
                    let limit = Rlimit {
                        current: Some(MEMORY),
                        maximum: Some(MEMORY),
                    };
                    Ok(setrlimit(Resource::As, limit)?)
                });
            }
            let output = command.output().expect("it starts");
            let said = String::from_utf8_lossy(&output.stderr);
            let shown: String = value.to_string_lossy().chars().take(40).collect();
            let what = format!("{variable}={shown:?}: {:?}: {said}", output.status);
            let code = output.status.code().expect("no signal ended it");
            assert!(codes.contains(&code), "{what}");
            assert!(!said.contains("panicked"), "{what}");
            let bad = said.chars().find(|c| c.is_control() && *c != '\n');
            assert_eq!(bad, None, "{what}");
        }
    }
}

#[test]
fn a_jobs_file_without_an_end_is_not_read_to_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("joblock.toml");
    let file = std::fs::File::create(&path).expect("a file");
    // of NUL characters, which take no room on the disk
    file.set_len(1 << 40).expect("a length");
    let output = Command::new(env!("CARGO_BIN_EXE_joblock"))
        .args(["--store", "sqlite:/nowhere/s.db", "status"])
        .env("JOBLOCK_CONFIG", &path)
        .output()
        .expect("it starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{said}");
    assert!(said.contains("that is no jobs file"), "{said}");
}
