//! A lock's row in the database, as a value: who may write a grant over it, and under which token.
//!
//! Whoever asks does so inside the transaction that writes the grant, so nothing changes between question and write.

use std::time::Duration;

use super::takeover::{FileId, Mark};
use crate::name::{RunId, Token};

/// What stands about a lock's newest grant: the authority for who has it. `H`: what is known of who.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row<H> {
    /// The newest grant.
    pub token: Token,
    /// Its run.
    pub owner: RunId,
    /// It was released.
    pub released: bool,
    /// Renewals that went through this row.
    pub seq: u64,
    /// The lease's length.
    pub ttl: Duration,
    /// The lock file that it was granted on.
    pub granted_on: FileId,
    /// Who.
    pub holder: H,
}

impl<H> Row<H> {
    /// What a living holder changes. `slot`: the newest in the lock file `file`, by token, owner and number.
    pub fn mark(&self, slot: Option<(Token, &RunId, u64)>, file: FileId) -> Mark {
        let own = slot.filter(|(token, owner, _)| (*token, *owner) == (self.token, &self.owner));
        Mark {
            token: self.token,
            row_seq: self.seq,
            slot_seq: own.map(|(_, _, seq)| seq),
            file,
        }
    }

    /// Whether it is still the same unreleased grant, and did not renew here.
    fn unchanged(&self, now: &Self) -> bool {
        !now.released && (now.token, &now.owner, now.seq) == (self.token, &self.owner, self.seq)
    }
}

/// The token after the newest that is known, here or elsewhere.
pub fn next_token(here: Option<Token>, elsewhere: Option<Token>) -> Token {
    here.max(elsewhere).map_or(Token(1), Token::next)
}

/// The newest grant that is known. A database that was deleted, or put back from a backup, knows fewer than the lock
/// file; that does not tell of releases, so its grant counts as one that was not released.
pub fn newest<'a, H>(row: Option<&'a Row<H>>, file: Option<&'a Row<H>>) -> Option<&'a Row<H>> {
    match (row, file) {
        (Some(row), Some(file)) if row.token < file.token => Some(file),
        (None, file) => file,
        (row, _) => row,
    }
}

/// The token of a grant that may be written when `row` stands in the database and `file` in the lock file; else the grant that
/// is in the way. `over`: the unreleased grant that may be overwritten, as it was when that was decided.
pub fn may_grant<'a, H>(
    row: Option<&'a Row<H>>,
    file: Option<&'a Row<H>>,
    over: Option<&Row<H>>,
) -> Result<Token, &'a Row<H>> {
    match newest(row, file) {
        Some(other) if !other.released && !over.is_some_and(|seen| seen.unchanged(other)) => {
            Err(other)
        }
        other => Ok(next_token(other.map(|other| other.token), None)),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use rstest::rstest;

    pub(crate) fn row(token: u64, released: bool, seq: u64) -> Row<()> {
        Row {
            token: Token(token),
            owner: "00ff00ff00ff00ff".parse().expect("a run id"),
            released,
            seq,
            ttl: Duration::from_secs(45),
            granted_on: FileId { dev: 1, ino: 2 },
            holder: (),
        }
    }

    #[rstest]
    #[case::the_first(None, None, None, Ok(1))]
    #[case::released(Some(row(3, true, 0)), Some(row(3, false, 0)), None, Ok(4))]
    #[case::an_old_lock_file(Some(row(9, true, 0)), Some(row(3, false, 0)), None, Ok(10))]
    #[case::held(Some(row(3, false, 0)), Some(row(3, false, 0)), None, Err(3))]
    #[case::as_it_was_seen(
        Some(row(3, false, 5)),
        Some(row(3, false, 0)),
        Some(row(3, false, 5)),
        Ok(4)
    )]
    #[case::it_renewed(Some(row(3, false, 6)), None, Some(row(3, false, 5)), Err(3))]
    #[case::anothers_by_now(Some(row(4, false, 0)), None, Some(row(3, false, 0)), Err(4))]
    #[case::released_meanwhile(Some(row(4, true, 0)), None, Some(row(3, false, 0)), Ok(5))]
    #[case::a_new_database(None, Some(row(7, false, 0)), None, Err(7))]
    #[case::and_its_holder_is_gone(None, Some(row(7, false, 0)), Some(row(7, false, 0)), Ok(8))]
    #[case::an_old_backup(Some(row(3, true, 0)), Some(row(9, false, 0)), None, Err(9))]
    #[case::an_old_backup_with_a_holder(
        Some(row(3, false, 0)),
        Some(row(9, false, 0)),
        Some(row(3, false, 0)),
        Err(9)
    )]
    #[case::a_released_lock_file(Some(row(3, true, 0)), Some(row(9, true, 0)), None, Ok(10))]
    fn a_grant_is_written(
        #[case] now: Option<Row<()>>,
        #[case] file: Option<Row<()>>,
        #[case] over: Option<Row<()>>,
        #[case] expected: Result<u64, u64>,
    ) {
        let given = may_grant(now.as_ref(), file.as_ref(), over.as_ref());
        assert_eq!(given.map(|t| t.0).map_err(|other| other.token.0), expected);
    }

    #[test]
    fn a_run_with_the_same_token_is_another_run() {
        let other = Row {
            owner: "00ff00ff00ff00fe".parse().expect("a run id"),
            ..row(3, false, 0)
        };
        assert!(may_grant(Some(&row(3, false, 0)), None, Some(&other)).is_err());
    }
}
