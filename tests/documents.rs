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
