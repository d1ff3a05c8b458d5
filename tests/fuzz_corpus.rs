//! The fuzz targets (`fuzz/targets`) over every input that is kept in `fuzz/corpus`, and for a few seconds over random
//! changes of them, from a fresh seed. `make fuzz` is what looks for new ones.

#[path = "../fuzz/targets/mod.rs"]
mod targets;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use targets::{ALL, Target, meter};

#[global_allocator]
static METER: meter::Meter = meter::Meter;

/// A number; the changes are made from it instead of from a fresh one.
const SEED: &str = "FUZZ_SEED";

/// For all targets together.
const CHANGES: Duration = Duration::from_secs(4);

/// The two tests take turns: the messages' target counts this process's open descriptors.
static TURN: Mutex<()> = Mutex::new(());

fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn corpus(target: &Target) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(target.name);
    let entries = fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.expect("an entry").path())
        .collect();
    files.sort();
    let read = |path: PathBuf| (path.clone(), fs::read(path).expect("it can be read"));
    files.into_iter().map(read).collect()
}

fn holds(target: &Target, input: &[u8]) -> bool {
    catch_unwind(AssertUnwindSafe(|| target.run(input))).is_ok()
}

// shows: corrupt local, shared, lockfile
// shows: bad-input local, shared, lockfile
#[test]
fn every_input_that_is_kept_breaks_no_promise() {
    let _turn = turn();
    let mut broken = Vec::new();
    for target in ALL {
        let inputs = corpus(target);
        assert!(!inputs.is_empty(), "no corpus for {}", target.name);
        for (path, input) in inputs {
            if !holds(target, &input) {
                broken.push(path);
            }
        }
    }
    assert!(broken.is_empty(), "these break one: {broken:#?}");
}

/// splitmix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end.max(1) as u64).expect("below a usize")
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[0]
    }

    /// Part of an input, from a random place.
    fn piece<'i>(&mut self, of: &'i [u8]) -> &'i [u8] {
        let begin = self.below(of.len() + 1);
        let length = self.below(of.len() - begin + 1);
        &of[begin..begin + length]
    }

    fn changed(&mut self, input: &[u8], other: &[u8], longest: usize) -> Vec<u8> {
        let mut input = input.to_vec();
        for _ in 0..=self.below(4) {
            let at = self.below(input.len() + 1);
            match self.below(6) {
                0 if at < input.len() => input[at] ^= 1 << self.below(8),
                1 if at < input.len() => input[at] = self.byte(),
                2 => input.insert(at, self.byte()),
                3 => {
                    let end = at + self.below(input.len() - at + 1);
                    input.drain(at..end);
                }
                4 => drop(input.splice(at..at, self.piece(other).iter().copied())),
                _ => {
                    let again = self.piece(&input.clone()).to_vec();
                    drop(input.splice(at..at, again));
                }
            }
        }
        input.truncate(longest);
        input
    }
}

#[test]
fn random_changes_of_them_break_no_promise() {
    let _turn = turn();
    let seed = match std::env::var(SEED) {
        Ok(seed) => seed.parse().expect("a number"),
        Err(_) => {
            u64::from_str_radix(joblock::name::RunId::random().as_str(), 16).expect("hexadecimal")
        }
    };
    println!("{SEED}={seed}");
    for target in ALL {
        let inputs = corpus(target);
        let mut random = Random(seed);
        let until = Instant::now() + CHANGES / u32::try_from(ALL.len()).expect("a few");
        while Instant::now() < until {
            let [input, other] = [(); 2].map(|()| &inputs[random.below(inputs.len())].1);
            let input = random.changed(input, other, target.longest);
            assert!(
                holds(target, &input),
                "{SEED}={seed}: {} breaks a promise: \"{}\"",
                target.name,
                input.escape_ascii()
            );
        }
    }
}
