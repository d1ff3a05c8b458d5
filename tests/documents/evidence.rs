//! docs/evidence.md: each program's figures, and the bugs that were found on the way.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

const HEAD: &str = "\
# Evidence

What the programs of this project measured about it. Each table was written by the program itself, at the length that its command
gives; `make check` runs all of them too, for a shorter time and with seeds of its own. What is promised is in
[guarantees.md](guarantees.md).
";

#[derive(Deserialize)]
struct Record {
    program: String,
    command: String,
    date: String,
    commit: Option<String>,
    cores: u32,
    figures: Vec<(String, Value)>,
}

#[derive(Deserialize)]
struct Bug {
    found_by: String,
    what: String,
    mended: String,
    test: String,
}

pub fn page(root: &Path) -> String {
    let folder = root.join("docs/evidence");
    let mut files: Vec<_> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension().is_some_and(|e| e == "json") && !path.ends_with("bugs.json")
        })
        .collect();
    files.sort();
    let mut page = HEAD.to_owned();
    for file in files {
        let record: Record = serde_json::from_str(&super::read(&file))
            .unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        let at = record
            .commit
            .map_or(String::new(), |c| format!(", at commit {c}"));
        write!(
            page,
            "\n## {}\n\n`{}`, on {} with {} cores{at}\n\n| | |\n|---|---|\n",
            record.program, record.command, record.date, record.cores
        )
        .unwrap();
        for (name, value) in record.figures {
            let value = value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned);
            writeln!(page, "| {name} | {value} |").unwrap();
        }
    }
    let bugs: Vec<Bug> = serde_json::from_str(&super::read(&folder.join("bugs.json"))).unwrap();
    page += "\n## Bugs of our own that this found\n\n| found by | what was wrong | mended | test |\n|---|---|---|---|\n";
    for bug in bugs {
        writeln!(
            page,
            "| {} | {} | {} | {} |",
            bug.found_by, bug.what, bug.mended, bug.test
        )
        .unwrap();
    }
    page
}
