//! What a holder does at each heartbeat: the order of its steps, and what it makes of each answer.
//!
//! Every [`Step`] is one piece of input or output for whoever drives this. One that fails says nothing about the lock: the
//! heartbeat is dropped ([`Lease::beat`] begins the next), and the deadline stands.

use std::fmt;

use super::heartbeat::{Answer, Wishes, answer, may_renew};
use super::timing::Timing;
use crate::clock::Boot;
use crate::name::Token;

/// What keeps the grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// The kernel lock.
    Kernel,
    /// The lease, renewed in the lock file.
    Slot,
    /// The lease, renewed in the database: the lock file is not where others look any more.
    Row,
    /// The kernel lock of a `lockfile:` store.
    File,
    /// The same, on a server that gives it away after a silence of its own.
    Server,
}

/// What is to be done next. Its answer goes to the method that each names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Look whether the kernel lock is still ours: [`Lease::lock_read`].
    ReadLock,
    /// Write the slot with this number: [`Lease::slot_written`].
    WriteSlot {
        /// Its number.
        seq: u64,
        /// Wait until it is on the disk, or on the server.
        durable: bool,
    },
    /// Read the lock file, and look whether its path still names it: [`Lease::file_read`].
    ReadFile,
    /// One transaction that renews the row if it is still ours: [`Lease::row_renewed`].
    RenewRow,
    /// Read what others ask, in the lock file that stands at the path now: [`Lease::wishes_read`].
    ReadWishes,
    /// That was it.
    Over(Beat),
}

/// What a heartbeat came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beat {
    /// Still ours.
    Renewed,
    /// Still ours, and somebody asks the run to stop.
    Stop,
    /// Not ours any more.
    Lost(Loss),
    /// Somebody revoked it.
    Revoked,
}

/// How a lock was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// Its lease ran out before it could be renewed.
    Lapsed,
    /// The file server gave the kernel lock to somebody else.
    ByServer,
    /// Somebody else has the row.
    TakenOver,
    /// Somebody claims it.
    Claimed,
    /// Its lock file was deleted or replaced, and nothing else keeps it.
    Replaced,
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Loss::Lapsed => "its lease ran out before it could be renewed",
            Loss::ByServer => "the file server gave the lock to somebody else",
            Loss::TakenOver => "another run took it over",
            Loss::Claimed => "another run takes it over",
            Loss::Replaced => "its lock file was deleted or replaced",
        })
    }
}

/// What stands in the holder's lock file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileRead {
    /// The kernel lock is still ours.
    pub still_locked: bool,
    /// What others want.
    pub wishes: Wishes,
    /// The path still names this file.
    pub at_path: bool,
}

/// A grant in its holder's hands.
#[derive(Debug, Clone)]
pub struct Lease {
    token: Token,
    timing: Timing,
    by: By,
    seq: u64,
    /// Before the last renewal that succeeded was sent.
    sent: Boot,
    /// Before this heartbeat was sent.
    sending: Boot,
}

impl Lease {
    /// Just granted; `seq`: the number of the slot that was written with the grant.
    pub fn new(token: Token, timing: Timing, by: By, seq: u64, sent: Boot) -> Self {
        Lease {
            token,
            timing,
            by,
            seq,
            sent,
            sending: sent,
        }
    }

    /// The number of its last slot.
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// What keeps it.
    pub fn by(&self) -> By {
        self.by
    }

    /// The grant.
    pub fn token(&self) -> Token {
        self.token
    }

    /// Its timing.
    pub fn timing(&self) -> Timing {
        self.timing
    }

    /// The moment that the lease counts from; `None`: it does not end by itself.
    pub fn sent(&self) -> Option<Boot> {
        self.ends().then_some(self.sent)
    }

    /// Begins a heartbeat at `now`.
    pub fn beat(&mut self, now: Boot) -> Step {
        if self.ends() && !may_renew(self.timing, self.sent, now) {
            return Step::Over(Beat::Lost(Loss::Lapsed));
        }
        self.sending = now;
        match self.by {
            By::Row => self.by_row(),
            By::File | By::Server => Step::ReadLock,
            By::Kernel | By::Slot => self.write_slot(),
        }
    }

    /// It ends by itself.
    fn ends(&self) -> bool {
        !matches!(self.by, By::Kernel | By::File)
    }

    /// A number is used once: a write that gave an error may have come through, or may yet, and whoever saw it must see that there was
    /// another one after it.
    fn write_slot(&mut self) -> Step {
        self.seq += 1;
        Step::WriteSlot {
            seq: self.seq,
            // where nobody's life hangs on it, a sync would cost every job one each h
            durable: self.by == By::Slot,
        }
    }

    /// After [`Step::ReadLock`].
    pub fn lock_read(&mut self, still_locked: bool) -> Step {
        if still_locked {
            self.write_slot()
        } else {
            Step::Over(Beat::Lost(Loss::ByServer))
        }
    }

    /// After [`Step::WriteSlot`].
    pub fn slot_written(&self) -> Step {
        Step::ReadFile
    }

    /// After [`Step::ReadFile`].
    pub fn file_read(&mut self, read: FileRead) -> Step {
        if !read.still_locked {
            return Step::Over(Beat::Lost(Loss::ByServer));
        }
        if !read.at_path {
            if matches!(self.by, By::File | By::Server) {
                return Step::Over(Beat::Lost(Loss::Replaced));
            }
            self.by = By::Row;
            return self.by_row();
        }
        self.heard(read.wishes)
    }

    fn by_row(&self) -> Step {
        if may_renew(self.timing, self.sent, self.sending) {
            Step::RenewRow
        } else {
            Step::Over(Beat::Lost(Loss::Lapsed))
        }
    }

    /// After [`Step::RenewRow`]; `ours`: the row was, and is renewed.
    pub fn row_renewed(&mut self, ours: bool) -> Step {
        if ours {
            Step::ReadWishes
        } else {
            Step::Over(Beat::Lost(Loss::TakenOver))
        }
    }

    /// After [`Step::ReadWishes`].
    pub fn wishes_read(&mut self, wishes: Wishes) -> Step {
        self.heard(wishes)
    }

    fn heard(&mut self, wishes: Wishes) -> Step {
        let beat = match answer(self.token, wishes) {
            Answer::Lost => Beat::Lost(Loss::Claimed),
            Answer::Revoked => Beat::Revoked,
            Answer::Stop => Beat::Stop,
            Answer::GoOn => Beat::Renewed,
        };
        if matches!(beat, Beat::Renewed | Beat::Stop) {
            self.sent = self.sending;
        }
        Step::Over(beat)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use std::time::Duration;

    const AT: Boot = Boot(1_000_000_000_000);

    fn at(secs: u64) -> Boot {
        AT + Duration::from_secs(secs)
    }

    fn lease(by: By) -> Lease {
        Lease::new(Token(7), Timing::of(Timing::DEFAULT), by, 0, AT)
    }

    fn read(at_path: bool) -> FileRead {
        FileRead {
            still_locked: true,
            wishes: Wishes::default(),
            at_path,
        }
    }

    #[test]
    fn a_heartbeat_writes_and_then_reads_and_counts_from_before_both() {
        let mut lease = lease(By::Slot);
        let step = Step::WriteSlot {
            seq: 1,
            durable: true,
        };
        assert_eq!(lease.beat(at(5)), step);
        assert_eq!(lease.slot_written(), Step::ReadFile);
        assert_eq!(lease.sent(), Some(AT), "not yet");
        assert_eq!(lease.file_read(read(true)), Step::Over(Beat::Renewed));
        assert_eq!(lease.sent(), Some(at(5)));
    }

    #[test]
    fn a_number_is_used_once() {
        let mut lease = lease(By::Slot);
        let number = |step| match step {
            Step::WriteSlot { seq, .. } => seq,
            other => panic!("{other:?}"),
        };
        // the first write gives an error, and nobody knows whether it came through
        assert_eq!(number(lease.beat(at(5))), 1);
        assert_eq!(number(lease.beat(at(8))), 2);
        assert_eq!(lease.seq(), 2);
    }

    #[rstest]
    #[case(By::Kernel, true)]
    #[case(By::File, true)]
    #[case(By::Slot, false)]
    #[case(By::Row, false)]
    #[case(By::Server, false)]
    fn a_lease_lapses_where_there_is_one(#[case] by: By, #[case] goes_on: bool) {
        let mut lease = lease(by);
        assert_eq!(lease.sent().is_none(), goes_on);
        let lapsed = Step::Over(Beat::Lost(Loss::Lapsed));
        assert_eq!(lease.beat(at(20)) != lapsed, goes_on);
    }

    #[test]
    fn without_its_lock_file_it_goes_on_in_the_row_if_that_is_in_time() {
        for (by, begun, next) in [
            (By::Slot, 5, Step::RenewRow),
            (By::Kernel, 5, Step::RenewRow),
            (By::Kernel, 20, Step::Over(Beat::Lost(Loss::Lapsed))),
            (By::File, 5, Step::Over(Beat::Lost(Loss::Replaced))),
            (By::Server, 5, Step::Over(Beat::Lost(Loss::Replaced))),
        ] {
            let mut lease = lease(by);
            lease.beat(at(begun));
            assert_eq!(lease.file_read(read(false)), next, "{by:?}");
        }
        let mut lease = lease(By::Kernel);
        lease.beat(at(5));
        lease.file_read(read(false));
        assert_eq!(lease.by(), By::Row);
        assert_eq!(lease.row_renewed(true), Step::ReadWishes);
        assert_eq!(
            lease.wishes_read(Wishes::default()),
            Step::Over(Beat::Renewed)
        );
        assert_eq!(lease.sent(), Some(at(5)), "a lease from now on");
        assert_eq!(lease.beat(at(10)), Step::RenewRow);
        assert_eq!(
            lease.row_renewed(false),
            Step::Over(Beat::Lost(Loss::TakenOver))
        );
    }

    #[test]
    fn what_others_want_is_heard_and_only_a_stop_renews() {
        let token = Some(Token(7));
        for (wishes, beat, renews) in [
            (
                Wishes {
                    stop: token,
                    ..Wishes::default()
                },
                Beat::Stop,
                true,
            ),
            (
                Wishes {
                    revoked: token,
                    ..Wishes::default()
                },
                Beat::Revoked,
                false,
            ),
            (
                Wishes {
                    claimed: token,
                    ..Wishes::default()
                },
                Beat::Lost(Loss::Claimed),
                false,
            ),
        ] {
            let mut lease = lease(By::Slot);
            lease.beat(at(5));
            assert_eq!(
                lease.file_read(FileRead {
                    wishes,
                    ..read(true)
                }),
                Step::Over(beat)
            );
            assert_eq!(lease.sent() == Some(at(5)), renews, "{beat:?}");
        }
    }

    #[test]
    fn a_server_that_took_the_lock_away_is_believed_before_and_after_the_write() {
        let mut lease = lease(By::Server);
        assert_eq!(lease.beat(at(5)), Step::ReadLock);
        assert_eq!(
            lease.lock_read(false),
            Step::Over(Beat::Lost(Loss::ByServer))
        );
        assert!(matches!(
            lease.lock_read(true),
            Step::WriteSlot { durable: false, .. }
        ));
        let gone = FileRead {
            still_locked: false,
            ..read(true)
        };
        assert_eq!(
            lease.file_read(gone),
            Step::Over(Beat::Lost(Loss::ByServer))
        );
        assert_eq!(
            (lease.token(), lease.timing()),
            (Token(7), Timing::of(Timing::DEFAULT))
        );
    }
}
