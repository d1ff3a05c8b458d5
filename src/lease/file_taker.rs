//! What an attempt does in a `lockfile:` store once it has the kernel lock, which is the authority there.
//!
//! An unreleased grant in the file is over then: nobody else can have the lock. Only where the history tells of a later
//! grant than the file, which was put in the place of another one, somebody may still run; it is waited for as for a lease.

use super::row::{self, Row};
use super::takeover::{Decision, Sighting, Unreleased, decide};
pub use super::taker::Over;
use crate::clock::Boot;
use crate::name::Token;

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
    /// It was released.
    pub released: bool,
    /// Who.
    pub holder: H,
}

/// The row, if it knows a later grant than the lock file does: that file is not the one that was granted on.
pub fn later<H>(row: Option<&Row<H>>, file: Option<Token>) -> Option<&Row<H>> {
    row.filter(|row| file.is_none_or(|file| file < row.token))
}

/// Whether the history may take the grant `token` when `row` stands there. If not, the lock file was replaced, and
/// somebody has been granted the lock on the other one.
pub fn may_begin<H>(row: Option<&Row<H>>, token: Token) -> bool {
    row.is_none_or(|row| row.token < token)
}

/// One attempt, the kernel lock in its hands.
#[derive(Debug, Clone)]
pub struct FileTaker<H> {
    before: Boot,
    token: Token,
    /// The moment before the grant was sent.
    sent: Boot,
    old: Option<H>,
    until: Boot,
}

impl<H: Clone> FileTaker<H> {
    /// Begins. `before`: the clock before anything was read; `elsewhere`: the newest token that neither row nor file may know.
    pub fn begin(
        before: Boot,
        found: Option<&Found<H>>,
        row: Option<&Row<H>>,
        elsewhere: Option<Token>,
    ) -> (Self, Step<H>) {
        let file = found.map(|found| found.token);
        let token = row::next_token(row.map(|row| row.token), file.max(elsewhere));
        let step = match (later(row, file), found) {
            (Some(row), _) if !row.released => Step::Look(row.clone()),
            (None, Some(found)) if !found.released => Step::Clear(found.holder.clone()),
            _ => Step::Write(token),
        };
        let taker = FileTaker {
            before,
            token,
            sent: before,
            old: row.map(|row| row.holder.clone()),
            until: before,
        };
        (taker, step)
    }

    /// After [`Step::Look`]; `after`: the clock after it.
    pub fn looked(&mut self, seen: &Unreleased, known: Option<Sighting>, after: Boot) -> Step<H> {
        match (decide(seen, known.as_ref(), self.before, after), &self.old) {
            (Decision::Wait { sighting, until }, _) => {
                self.until = until;
                if known == Some(sighting) {
                    self.remembered()
                } else {
                    Step::Remember(sighting)
                }
            }
            (_, Some(old)) => Step::Clear(old.clone()),
            (_, None) => Step::Write(self.token),
        }
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
        self.sent = now;
        Step::Write(self.token)
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
