//! What an attempt does in a `lockfile:` store once it has the kernel lock, which is the authority there.
//!
//! An unreleased grant in the file is over then, as nobody else can have the lock: if its run can be looked for from here, or the
//! file system is local. A file server may forget locks, though (NFSv3: nfsd restarted without telling the clients; NFSv4: two clients
//! of one name), and then two have it. So what is left of a grant that was made elsewhere is waited for as for a lease: its
//! holder's heartbeats go on in the file, and it must have been silent for its TTL. The same where the history tells of a later
//! grant than the file, which was put in the place of another one.

use std::time::Duration;

use super::row::{self, Row};
use super::takeover::{Decision, FileId, Mark, Sighting, Unreleased, decide};
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
    /// Lay the claim on this grant, durably: [`FileTaker::claimed`].
    Claim(Token),
    /// Read the lock file's slots once more: [`FileTaker::looked_again`].
    LookAgain(Row<H>),
    /// Write the grant into the file, durably: [`FileTaker::written`].
    Write(Token),
    /// Look whether the kernel lock is still ours, its file at its path, and our grant the newest in it: [`FileTaker::lock_read`].
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
    /// Its renewals in the file.
    pub seq: u64,
    /// The lease's length.
    pub ttl: Duration,
    /// The kernel lock proves it over, but for what can be looked for from here: the file system is local, or the run was on this
    /// machine, where its pids mean something.
    pub proven: bool,
    /// Who.
    pub holder: H,
}

impl<H: Clone> Found<H> {
    fn row(&self, file: FileId) -> Row<H> {
        Row {
            token: self.token,
            owner: self.owner.clone(),
            released: self.released,
            seq: 0,
            ttl: self.ttl,
            granted_on: file,
            holder: self.holder.clone(),
        }
    }
}

/// What must not change while `row` is waited for, and for how long: the heartbeats of its own run, or, where it stands in another file's
/// place, of the one that this file tells of.
pub fn watch<H>(row: &Row<H>, found: Option<&Found<H>>, file: FileId) -> (Mark, Duration) {
    let own = found.map(|found| (found.token, &found.owner, found.seq));
    let mark = row.mark(own, file);
    match found.filter(|found| mark.slot_seq.is_none() && !found.released) {
        Some(found) => {
            // whose heartbeats: of two runs, the same number is no silence; such a row has no renewals of its own
            let (row_seq, slot_seq) = (found.token.0, Some(found.seq));
            let mark = Mark {
                row_seq,
                slot_seq,
                ..mark
            };
            (mark, row.ttl.max(found.ttl))
        }
        None => (mark, row.ttl),
    }
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
    /// What is waited for, and how it was seen.
    watched: Option<(Row<H>, Option<Mark>)>,
    /// The grant in the file, if the kernel lock does not prove it over.
    claim: Option<Token>,
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
            watched: None,
            claim: None,
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
        // its end may have come into the history alone
        let ended = |found: &&Found<H>| {
            row.is_some_and(|row| {
                row.released && (row.token, &row.owner) == (found.token, &found.owner)
            })
        };
        let unsure = found
            .filter(|found| !found.released && !found.proven && later.is_none())
            .filter(|found| !ended(found));
        taker.claim = unsure.map(|found| found.token);
        if let Some(row) = row.filter(|row| !row.released).filter(elsewhere) {
            taker.old.push(row.holder.clone());
            taker.watched = Some((row.clone(), None));
            return (taker, Step::Look(row.clone()));
        }
        if let Some(row) = unsure.map(|found| found.row(file)) {
            taker.watched = Some((row.clone(), None));
            return (taker, Step::Look(row));
        }
        let step = taker.clear_or_write(before);
        (taker, step)
    }

    /// After [`Step::Look`]; `after`: the clock after it.
    pub fn looked(&mut self, seen: &Unreleased, known: Option<Sighting>, after: Boot) -> Step<H> {
        if let Some((_, mark)) = &mut self.watched {
            *mark = Some(seen.mark);
        }
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
        match (self.clear_or_write(now), self.claim) {
            (Step::Write(_), Some(token)) => Step::Claim(token),
            (step, _) => step,
        }
    }

    /// After [`Step::Claim`].
    pub fn claimed(&self) -> Step<H> {
        match &self.watched {
            Some((row, _)) => Step::LookAgain(row.clone()),
            None => Step::Over(Over::Again),
        }
    }

    /// After [`Step::LookAgain`].
    pub fn looked_again(&mut self, mark: Mark, now: Boot) -> Step<H> {
        match &self.watched {
            Some((_, Some(seen))) if *seen == mark => self.clear_or_write(now),
            // Alive after all. The claim stays.
            Some((row, _)) => Step::Over(Over::Until(now + row.ttl)),
            None => Step::Over(Over::Again),
        }
    }

    /// After [`Step::Write`].
    pub fn written(&self) -> Step<H> {
        Step::ReadLock
    }

    /// After [`Step::ReadLock`]. Whoever was frozen or stopped since it took the lock may have it no more; and the deadline counts from
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

    const FILE: FileId = FileId { dev: 1, ino: 2 };
    const OTHER: FileId = FileId { dev: 1, ino: 3 };

    fn row(token: u64) -> Row<()> {
        row::tests::row(token, false, 0)
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
            ttl: row.ttl,
            seq: 0,
            proven: true,
            holder: (),
        });
        let (_, step) = FileTaker::begin(Boot(5), FILE, found.as_ref(), Some(&row), None);
        assert_eq!(step == Step::Look(row), waits, "{step:?}");
    }

    fn found(proven: bool) -> Found<()> {
        Found {
            token: Token(6),
            owner: row(6).owner,
            released: false,
            seq: 0,
            ttl: row(6).ttl,
            proven,
            holder: (),
        }
    }

    #[test]
    fn the_lock_is_looked_at_after_the_grant_and_the_deadline_counts_from_before_it() {
        let found = found(true);
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

    fn unreleased(seq: u64) -> Unreleased {
        let (row, found) = (
            row(6),
            Found {
                seq,
                ..found(false)
            },
        );
        Unreleased {
            mark: watch(&row, Some(&found), FILE).0,
            granted_on: FILE,
            same_boot: Some(false),
            local_file: false,
            local_store: false,
            ttl: row.ttl,
        }
    }

    fn at(seconds: u64) -> Boot {
        Boot(0) + Duration::from_secs(seconds)
    }

    #[test]
    fn a_server_that_forgot_the_lock_gives_it_to_nobody_while_its_holder_has_heartbeats() {
        let (mut taker, step) =
            FileTaker::begin(at(5), FILE, Some(&found(false)), Some(&row(6)), None);
        assert_eq!(step, Step::Look(row(6)));
        let sighting = Sighting {
            mark: unreleased(3).mark,
            first: at(6),
        };
        let kept = taker.looked(&unreleased(3), None, at(6));
        assert_eq!(kept, Step::Remember(sighting));
        assert_eq!(taker.remembered(), Step::Over(Over::Until(at(51))));

        let begin = || FileTaker::begin(at(51), FILE, Some(&found(false)), Some(&row(6)), None).0;
        let step = begin().looked(&unreleased(4), Some(sighting), at(52));
        assert!(matches!(step, Step::Remember(_)), "it was alive: {step:?}");
        let mut taker = begin();
        let step = taker.looked(&unreleased(3), Some(sighting), at(52));
        assert_eq!(step, Step::Clear(()));
        assert_eq!(taker.cleared(false, at(53)), Step::Claim(Token(6)));
        assert_eq!(taker.claimed(), Step::LookAgain(row(6)));
        let mut again = taker.clone();
        let alive = again.looked_again(unreleased(4).mark, at(54));
        assert_eq!(alive, Step::Over(Over::Until(at(99))));
        let silent = taker.looked_again(unreleased(3).mark, at(54));
        assert_eq!(silent, Step::Write(Token(7)));
    }

    #[test]
    fn a_grant_in_this_file_counts_beside_one_on_another() {
        let old = Row {
            owner: "00ff00ff00ff00fe".parse().expect("a run id"),
            ..row(5)
        };
        let found = found(false);
        let (mut taker, step) = FileTaker::begin(at(5), OTHER, Some(&found), Some(&old), None);
        assert_eq!(step, Step::Look(old.clone()));
        let mark = |seq| {
            watch(
                &old,
                Some(&Found {
                    seq,
                    ..found.clone()
                }),
                OTHER,
            )
            .0
        };
        assert_ne!(mark(3), mark(4));
        let next = Found {
            token: Token(7),
            seq: 3,
            ..found.clone()
        };
        assert_ne!(mark(3), watch(&old, Some(&next), OTHER).0);
        let lapsed = |seq| Unreleased {
            mark: mark(seq),
            ..unreleased(seq)
        };
        let first = at(5);
        let known = Sighting {
            mark: mark(3),
            first,
        };
        taker.before = first + old.ttl;
        assert_eq!(
            taker.looked(&lapsed(3), Some(known), at(51)),
            Step::Clear(())
        );
        assert_eq!(taker.cleared(false, at(51)), Step::Clear(()));
        assert_eq!(taker.cleared(false, at(51)), Step::Claim(Token(6)));
        assert_eq!(taker.claimed(), Step::LookAgain(old));
    }

    /// The file tells of a grant that came before the one in the history.
    #[rstest]
    #[case::both_are_left(false, 2)]
    #[case::who_came_later_ended_and_had_cleared(true, 0)]
    fn who_is_cleared_away_of_two(#[case] later_released: bool, #[case] cleared: usize) {
        let later = Row {
            owner: "00ff00ff00ff00fe".parse().expect("a run id"),
            released: later_released,
            ..row(7)
        };
        let (mut taker, mut step) =
            FileTaker::begin(at(60), FILE, Some(&found(true)), Some(&later), None);
        if step == Step::Look(later.clone()) {
            let seen = Unreleased {
                mark: watch(&later, Some(&found(true)), FILE).0,
                ..unreleased(0)
            };
            let known = Sighting {
                mark: seen.mark,
                first: at(0),
            };
            step = taker.looked(&seen, Some(known), at(60));
        }
        let mut times = 0;
        while step == Step::Clear(()) {
            times += 1;
            step = taker.cleared(false, at(60));
        }
        assert_eq!((times, step), (cleared, Step::Write(Token(8))));
    }

    #[test]
    fn the_heartbeats_of_a_grant_that_was_released_are_not_watched() {
        let other = Row {
            owner: "00ff00ff00ff00fe".parse().expect("a run id"),
            ..row(5)
        };
        let released = Found {
            released: true,
            ttl: row(6).ttl * 2,
            ..found(false)
        };
        let (mark, ttl) = watch(&other, Some(&released), FILE);
        assert_eq!((mark.slot_seq, ttl), (None, other.ttl));
    }

    #[test]
    fn what_the_history_knows_the_end_of_is_not_waited_for() {
        let ended = Row {
            released: true,
            ..row(6)
        };
        let (_, step) = FileTaker::begin(at(5), FILE, Some(&found(false)), Some(&ended), None);
        assert_eq!(step, Step::Clear(()));
    }
}
