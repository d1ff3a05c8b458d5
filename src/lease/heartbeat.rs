//! The holder's side of a lease: may it still renew, and what do the answers mean?

use crate::clock::Boot;
use crate::name::Token;

use super::timing::Timing;

/// Whether a renewal may still be sent at `now`, when the last that succeeded was sent at `sent`.
///
/// Not at or after F: by then the job is being killed, and a renewal that went through would tell
/// others that the lock is in use while nothing runs, or worse, let a job go on that was stopped for longer
/// than its lease and woke up. A lease that lapsed is never revived.
pub fn may_renew(timing: Timing, sent: Boot, now: Boot) -> bool {
    now < timing.term_at(sent)
}

/// What a holder found when it looked for the wishes of others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wishes {
    /// The newest grant that somebody set out to take over.
    pub claimed: Option<Token>,
    /// The grant that somebody revoked.
    pub revoked: Option<Token>,
    /// The grant whose run somebody asked to stop.
    pub stop: Option<Token>,
}

/// What a holder does about them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Goes on.
    GoOn,
    /// Stops its job, and keeps the lock until that is done.
    Stop,
    /// Kills its job: revoked.
    Revoked,
    /// Kills its job: somebody takes, or took, the lock over.
    Lost,
}

/// What the holder of grant `own` does about `wishes`.
///
/// A claim for a *later* grant counts too: it can only have been made after ours was taken over. Stop and revoke
/// are for the grant that they name and for no other, so that a wish that comes late can't hit the next run.
pub fn answer(own: Token, wishes: Wishes) -> Answer {
    if wishes.claimed.is_some_and(|claimed| claimed >= own) {
        Answer::Lost
    } else if wishes.revoked == Some(own) {
        Answer::Revoked
    } else if wishes.stop == Some(own) {
        Answer::Stop
    } else {
        Answer::GoOn
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;
    use std::time::Duration;

    #[rstest]
    #[case(0, true)]
    #[case(19_999, true)]
    #[case(20_000, false)]
    #[case(1_000_000, false)]
    fn a_lapsed_lease_is_not_revived(#[case] later_ms: u64, #[case] may: bool) {
        let sent = Boot(1_000_000_000);
        assert_eq!(
            may_renew(
                Timing::of(Timing::DEFAULT),
                sent,
                sent + Duration::from_millis(later_ms)
            ),
            may
        );
    }

    #[rstest]
    #[case(None, None, None, Answer::GoOn)]
    #[case(Some(6), None, None, Answer::GoOn)]
    #[case(Some(7), None, None, Answer::Lost)]
    #[case(Some(8), None, None, Answer::Lost)]
    #[case(None, Some(6), None, Answer::GoOn)]
    #[case(None, Some(7), None, Answer::Revoked)]
    #[case(None, Some(8), None, Answer::GoOn)]
    #[case(None, None, Some(7), Answer::Stop)]
    #[case(None, None, Some(6), Answer::GoOn)]
    #[case(None, Some(7), Some(7), Answer::Revoked)]
    #[case(Some(7), Some(7), Some(7), Answer::Lost)]
    fn wishes_are_answered(
        #[case] claimed: Option<u64>,
        #[case] revoked: Option<u64>,
        #[case] stop: Option<u64>,
        #[case] expected: Answer,
    ) {
        let wishes = Wishes {
            claimed: claimed.map(Token),
            revoked: revoked.map(Token),
            stop: stop.map(Token),
        };
        assert_eq!(answer(Token(7), wishes), expected);
    }

    proptest! {
        #[test]
        fn whoever_may_renew_is_long_gone_when_others_may_take_over(ttl_ms in 0u64..100_000_000, sent in 0u64..u64::MAX / 4, later in 0u64..u64::MAX / 4) {
            let timing = Timing::of(Duration::from_millis(ttl_ms));
            let (sent, now) = (Boot(sent), Boot(sent + later));
            if may_renew(timing, sent, now) {
                prop_assert!(now + timing.ttl() / 2 < sent + timing.ttl());
            }
        }
    }
}
