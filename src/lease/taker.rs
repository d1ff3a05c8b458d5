//! What an attempt does once it has the kernel lock: the order of its steps, and what it makes of each answer.
//!
//! Every [`Step`] is one piece of input or output for whoever drives this; nothing happens between them. First it
//! tries the grant, since most locks were released. If the last grant was not, it looks, and decides by [`decide`]: it waits and
//! remembers what it saw, or it clears this machine of what is left of the old run and takes the lock; over a lease that
//! lapsed by laying a claim first and then looking again, see `store::sqlite::grant`.

use super::row::{self, Row};
use super::takeover::{Decision, Mark, Sighting, Unreleased, decide};
use crate::clock::Boot;
use crate::name::Token;

/// What is to be done next. Its answer goes to the method that each names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step<H> {
    /// One transaction that writes the grant if [`super::row::may_grant`] says so: [`Taker::written`].
    Grant {
        /// The unreleased grant that may be overwritten.
        over: Option<Row<H>>,
        /// The grant that the lock file tells of.
        file: Option<Row<H>>,
    },
    /// Nobody knows whether the grant was written: free the lock if it is ours. The attempt has failed either way.
    GiveBack,
    /// Read the row, what was seen of it from a place with our clock, and the lock file's slots: [`Taker::looked`].
    Look(Row<H>),
    /// Keep this for the next attempt: [`Taker::remembered`].
    Remember(Sighting),
    /// End what this run left on this machine: [`Taker::cleared`].
    Clear(Row<H>),
    /// Lay the claim on this grant, durably: [`Taker::claimed`].
    Claim(Token),
    /// Read the lock file's slots once more: [`Taker::looked_again`].
    LookAgain(Row<H>),
    /// That was it.
    Over(Over),
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    /// The lock is ours.
    Granted {
        /// Under this token.
        token: Token,
        /// The moment that its lease counts from: before the grant was sent.
        sent: Boot,
    },
    /// Something changed meanwhile: begin anew.
    Again,
    /// A process of the old run is alive: nothing but time helps.
    Alive,
    /// The lease is not over before then, if nothing changes.
    Until(Boot),
}

/// How the transaction of a grant ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Written<H> {
    /// The grant is written.
    Granted(Token),
    /// This one is unreleased, and not the one that was expected.
    Held(Row<H>),
    /// The store gave an error, and the grant may be written all the same.
    Unknown,
}

/// What a look at an unreleased grant saw.
#[derive(Debug, Clone)]
pub struct Looked<H> {
    /// The row as it is now.
    pub row: Option<Row<H>>,
    /// What was seen of it earlier, by a clock that is ours.
    pub known: Option<Sighting>,
    /// The grant.
    pub seen: Unreleased,
}

/// One attempt, the kernel lock in its hands.
#[derive(Debug, Clone)]
pub struct Taker<H> {
    /// The clock before the looks at file and row, and before the first grant is sent.
    before: Boot,
    file: Option<Row<H>>,
    /// The moment before the last grant was sent.
    sent: Boot,
    /// The unreleased grant, and what was seen of it.
    old: Option<(Row<H>, Option<Mark>)>,
    decision: Option<Decision>,
}

impl<H: Clone + PartialEq> Taker<H> {
    /// Begins. `before`: the clock before anything was read; `file`: the grant that
    /// the lock file tells of.
    pub fn begin(before: Boot, file: Option<Row<H>>) -> (Self, Step<H>) {
        let taker = Taker {
            before,
            file: file.clone(),
            sent: before,
            old: None,
            decision: None,
        };
        (taker, Step::Grant { over: None, file })
    }

    /// After [`Step::Grant`].
    pub fn written(&mut self, written: Written<H>) -> Step<H> {
        match written {
            Written::Granted(token) => Step::Over(Over::Granted {
                token,
                sent: self.sent,
            }),
            Written::Unknown => Step::GiveBack,
            Written::Held(row) if self.old.is_none() => {
                self.old = Some((row.clone(), None));
                Step::Look(row)
            }
            Written::Held(_) => Step::Over(Over::Again),
        }
    }

    /// After [`Step::Look`]; `after`: the clock after it.
    pub fn looked(&mut self, looked: &Looked<H>, after: Boot) -> Step<H> {
        let Some((old, mark)) = self
            .old
            .as_mut()
            .filter(|(old, _)| row::newest(looked.row.as_ref(), self.file.as_ref()) == Some(old))
        else {
            return Step::Over(Over::Again);
        };
        *mark = Some(looked.seen.mark);
        let decision = decide(&looked.seen, looked.known.as_ref(), self.before, after);
        self.decision = Some(decision);
        match decision {
            Decision::Wait { sighting, until } if looked.known == Some(sighting) => {
                Step::Over(Over::Until(until))
            }
            Decision::Wait { sighting, .. } => Step::Remember(sighting),
            Decision::TakeAtOnce | Decision::TakeLapsed => Step::Clear(old.clone()),
        }
    }

    /// After [`Step::Remember`].
    pub fn remembered(&self) -> Step<H> {
        match self.decision {
            Some(Decision::Wait { until, .. }) => Step::Over(Over::Until(until)),
            _ => Step::Over(Over::Again),
        }
    }

    /// After [`Step::Clear`]. `alive`: one of the old run's own three processes is.
    pub fn cleared(&mut self, alive: bool, now: Boot) -> Step<H> {
        match (&self.old, self.decision) {
            // We hold its kernel lock: of its three processes only the one without the lock can be left, or, where kernel locks
            // don't reach, any: a front that is about to end, or one that is stopped. It is a holder until it is gone.
            _ if alive => Step::Over(Over::Alive),
            (Some((old, _)), Some(Decision::TakeLapsed)) => Step::Claim(old.token),
            _ => self.take(now),
        }
    }

    /// After [`Step::Claim`].
    pub fn claimed(&self) -> Step<H> {
        match &self.old {
            Some((old, _)) => Step::LookAgain(old.clone()),
            None => Step::Over(Over::Again),
        }
    }

    /// After [`Step::LookAgain`].
    pub fn looked_again(&mut self, mark: Mark, now: Boot) -> Step<H> {
        match &self.old {
            Some((_, seen)) if *seen == Some(mark) => self.take(now),
            // Alive after all. The claim stays.
            Some((old, _)) => Step::Over(Over::Until(now + old.ttl)),
            None => Step::Over(Over::Again),
        }
    }

    fn take(&mut self, now: Boot) -> Step<H> {
        self.sent = now;
        Step::Grant {
            over: self.old.as_ref().map(|(old, _)| old.clone()),
            file: self.file.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lease::takeover::FileId;
    use std::time::Duration;

    const TTL: Duration = Duration::from_secs(45);

    fn at(seconds: u64) -> Boot {
        Boot(0) + Duration::from_secs(seconds)
    }

    fn row(token: u64) -> Row<()> {
        row::tests::row(token, false, 0)
    }

    fn looked(slot_seq: u64, known: Option<Sighting>) -> Looked<()> {
        let mark = Mark {
            token: Token(4),
            row_seq: 0,
            slot_seq: Some(slot_seq),
            file: FileId { dev: 1, ino: 2 },
        };
        Looked {
            row: Some(row(4)),
            known,
            seen: Unreleased {
                mark,
                granted_on: mark.file,
                same_boot: Some(false),
                local_file: false,
                local_store: false,
                ttl: TTL,
            },
        }
    }

    /// The attempt that found an unreleased grant, begun at `seconds`.
    fn held(seconds: u64) -> Taker<()> {
        let (mut taker, step) = Taker::begin(at(seconds), None);
        let grant = Step::Grant {
            over: None,
            file: None,
        };
        assert_eq!(step, grant);
        assert_eq!(taker.written(Written::Held(row(4))), Step::Look(row(4)));
        taker
    }

    #[test]
    fn a_first_sight_is_kept_and_one_that_is_known_is_not_written_again() {
        let first = looked(7, None);
        let sighting = Sighting {
            mark: first.seen.mark,
            first: at(1),
        };
        let mut taker = held(0);
        assert_eq!(taker.looked(&first, at(1)), Step::Remember(sighting));
        assert_eq!(taker.remembered(), Step::Over(Over::Until(at(46))));
        let step = held(20).looked(&looked(7, Some(sighting)), at(21));
        assert_eq!(step, Step::Over(Over::Until(at(46))));
    }

    #[test]
    fn who_was_silent_for_its_lease_is_cleared_away_claimed_and_looked_at_once_more() {
        let seen = looked(7, None).seen.mark;
        let known = Sighting {
            mark: seen,
            first: at(1),
        };
        let mut taker = held(46);
        assert_eq!(
            taker.looked(&looked(7, Some(known)), at(47)),
            Step::Clear(row(4))
        );
        let mut lives = taker.clone();
        assert_eq!(lives.cleared(true, at(48)), Step::Over(Over::Alive));
        assert_eq!(taker.cleared(false, at(48)), Step::Claim(Token(4)));
        assert_eq!(taker.claimed(), Step::LookAgain(row(4)));
        let mut beat = taker.clone();
        let later = looked(8, None).seen.mark;
        let step = beat.looked_again(later, at(49));
        assert_eq!(step, Step::Over(Over::Until(at(49) + TTL)));
        let take = Step::Grant {
            over: Some(row(4)),
            file: None,
        };
        assert_eq!(taker.looked_again(seen, at(49)), take);
        assert_eq!(
            taker.written(Written::Granted(Token(5))),
            Step::Over(Over::Granted {
                token: Token(5),
                sent: at(49)
            })
        );
        // somebody else was faster
        let other = taker.written(Written::Held(row(5)));
        assert_eq!(other, Step::Over(Over::Again));
        assert_eq!(taker.written(Written::Unknown), Step::GiveBack);
    }

    #[test]
    fn what_is_another_grant_by_now_begins_anew() {
        let other = Looked {
            row: Some(row(5)),
            ..looked(7, None)
        };
        assert_eq!(held(0).looked(&other, at(1)), Step::Over(Over::Again));
    }
}
