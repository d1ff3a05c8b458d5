//! Test programs: what tests they have, and one run of some of them.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::tree::Program;

/// The variable that marks every process of a trial, those of killed tests too.
const MARK: &str = "MUTANTS_TRIAL";

/// How much memory a process may map, in KiB: a mutant can take it all.
const MEMORY: u32 = 8 << 20;

/// Which mutants are chosen.
#[derive(Clone, Copy)]
pub enum Choice {
    /// None, and those that are reached are told.
    Reached,
    /// This one; 0 is none.
    One(u32),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    Passed,
    /// What failed first, if it said so.
    Failed(String),
    TimedOut,
}

/// One run of a program.
pub struct Trial {
    pub end: End,
    pub took: Duration,
    pub reached: Vec<u32>,
    pub output: String,
}

/// Where trials are played.
pub struct Stage {
    /// The copy of the project.
    pub tree: PathBuf,
    /// For what they leave.
    pub folder: PathBuf,
}

impl Stage {
    pub fn new(tree: &Path) -> anyhow::Result<Self> {
        let folder = tree.with_file_name("trials");
        fs::create_dir_all(&folder)?;
        let tree = tree.to_owned();
        Ok(Stage { tree, folder })
    }

    /// Plays `program`, whose processes are all gone when it returns.
    pub fn play(
        &self,
        program: &Path,
        args: &[&str],
        choice: Choice,
        limit: Duration,
    ) -> anyhow::Result<Trial> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let mark = format!("{}-{number}", std::process::id());
        let (output, reached) = (
            self.folder.join(format!("output-{mark}")),
            self.folder.join(format!("reached-{mark}")),
        );
        let to = File::create(&output)?;
        let mut command = Command::new("sh");
        command
            .args(["-c", &format!("ulimit -v {MEMORY}; exec \"$0\" \"$@\"")])
            .arg(program)
            .args(args)
            .current_dir(&self.tree)
            .env(MARK, &mark)
            .env("CARGO_MANIFEST_DIR", &self.tree)
            // a mutant is caught by the first case, however large
            .env("PROPTEST_MAX_SHRINK_ITERS", "0")
            .env("PROPTEST_DISABLE_FAILURE_PERSISTENCE", "true")
            .stdin(Stdio::null())
            .stdout(to.try_clone()?)
            .stderr(to)
            .process_group(0);
        match choice {
            Choice::Reached => {
                // also by processes of other users
                File::create(&reached)?.set_permissions(fs::Permissions::from_mode(0o666))?;
                command.env("MUTANTS_REACHED", &reached);
            }
            Choice::One(n) => {
                command.env("MUTANT_ACTIVE", n.to_string());
            }
        }
        let began = Instant::now();
        let mut child = command
            .spawn()
            .with_context(|| program.display().to_string())?;
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break Some(status);
            }
            if began.elapsed() > limit {
                break None;
            }
            thread::sleep(Duration::from_millis(if began.elapsed().as_secs() < 1 {
                2
            } else {
                20
            }));
        };
        let took = began.elapsed();
        if !status.is_some_and(|s| s.success()) {
            let group = Pid::from_child(&child);
            let _ = kill_process_group(group, Signal::KILL);
            child.wait()?;
            end_the_marked(&mark);
        }
        let text = String::from_utf8_lossy(&fs::read(&output)?).into_owned();
        let numbers = fs::read(&reached).unwrap_or_default();
        let mut numbers: Vec<_> = numbers
            .as_chunks()
            .0
            .iter()
            .map(|n| u32::from_le_bytes(*n))
            .collect();
        numbers.sort_unstable();
        numbers.dedup();
        let _ = (fs::remove_file(&output), fs::remove_file(&reached));
        let end = match status {
            Some(status) if status.success() => End::Passed,
            Some(status) => {
                let failed = text
                    .lines()
                    .find_map(|l| l.strip_prefix("test ")?.strip_suffix(" ... FAILED"));
                let otherwise = || match status.signal() {
                    Some(signal) => format!("(signal {signal})"),
                    None => format!("(exit code {})", status.code().unwrap_or_default()),
                };
                End::Failed(failed.map_or_else(otherwise, str::to_owned))
            }
            None => End::TimedOut,
        };
        Ok(Trial {
            end,
            took,
            reached: numbers,
            output: text,
        })
    }

    /// The names of a program's tests.
    pub fn tests(&self, program: &Program) -> anyhow::Result<Vec<String>> {
        let list = self.play(
            &program.file,
            &["--list"],
            Choice::One(0),
            Duration::from_secs(60),
        )?;
        ensure!(list.end == End::Passed, "{}: {}", program.name, list.output);
        let names = list
            .output
            .lines()
            .filter_map(|line| line.strip_suffix(": test"));
        Ok(names.map(str::to_owned).collect())
    }
}

/// Ends what a failed test has left, in sessions of its own, too.
fn end_the_marked(mark: &str) {
    let mark = format!("{MARK}={mark}\0");
    for _ in 0..20 {
        let mut found = false;
        for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let name = process.file_name();
            let Some(pid) = name
                .to_str()
                .and_then(|n| n.parse().ok())
                .and_then(Pid::from_raw)
            else {
                continue;
            };
            let environment = fs::read(process.path().join("environ")).unwrap_or_default();
            if environment
                .windows(mark.len())
                .any(|part| part == mark.as_bytes())
            {
                found = true;
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        if !found {
            break;
        }
        thread::sleep(Duration::from_millis(20));
    }
}
