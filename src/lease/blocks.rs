//! Where in a lock file each thing is written, by block number, and which of several slots counts.
//!
//! A holder writes its slots in turn, so that one which is torn leaves the one before. Neighbouring grants use
//! different blocks, and so do claims on neighbouring grants: what a stopped process writes late hides nothing of the next holder.

use crate::name::Token;

/// The request to stop.
pub const STOP: u64 = 4;
/// The revocation.
pub const REVOKE: u64 = 5;

/// Of a grant's slot with the number `seq`.
pub fn slot(token: Token, seq: u64) -> u64 {
    2 * (token.0 % 2) + seq % 2
}

/// Of the claim on a grant.
pub fn claim(token: Token) -> u64 {
    6 + token.0 % 4
}

/// Whether a slot of this grant and number is newer than another.
pub fn newer((token, seq): (Token, u64), than: (Token, u64)) -> bool {
    (token, seq) > than
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn neighbours_have_blocks_of_their_own() {
        for n in 0..10 {
            let slots = |n: u64| [slot(Token(n), 0), slot(Token(n), 1)];
            let claims: HashSet<_> = (n..n + 4).map(|n| claim(Token(n))).collect();
            assert_eq!(claims.len(), 4);
            let all: HashSet<_> = slots(n)
                .into_iter()
                .chain(slots(n + 1))
                .chain(claims)
                .chain([STOP, REVOKE])
                .collect();
            assert_eq!(all, (0..10).collect());
            assert_eq!(slot(Token(n), 2), slot(Token(n), 0), "in turn");
        }
    }

    #[test]
    fn a_later_grant_is_newer_whatever_its_number() {
        assert!(newer((Token(3), 0), (Token(2), 9)));
        assert!(newer((Token(2), 9), (Token(2), 8)));
        assert!(!newer((Token(2), 9), (Token(2), 9)));
    }
}
