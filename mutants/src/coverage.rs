//! Which test reaches which mutants: each test alone, once, with no mutant active.

use std::collections::{HashMap, HashSet};
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::list::Mutant;
use crate::tree::{Hashes, Program};
use crate::trial::{Choice, End, Stage};
use crate::workers;

/// Left out: what takes hours at its full length and tries little in a short time; what counts system calls, which asking for a mutant
/// adds to; what reads the project's files only.
const LEFT_OUT: [&str; 6] = [
    "campaign",
    "cost",
    "documents",
    "faults",
    "generate",
    "power_loss",
];
/// Those need machines of their own.
const MACHINES: &str = "pub mod lab;";
/// The simulator is asked directly.
const SIMULATED: [&str; 2] = [
    "worlds_with_fresh_seeds_break_no_rule",
    "planted_bugs_are_found",
];

/// A test that takes longer by itself is not used.
const LIMIT: Duration = Duration::from_secs(150);

/// What a test did with no mutant active.
#[derive(Serialize, Deserialize, Clone)]
pub struct Test {
    pub program: String,
    pub unit: bool,
    pub name: String,
    pub passed: bool,
    pub seconds: f64,
    pub reached: Vec<u32>,
    /// The program's.
    #[serde(skip)]
    pub file: PathBuf,
    /// By file, how much of it this test comes by, and few others.
    #[serde(skip)]
    pub about: HashMap<String, f64>,
}

pub struct Coverage {
    pub tests: Vec<Test>,
    /// By mutant, indices of tests.
    reaching: HashMap<u32, Vec<usize>>,
}

impl Coverage {
    /// Of all tests; those that a file in `folder` knows already are not played again.
    pub fn measure(
        stage: &Stage,
        programs: &[Program],
        mutants: &[Mutant],
        hashes: Hashes,
        folder: &Path,
    ) -> anyhow::Result<Self> {
        let unit = folder.join(format!("coverage-unit-{:016x}.jsonl", hashes.all));
        let integration = format!("coverage-integration-{:016x}.jsonl", hashes.product);
        let mut known: Vec<Test> = Vec::new();
        let mut kept = Vec::new();
        for file in [folder.join(integration), unit] {
            let text = fs::read_to_string(&file).unwrap_or_default();
            let lines = text.lines();
            known.extend(lines.filter_map(|line| serde_json::from_str(line).ok()));
            kept.push(OpenOptions::new().create(true).append(true).open(file)?);
        }
        let names: HashSet<_> = known.iter().map(|t| (&t.program, &t.name)).collect();
        let mut all = Vec::new();
        for program in programs {
            if !program.unit && is_left_out(program)? {
                println!("left out: {}", program.name);
                continue;
            }
            for name in stage.tests(program)? {
                if !SIMULATED.contains(&name.as_str()) && !names.contains(&(&program.name, &name)) {
                    all.push((program, name));
                }
            }
        }
        println!(
            "{} tests, {} of them to be played",
            known.len() + all.len(),
            all.len()
        );
        let kept = Mutex::new(kept);
        let played = workers::all(&all, |(program, name)| {
            let trial = stage.play(&program.file, &["--exact", name], Choice::Reached, LIMIT)?;
            let test = Test {
                program: program.name.clone(),
                unit: program.unit,
                name: name.clone(),
                passed: trial.end == End::Passed,
                seconds: trial.took.as_secs_f64(),
                reached: trial.reached,
                file: PathBuf::new(),
                about: HashMap::new(),
            };
            if !test.passed {
                println!(
                    "not used, as it fails with no mutant: {} {name}",
                    program.name
                );
                let output = format!("failed-{}-{name}", program.name);
                fs::write(stage.folder.join(output), trial.output)?;
            }
            let line = serde_json::to_string(&test)? + "\n";
            let mut kept = kept.lock().expect("whole");
            kept[usize::from(test.unit)].write_all(line.as_bytes())?;
            Ok(test)
        })?;
        let mut tests: Vec<Test> = known.into_iter().chain(played).collect();
        tests.retain(|test| test.passed);
        Ok(Self::of_tests(tests, programs, mutants))
    }

    fn of_tests(mut tests: Vec<Test>, programs: &[Program], mutants: &[Mutant]) -> Self {
        let mut reaching: HashMap<_, Vec<_>> = HashMap::new();
        for (i, test) in tests.iter().enumerate() {
            for n in &test.reached {
                reaching.entry(*n).or_default().push(i);
            }
        }
        for test in &mut tests {
            let program = programs.iter().find(|p| p.name == test.program);
            test.file = program.map(|p| p.file.clone()).unwrap_or_default();
            for n in &test.reached {
                let file = mutants[*n as usize - 1].file.clone();
                #[expect(clippy::cast_precision_loss, reason = "there are not so many tests")]
                let share = 1.0 / reaching[n].len() as f64;
                *test.about.entry(file).or_default() += share;
            }
        }
        Coverage { tests, reaching }
    }

    /// Those that reach the mutant `n`.
    pub fn of(&self, n: u32) -> impl Iterator<Item = &Test> {
        self.reaching
            .get(&n)
            .into_iter()
            .flatten()
            .map(|i| &self.tests[*i])
    }
}

fn is_left_out(program: &Program) -> anyhow::Result<bool> {
    let source = fs::read_to_string(&program.source)?;
    Ok(LEFT_OUT.contains(&program.name.as_str()) || source.contains(MACHINES))
}
