//! What a program of this project measured about it, kept in `docs/evidence/` for docs/evidence.md (`tests/documents.rs`).

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use serde::Deserialize;
use serde_json::{Value, json};

/// Set: what is measured is kept. The make targets of full length set it.
const KEEP: &str = "JOBLOCK_RECORD";

/// Set: its numbers are added to those on record, for a full length that takes more than one run.
const GO_ON: &str = "JOBLOCK_GO_ON";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// What is measured, as it was when this was asked for first: others may commit while a long program runs.
fn commit() -> Option<&'static str> {
    static COMMIT: OnceLock<Option<String>> = OnceLock::new();
    let ask = || {
        let mut git = Command::new("git");
        let head = git
            .args(["rev-parse", "--short", "HEAD"])
            .current_dir(root());
        let output = head.output().ok().filter(|o| o.status.success())?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    COMMIT.get_or_init(ask).as_deref()
}

/// One program's figures.
#[derive(Deserialize)]
pub struct Record {
    program: String,
    command: String,
    commit: Option<String>,
    figures: Vec<(String, Value)>,
}

impl Record {
    /// `command` repeats the figures.
    pub fn new(program: impl Into<String>, command: impl Into<String>) -> Self {
        Record {
            program: program.into(),
            command: command.into(),
            commit: commit().map(str::to_owned),
            figures: Vec::new(),
        }
    }

    /// One figure, in the order in which they are to be read. One that is given as a text is not added to an earlier one.
    pub fn figure(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.figures.push((name.into(), value.into()));
        self
    }

    /// Adds the numbers of an earlier run, and names what was measured then, and by which command, too.
    fn add(&mut self, earlier: &Record) {
        if !earlier.command.split("; ").any(|c| c == self.command) {
            self.command = format!("{}; {}", earlier.command, self.command);
        }
        for (name, value) in &earlier.figures {
            match self.figures.iter_mut().find(|(own, _)| own == name) {
                Some((_, own)) => {
                    if let (Some(now), Some(then)) = (own.as_u64(), value.as_u64()) {
                        *own = (now + then).into();
                    }
                }
                None => self.figures.push((name.clone(), value.clone())),
            }
        }
        let mut commits: Vec<_> = earlier.commit.iter().flat_map(|c| c.split(", ")).collect();
        commits.extend(self.commit.as_deref());
        commits.dedup();
        self.commit = Some(commits.join(", "));
    }

    /// Keeps it, in the place of the program's last, if this is a run whose figures count.
    pub fn write(mut self) {
        // as it was before this program first wrote
        static EARLIER: OnceLock<Option<Record>> = OnceLock::new();
        if std::env::var_os(KEEP).is_none() {
            return;
        }
        let file = root().join(format!("docs/evidence/{}.json", self.program));
        let earlier = EARLIER.get_or_init(|| {
            std::env::var_os(GO_ON).filter(|set| !set.is_empty())?;
            let text = fs::read(&file).ok()?;
            Some(serde_json::from_slice(&text).expect("a record"))
        });
        if let Some(earlier) = earlier {
            self.add(earlier);
        }
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        let record = json!({
            "program": self.program,
            "command": self.command,
            "date": chrono::Utc::now().format("%Y-%m-%d").to_string(),
            "commit": self.commit,
            "cores": cores,
            "figures": self.figures,
        });
        let text = serde_json::to_string_pretty(&record).expect("JSON") + "\n";
        fs::write(&file, text).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    }
}
