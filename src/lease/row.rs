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

/// The token after the newest that is known. `floor` comes from elsewhere: a database that was deleted, or put back
/// from a backup, knows fewer grants than the lock file.
pub fn next_token(row: Option<Token>, floor: Option<Token>) -> Token {
    row.max(floor).map_or(Token(1), Token::next)
}

/// The token of a grant that may be written over `row` as it stands now; `None`: it is another's. `over`: the unreleased grant that may be overwritten,
/// as it was when that was decided.
pub fn may_grant<H>(
    row: Option<&Row<H>>,
    floor: Option<Token>,
    over: Option<&Row<H>>,
) -> Option<Token> {
    let free = row.is_none_or(|row| row.released || over.is_some_and(|seen| seen.unchanged(row)));
    free.then(|| next_token(row.map(|row| row.token), floor))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn row(token: u64, released: bool, seq: u64) -> Row<()> {
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
    #[case::the_first(None, None, None, Some(1))]
    #[case::a_new_database(None, Some(7), None, Some(8))]
    #[case::released(Some(row(3, true, 0)), Some(3), None, Some(4))]
    #[case::an_old_backup(Some(row(3, true, 0)), Some(9), None, Some(10))]
    #[case::an_old_lock_file(Some(row(9, true, 0)), Some(3), None, Some(10))]
    #[case::held(Some(row(3, false, 0)), Some(3), None, None)]
    #[case::as_it_was_seen(Some(row(3, false, 5)), Some(3), Some(row(3, false, 5)), Some(4))]
    #[case::it_renewed(Some(row(3, false, 6)), Some(3), Some(row(3, false, 5)), None)]
    #[case::anothers_by_now(Some(row(4, false, 0)), Some(3), Some(row(3, false, 0)), None)]
    #[case::released_meanwhile(Some(row(4, true, 0)), Some(3), Some(row(3, false, 0)), Some(5))]
    fn a_grant_is_written(
        #[case] now: Option<Row<()>>,
        #[case] floor: Option<u64>,
        #[case] over: Option<Row<()>>,
        #[case] token: Option<u64>,
    ) {
        let given = may_grant(now.as_ref(), floor.map(Token), over.as_ref());
        assert_eq!(given, token.map(Token));
    }

    #[test]
    fn a_run_with_the_same_token_is_another_run() {
        let other = Row {
            owner: "00ff00ff00ff00fe".parse().expect("a run id"),
            ..row(3, false, 0)
        };
        assert_eq!(may_grant(Some(&row(3, false, 0)), None, Some(&other)), None);
    }
}
