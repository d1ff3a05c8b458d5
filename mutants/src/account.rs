//! The account of the survivors: `survivors.toml` says why each may, and docs/evidence/cargo_mutants.json how many there are.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::judge::{Fate, Verdict};
use crate::list::Mutant;

/// Why a mutant may survive.
#[derive(Deserialize, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// It does the same.
    Equivalent,
    /// Only how fast something is, or what is printed or kept for people, differs.
    Harmless,
    /// A program that isn't played here shows it: it needs machines, or a long time.
    Elsewhere,
    /// No test would notice.
    Gap,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Survivors {
    survivor: Vec<Survivor>,
}

/// Survivors with one reason.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Survivor {
    /// Their titles: `FILE: WHAT cargo-mutants changes`, and ` #N` if it is the Nth with that text.
    mutants: Vec<String>,
    kind: Kind,
    /// For those who read the file.
    #[allow(dead_code, reason = "it must be there")]
    reason: String,
}

/// Prints what differs between the survivors that there are and those that are accounted for; false if one is not.
pub fn is_complete(
    mutants: &[Mutant],
    verdicts: &HashMap<u32, Verdict>,
    file: &Path,
) -> anyhow::Result<(bool, BTreeMap<Kind, usize>)> {
    let text = fs::read_to_string(file)?;
    let listed: Survivors = toml::from_str(&text).with_context(|| file.display().to_string())?;
    let mut kinds = HashMap::new();
    for survivor in &listed.survivor {
        for title in &survivor.mutants {
            ensure!(
                kinds.insert(&title[..], survivor.kind).is_none(),
                "twice in survivors.toml: {title}"
            );
        }
    }
    let (mut complete, mut counts) = (true, BTreeMap::new());
    for mutant in mutants {
        let kind = kinds.remove(&mutant.title[..]);
        match (verdicts.get(&mutant.number), kind) {
            (Some(verdict), Some(kind)) if verdict.fate.survives() => {
                *counts.entry(kind).or_default() += 1
            }
            (Some(verdict), None) if verdict.fate.survives() => {
                println!(
                    "survives, not in survivors.toml: {} ({:?}: {})",
                    mutant.title, verdict.fate, verdict.by
                );
                complete = false;
            }
            (Some(verdict), Some(_)) => println!(
                "in survivors.toml, but {:?} {}: {}",
                verdict.fate, verdict.by, mutant.title
            ),
            _ => {}
        }
    }
    for title in kinds.keys() {
        println!("in survivors.toml, but cargo-mutants has no such mutant: {title}");
    }
    Ok((complete, counts))
}

/// Writes the evidence.
pub fn write(
    root: &Path,
    verdicts: &HashMap<u32, Verdict>,
    kinds: &BTreeMap<Kind, usize>,
) -> anyhow::Result<()> {
    let count = |fate: Fate| verdicts.values().filter(|v| v.fate == fate).count();
    let survivors = verdicts.values().filter(|v| v.fate.survives()).count();
    let kind = |kind: Kind| kinds.get(&kind).copied().unwrap_or(0);
    let figures: [(&str, usize); 12] = [
        (
            "mutants of cargo-mutants in `src/lease` and `src/store`",
            verdicts.len(),
        ),
        ("of these, not viable", count(Fate::Unviable)),
        ("caught by unit tests", count(Fate::Unit)),
        ("caught by integration tests", count(Fate::Integration)),
        ("caught by the simulator", count(Fate::Simulator)),
        ("caught as nothing ended in time", count(Fate::TimeOut)),
        ("caught when built alone", count(Fate::Alone)),
        ("survivors", survivors),
        ("of these, the same behaviour", kind(Kind::Equivalent)),
        ("only speed, or words", kind(Kind::Harmless)),
        (
            "shown by tests that are not played here",
            kind(Kind::Elsewhere),
        ),
        ("that no test would notice", kind(Kind::Gap)),
    ];
    let git = Command::new("git")
        .args(["rev-parse", "--short", "HEAD"])
        .current_dir(root)
        .output()?;
    let commit = String::from_utf8_lossy(&git.stdout).trim().to_owned();
    let record: Value = json!({
        "program": "cargo_mutants",
        "command": "make cargo-mutants",
        "date": chrono::Utc::now().format("%Y-%m-%d").to_string(),
        "commit": commit,
        "cores": std::thread::available_parallelism().map_or(0, usize::from),
        "figures": figures,
    });
    let text = serde_json::to_string_pretty(&record)? + "\n";
    Ok(fs::write(
        root.join("docs/evidence/cargo_mutants.json"),
        text,
    )?)
}
