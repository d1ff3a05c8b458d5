//! Waiting for conditions, never for time.

use std::thread::sleep;
use std::time::{Duration, Instant};

/// Longer than anything takes here, however busy the machine is.
pub const LIMIT: Duration = Duration::from_secs(90);

/// Asks again and again until there is an answer; `None` when the limit is over.
pub fn until<T>(limit: Duration, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let begin = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return Some(answer);
        }
        if begin.elapsed() > limit {
            return None;
        }
        sleep(Duration::from_millis(10));
    }
}
