//! Whether joblock, started on what a crash left, keeps its promises.

use std::ffi::CString;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use rusqlite::{Connection, OpenFlags};
use serde_json::Value;
use tempfile::TempDir;

use crate::image::Image;
use crate::tracer;

/// Which store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kept {
    Local,
    Shared,
    Lockfile,
}

impl Kept {
    pub const ALL: [Kept; 3] = [Kept::Local, Kept::Shared, Kept::Lockfile];

    pub fn url(self, folder: &Path) -> String {
        let folder = folder.display();
        match self {
            Kept::Local => format!("sqlite:{folder}/joblock.db"),
            Kept::Shared => format!("sqlite:{folder}/joblock.db?shared"),
            Kept::Lockfile => format!("lockfile:{folder}"),
        }
    }

    fn database(self) -> &'static str {
        if self == Kept::Lockfile {
            "history.db"
        } else {
            "joblock.db"
        }
    }
}

/// What the world outside knew when the power was lost.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Known {
    /// Runs whose jobs were started: token and run id.
    pub began: Vec<(i64, String)>,
    /// Of those, the ones whose commands had ended, with the outcome that they told.
    pub ended: Vec<(String, &'static str)>,
}

/// A folder in memory, where there is one.
pub fn folder() -> TempDir {
    let made = tempfile::Builder::new()
        .prefix("joblock-")
        .tempdir_in("/dev/shm");
    made.or_else(|_| TempDir::new()).expect("a folder")
}

/// joblock after the machine was started again: /proc tells another boot id, in a mount namespace of its own.
pub fn after_a_reboot(command: &mut Command, folder: &Path) {
    let id = folder.join("boot_id");
    fs::write(&id, "5d9e6bb2-0000-4000-8000-7c1bd1c0ffee\n").expect("a boot id");
    let path = |p: &Path| CString::new(p.as_os_str().as_encoded_bytes()).expect("a path");
    let (id, real) = (
        path(&id),
        path(Path::new("/proc/sys/kernel/random/boot_id")),
    );
    let root = path(Path::new("/"));
    // SAFETY: system calls with strings that were made before the fork.
    unsafe {
        command.pre_exec(move || {
            let none = std::ptr::null::<libc::c_char>();
            let private = libc::MS_REC | libc::MS_PRIVATE;
            if libc::unshare(libc::CLONE_NEWNS) == -1
                || libc::mount(none, root.as_ptr(), none, private, none.cast()) == -1
                || libc::mount(id.as_ptr(), real.as_ptr(), none, libc::MS_BIND, none.cast()) == -1
            {
                return Err(std::io::Error::last_os_error());
            }
            Ok(())
        });
    }
}

/// Runs a command that must end: one that hangs is an answer too.
fn finish(mut command: Command) -> Result<Output, String> {
    let words = format!("{command:?}");
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let child = child.map_err(|e| format!("{words}: {e}"))?;
    // timeout(1) has ended it, should it hang
    child
        .wait_with_output()
        .map_err(|e| format!("{words}: {e}"))
}

fn joblock(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new("timeout");
    command
        .args(["--kill-after=5", "60"])
        .arg(tracer::joblock())
        .args(arguments);
    command
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", folder);
    after_a_reboot(&mut command, folder);
    command
}

/// What is wrong with a store that a crash left as `image`.
pub fn check(kept: Kept, image: &Image, known: &Known) -> Vec<String> {
    let folder = folder();
    let store = folder.path().join("store");
    fs::create_dir(&store).expect("a folder");
    image.write(&store);
    let url = kept.url(&store);
    let mut wrong = Vec::new();
    if !known.began.is_empty() {
        wrong.extend(history(
            finish(joblock(
                folder.path(),
                &["history", "--json", "-n", "1000", "--store", &url],
            )),
            known,
        ));
    }
    let run = [
        "run",
        "--store",
        &url,
        "--trigger",
        "other",
        "-w",
        "17s",
        "job",
        "--",
        "/bin/sh",
        "-c",
        "echo $JOBLOCK_TOKEN",
    ];
    let newest = known
        .began
        .iter()
        .map(|(token, _)| *token)
        .max()
        .unwrap_or_default();
    match finish(joblock(folder.path(), &run)) {
        Ok(done) if done.status.success() => {
            let token = String::from_utf8_lossy(&done.stdout)
                .trim()
                .parse::<i64>()
                .unwrap_or_default();
            if token <= newest {
                wrong.push(format!(
                    "token {token} was given, and a job had seen {newest} before"
                ));
            }
        }
        other => wrong.push(format!("the next start does not work: {other:?}")),
    }
    match rows(&store.join(kept.database())) {
        Ok((integrity, rows)) => {
            if integrity != "ok" {
                wrong.push(format!("integrity_check: {integrity}"));
            }
            for (token, id) in &known.began {
                let row = rows.iter().find(|(run, ..)| run == id);
                let wanted = known
                    .ended
                    .iter()
                    .find(|(run, _)| run == id)
                    .map(|(_, outcome)| *outcome);
                let right = row.is_some_and(|(_, of_row, outcome)| {
                    of_row == token
                        && outcome != "running"
                        && wanted.is_none_or(|wanted| wanted == outcome)
                });
                if !right {
                    wrong.push(format!(
                        "the run with token {token} should be {wanted:?}, and its row is {row:?}"
                    ));
                }
            }
            let mut tokens: Vec<i64> = rows
                .iter()
                .map(|(_, token, _)| *token)
                .filter(|t| *t > 0)
                .collect();
            let all = tokens.len();
            tokens.sort_unstable();
            tokens.dedup();
            if tokens.len() != all {
                wrong.push("a token stands in two rows".into());
            }
        }
        Err(error) => wrong.push(format!("the database: {error}")),
    }
    wrong
}

/// What a reader is shown before anybody wrote.
fn history(done: Result<Output, String>, known: &Known) -> Vec<String> {
    let done = match done {
        Ok(done) if done.status.success() => done,
        other => return vec![format!("history does not work: {other:?}")],
    };
    let answer: Value = serde_json::from_slice(&done.stdout).unwrap_or_default();
    let empty = Vec::new();
    let runs = answer["runs"].as_array().unwrap_or(&empty);
    let mut wrong = Vec::new();
    for (token, id) in &known.began {
        let outcome = runs
            .iter()
            .find(|run| run["run_id"] == id.as_str())
            .and_then(|run| run["outcome"].as_str());
        let wanted = known
            .ended
            .iter()
            .find(|(run, _)| run == id)
            .map(|(_, outcome)| *outcome);
        if outcome.is_none_or(|outcome| wanted.is_some_and(|wanted| wanted != outcome)) {
            wrong.push(format!(
                "history shows the run with token {token} as {outcome:?}, not {wanted:?}"
            ));
        }
    }
    wrong
}

type Rows = Vec<(String, i64, String)>;

fn rows(database: &Path) -> rusqlite::Result<(String, Rows)> {
    let conn = Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    let integrity = conn.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
    let mut statement = conn.prepare("SELECT run_id, coalesce(token, 0), outcome FROM runs")?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    Ok((integrity, rows.collect::<Result<_, _>>()?))
}
