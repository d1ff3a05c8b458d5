//! Mutants, one by one: is there a test that fails with it?

use std::collections::{HashMap, HashSet};
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::coverage::{Coverage, Test};
use crate::list::Mutant;
use crate::simulator::Simulator;
use crate::tree::{self, Hashes};
use crate::trial::{Choice, End, Stage};
use crate::workers;

/// Integration tests are tried for as long, by the time that they take with no mutant active.
const BUDGET: f64 = 60.0;
/// One that takes longer is not.
const LONG: f64 = 60.0;
/// Those of one program that take no longer together are played at once.
const TOGETHER: f64 = 3.0;

/// What became of a mutant.
#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord)]
#[serde(rename_all = "kebab-case")]
pub enum Fate {
    Unviable,
    Unit,
    Integration,
    Simulator,
    TimeOut,
    /// By cargo-mutants itself, which built it alone.
    Alone,
    Survived,
    /// No test comes by.
    NotReached,
}

impl Fate {
    pub fn survives(self) -> bool {
        matches!(self, Fate::Survived | Fate::NotReached)
    }
}

#[derive(Serialize, Deserialize, Clone, Debug)]
pub struct Verdict {
    pub mutant: String,
    pub number: u32,
    pub fate: Fate,
    /// The test.
    pub by: String,
    pub seconds: f64,
    /// Of its file without the unit tests.
    file: u64,
    hashes: Hashes,
}

/// All verdicts so far, and where they are kept. One stands for as long as the mutant's file is the same; that it survived, only for
/// as long as everything is.
pub struct Verdicts {
    file: Mutex<fs::File>,
    known: Mutex<HashMap<String, Verdict>>,
    /// Survivors of the same product, which new unit tests may catch.
    survived: HashMap<String, Verdict>,
    files: HashMap<String, u64>,
    hashes: Hashes,
}

impl Verdicts {
    pub fn read(
        path: &Path,
        root: &Path,
        mutants: &[Mutant],
        hashes: Hashes,
    ) -> anyhow::Result<Self> {
        let mut files = HashMap::new();
        for mutant in mutants {
            if !files.contains_key(&mutant.file) {
                let source = fs::read_to_string(root.join(&mutant.file))?;
                files.insert(mutant.file.clone(), tree::hash(tree::product(&source)));
            }
        }
        let of: HashMap<&str, u64> = mutants
            .iter()
            .map(|m| (&m.name[..], files[&m.file]))
            .collect();
        let (mut known, mut survived) = (HashMap::new(), HashMap::new());
        for line in fs::read_to_string(path).unwrap_or_default().lines() {
            // a line that was cut off says nothing
            let Ok(verdict) = serde_json::from_str::<Verdict>(line) else {
                continue;
            };
            if of.get(&verdict.mutant[..]) != Some(&verdict.file) {
                continue;
            }
            if !verdict.fate.survives() || verdict.hashes == hashes {
                known.insert(verdict.mutant.clone(), verdict);
            } else if verdict.hashes.product == hashes.product {
                survived.insert(verdict.mutant.clone(), verdict);
            }
        }
        Ok(Verdicts {
            file: Mutex::new(OpenOptions::new().create(true).append(true).open(path)?),
            known: Mutex::new(known),
            survived,
            files,
            hashes,
        })
    }

    pub fn of(&self, mutant: &Mutant) -> Option<Verdict> {
        self.known.lock().expect("whole").get(&mutant.name).cloned()
    }

    pub fn keep(
        &self,
        mutant: &Mutant,
        fate: Fate,
        by: String,
        took: Duration,
    ) -> anyhow::Result<()> {
        let verdict = Verdict {
            mutant: mutant.name.clone(),
            number: mutant.number,
            fate,
            by,
            seconds: took.as_secs_f64(),
            file: self.files[&mutant.file],
            hashes: self.hashes,
        };
        let line = serde_json::to_string(&verdict)? + "\n";
        self.file
            .lock()
            .expect("whole")
            .write_all(line.as_bytes())?;
        self.known
            .lock()
            .expect("whole")
            .insert(mutant.name.clone(), verdict);
        Ok(())
    }
}

/// What it takes to judge.
pub struct Judge<'a> {
    pub stage: &'a Stage,
    pub coverage: &'a Coverage,
    pub simulator: &'a Simulator,
    /// How many mutants of a function each test has caught: the next one is likely to be caught by it, too.
    caught: Mutex<HashMap<(String, usize, String), usize>>,
}

impl<'a> Judge<'a> {
    pub fn new(stage: &'a Stage, coverage: &'a Coverage, simulator: &'a Simulator) -> Self {
        Judge {
            stage,
            coverage,
            simulator,
            caught: Mutex::default(),
        }
    }

    /// All of `mutants` that have no verdict yet: first by what is quick, which leaves few.
    pub fn all(&self, mutants: &[&Mutant], verdicts: &Verdicts) -> anyhow::Result<()> {
        type Round<'a> =
            fn(&Judge<'a>, &Mutant, &Verdicts) -> anyhow::Result<Option<(Fate, String)>>;
        let rounds: [Round<'a>; 2] = [Self::quickly, Self::slowly];
        for round in rounds {
            let left = mutants.iter().filter(|m| verdicts.of(m).is_none());
            let left: Vec<_> = left.collect();
            let done = AtomicUsize::new(0);
            workers::all(&left, |mutant| {
                let began = Instant::now();
                let done = done.fetch_add(1, Ordering::Relaxed) + 1;
                let Some((fate, by)) = round(self, mutant, verdicts)? else {
                    return Ok(());
                };
                println!("{done}/{} {fate:?} {}: {by}", left.len(), mutant.name);
                verdicts.keep(mutant, fate, by, began.elapsed())
            })?;
        }
        Ok(())
    }

    fn tests(&self, mutant: &Mutant, unit: bool) -> Vec<&Test> {
        let all = self.coverage.of(mutant.number);
        all.filter(|test| test.unit == unit).collect()
    }

    /// By unit tests and by the simulator.
    fn quickly(&self, mutant: &Mutant, _: &Verdicts) -> anyhow::Result<Option<(Fate, String)>> {
        if let Some(caught) = self.by_tests(mutant, &self.tests(mutant, true), Fate::Unit)? {
            return Ok(Some(caught));
        }
        if !self.simulator.reached.contains(&mutant.number) {
            return Ok(None);
        }
        let trial = self
            .simulator
            .play(self.stage, Choice::One(mutant.number))?;
        Ok(match trial.end {
            End::Passed => None,
            End::Failed(how) => Some((Fate::Simulator, how)),
            End::TimedOut => Some((Fate::TimeOut, "simulator".into())),
        })
    }

    /// By integration tests, which is the last word.
    fn slowly(
        &self,
        mutant: &Mutant,
        verdicts: &Verdicts,
    ) -> anyhow::Result<Option<(Fate, String)>> {
        if let Some(verdict) = verdicts.survived.get(&mutant.name) {
            return Ok(Some((verdict.fate, verdict.by.clone())));
        }
        let mut integration = self.tests(mutant, false);
        if integration.is_empty() && self.tests(mutant, true).is_empty() {
            return Ok(Some((Fate::NotReached, String::new())));
        }
        let catches = |test: &Test| {
            let caught = self.caught.lock().expect("whole");
            caught.get(&key(mutant, test)).copied().unwrap_or(0)
        };
        // those that have most to do with the file for the time that they take
        let worth = |test: &Test| test.about[&mutant.file] / (1.0 + test.seconds);
        integration.sort_by(|a, b| {
            let order = catches(b).cmp(&catches(a));
            order.then(worth(b).total_cmp(&worth(a)))
        });
        integration.retain(|test| test.seconds < LONG);
        let mut spent = 0.0;
        while !integration.is_empty() && spent < BUDGET {
            let (program, mut seconds) = (integration[0].program.clone(), 0.0);
            let mut together = Vec::new();
            integration.retain(|test| {
                let fits = together.is_empty()
                    || test.program == program && seconds + test.seconds < TOGETHER;
                if fits {
                    seconds += test.seconds;
                    together.push(*test);
                }
                !fits
            });
            spent += seconds;
            if let Some(caught) = self.by_tests(mutant, &together, Fate::Integration)? {
                return Ok(Some(caught));
            }
        }
        let unit = self.tests(mutant, true).len();
        let by = format!("{unit} unit tests, {spent:.0} s of integration tests");
        Ok(Some((Fate::Survived, by)))
    }

    /// Plays `tests`, all of one program. What fails must fail again, and must not without the mutant: the machine may be busy.
    fn by_tests(
        &self,
        mutant: &Mutant,
        tests: &[&Test],
        fate: Fate,
    ) -> anyhow::Result<Option<(Fate, String)>> {
        let Some(first) = tests.first() else {
            return Ok(None);
        };
        let play = |tests: &[&Test], n: u32| {
            let mut args = vec!["--exact"];
            args.extend(tests.iter().map(|t| &t.name[..]));
            let seconds: f64 = tests.iter().map(|t| t.seconds).sum();
            let limit = Duration::from_secs_f64(20.0 + 10.0 * seconds);
            let trial = self.stage.play(&first.file, &args, Choice::One(n), limit);
            trial.map(|trial| trial.end)
        };
        let mut left = tests.to_owned();
        while !left.is_empty() {
            let end = play(&left, mutant.number)?;
            let failed: Vec<&Test> = match &end {
                End::Passed => return Ok(None),
                End::Failed(name) => left.iter().copied().filter(|t| t.name == *name).collect(),
                End::TimedOut => Vec::new(),
            };
            let again = if failed.is_empty() {
                left.clone()
            } else {
                failed
            };
            let sure = play(&again, 0)? == End::Passed
                && (end == End::TimedOut || play(&again, mutant.number)? != End::Passed);
            if sure {
                for test in &again {
                    *self
                        .caught
                        .lock()
                        .expect("whole")
                        .entry(key(mutant, test))
                        .or_default() += 1;
                }
                return Ok(Some(match end {
                    End::TimedOut => (Fate::TimeOut, first.program.clone()),
                    End::Failed(name) => (fate, format!("{}: {name}", first.program)),
                    End::Passed => unreachable!("it failed"),
                }));
            }
            let doubtful: HashSet<&str> = again.iter().map(|t| &t.name[..]).collect();
            left.retain(|test| !doubtful.contains(&test.name[..]));
        }
        Ok(None)
    }
}

fn key(mutant: &Mutant, test: &Test) -> (String, usize, String) {
    let function = mutant.function.as_ref().map_or(0, |f| f.span.start.line);
    (
        mutant.file.clone(),
        function,
        format!("{} {}", test.program, test.name),
    )
}
