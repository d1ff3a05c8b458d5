//! Which attempts are old enough to be deleted. Pure: rows and moments come in.
//!
//! Only wall clocks can tell the age of what happened before the last boot, and a wall clock can be wrong by years. So an
//! age is counted from what the history itself vouches for, see [`vouched`]: a clock that is set ahead deletes nothing
//! more than a fraction of `keep` too early before it has been on record for that long.
//!
//! Not guaranteed: anything against a clock that stays wrong for longer than [`settling`] while it is the only one
//! that writes to the store.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::record::Outcome;
use crate::clock::Wall;
use crate::name::RunId;

/// Most attempts that one slice deletes, in one transaction.
pub const MOST: usize = 200;
/// Most attempts that one slice looks at.
pub const LOOKED_AT: usize = 1000;
/// Most bytes of output that one slice deletes, unless the first attempt alone has more: freeing pages takes time.
const MOST_BYTES: u64 = 4 << 20;
/// A row so far ahead of the clock is one of the future: neither its age nor its clock is known.
const AHEAD: i64 = 5 * 60 * 1000;
/// So far may the clocks of hosts differ before a later row contradicts an earlier one.
const SLACK: i64 = 24 * 3600 * 1000;
/// How long a clock must be on record at most, before ages are counted by it.
const LONGEST_SETTLING: Duration = Duration::from_secs(7 * 24 * 3600);

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Prune {
    /// The job whose attempts are looked at.
    pub job: String,
    /// How long they are kept after they ended.
    pub keep: Duration,
    /// Now, on the wall clock.
    pub now: Wall,
    /// Where the slice before ended; 0 at first.
    pub after: i64,
    /// Count ages by the clock, whatever the history vouches for.
    pub trust_clock: bool,
    /// Count, and delete nothing.
    pub dry_run: bool,
}

/// What came of a slice.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Attempts that were deleted (or would be).
    pub attempts: u64,
    /// Bytes of output that were deleted with them.
    pub output_bytes: u64,
    /// Attempts dated in the future, left alone.
    pub future: u64,
    /// Attempts that are old by the clock, though the history does not vouch for it, left alone.
    pub doubted: u64,
    /// Where the next slice goes on; `None`: nothing is left to look at.
    pub next: Option<i64>,
}

/// A row as far as its age matters.
#[derive(Debug, Clone)]
pub struct Row {
    /// Its place in the order in which attempts were recorded.
    pub id: i64,
    /// Its run id.
    pub run_id: RunId,
    /// What became of it.
    pub outcome: Outcome,
    /// Its lock, if it was granted.
    pub granted: Option<String>,
    /// When it ended; for what never ran, when it was asked for.
    pub at: Wall,
    /// Bytes of output that are kept with it.
    pub bytes: u64,
}

/// Of what the newest is never deleted. `check`, `rerun` and freshness look at the newest of some outcomes, and where a lock
/// file is lost, its tokens go on from the newest that is on record.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Attempts with this outcome.
    Outcome(Outcome),
    /// Grants of this lock.
    Lock(String),
}

impl Row {
    fn classes(&self) -> impl Iterator<Item = Class> {
        let lock = self.granted.clone().map(Class::Lock);
        std::iter::once(Class::Outcome(self.outcome)).chain(lock)
    }
}

/// How long a clock must be on record before ages are counted by it.
pub fn settling(keep: Duration) -> Duration {
    (keep / 8).min(LONGEST_SETTLING)
}

fn later(at: Wall, by: Duration) -> Wall {
    Wall(at.0.saturating_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX)))
}

fn earlier(at: Wall, by: Duration) -> Wall {
    Wall(at.0.saturating_sub(i64::try_from(by.as_millis()).unwrap_or(i64::MAX)))
}

/// Up to when attempts count as on record long enough: see [`vouched`].
pub fn settled_before(now: Wall, keep: Duration) -> Wall {
    earlier(now, settling(keep))
}

/// The moment from which ages are counted: now, or what the history vouches for if that is earlier.
///
/// `settled`: the newest attempt of any job that began before [`settled_before`]. `since`: the earliest beginning among those
/// that were recorded after it; if it is much earlier, the clocks of those who write to the store contradict each other,
/// and the slower one is believed.
pub fn vouched(now: Wall, keep: Duration, settled: Option<Wall>, since: Option<Wall>) -> Wall {
    let Some(settled) = settled else {
        // all there is is younger: nothing can be old
        return earlier(now, keep);
    };
    let contradiction = since.filter(|since| since.0 < settled.0 - SLACK);
    later(contradiction.unwrap_or(settled), settling(keep)).min(now)
}

/// Whether any of `rows` would be deleted, should the clock be right.
pub fn any_old(request: &Prune, rows: &[Row]) -> bool {
    let now = request.now;
    walk(request, rows, now).any(|row| row.outcome != Outcome::Running && row.at.0 <= now.0 + AHEAD)
}

/// The rows up to the first that is not old by the clock; those of the future don't count.
fn walk<'r>(request: &Prune, rows: &'r [Row], now: Wall) -> impl Iterator<Item = &'r Row> {
    let cutoff = earlier(now, request.keep);
    // In the order of recording: what was recorded after a young attempt is younger, whatever its date.
    rows.iter().take_while(move |row| {
        row.outcome == Outcome::Running || row.at < cutoff || row.at.0 > now.0 + AHEAD
    })
}

/// Chooses, from rows of one job in the order in which they were recorded. `vouched`: see there. `newer`: whether there is a
/// later row of a class than the last of `rows`. What is counted as deleted still has to be.
pub fn choose<E>(
    request: &Prune,
    rows: &[Row],
    vouched: Wall,
    mut newer: impl FnMut(&Class) -> Result<bool, E>,
) -> Result<(Vec<Row>, Pruned), E> {
    let newest: BTreeMap<Class, i64> = rows
        .iter()
        .flat_map(|row| row.classes().map(|class| (class, row.id)))
        .collect();
    let cutoff = earlier(vouched, request.keep);
    let mut asked: BTreeMap<Class, bool> = BTreeMap::new();
    let mut pruned = Pruned::default();
    let mut chosen: Vec<Row> = Vec::new();
    let mut looked_at = 0;
    for row in walk(request, rows, request.now) {
        if chosen.len() == MOST
            || (!chosen.is_empty() && pruned.output_bytes + row.bytes > MOST_BYTES)
        {
            break;
        }
        looked_at += 1;
        pruned.next = Some(row.id);
        if row.outcome == Outcome::Running {
            continue;
        }
        if row.at.0 > request.now.0 + AHEAD {
            pruned.future += 1;
            continue;
        }
        let mut is_newest = false;
        for class in row.classes().collect::<BTreeSet<_>>() {
            if newest.get(&class) == Some(&row.id) {
                let newer = match asked.get(&class) {
                    Some(known) => *known,
                    None => *asked.entry(class.clone()).or_insert(newer(&class)?),
                };
                is_newest |= !newer;
            }
        }
        if is_newest {
            continue;
        }
        if row.at >= cutoff {
            // Between two attempts the clock is vouched for up to the first: only more than that is worth a word.
            if vouched < settled_before(request.now, request.keep) {
                pruned.doubted += 1;
            }
            continue;
        }
        pruned.attempts += 1;
        pruned.output_bytes += row.bytes;
        chosen.push(row.clone());
    }
    // the rest of the job is young, or there is none
    let through = looked_at == walk(request, rows, request.now).count();
    if through && (looked_at < rows.len() || rows.len() < LOOKED_AT) {
        pruned.next = None;
    }
    Ok((chosen, pruned))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    const DAY: i64 = 24 * 3600 * 1000;
    const NOW: Wall = Wall(1_795_338_000_000);
    const KEEP: Duration = Duration::from_secs(90 * 24 * 3600);

    fn days_ago(days: i64) -> Wall {
        Wall(NOW.0 - days * DAY)
    }

    fn row(id: i64, days: i64, outcome: Outcome) -> Row {
        Row {
            id,
            run_id: RunId::random(),
            outcome,
            granted: (outcome != Outcome::Refused).then(|| "sync".to_owned()),
            at: days_ago(days),
            bytes: 10,
        }
    }

    fn request() -> Prune {
        Prune {
            job: "sync".into(),
            keep: KEEP,
            now: NOW,
            after: 0,
            trust_clock: false,
            dry_run: false,
        }
    }

    fn chosen(rows: &[Row], vouched: Wall, newer: bool) -> (Vec<i64>, Pruned) {
        let asked = |_: &Class| Ok::<_, Infallible>(newer);
        let Ok((chosen, pruned)) = choose(&request(), rows, vouched, asked);
        (chosen.iter().map(|row| row.id).collect(), pruned)
    }

    use Outcome::{Failed, Refused, Running, Succeeded};

    #[test]
    fn what_is_older_goes_and_the_newest_of_each_outcome_stays() {
        let rows = [
            row(1, 100, Succeeded),
            row(2, 99, Failed),
            row(3, 98, Succeeded),
            row(4, 97, Refused),
            row(5, 91, Failed),
            row(6, 89, Failed),
        ];
        let (ids, pruned) = chosen(&rows, NOW, false);
        // 3: the last success; 4: the last refusal
        assert_eq!(ids, [1, 2, 5]);
        assert_eq!((pruned.attempts, pruned.output_bytes), (3, 30));
        assert_eq!(pruned.next, None);
        assert_eq!(chosen(&rows, NOW, true).0, [1, 2, 3, 4, 5]);
    }

    #[test]
    fn the_newest_grant_of_a_lock_stays() {
        let mut rows = vec![row(1, 100, Failed), row(2, 99, Failed), row(3, 98, Failed)];
        rows[0].granted = Some("of-old".into());
        assert_eq!(chosen(&rows, NOW, false).0, [2]);
    }

    #[test]
    fn a_running_row_stays_and_holds_nothing_up() {
        let rows = [
            row(1, 100, Running),
            row(2, 99, Failed),
            row(3, 98, Failed),
            row(4, 97, Succeeded),
        ];
        assert_eq!(chosen(&rows, NOW, false).0, [2]);
    }

    #[test]
    fn what_was_recorded_after_a_young_attempt_is_young_whatever_its_date() {
        let rows = [
            row(1, 100, Failed),
            row(2, 5, Failed),
            row(3, 20_000, Failed),
        ];
        assert_eq!(chosen(&rows, NOW, true).0, [1]);
    }

    #[test]
    fn rows_of_the_future_are_left_alone_and_counted() {
        let rows = [row(1, -400, Failed), row(2, 100, Failed), row(3, 1, Failed)];
        let (ids, pruned) = chosen(&rows, NOW, true);
        assert_eq!((ids, pruned.future), (vec![2], 1));
    }

    #[test]
    fn a_clock_may_be_a_little_behind_and_no_more() {
        let at = |id: i64, at: i64| Row {
            at: Wall(at),
            ..row(id, 0, Failed)
        };
        let old = row(3, 100, Failed);
        for (ahead, deleted) in [
            (0, vec![1]),
            (-60_000, vec![1]),
            (AHEAD, vec![1]),
            (AHEAD + 1, vec![1, 3]),
        ] {
            let rows = [row(1, 100, Failed), at(2, NOW.0 + ahead), old.clone()];
            assert_eq!(chosen(&rows, NOW, true).0, deleted, "{ahead}");
        }
        // it is old when `keep` is over, and not before
        let cutoff = earlier(NOW, KEEP).0;
        assert_eq!(
            chosen(&[at(1, cutoff), old], NOW, true).0,
            Vec::<i64>::new()
        );
        assert_eq!(chosen(&[at(1, cutoff - 1)], NOW, true).0, [1]);
    }

    #[test]
    fn whether_anything_is_old_is_told_before_the_clock_is_asked_about() {
        let old = row(1, 100, Failed);
        let running = row(1, 100, Running);
        let future = row(2, -400, Failed);
        let young = row(2, 1, Failed);
        for (rows, any) in [
            (vec![], false),
            (vec![old.clone()], true),
            (vec![young.clone(), old.clone()], false),
            (vec![running.clone()], false),
            (vec![future.clone()], false),
            (vec![running, future, old, young], true),
        ] {
            assert_eq!(any_old(&request(), &rows), any, "{rows:?}");
        }
    }

    #[test]
    fn what_the_history_does_not_vouch_for_is_left_alone_and_counted() {
        let rows = [row(1, 400, Failed), row(2, 120, Failed), row(3, 1, Failed)];
        let (ids, pruned) = chosen(&rows, days_ago(100), true);
        assert_eq!((ids, pruned.doubted), (vec![1], 1));
        // up to the first attempt of two the clock is vouched for: no word of those in between
        let rows = [row(1, 400, Failed), row(2, 92, Failed), row(3, 1, Failed)];
        let (ids, pruned) = chosen(&rows, settled_before(NOW, KEEP), true);
        assert_eq!((ids, pruned.doubted), (vec![1], 0));
    }

    #[test]
    fn a_slice_is_bounded_by_rows_and_by_bytes() {
        let mut rows: Vec<Row> = (1..=1000).map(|id| row(id, 100, Failed)).collect();
        let (ids, pruned) = chosen(&rows, NOW, true);
        assert_eq!((ids.len(), pruned.next), (MOST, Some(200)));
        for (bytes, last) in [(3 << 20, 1), (MOST_BYTES / 2, 2), (MOST_BYTES / 2 + 1, 1)] {
            for row in &mut rows {
                row.bytes = bytes;
            }
            let (ids, pruned) = chosen(&rows, NOW, true);
            assert_eq!((ids.last(), pruned.next), (Some(&last), Some(last)));
        }
        // all were looked at, and there may be more
        for row in &mut rows {
            row.outcome = Running;
        }
        assert_eq!(chosen(&rows, NOW, true).1.next, Some(1000));
        assert_eq!(chosen(&rows[..999], NOW, true).1.next, None);
    }

    #[test]
    fn ages_are_counted_from_what_the_history_vouches_for() {
        let week = settling(KEEP);
        assert_eq!(week, Duration::from_secs(7 * 24 * 3600));
        // runs every day: from about now
        assert_eq!(
            vouched(NOW, KEEP, Some(days_ago(7)), Some(days_ago(6))),
            NOW
        );
        // the clock was set ahead by years, or nothing ran for years
        assert_eq!(
            vouched(NOW, KEEP, Some(days_ago(4000)), None),
            days_ago(3993)
        );
        // everything is younger than that
        assert_eq!(vouched(NOW, KEEP, None, None), earlier(NOW, KEEP));
        // the clocks of two hosts may differ by a day
        for since in [days_ago(7), Wall(days_ago(7).0 + SLACK / 2), days_ago(8)] {
            assert_eq!(vouched(NOW, KEEP, Some(days_ago(7)), Some(since)), NOW);
        }
        // two hosts, one with a clock that is ahead for longer than a week
        assert_eq!(
            vouched(NOW, KEEP, Some(days_ago(7)), Some(days_ago(4000))),
            days_ago(3993)
        );
        assert_eq!(settling(Duration::from_secs(8)), Duration::from_secs(1));
    }
}
