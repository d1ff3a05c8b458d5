//! The simulator of `tests/simulation`, with all mutants of the lease in it.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::ensure;

use crate::tree::{Program, Tree};
use crate::trial::{Choice, End, Stage, Trial};

/// So many worlds, the same ones for each mutant.
const WORLDS: &str = "5000";

/// How often what must happen in so many worlds; `tests/simulation.rs` asks for the same.
const LEAST: [(&str, u64); 6] = [
    ("grants", 10),
    ("faults", 5),
    ("fenced", 0),
    ("lapsed", 0),
    ("from_gone", 0),
    ("lost", 0),
];

pub struct Simulator {
    file: PathBuf,
    limit: Duration,
    pub reached: HashSet<u32>,
}

impl Simulator {
    /// Has the test program build it, and sees what it reaches.
    pub fn build(tree: &Tree, stage: &Stage, programs: &[Program]) -> anyhow::Result<Self> {
        let test = programs.iter().find(|p| p.name == "simulation");
        let test = &test.expect("tests/simulation.rs").file;
        // it judges what it built by its own rules, for one world
        let mut build = tree.cargo_command();
        build.args(["test", "--locked", "--test", "simulation", "worlds"]);
        build
            .env("JOBLOCK_SIMULATE_SEEDS", "1")
            .env("JOBLOCK_SIMULATE_THREADS", "1")
            .output()?;
        let target = test.ancestors().nth(3).expect("a target folder");
        let file = target.join("tmp/simulator/target-as-built/debug/simulator");
        let mut simulator = Simulator {
            file,
            limit: Duration::from_secs(600),
            reached: HashSet::new(),
        };
        let trial = simulator.play(stage, Choice::Reached)?;
        ensure!(
            trial.end == End::Passed,
            "the simulator: {:?}\n{}",
            trial.end,
            trial.output
        );
        simulator.reached = trial.reached.into_iter().collect();
        simulator.limit = trial.took * 10 + Duration::from_secs(20);
        println!(
            "the simulator reaches {} in {:?}",
            simulator.reached.len(),
            trial.took
        );
        Ok(simulator)
    }

    /// With this mutant.
    pub fn play(&self, stage: &Stage, choice: Choice) -> anyhow::Result<Trial> {
        let mut trial = stage.play(&self.file, &["1", WORLDS, "0", "1"], choice, self.limit)?;
        if let End::Failed(how) = &mut trial.end
            && let Some(seed) = trial.output.lines().find(|line| line.starts_with("seed "))
        {
            seed.clone_into(how);
        }
        if trial.end == End::Passed {
            let figures = trial.output.lines().filter_map(|line| line.split_once(' '));
            let figures: HashMap<&str, u64> = figures
                .filter_map(|(name, n)| Some((name, n.parse().ok()?)))
                .collect();
            let figure = |name: &str| figures.get(name).copied().unwrap_or(0);
            if let Some((name, _)) = LEAST
                .iter()
                .find(|(name, least)| figure(name) <= least * figure("seeds"))
            {
                trial.end = End::Failed(format!("{name}: {}", figure(name)));
            }
        }
        Ok(trial)
    }
}
