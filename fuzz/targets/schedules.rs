//! Schedules: whatever is accepted is due before and after any moment, and is found at once.

use std::time::{Duration, Instant};

use joblock::clock::Wall;
use joblock::schedule::{self, Schedule};

use super::{Input, readable};

/// For one question; far more than it takes, in a debug build on a busy machine too.
const AT_ONCE: Duration = Duration::from_secs(5);

/// 1970 to 2200: what a clock may say.
const REASONABLE: std::ops::Range<i64> = 0..7_258_118_400_000;

pub fn check(data: &[u8]) {
    let mut input = Input(data);
    let any = Wall(input.number());
    let zone = String::from_utf8_lossy(input.until(b'\n'));
    let expression = String::from_utf8_lossy(input.0);
    let zone = match schedule::zone(&zone) {
        Ok(zone) => zone,
        Err(e) => return readable(&e.to_string(), zone.len()),
    };
    let schedule = match timed(|| Schedule::parse(&expression, zone)) {
        Ok(schedule) => schedule,
        Err(e) => return readable(&e.to_string(), expression.len()),
    };
    readable(&schedule.to_string(), expression.len());
    for now in [
        any,
        Wall(any.0.rem_euclid(REASONABLE.end)),
        Wall(1_792_890_000_000),
    ] {
        let (previous, next) = timed(|| (schedule.previous_due(now), schedule.next_due(now)));
        if !REASONABLE.contains(&now.0) {
            continue;
        }
        let next = next.expect("what comes at all comes again");
        assert!(next > now, "{schedule}: next of {now:?} is {next:?}");
        if let Some(previous) = previous {
            assert!(
                previous <= now,
                "{schedule}: previous of {now:?} is {previous:?}"
            );
        }
    }
}

fn timed<T>(ask: impl FnOnce() -> T) -> T {
    let began = Instant::now();
    let answer = ask();
    let took = began.elapsed();
    assert!(took < AT_ONCE, "one question took {took:?}");
    answer
}
