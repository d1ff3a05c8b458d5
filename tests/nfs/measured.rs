//! Figures for docs/nfs.md, printed where they are asked for (`--nocapture`).

use std::time::Duration;

/// What took how long.
pub fn took(what: &str, time: Duration) {
    println!("measured: {what} {:.1} s", time.as_secs_f64());
}
