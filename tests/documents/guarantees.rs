//! docs/guarantees.md: `tests/guarantees.toml` says what is promised; which test shows it is read from the tests themselves, where a comment
//! `// shows: FAULT STORE, STORE` stands directly above a test.
//!
//! A promise that no test shows, and a test that shows what nobody promised, are both mistakes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

const STORES: [&str; 3] = ["local", "shared", "lockfile"];

/// What tells a bound without a number.
const BOUNDS: [&str; 4] = ["at once", "no wait", "TTL", "server's lease"];

#[derive(Deserialize)]
struct Table {
    head: String,
    tail: String,
    fault: Vec<Fault>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fault {
    id: String,
    title: String,
    /// What holds on every store that has no cell of its own.
    all: Option<Cell>,
    local: Option<Cell>,
    shared: Option<Cell>,
    lockfile: Option<Cell>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Cell {
    /// What is promised.
    keeps: Option<String>,
    /// The bound, in seconds or in the lease's terms.
    within: Option<String>,
    /// What is not promised.
    not: Option<String>,
    /// Why it can't happen there.
    moot: Option<String>,
}

impl Fault {
    fn cell(&self, store: &str) -> Option<&Cell> {
        let own = match store {
            "local" => &self.local,
            "shared" => &self.shared,
            _ => &self.lockfile,
        };
        own.as_ref().or(self.all.as_ref())
    }
}

/// Fault and store, and the tests that show what is promised there.
type Shown = BTreeMap<(String, String), BTreeSet<String>>;

pub fn page(root: &Path) -> Result<String, Vec<String>> {
    let mut wrong = Vec::new();
    let table: Table = toml::from_str(&super::read(&root.join("tests/guarantees.toml")))
        .map_err(|e| vec![e.to_string()])?;
    let mut shown = Shown::new();
    for file in sources(root) {
        read_markers(root, &file, &mut shown, &mut wrong);
    }
    let mut page = table.head.clone();
    page += "\n| what happens | local `sqlite:` | shared `sqlite:` | `lockfile:` |\n|---|---|---|---|\n";
    for fault in &table.fault {
        write!(page, "| **{}** ", fault.title).unwrap();
        for store in STORES {
            let tests = shown
                .remove(&(fault.id.clone(), store.to_owned()))
                .unwrap_or_default();
            match cell_text(fault, store, &tests) {
                Ok(text) => write!(page, "| {text} ").unwrap(),
                Err(why) => wrong.push(format!("{} on {store}: {why}", fault.id)),
            }
        }
        page += "|\n";
    }
    for ((fault, store), tests) in shown {
        wrong.push(format!(
            "{tests:?} shows {fault} on {store}, which is not in the table"
        ));
    }
    page += &table.tail;
    if wrong.is_empty() {
        Ok(page)
    } else {
        Err(wrong)
    }
}

fn cell_text(fault: &Fault, store: &str, tests: &BTreeSet<String>) -> Result<String, String> {
    let cell = fault.cell(store).ok_or("no cell")?;
    let mut parts = Vec::new();
    if let Some(keeps) = &cell.keeps {
        parts.push(keeps.clone());
        let within = cell.within.as_ref().ok_or("a promise without its bound")?;

        if !within.contains(|c: char| c.is_ascii_digit())
            && !BOUNDS.iter().any(|word| within.contains(word))
        {
            return Err(format!("no bound: {within:?}"));
        }
        parts.push(format!("*Within:* {within}."));
        if tests.is_empty() {
            return Err("promised, and no test shows it".into());
        }
    } else if let Some(why) = &cell.moot {
        parts.push(format!("does not arise: {why}"));
    } else if cell.not.is_none() {
        return Err("neither a promise nor its absence".into());
    }
    if cell.keeps.is_none() && !tests.is_empty() {
        return Err(format!("not promised, but {tests:?} shows it"));
    }
    if let Some(not) = &cell.not {
        parts.push(format!("**Not guaranteed:** {not}"));
    }
    if !tests.is_empty() {
        let names: Vec<_> = tests.iter().map(String::as_str).collect();
        parts.push(format!("*Shown by:* {}", names.join(", ")));
    }
    Ok(parts.join("<br>"))
}

/// Every file that may have tests in it.
fn sources(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root.join("src"), root.join("tests")];
    while let Some(at) = folders.pop() {
        for entry in fs::read_dir(&at).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs")
                && path.file_name() != Path::new(file!()).file_name()
            {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// How a test begins that does nothing but at full length: its cells are shown by `make nfs` alone.
const FULL_ONLY: [&str; 3] = ["if !lab::full() {", "if !full() {", "each(0, "];

/// The test that the lines after a marker begin: attributes and comments, one of them `#[test]` or `#[rstest]`, and a function.
/// And whether it is one of those that `make check` leaves out.
fn test_below<'a>(lines: impl Iterator<Item = &'a str>) -> Option<(String, bool)> {
    let mut is_test = false;
    let mut lines = lines.map(str::trim_start);
    while let Some(line) = lines.next() {
        if let Some(rest) = line.strip_prefix("fn ") {
            let name = rest.split(['(', '<']).next()?;
            let first = lines.find(|line| !line.starts_with("let all = "))?;
            let is_full_only = FULL_ONLY.iter().any(|begin| first.starts_with(begin));
            return is_test.then(|| (name.to_owned(), is_full_only));
        }
        is_test |= line.starts_with("#[test]") || line.starts_with("#[rstest]");
        if line.is_empty() || line.starts_with('}') {
            return None;
        }
    }
    None
}

fn read_markers(root: &Path, file: &Path, shown: &mut Shown, wrong: &mut Vec<String>) {
    let source = super::read(file);
    let lines: Vec<&str> = source.lines().collect();
    let place = file.strip_prefix(root).unwrap().with_extension("");
    let place = place.display().to_string();
    let place = place.strip_prefix("tests/").unwrap_or(&place);
    for (n, line) in lines.iter().enumerate() {
        let Some(marker) = line.trim_start().strip_prefix("// shows: ") else {
            continue;
        };
        let mut bad = |why: &str| wrong.push(format!("{}:{}: {why}", file.display(), n + 1));
        let Some((test, is_full_only)) = test_below(lines[n + 1..].iter().copied()) else {
            bad("no test begins below this");
            continue;
        };
        let how = if is_full_only { " (`make nfs`)" } else { "" };
        let Some((fault, stores)) = marker.split_once(' ') else {
            bad("which stores?");
            continue;
        };
        for store in stores.split(',').map(str::trim) {
            if STORES.contains(&store) {
                shown
                    .entry((fault.to_owned(), store.to_owned()))
                    .or_default()
                    .insert(format!("`{place}::{test}`{how}"));
            } else {
                bad("no such store");
            }
        }
    }
}
