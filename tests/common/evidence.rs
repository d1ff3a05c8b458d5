//! What a program of this project measured about it, kept in `docs/evidence/` for docs/evidence.md (`tests/documents.rs`).

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use serde_json::json;

/// Set: what is measured is kept. The make targets of full length set it.
const KEEP: &str = "JOBLOCK_RECORD";

/// What is measured, as it was when this was asked for first: others may commit while a long program runs.
fn commit(root: &Path) -> Option<&'static str> {
    static COMMIT: OnceLock<Option<String>> = OnceLock::new();
    let ask = || {
        let mut git = Command::new("git");
        let head = git.args(["rev-parse", "--short", "HEAD"]).current_dir(root);
        let output = head.output().ok().filter(|o| o.status.success())?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    COMMIT.get_or_init(ask).as_deref()
}

/// One program's figures.
pub struct Record {
    program: &'static str,
    command: String,
    figures: Vec<(String, String)>,
}

impl Record {
    /// `command` repeats the figures.
    pub fn new(program: &'static str, command: impl Into<String>) -> Self {
        Record {
            program,
            command: command.into(),
            figures: Vec::new(),
        }
    }

    /// One figure, in the order in which they are to be read.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "numbers and texts, given as they are"
    )]
    pub fn figure(mut self, name: impl Into<String>, value: impl ToString) -> Self {
        self.figures.push((name.into(), value.to_string()));
        self
    }

    /// Keeps it, in the place of the program's last, if this is a run whose figures count.
    pub fn write(&self) {
        if std::env::var_os(KEEP).is_none() {
            return;
        }
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        let record = json!({
            "program": self.program,
            "command": self.command,
            "date": chrono::Utc::now().format("%Y-%m-%d").to_string(),
            "commit": commit(root),
            "cores": cores,
            "figures": self.figures,
        });
        let file = root.join(format!("docs/evidence/{}.json", self.program));
        let text = serde_json::to_string_pretty(&record).expect("JSON") + "\n";
        fs::write(&file, text).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    }
}
