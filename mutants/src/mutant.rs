//! Which mutant is the active one: not part of the product, `mutants/` puts this into its copy of it.

use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// The number of the mutant that is active.
const ACTIVE: &str = "MUTANT_ACTIVE";
/// The file that is told which mutants are reached, of which none is active then.
const REACHED: &str = "MUTANTS_REACHED";

const NOT_READ: u32 = u32::MAX;
const ALL_ARE_LOOKED_FOR: u32 = u32::MAX - 1;

/// Is the mutant `n` the active one?
#[inline]
pub fn is(n: u32) -> bool {
    static CHOSEN: AtomicU32 = AtomicU32::new(NOT_READ);
    let mut chosen = CHOSEN.load(Ordering::Relaxed);
    if chosen == NOT_READ {
        chosen = read();
        CHOSEN.store(chosen, Ordering::Relaxed);
    }
    if chosen == ALL_ARE_LOOKED_FOR {
        tell(n);
    }
    chosen == n
}

fn read() -> u32 {
    if std::env::var_os(REACHED).is_some() {
        return ALL_ARE_LOOKED_FOR;
    }
    let active = std::env::var(ACTIVE).ok();
    active.and_then(|n| n.parse().ok()).unwrap_or(0)
}

/// Once a process: of those that it forks, each knows what was told before.
fn tell(n: u32) {
    static TOLD: [AtomicBool; 1 << 14] = [const { AtomicBool::new(false) }; 1 << 14];
    let told = &TOLD[n as usize];
    if told.load(Ordering::Relaxed) {
        return;
    }
    let file = std::env::var_os(REACHED).unwrap_or_default();
    let file = std::fs::OpenOptions::new().append(true).open(file);
    if file.is_ok_and(|mut file| file.write_all(&n.to_le_bytes()).is_ok()) {
        told.store(true, Ordering::Relaxed);
    }
}
