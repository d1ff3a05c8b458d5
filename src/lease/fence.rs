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

    /// The second look between grant and start: whoever was frozen in between must not begin. `false`: it is too late, and
    /// the lock counts as lost.
    pub fn may_start(&mut self, deadline: Option<Deadline>, now: Boot) -> bool {
        self.deadline = deadline;
        self.began = now;
        let late = deadline.is_some_and(|d| now >= d.term);
        if late {
            self.cause = Some(Cause::Lost);
        }
        !late
    }

    /// A renewal moved the deadline; `None`: the kernel lock alone decides.
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
