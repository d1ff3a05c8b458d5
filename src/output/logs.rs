//! `logs`: a run's kept output, byte for byte, and what is new in it while the run goes on.

use serde::Serialize;

use super::json::TailJson;
use crate::store::record::{Outcome, RunRecord, Tail};

/// The part of a tail that has not been printed yet.
#[derive(Debug, PartialEq, Eq)]
pub struct Part<'a> {
    /// Bytes between what was printed and what is kept, which nobody has any more.
    pub missing: u64,
    /// What to print now.
    pub bytes: &'a [u8],
}

/// What of `tail` is new to a reader who has seen the first `printed` bytes of the job's output.
pub fn part_after(printed: u64, tail: &Tail) -> Part<'_> {
    let kept = u64::try_from(tail.bytes.len()).unwrap_or(u64::MAX);
    let first_kept = tail.total.saturating_sub(kept);
    let missing = first_kept.saturating_sub(printed);
    let skip = usize::try_from(printed.saturating_sub(first_kept))
        .unwrap_or(usize::MAX)
        .min(tail.bytes.len());
    Part {
        missing,
        bytes: &tail.bytes[skip..],
    }
}

/// The word on stderr for bytes that are missing: at the beginning, or in the middle when following.
pub fn missing_note(printed: u64, missing: u64) -> String {
    if printed == 0 {
        format!("… the first {missing} bytes were not kept")
    } else {
        format!("… {missing} bytes came too fast and were not kept")
    }
}

/// `logs --json`.
#[derive(Debug, Serialize)]
pub struct LogsJson<'a> {
    run_id: &'a str,
    job: &'a str,
    outcome: Outcome,
    output: Option<TailJson>,
}

impl<'a> LogsJson<'a> {
    /// Of this run's output.
    pub fn new(run: &'a RunRecord, tail: Option<&Tail>) -> Self {
        LogsJson {
            run_id: run.run_id.as_str(),
            job: run.job.as_str(),
            outcome: run.outcome,
            output: tail.map(TailJson::from),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::all_of_it(0, b"hello", 5, 0, b"hello")]
    #[case::beginning_cut(0, b"llo", 5, 2, b"llo")]
    #[case::nothing_new(5, b"hello", 5, 0, b"")]
    #[case::two_more(3, b"hello", 5, 0, b"lo")]
    #[case::gap_while_following(2, b"xyz", 9, 4, b"xyz")]
    #[case::exactly_joined(6, b"xyz", 9, 0, b"xyz")]
    #[case::an_older_tail_than_seen(9, b"hello", 5, 0, b"")]
    #[case::nothing_written(0, b"", 0, 0, b"")]
    fn parts(
        #[case] printed: u64,
        #[case] kept: &[u8],
        #[case] total: u64,
        #[case] missing: u64,
        #[case] new: &[u8],
    ) {
        let tail = Tail {
            bytes: kept.to_vec(),
            total,
        };
        assert_eq!(
            part_after(printed, &tail),
            Part {
                missing,
                bytes: new
            }
        );
    }

    proptest::proptest! {
        #[test]
        fn a_follower_sees_each_byte_once_or_hears_of_it(
            steps in proptest::collection::vec(0_usize..40, 1..20),
            limit in 1_usize..50,
        ) {
            let all: Vec<u8> = (0..=u8::MAX).cycle().take(steps.iter().sum()).collect();
            let (mut written, mut printed, mut position) = (0, 0_u64, 0_usize);
            for step in steps {
                written += step;
                let kept = &all[written.saturating_sub(limit)..written];
                let tail = Tail { bytes: kept.to_vec(), total: written as u64 };
                let part = part_after(printed, &tail);
                position += usize::try_from(part.missing).expect("small");
                proptest::prop_assert_eq!(part.bytes, &all[position..position + part.bytes.len()]);
                position += part.bytes.len();
                printed = tail.total;
                proptest::prop_assert_eq!(position, written);
            }
        }
    }
}
