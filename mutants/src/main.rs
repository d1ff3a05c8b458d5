//! Every small change that cargo-mutants knows in what decides and in the stores, without a build for each: all of them stand in one
//! text (`schemata.rs`), and an environment variable says which one is active. Each is then tried by the tests that come by it.
//!
//! `make cargo-mutants`; with arguments, those mutants only whose names have one of them in it. It goes on where it was interrupted:
//! what it found is in target/mutants.

mod account;
mod alone;
mod coverage;
mod judge;
mod list;
mod schemata;
mod simulator;
mod tree;
mod trial;
mod workers;

use std::collections::HashMap;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;

use coverage::Coverage;
use judge::{Fate, Judge, Verdicts};
use list::Mutant;
use schemata::Not;
use simulator::Simulator;
use tree::Tree;
use trial::Stage;

/// What says in the copy of the project whether a mutant is active: `mutant.rs` is put there. The variables that it reads do not begin
/// with `JOBLOCK_`, as the tests take all of those away.
const CHOICE: &str = "crate::mutant::is";

fn main() -> anyhow::Result<ExitCode> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = own.parent().context("the project")?;
    let target = root.join("target/mutants");
    let only: Vec<String> = std::env::args().skip(1).collect();
    let mutants = list::of(root)?;
    println!("{} mutants", mutants.len());
    let mut tree = Tree::copy(root, target.join("tree"), &mutants)?;
    let programs = tree.build(&mutants)?;
    let verdicts = Verdicts::read(&target.join("verdicts.jsonl"), root, &mutants, tree.hashes)?;
    let chosen = |m: &&Mutant| only.is_empty() || only.iter().any(|part| m.name.contains(part));
    let (mut choosable, mut alone) = (Vec::new(), Vec::new());
    for mutant in mutants.iter().filter(chosen) {
        match tree.not.get(&mutant.number) {
            None => choosable.push(mutant),
            Some(Not::Choosable) => alone.push(mutant),
            Some(Not::Viable) => {
                verdicts.keep(mutant, Fate::Unviable, String::new(), Duration::ZERO)?
            }
        }
    }
    println!(
        "{} can be chosen at run time, {} can't",
        choosable.len(),
        alone.len()
    );
    let stage = Stage::new(&tree.folder)?;
    let simulator = Simulator::build(&tree, &stage, &programs)?;
    let coverage = Coverage::measure(&stage, &programs, &mutants, tree.hashes, &target)?;
    Judge::new(&stage, &coverage, &simulator).all(&choosable, &verdicts)?;
    alone::try_each(&tree, &alone, &verdicts)?;
    let verdicts: HashMap<u32, _> = mutants
        .iter()
        .filter(chosen)
        .filter_map(|mutant| Some((mutant.number, verdicts.of(mutant)?)))
        .collect();
    let (complete, kinds) = account::is_complete(&mutants, &verdicts, &own.join("survivors.toml"))?;
    if only.is_empty() {
        account::write(root, &verdicts, &kinds)?;
    }
    Ok(if complete {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
