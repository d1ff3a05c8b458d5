//! The guard's decisions: when the job may begin, and when it, and all that it started, must end.
//!
//! The deadline is absolute and comes with each renewal. What takes the lock away outweighs what merely ends the run: the fence
//! has its own, shorter grace, and nothing that was granted to a polite end makes it longer.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::timing::Timing;
use crate::clock::Boot;

/// How soon SIGKILL is repeated for what was forked while it was sent.
const AGAIN: Duration = Duration::from_millis(20);

/// The absolute moments at which a lease that was not renewed ends the job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deadline {
    /// The job gets TERM.
    pub term: Boot,
    /// The tree gets KILL.
    pub kill: Boot,
    /// The kernel kills the guard.
    pub suicide: Boot,
}

impl Deadline {
    /// Of a lease whose last renewal that succeeded was sent at `sent`.
    pub fn of(timing: Timing, sent: Boot) -> Self {
        Deadline {
            term: timing.term_at(sent),
            kill: timing.kill_at(sent),
            suicide: timing.suicide_at(sent),
        }
    }
}

/// Why the guard ends the job before it ends by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cause {
    /// Its time limit.
    TimeLimit,
    /// `joblock stop`.
    Stop,
    /// `joblock unlock`.
    Revoked,
    /// Not renewed in time, or taken by another.
    Lost,
    /// Front is gone.
    FrontGone,
    /// Guard is gone; front or keeper ended the tree.
    GuardGone,
}

/// What is to be done to the tree now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Acts {
    /// It gets the polite signal.
    pub terminate: bool,
    /// It gets SIGKILL.
    pub kill: bool,
}

/// One run's fence.
#[derive(Debug, Clone)]
pub struct Fence {
    kill_after: Duration,
    time_limit: Option<Duration>,
    began: Boot,
    deadline: Option<Deadline>,
    cause: Option<Cause>,
    kill_at: Option<Boot>,
}

impl Fence {
    /// Before the start, at `now`. `kill_after`: the grace of an end that is not a loss of the lock.
    pub fn new(kill_after: Duration, time_limit: Option<Duration>, now: Boot) -> Self {
        Fence {
            kill_after,
            time_limit,
            began: now,
            deadline: None,
            cause: None,
            kill_at: None,
        }
    }

    /// The second look between grant and start, by all that was heard until now: whoever was frozen in between must not begin. `false`:
    /// it is too late, and the lock counts as lost, or an end was asked for meanwhile.
    pub fn may_start(&mut self, now: Boot) -> bool {
        self.began = now;
        let late = self.deadline.is_some_and(|d| now >= d.term);
        if late {
            self.cause = Some(Cause::Lost);
        }
        self.cause.is_none()
    }

    /// The deadline of the grant, or of a renewal; `None`: the kernel lock alone decides.
    pub fn renewed(&mut self, deadline: Option<Deadline>) {
        self.deadline = deadline;
    }

    /// When the kernel is to kill the guard itself, should it be stopped.
    pub fn suicide_at(&self) -> Option<Boot> {
        self.deadline.map(|d| d.suicide)
    }

    /// When the job began.
    pub fn began(&self) -> Boot {
        self.began
    }

    /// Why the job is being ended.
    pub fn cause(&self) -> Option<Cause> {
        self.cause
    }

    /// Whether the tree is to be killed, now or later.
    pub fn is_ending(&self) -> bool {
        self.kill_at.is_some()
    }

    /// Nothing was started, for this cause.
    pub fn not_started(&mut self, cause: Cause) {
        self.cause = Some(cause);
    }

    /// Begins to end the job. What takes the lock away outweighs what merely ends the run.
    pub fn end(&mut self, cause: Cause, now: Boot) -> Acts {
        let lost = matches!(cause, Cause::Lost | Cause::Revoked);
        if self.cause.is_some() && !lost {
            return Acts::default();
        }
        let terminate = self.kill_at.is_none();
        self.cause = Some(cause);
        let kill_at = match (cause, self.deadline) {
            // Somebody else may have the lock already: there is no time for grace, but for what the fence left.
            (Cause::Lost, Some(deadline)) if now < deadline.kill && now >= deadline.term => {
                deadline.kill
            }
            (Cause::Lost, _) => now,
            _ => now + self.kill_after,
        };
        self.kill_at = Some(self.kill_at.map_or(kill_at, |before| before.min(kill_at)));
        Acts {
            terminate,
            kill: false,
        }
    }

    /// The job's first process has ended and left others, which got the polite signal: how long they may take.
    pub fn end_leftovers(&mut self, now: Boot) {
        self.kill_at = Some(now + self.kill_after);
    }

    /// What the time demands. `over`: the job's first process has ended.
    pub fn mind(&mut self, over: bool, now: Boot) -> Acts {
        let mut acts = Acts::default();
        if self.deadline.is_some_and(|d| now >= d.term) && self.cause != Some(Cause::Lost) {
            acts = self.end(Cause::Lost, now);
        }
        if self.cause.is_none() && !over && self.time_limit_at().is_some_and(|at| now >= at) {
            acts = self.end(Cause::TimeLimit, now);
        }
        if self.kill_at.is_some_and(|at| now >= at) {
            acts.kill = true;
            self.kill_at = Some(now + AGAIN);
        }
        acts
    }

    /// When [`Fence::mind`] is to be asked next.
    pub fn next_moment(&self, over: bool) -> Option<Boot> {
        let term = self
            .deadline
            .map(|d| d.term)
            .filter(|_| self.cause != Some(Cause::Lost));
        let limit = self
            .time_limit_at()
            .filter(|_| self.cause.is_none() && !over);
        [term, limit, self.kill_at].into_iter().flatten().min()
    }

    fn time_limit_at(&self) -> Option<Boot> {
        self.time_limit.map(|limit| self.began + limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    const AT: Boot = Boot(1_000_000_000_000);
    const NOTHING: Acts = Acts {
        terminate: false,
        kill: false,
    };
    const TERMINATE: Acts = Acts {
        terminate: true,
        kill: false,
    };
    const BOTH: Acts = Acts {
        terminate: true,
        kill: true,
    };
    const KILL: Acts = Acts {
        terminate: false,
        kill: true,
    };

    fn at(secs: u64) -> Boot {
        AT + Duration::from_secs(secs)
    }

    fn deadline(sent: u64) -> Deadline {
        Deadline::of(Timing::of(Timing::DEFAULT), at(sent))
    }

    /// A job that began at once, with a lease of 45 s and a polite grace of 100 s.
    fn fence() -> Fence {
        let mut fence = Fence::new(Duration::from_secs(100), None, AT);
        fence.renewed(Some(deadline(0)));
        assert!(fence.may_start(AT));
        fence
    }

    #[rstest]
    #[case(19, true)]
    #[case(20, false)]
    #[case(60, false)]
    fn whoever_was_frozen_does_not_begin(#[case] now: u64, #[case] may: bool) {
        let mut fence = Fence::new(Duration::ZERO, None, AT);
        fence.renewed(Some(deadline(0)));
        assert_eq!(fence.may_start(at(now)), may);
        assert_eq!(fence.cause() == Some(Cause::Lost), !may);
        assert_eq!(fence.began(), at(now));
    }

    #[test]
    fn a_job_whose_end_came_before_its_start_does_not_begin() {
        let mut fence = Fence::new(Duration::ZERO, None, AT);
        fence.not_started(Cause::Revoked);
        assert!(!fence.may_start(at(1)));
        assert_eq!(fence.cause(), Some(Cause::Revoked));
    }

    #[test]
    fn a_lease_that_is_not_renewed_ends_the_job() {
        let mut fence = fence();
        assert_eq!(fence.next_moment(false), Some(at(20)));
        assert_eq!(
            fence.suicide_at(),
            Some(at(32) + Duration::from_millis(500))
        );
        assert_eq!(fence.mind(false, at(19)), NOTHING);
        assert!(!fence.is_ending());
        assert_eq!(fence.mind(false, at(20)), TERMINATE);
        assert!(fence.is_ending());
        assert_eq!(fence.next_moment(false), Some(at(30)));
        assert_eq!(fence.mind(false, at(29)), NOTHING);
        assert_eq!(fence.mind(false, at(30)), KILL);
        assert_eq!(
            fence.next_moment(false),
            Some(at(30) + AGAIN),
            "for what was forked meanwhile"
        );
        assert_eq!(fence.mind(true, at(31)), KILL);
    }

    #[test]
    fn renewals_move_the_deadline_and_a_kernel_lock_has_none() {
        let mut fence = fence();
        fence.renewed(Some(deadline(15)));
        assert_eq!(fence.mind(false, at(34)), NOTHING);
        assert_eq!(fence.mind(false, at(35)), TERMINATE);
        let mut fence = self::fence();
        fence.renewed(None);
        assert_eq!(fence.mind(false, at(1_000)), NOTHING);
        assert_eq!((fence.next_moment(false), fence.suicide_at()), (None, None));
    }

    #[test]
    fn a_loss_that_is_heard_of_late_leaves_no_grace() {
        for (now, acts) in [(5, BOTH), (25, TERMINATE), (30, BOTH), (40, BOTH)] {
            let mut fence = fence();
            let first = fence.end(Cause::Lost, at(now));
            let then = fence.mind(false, at(now));
            assert_eq!(
                (first.terminate || then.terminate, first.kill || then.kill),
                (acts.terminate, acts.kill),
                "{now}"
            );
        }
    }

    #[test]
    fn the_first_cause_stands_unless_the_lock_is_lost() {
        let mut fence = fence();
        assert_eq!(fence.end(Cause::Stop, at(1)), TERMINATE);
        assert_eq!(fence.end(Cause::FrontGone, at(2)), NOTHING);
        assert_eq!(fence.cause(), Some(Cause::Stop));
        assert_eq!(
            fence.next_moment(false),
            Some(at(20)),
            "the fence is sooner than the polite grace"
        );
        assert_eq!(fence.mind(false, at(20)), NOTHING, "it was told once");
        assert_eq!(fence.cause(), Some(Cause::Lost));
        assert_eq!(
            fence.next_moment(false),
            Some(at(30)),
            "and its grace is the fence's"
        );
        assert_eq!(fence.mind(false, at(30)), KILL);
    }

    #[test]
    fn a_revocation_outweighs_a_stop_and_has_the_polite_grace() {
        let mut fence = Fence::new(Duration::from_secs(3), None, AT);
        assert!(fence.may_start(AT));
        fence.end(Cause::Stop, at(1));
        assert_eq!(fence.end(Cause::Revoked, at(2)), NOTHING);
        assert_eq!(fence.cause(), Some(Cause::Revoked));
        assert_eq!(
            fence.next_moment(false),
            Some(at(4)),
            "a kill that was due stays due"
        );
    }

    #[test]
    fn a_time_limit_is_for_the_first_process() {
        let mut fence = Fence::new(Duration::from_secs(3), Some(Duration::from_secs(60)), AT);
        assert!(fence.may_start(at(10)));
        assert_eq!(fence.next_moment(false), Some(at(70)));
        assert_eq!(fence.next_moment(true), None);
        assert_eq!(fence.mind(true, at(80)), NOTHING);
        assert_eq!(fence.mind(false, at(69)), NOTHING);
        assert_eq!(fence.mind(false, at(70)), TERMINATE);
        assert_eq!(fence.cause(), Some(Cause::TimeLimit));
        assert_eq!(fence.mind(false, at(73)), KILL);
    }

    #[test]
    fn leftovers_have_the_polite_grace_and_a_run_that_never_began_has_a_cause() {
        let mut fence = Fence::new(Duration::from_secs(3), None, AT);
        fence.end_leftovers(at(5));
        assert_eq!(fence.mind(true, at(7)), NOTHING);
        assert_eq!(fence.mind(true, at(8)), KILL);
        fence.not_started(Cause::FrontGone);
        assert_eq!(fence.cause(), Some(Cause::FrontGone));
    }
}
