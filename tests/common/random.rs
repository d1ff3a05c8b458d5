//! Numbers that a seed gives: SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).

#![allow(dead_code, reason = "each test program uses its own part of it")]

use std::hash::{BuildHasher, RandomState};

/// The generator's state.
#[derive(Debug, Clone)]
pub struct Random(pub u64);

impl Random {
    /// Seeded by the variable `JOBLOCK_SEED`, if it is there, else by chance; the seed.
    pub fn seed() -> u64 {
        let told = std::env::var("JOBLOCK_SEED")
            .ok()
            .and_then(|seed| seed.parse().ok());
        told.unwrap_or_else(|| {
            // seeded by the system itself, anew in each process
            RandomState::new().hash_one(0)
        })
    }

    /// The stream of `seed` that belongs to `path`.
    pub fn of(seed: u64, path: &[u64]) -> Random {
        let mut random = Random(seed);
        for step in path {
            random = Random(random.next() ^ step.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        }
        random
    }

    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// One below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// One of them.
    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        let at = self.below(of.len() as u64);
        of[usize::try_from(at).unwrap_or(0)]
    }

    /// Puts them into another order.
    pub fn shuffle<T>(&mut self, all: &mut [T]) {
        for at in (1..all.len()).rev() {
            let other = usize::try_from(self.below(at as u64 + 1)).unwrap_or(0);
            all.swap(at, other);
        }
    }
}
