//! Mutants that can't be chosen at run time, constants most of all: cargo-mutants builds each.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail};
use serde::Deserialize;

use crate::judge::{Fate, Verdicts};
use crate::list::Mutant;
use crate::tree::Tree;

/// What it plays, beside the unit tests; what builds all others each time would take a day.
const TESTS: [&str; 4] = ["bad_store", "fuzz_corpus", "prune", "store_faults"];

#[derive(Deserialize)]
struct Outcomes {
    outcomes: Vec<Outcome>,
}

#[derive(Deserialize)]
struct Outcome {
    scenario: Scenario,
    summary: String,
}

#[derive(Deserialize)]
enum Scenario {
    Baseline,
    Mutant { name: String },
}

/// Has cargo-mutants try those of `mutants` that have no verdict.
pub fn try_each(tree: &Tree, mutants: &[&Mutant], verdicts: &Verdicts) -> anyhow::Result<()> {
    let left: Vec<_> = mutants
        .iter()
        .filter(|m| verdicts.of(m).is_none())
        .collect();
    let out = tree.folder.with_file_name("alone");
    fs::create_dir_all(&out)?;
    for some in left.chunks(8) {
        let mut cargo = Command::new("cargo");
        cargo.args([
            "mutants",
            "--baseline",
            "skip",
            "--timeout",
            "600",
            "--build-timeout",
            "1800",
        ]);
        cargo.arg("-o").arg(&out).current_dir(&tree.root);
        // not all of `src`: fields that are deleted it chooses whatever `-F` says
        for mutant in some {
            let this = format!("^{}$", escaped(&mutant.name));
            cargo.args(["-f", &mutant.file, "-F", &this]);
        }
        cargo.arg("-C=--lib");
        for test in TESTS {
            cargo.args(["-C=--test".to_owned(), format!("-C={test}")]);
        }
        // it says by its exit code what the outcomes say, too
        cargo.env("CARGO_TARGET_DIR", out.join("build"));
        cargo
            .env("CARGO_PROFILE_DEV_DEBUG", "0")
            .env("RUSTFLAGS", "--cap-lints=allow");
        cargo.status().context("cargo")?;
        let outcomes: Outcomes =
            serde_json::from_slice(&fs::read(out.join("mutants.out/outcomes.json"))?)?;
        for mutant in some {
            let is_it = |o: &&Outcome| matches!(&o.scenario, Scenario::Mutant { name } if *name == mutant.name);
            let outcome = outcomes
                .outcomes
                .iter()
                .find(is_it)
                .with_context(|| mutant.name.clone())?;
            let fate = match &outcome.summary[..] {
                "CaughtMutant" => Fate::Alone,
                "MissedMutant" => Fate::Survived,
                "Timeout" => Fate::TimeOut,
                "Unviable" => Fate::Unviable,
                other => bail!("{}: {other}", mutant.name),
            };
            verdicts.keep(mutant, fate, "built alone".into(), Duration::ZERO)?;
        }
    }
    Ok(())
}

/// As a regular expression that is this text.
fn escaped(text: &str) -> String {
    let mut regex = String::new();
    for c in text.chars() {
        if r".^$*+?()[]{}|\".contains(c) {
            regex.push('\\');
        }
        regex.push(c);
    }
    regex
}
