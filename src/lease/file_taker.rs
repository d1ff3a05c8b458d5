//! What an attempt does in a `lockfile:` store once it has the kernel lock, which is the authority there.
//!
//! An unreleased grant in the file is over then: nobody else can have the lock. Only where the history tells of a later
//! grant than the file, which was put in the place of another one, somebody may still run; it is waited for as for a lease.

use super::row::{self, Row};
use super::takeover::{Decision, FileId, Sighting, Unreleased, decide};
pub use super::taker::Over;
use crate::clock::Boot;
use crate::name::{RunId, Token};

/// What is to be done next. Its answer goes to the method that each names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step<H> {
    /// Read what was seen of this row from a place with our clock: [`FileTaker::looked`].
    Look(Row<H>),
    /// Keep this for the next attempt: [`FileTaker::remembered`].
    Remember(Sighting),
    /// End what this run left on this machine: [`FileTaker::cleared`].
    Clear(H),
    /// Write the grant into the file, durably: [`FileTaker::written`].
    Write(Token),
    /// Look whether the kernel lock is still ours, and its file at its path: [`FileTaker::lock_read`].
    ReadLock,
    /// That was it. What is granted is still to be written into the history.
    Over(Over),
}

/// The newest grant in the lock file.
#[derive(Debug, Clone)]
pub struct Found<H> {
    /// Its token.
    pub token: Token,
    /// Its run.
    pub owner: RunId,
    /// It was released.
    pub released: bool,
    /// Who.
    pub holder: H,
}

/// The row, if it knows a later grant than the lock file does: that file is not the one that was granted on.
pub fn later<H>(row: Option<&Row<H>>, file: Option<Token>) -> Option<&Row<H>> {
    row.filter(|row| file.is_none_or(|file| file < row.token))
}

/// Whether the history may take a grant when `row` stands there, and `seen` was its token when the attempt began. If not, the
/// lock file was replaced, and somebody has been granted the lock on the other one meanwhile.
pub fn may_begin<H>(row: Option<&Row<H>>, seen: Option<Token>) -> bool {
    row.map(|row| row.token) <= seen
}

/// One attempt, the kernel lock in its hands.
#[derive(Debug, Clone)]
pub struct FileTaker<H> {
    before: Boot,
    token: Token,
    /// The moment before the grant was sent.
    sent: Boot,
    /// Whose runs are to be cleared away, the last first.
    old: Vec<H>,
    until: Boot,
}

impl<H: Clone> FileTaker<H> {
    /// Begins. `before`: the clock before anything was read; `file`: the lock file, in which `found` stands; `elsewhere`: the newest
    /// token that neither row nor file may know.
    pub fn begin(
        before: Boot,
        file: FileId,
        found: Option<&Found<H>>,
        row: Option<&Row<H>>,
        elsewhere: Option<Token>,
    ) -> (Self, Step<H>) {
        let newest = found.map(|found| found.token);
        let token = row::next_token(row.map(|row| row.token), newest.max(elsewhere));
        let mut taker = FileTaker {
            before,
            token,
            sent: before,
            old: Vec::new(),
            until: before,
        };
        let later = later(row, newest);
        if later.is_none_or(|row| !row.released) {
            let unreleased = found.filter(|found| !found.released);
            taker
                .old
                .extend(unreleased.map(|found| found.holder.clone()));
        }
        // Whatever the file tells of since, its kernel lock says nothing about a grant that was made on another one.
        let elsewhere = |row: &&Row<H>| {
            later.is_some()
                || row.granted_on != file && found.is_none_or(|found| found.owner != row.owner)
        };
        if let Some(row) = row.filter(|row| !row.released).filter(elsewhere) {
            taker.old.push(row.holder.clone());
            return (taker, Step::Look(row.clone()));
        }
        let step = taker.clear_or_write(before);
        (taker, step)
    }

    /// After [`Step::Look`]; `after`: the clock after it.
    pub fn looked(&mut self, seen: &Unreleased, known: Option<Sighting>, after: Boot) -> Step<H> {
        match decide(seen, known.as_ref(), self.before, after) {
            Decision::Wait { sighting, until } => {
                self.until = until;
                if known == Some(sighting) {
                    self.remembered()
                } else {
                    Step::Remember(sighting)
                }
            }
            Decision::TakeAtOnce | Decision::TakeLapsed => self.clear_or_write(after),
        }
    }

    fn clear_or_write(&mut self, now: Boot) -> Step<H> {
        self.sent = now;
        self.old.pop().map_or(Step::Write(self.token), Step::Clear)
    }

    /// After [`Step::Remember`].
    pub fn remembered(&self) -> Step<H> {
        Step::Over(Over::Until(self.until))
    }

    /// After [`Step::Clear`]. `alive`: one of the old run's own three processes is.
    pub fn cleared(&mut self, alive: bool, now: Boot) -> Step<H> {
        if alive {
            return Step::Over(Over::Alive);
        }
        self.clear_or_write(now)
    }

    /// After [`Step::Write`].
    pub fn written(&self) -> Step<H> {
        Step::ReadLock
    }

    /// After [`Step::ReadLock`]. Whoever was frozen since it took the lock may have it no more; and the deadline counts from
    /// before this look, so it is over before the server could give the lock away after it.
    pub fn lock_read(&self, still_ours: bool) -> Step<H> {
        Step::Over(if still_ours {
            Over::Granted {
                token: self.token,
                sent: self.sent,
            }
        } else {
            Over::Again
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lease::takeover::FileId;
    use rstest::rstest;
    use std::time::Duration;

    const FILE: FileId = FileId { dev: 1, ino: 2 };
    const OTHER: FileId = FileId { dev: 1, ino: 3 };

    fn row(token: u64) -> Row<()> {
        Row {
            token: Token(token),
            owner: "00ff00ff00ff00ff".parse().expect("a run id"),
            released: false,
            seq: 0,
            ttl: Duration::from_secs(45),
            granted_on: FILE,
            holder: (),
        }
    }

    #[rstest]
    #[case::as_it_was(Some(3), Some(3), true)]
    #[case::the_first(None, None, true)]
    #[case::the_database_is_gone(None, Some(3), true)]
    #[case::somebody_was_faster(Some(4), Some(3), false)]
    #[case::somebody_was_the_first(Some(1), None, false)]
    fn the_history_takes_no_grant_beside_another(
        #[case] now: Option<u64>,
        #[case] seen: Option<u64>,
        #[case] may: bool,
    ) {
        let now = now.map(row);
        assert_eq!(may_begin(now.as_ref(), seen.map(Token)), may);
    }

    // what the file tells of: its token, and whether it is the row's run; where the row was granted
    #[rstest]
    #[case::the_same_grant(Some((6, true)), FILE, false)]
    #[case::on_another_machine_the_device_has_another_number(Some((6, true)), OTHER, false)]
    #[case::the_file_is_new(None, OTHER, true)]
    #[case::the_file_was_emptied(None, FILE, true)]
    #[case::taken_over_on_this_file(Some((7, false)), FILE, false)]
    #[case::somebody_got_as_far_on_a_new_file(Some((6, false)), OTHER, true)]
    #[case::or_further(Some((7, false)), OTHER, true)]
    fn a_grant_on_another_file_is_waited_for(
        #[case] found: Option<(u64, bool)>,
        #[case] granted_on: FileId,
        #[case] waits: bool,
    ) {
        let row = Row {
            granted_on,
            ..row(6)
        };
        let found = found.map(|(token, same)| Found {
            token: Token(token),
            owner: if same {
                row.owner.clone()
            } else {
                "00ff00ff00ff00fe".parse().expect("a run id")
            },
            released: false,
            holder: (),
        });
        let (_, step) = FileTaker::begin(Boot(5), FILE, found.as_ref(), Some(&row), None);
        assert_eq!(step == Step::Look(row), waits, "{step:?}");
    }

    #[test]
    fn the_lock_is_looked_at_after_the_grant_and_the_deadline_counts_from_before_it() {
        let found = Found {
            token: Token(6),
            owner: row(6).owner,
            released: false,
            holder: (),
        };
        let (mut taker, step) = FileTaker::begin(Boot(5), FILE, Some(&found), Some(&row(6)), None);
        assert_eq!(step, Step::Clear(()));
        assert_eq!(taker.cleared(true, Boot(7)), Step::Over(Over::Alive));
        assert_eq!(taker.cleared(false, Boot(7)), Step::Write(Token(7)));
        assert_eq!(taker.written(), Step::ReadLock);
        let granted = Over::Granted {
            token: Token(7),
            sent: Boot(7),
        };
        assert_eq!(taker.lock_read(true), Step::Over(granted));
        assert_eq!(taker.lock_read(false), Step::Over(Over::Again));
    }
}
