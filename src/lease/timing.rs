//! The lease's arithmetic: everything is a share of the TTL, in ninths.
//!
//! ```text
//! sent      h      2h      3h      F           F+G         F+G+K/2  F+G+K            TTL
//!  |--------|-------|-------|------|------------|------------|--------|---------------|
//!  0        5      10      15     20           30           32.5     35              45 s
//!           renewals ...            TERM        KILL         the guard             others may
//!                                                            kills itself          take over
//! ```
//!
//! Required: (F+G+K)·(1+ρ)/(1−ρ) ≤ TTL with ρ = 1 % of clock drift, so that the slowest holder is gone
//! before the fastest observer takes over; and F ≥ 3h + the store's time limit, so that two renewals may fail.
//!
//! Not guaranteed: that a process which was sent SIGKILL dies within K. One in D state on a dead mount does not.

use std::time::Duration;

use crate::clock::Boot;

/// The moments of one lease, all counted from before its last successful renewal was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    ninth: Duration,
    ttl: Duration,
}

impl Timing {
    /// The TTL where none is asked for.
    pub const DEFAULT: Duration = Duration::from_secs(45);
    /// The shortest TTL. A shorter one is taken for this.
    pub const MIN: Duration = Duration::from_secs(2);

    /// The timing of a lease that lasts `ttl` without a sign of life.
    pub fn of(ttl: Duration) -> Self {
        let ttl = ttl.max(Self::MIN);
        Timing {
            ninth: ttl / 9,
            ttl,
        }
    }

    /// The whole lease: after so long without a sign of life others may take over.
    pub fn ttl(self) -> Duration {
        self.ttl
    }

    /// h: from one renewal to the next.
    pub fn heartbeat(self) -> Duration {
        self.ninth
    }

    /// How long one step of the store may take before it counts as failed.
    pub fn limit(self) -> Duration {
        self.ninth
    }

    /// F: the job gets TERM, and no renewal is sent any more.
    pub fn term_at(self, sent: Boot) -> Boot {
        sent + self.ninth * 4
    }

    /// F+G: the job gets KILL.
    pub fn kill_at(self, sent: Boot) -> Boot {
        sent + self.ninth * 6
    }

    /// F+G+K/2: the guard itself gets KILL from a kernel timer, should it be stopped.
    pub fn suicide_at(self, sent: Boot) -> Boot {
        sent + self.ninth * 6 + self.ninth / 2
    }

    /// F+G+K: the whole tree is reaped.
    pub fn gone_at(self, sent: Boot) -> Boot {
        sent + self.ninth * 7
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_defaults_are_those_of_the_design() {
        let t = Timing::of(Timing::DEFAULT);
        let s = |n| Boot(0) + Duration::from_secs(n);
        assert_eq!(t.heartbeat(), Duration::from_secs(5));
        assert_eq!(t.limit(), Duration::from_secs(5));
        assert_eq!(t.term_at(Boot(0)), s(20));
        assert_eq!(t.kill_at(Boot(0)), s(30));
        assert_eq!(
            t.suicide_at(Boot(0)),
            Boot(0) + Duration::from_millis(32_500)
        );
        assert_eq!(t.gone_at(Boot(0)), s(35));
        assert_eq!(t.ttl(), Duration::from_secs(45));
    }

    #[test]
    fn too_short_a_lease_is_made_longer() {
        assert_eq!(Timing::of(Duration::ZERO), Timing::of(Timing::MIN));
    }

    proptest! {
        #[test]
        fn the_slowest_holder_is_gone_before_the_fastest_observer_acts(ns in 0u64..10_000_000_000_000, sent in 0u64..u64::MAX / 4) {
            let (t, sent) = (Timing::of(Duration::from_nanos(ns)), Boot(sent));
            // (F+G+K)·(1+ρ) ≤ TTL·(1−ρ), in whole numbers
            let gone = t.gone_at(sent).since(sent).as_nanos();
            prop_assert!(gone * 101 <= t.ttl().as_nanos() * 99);
        }

        #[test]
        fn two_renewals_may_fail(ns in 0u64..10_000_000_000_000) {
            let t = Timing::of(Duration::from_nanos(ns));
            prop_assert!(t.term_at(Boot(0)).since(Boot(0)) >= t.heartbeat() * 3 + t.limit());
        }

        #[test]
        fn the_moments_come_in_order(ns in 0u64..10_000_000_000_000) {
            let (t, sent) = (Timing::of(Duration::from_nanos(ns)), Boot(7));
            prop_assert!(sent < t.term_at(sent));
            prop_assert!(t.term_at(sent) < t.kill_at(sent));
            prop_assert!(t.kill_at(sent) < t.suicide_at(sent));
            prop_assert!(t.suicide_at(sent) < t.gone_at(sent));
            prop_assert!(t.gone_at(sent) < sent + t.ttl());
        }
    }
}
