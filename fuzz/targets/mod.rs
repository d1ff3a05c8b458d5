//! What is fuzzed: functions that take any bytes, and panic when a promise is broken. `fuzz/src/main.rs` lets libFuzzer
//! choose the bytes, `tests/fuzz_corpus.rs` replays `fuzz/corpus` and mutates it.

mod command_line;
mod durations;
mod inside;
mod jobs_file;
mod kernel_files;
mod lock_file;
mod messages;
pub mod meter;
mod names;
mod past;
#[path = "../../tests/common/request.rs"]
#[allow(dead_code, reason = "a part of it is used")]
mod request;
mod schedules;
mod spool_files;
mod store_file;
mod store_urls;

use std::time::{Duration, Instant};

/// One of them.
pub struct Target {
    /// The name of its folder in the corpus.
    pub name: &'static str,
    /// The most bytes of an input.
    pub longest: usize,
    /// How much memory it may take at one time, whatever the input, and for each of its bytes.
    memory: (usize, usize),
    check: fn(&[u8]),
}

/// No input may take longer. Generous: a debug build on a busy machine is slow.
const LIMIT: Duration = Duration::from_secs(20);

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// All of them.
pub const ALL: &[Target] = &[
    target("jobs-file", 8 * KIB, (256 * KIB, 400), jobs_file::check),
    target("durations", 256, (64 * KIB, 64), durations::check),
    target("names", 512, (64 * KIB, 64), names::check),
    target("store-urls", 512, (64 * KIB, 64), store_urls::check),
    target("schedules", 256, (256 * KIB, 400), schedules::check),
    target(
        "command-line",
        2 * KIB,
        (4 * MIB, 4 * KIB),
        command_line::check,
    ),
    target("store-file", 4 * KIB, (8 * MIB, KIB), store_file::check),
    target("lock-file", 16 * KIB, (8 * MIB, KIB), lock_file::check),
    target("spool-files", 8 * KIB, (8 * MIB, KIB), spool_files::check),
    target(
        "kernel-files",
        4 * KIB,
        (256 * KIB, 64),
        kernel_files::check,
    ),
    target("messages", 8 * KIB, (256 * KIB, 64), messages::check),
];

const fn target(
    name: &'static str,
    longest: usize,
    memory: (usize, usize),
    check: fn(&[u8]),
) -> Target {
    Target {
        name,
        longest,
        memory,
        check,
    }
}

impl Target {
    /// Runs it on `data`.
    pub fn run(&self, data: &[u8]) {
        let began = Instant::now();
        let most = meter::most(|| (self.check)(data));
        let (base, each) = self.memory;
        let allowed = base + each * data.len();
        assert!(
            most <= allowed,
            "{}: {most} bytes of memory for an input of {}, {allowed} at most",
            self.name,
            data.len()
        );
        let took = began.elapsed();
        assert!(took < LIMIT, "{}: one input took {took:?}", self.name);
    }
}

/// Bytes as numbers and pieces, for targets that want more than one text.
struct Input<'d>(&'d [u8]);

impl<'d> Input<'d> {
    fn byte(&mut self) -> Option<u8> {
        let (&first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(first)
    }

    fn number(&mut self) -> i64 {
        match self.0.split_first_chunk::<8>() {
            Some((bytes, rest)) => {
                self.0 = rest;
                i64::from_le_bytes(*bytes)
            }
            None => 0,
        }
    }

    /// Up to the next byte `end`, which is left out.
    fn until(&mut self, end: u8) -> &'d [u8] {
        let at = self.0.iter().position(|&b| b == end);
        let (piece, rest) = match at {
            Some(at) => (&self.0[..at], &self.0[at + 1..]),
            None => (self.0, &[][..]),
        };
        self.0 = rest;
        piece
    }
}

/// What people read says something, in a bounded number of words.
fn bounded(message: &str, given: usize) {
    assert!(!message.trim().is_empty(), "an empty message");
    assert!(
        message.len() <= 2 * KIB + 12 * given,
        "a message of {} bytes for an input of {given}",
        message.len()
    );
}

/// And moves no cursor of a terminal. (Paths of the user's own do so only when they are printed: `output::say`.)
fn readable(message: &str, given: usize) {
    bounded(message, given);
    if let Some(bad) = message.chars().find(|c| c.is_control() && *c != '\n') {
        panic!("a message with the control character {bad:?}: {message:?}");
    }
}
