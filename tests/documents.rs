//! Documents that programs write: docs/guarantees.md from a table and from the tests that show each of its cells, and docs/evidence.md
//! from what the programs of this project measured. `make documents` writes them; here they must be what is committed.

#[path = "documents/evidence.rs"]
mod evidence;
#[path = "documents/guarantees.rs"]
mod guarantees;

use std::fs;
use std::path::Path;

/// Set: the documents are written instead of compared.
const WRITE: &str = "JOBLOCK_WRITE_DOCUMENTS";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

#[track_caller]
fn is_committed(document: &str, text: &str) {
    let path = root().join(document);
    if std::env::var_os(WRITE).is_some() {
        fs::write(&path, text).unwrap();
    }
    assert!(
        read(&path) == text,
        "{document} is out of date: run `make documents`"
    );
}

#[test]
fn the_guarantees_are_those_that_tests_show() {
    is_committed(
        "docs/guarantees.md",
        &guarantees::page(root()).unwrap_or_else(|wrong| panic!("{}", wrong.join("\n"))),
    );
}

#[test]
fn the_evidence_is_what_the_programs_measured() {
    is_committed("docs/evidence.md", &evidence::page(root()));
}

/// A bug that was mended is held by the test that it names.
#[test]
fn every_test_planted_bug_and_seed_that_a_bug_names_is_there() {
    #[derive(serde::Deserialize)]
    struct Bug {
        test: String,
    }
    let bugs: Vec<Bug> =
        serde_json::from_str(&read(&root().join("docs/evidence/bugs.json"))).expect("JSON");
    let mut sources = String::new();
    for folder in ["src", "tests"] {
        read_all(&root().join(folder), &mut sources);
    }
    let is_name = |word: &&str| word.matches('_').count() > 1;
    let words = |text: &str| -> Vec<String> {
        text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .filter(is_name)
            .map(|name| format!("fn {name}("))
            .collect()
    };
    for bug in &bugs {
        let planted = bug.test.split('"').skip(1).step_by(2).map(str::to_owned);
        let seed = bug.test.split("seed ").nth(1).map(str::to_owned);
        let named = words(&bug.test).into_iter().chain(planted).chain(seed);
        for name in named {
            assert!(
                sources.contains(&name),
                "{:?}: there is no {name}",
                bug.test
            );
        }
    }
}

fn read_all(folder: &Path, text: &mut String) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            read_all(&path, text);
        } else if let Ok(file) = fs::read_to_string(&path) {
            text.push_str(&file);
        }
    }
}
