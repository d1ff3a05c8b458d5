//! The one place that asks for the time.
//!
//! Every decision about a lock uses [`Boot`], `CLOCK_BOOTTIME`: it goes on through suspend and no
//! administrator can set it (`clock_gettime(2)`). It differs between boots and between time
//! namespaces (`time_namespaces(7)`), so two values may be compared only when both come from the
//! same boot id *and* the same time namespace. [`Wall`] is for people, and for freshness, overdue
//! and pruning, which can skip or repeat a run but never overlap two.

use std::ops::{Add, Sub};
use std::time::Duration;

use chrono::{DateTime, Utc};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// A moment on `CLOCK_BOOTTIME`, in nanoseconds since this machine's boot as this time namespace sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Boot(pub u64);

impl Boot {
    /// Now.
    pub fn now() -> Self {
        let t = clock_gettime(ClockId::Boottime);
        let secs = u64::try_from(t.tv_sec).unwrap_or(0);
        let nanos = u64::try_from(t.tv_nsec).unwrap_or(0);
        Boot(secs * 1_000_000_000 + nanos)
    }

    /// The time from `earlier` to `self`; zero if `earlier` is later.
    pub fn since(self, earlier: Boot) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Boot {
    type Output = Boot;
    /// Saturates at the end of time, so that an endless duration is simply never reached.
    fn add(self, d: Duration) -> Boot {
        Boot(
            self.0
                .saturating_add(u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)),
        )
    }
}

impl Sub<Duration> for Boot {
    type Output = Boot;
    fn sub(self, d: Duration) -> Boot {
        Boot(
            self.0
                .saturating_sub(u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)),
        )
    }
}

/// A moment on the wall clock: milliseconds since 1970-01-01 UTC. It can jump either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Wall(pub i64);

impl Wall {
    /// Now.
    pub fn now() -> Self {
        Wall(Utc::now().timestamp_millis())
    }

    /// As chrono's type, for printing and for schedules.
    pub fn to_datetime(self) -> DateTime<Utc> {
        DateTime::from_timestamp_millis(self.0).unwrap_or_default()
    }

    /// The time from `earlier` to `self`; `None` if `earlier` is later.
    pub fn since(self, earlier: Wall) -> Option<Duration> {
        // the ends of time are 2⁶⁴ ms apart
        u64::try_from(i128::from(self.0) - i128::from(earlier.0))
            .ok()
            .map(Duration::from_millis)
    }
}
