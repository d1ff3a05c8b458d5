//! Whether somebody should look at a job: the decisions of `check`. Pure: records and moments come in.
//!
//! Wall clocks decide here, which elsewhere they never do: a wrong clock makes a wrong alarm, not a
//! second run.

use std::time::Duration;

use serde::Serialize;

use crate::clock::Wall;
use crate::store::record::{Outcome, RunRecord};

/// How long after its time a job may start before it counts as overdue.
pub const GRACE: Duration = Duration::from_secs(5 * 60);

/// A start this long before its time was still that start: the scheduler's clock need not be ours.
const EARLY: Duration = Duration::from_secs(60);

/// How bad it is, in the order of the Monitoring Plugins guidelines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// All is well.
    Ok,
    /// Somebody should look before the next night.
    Warning,
    /// Somebody should look now.
    Critical,
    /// It could not be told.
    Unknown,
}

/// The outcomes that can say something of the job itself (see [`tells`]): an attempt that was refused, skipped or
/// given up says something of another run.
pub const TELLING: [Outcome; 10] = [
    Outcome::Running,
    Outcome::Succeeded,
    Outcome::Failed,
    Outcome::Signaled,
    Outcome::OomKilled,
    Outcome::TimedOut,
    Outcome::Stopped,
    Outcome::Lost,
    Outcome::Abandoned,
    Outcome::NotStarted,
];

/// Whether an attempt says something of its job. One that was not started counts if it had the lock, as with a
/// command that is not found. Without it, it says something of the call (another lock, a start from inside the
/// job) or of the store, and its caller was told so.
pub fn tells(run: &RunRecord) -> bool {
    TELLING.contains(&run.outcome) && (run.outcome != Outcome::NotStarted || run.token.is_some())
}

/// What is known of a job.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// Its attempts that [`tells`] picks, newest first, back to the last success if that can be had.
    pub runs: &'a [RunRecord],
    /// Its newest attempt of any outcome.
    pub newest: Option<&'a RunRecord>,
    /// Its newest attempt that was skipped because it had succeeded.
    pub fresh: Option<&'a RunRecord>,
    /// The last time that its schedule asked for it, at least [`GRACE`] ago.
    pub due: Option<Wall>,
    /// Since when that schedule is known to have been there.
    pub scheduled_since: Option<Wall>,
    /// Its time limit.
    pub time_limit: Option<Duration>,
}

/// Why a job's health is what it is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Cause<'a> {
    /// The last run that says anything succeeded.
    Succeeded(&'a RunRecord),
    /// It runs.
    Running(&'a RunRecord),
    /// It has never run, and nothing says that it should have.
    NeverRan,
    /// It ended badly and has not succeeded since.
    Broken {
        /// The newest such run.
        run: &'a RunRecord,
        /// The run that goes on now.
        again: Option<&'a RunRecord>,
    },
    /// Its schedule asked for it and no run came.
    Overdue {
        /// When.
        due: Wall,
        /// The last run before that.
        last: Option<&'a RunRecord>,
    },
    /// Somebody stopped it, and it has not succeeded since.
    Stopped(&'a RunRecord),
    /// It runs on although its time is over.
    OverLimit {
        /// The run.
        run: &'a RunRecord,
        /// Its limit.
        limit: Duration,
    },
    /// Another job that shares its lock kept it from running.
    Blocked(&'a RunRecord),
}

/// What `check` says of a job.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Verdict<'a> {
    /// How bad.
    pub health: Health,
    /// Why.
    pub cause: Cause<'a>,
}

/// Judges one job at `now`.
pub fn judge<'a>(facts: &Facts<'a>, now: Wall) -> Verdict<'a> {
    let running = facts
        .runs
        .first()
        .filter(|run| run.outcome == Outcome::Running);
    let since_success = || {
        facts
            .runs
            .iter()
            .take_while(|run| run.outcome != Outcome::Succeeded)
    };
    let verdict = |health, cause| Verdict { health, cause };

    if let Some(run) = since_success().find(|run| is_bad(run.outcome)) {
        return verdict(
            Health::Critical,
            Cause::Broken {
                run,
                again: running,
            },
        );
    }
    if let Some(cause) = overdue(facts) {
        return verdict(Health::Critical, cause);
    }
    if let Some(run) = since_success().find(|run| run.outcome == Outcome::Stopped) {
        return verdict(Health::Warning, Cause::Stopped(run));
    }
    if let (Some(run), Some(limit)) = (running, facts.time_limit)
        && now
            .since(run.started)
            .is_some_and(|ran| ran > limit + GRACE)
    {
        return verdict(Health::Warning, Cause::OverLimit { run, limit });
    }
    if let Some(run) = facts.newest.filter(|run| is_blocked(run)) {
        return verdict(Health::Warning, Cause::Blocked(run));
    }
    match facts.runs.first() {
        Some(run) if run.outcome == Outcome::Running => verdict(Health::Ok, Cause::Running(run)),
        Some(run) => verdict(Health::Ok, Cause::Succeeded(run)),
        None => verdict(Health::Ok, Cause::NeverRan),
    }
}

fn is_bad(outcome: Outcome) -> bool {
    match outcome {
        Outcome::Failed
        | Outcome::Signaled
        | Outcome::OomKilled
        | Outcome::TimedOut
        | Outcome::Lost
        | Outcome::Abandoned
        | Outcome::NotStarted => true,
        Outcome::Running
        | Outcome::Succeeded
        | Outcome::Stopped
        | Outcome::Refused
        | Outcome::Fresh
        | Outcome::Cancelled => false,
    }
}

/// A refusal by another run of the same job is no harm: that run counts. One by another job is.
fn is_blocked(run: &RunRecord) -> bool {
    run.outcome == Outcome::Refused
        && run
            .held_by
            .as_ref()
            .is_some_and(|holder| holder.job != run.job.as_str())
}

fn overdue<'a>(facts: &Facts<'a>) -> Option<Cause<'a>> {
    let due = facts.due?;
    let last = facts.runs.first();
    if last
        .into_iter()
        .chain(facts.fresh)
        .any(|run| covers(run, due))
    {
        return None;
    }
    // A job that was put into the jobs file this morning was not due last night.
    let expected = last.is_some() || facts.scheduled_since.is_some_and(|since| since <= due);
    expected.then_some(Cause::Overdue { due, last })
}

/// Whether the start that was due is accounted for: by a run that was there then or came after, or by an
/// attempt that was skipped because the job had succeeded.
fn covers(run: &RunRecord, due: Wall) -> bool {
    let last_sign = match (run.outcome, &run.end) {
        (Outcome::Running, _) => return true,
        (_, Some(end)) => end.at.max(run.started),
        (_, None) => run.started,
    };
    last_sign.0 + i64::try_from(EARLY.as_millis()).unwrap_or(0) >= due.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::Token;
    use crate::output::record::tests::{NOW, ago, holder_of, run};
    use rstest::rstest;

    const HOUR: i64 = 3_600;

    fn facts(runs: &[RunRecord]) -> Facts<'_> {
        Facts {
            runs,
            newest: runs.first(),
            fresh: None,
            due: None,
            scheduled_since: None,
            time_limit: None,
        }
    }

    fn history(outcomes: &[Outcome]) -> Vec<RunRecord> {
        (1..)
            .zip(outcomes)
            .map(|(hours, o)| run("sync", hours * HOUR, *o))
            .collect()
    }

    use Outcome::{
        Abandoned, Failed, Fresh, Lost, NotStarted, OomKilled, Refused, Running, Signaled, Stopped,
        Succeeded, TimedOut,
    };

    #[rstest]
    #[case::nothing(&[], Health::Ok)]
    #[case::success(&[Succeeded], Health::Ok)]
    #[case::running(&[Running], Health::Ok)]
    #[case::running_after_success(&[Running, Succeeded, Failed], Health::Ok)]
    #[case::repaired(&[Succeeded, Failed], Health::Ok)]
    #[case::failed(&[Failed, Succeeded], Health::Critical)]
    #[case::signaled(&[Signaled], Health::Critical)]
    #[case::out_of_memory(&[OomKilled], Health::Critical)]
    #[case::timed_out(&[TimedOut], Health::Critical)]
    #[case::lost(&[Lost], Health::Critical)]
    #[case::abandoned(&[Abandoned, Succeeded], Health::Critical)]
    #[case::not_started(&[NotStarted, Succeeded], Health::Critical)]
    #[case::stopped(&[Stopped, Succeeded], Health::Warning)]
    #[case::stopped_then_fine(&[Succeeded, Stopped], Health::Ok)]
    #[case::stopped_after_failure(&[Stopped, Failed, Succeeded], Health::Critical)]
    #[case::tried_again_but_not_done(&[Running, Failed, Succeeded], Health::Critical)]
    fn last_outcomes(#[case] outcomes: &[Outcome], #[case] health: Health) {
        assert_eq!(judge(&facts(&history(outcomes)), NOW).health, health);
    }

    #[rstest]
    #[case::command_not_found(NotStarted, Some(5), true)]
    #[case::mistake_in_the_call(NotStarted, None, false)]
    #[case::failed(Failed, Some(5), true)]
    #[case::refused(Refused, None, false)]
    fn an_attempt_without_the_lock_says_nothing_of_the_job(
        #[case] outcome: Outcome,
        #[case] token: Option<u64>,
        #[case] expected: bool,
    ) {
        let attempt = RunRecord {
            token: token.map(Token),
            ..run("sync", HOUR, outcome)
        };
        assert_eq!(tells(&attempt), expected);
    }

    #[test]
    fn a_repair_that_runs_is_told_with_the_failure() {
        let runs = history(&[Running, Failed]);
        let Cause::Broken { run, again } = judge(&facts(&runs), NOW).cause else {
            panic!("not broken")
        };
        assert_eq!(
            (run.outcome, again.map(|r| r.outcome)),
            (Failed, Some(Running))
        );
    }

    // The due time is two hours ago; a run takes 30 s.
    #[rstest]
    #[case::started_then(2 * HOUR, Succeeded, Health::Ok)]
    #[case::started_a_little_early(2 * HOUR + 50, Succeeded, Health::Ok)]
    #[case::started_later(HOUR, Succeeded, Health::Ok)]
    #[case::started_the_night_before(26 * HOUR, Succeeded, Health::Critical)]
    #[case::runs_since_before(26 * HOUR, Running, Health::Ok)]
    #[case::found_fresh(2 * HOUR, Fresh, Health::Ok)]
    #[case::refused(2 * HOUR, Refused, Health::Critical)]
    fn overdue_or_not(#[case] seconds: i64, #[case] outcome: Outcome, #[case] health: Health) {
        let newest = run("sync", seconds, outcome);
        let mut runs = vec![run("sync", 50 * HOUR, Succeeded)];
        if TELLING.contains(&outcome) {
            runs.insert(0, newest.clone());
        }
        let facts = Facts {
            due: Some(ago(2 * HOUR)),
            newest: Some(&newest),
            fresh: (outcome == Fresh).then_some(&newest),
            ..facts(&runs)
        };
        assert_eq!(judge(&facts, NOW).health, health);
    }

    #[test]
    fn a_refusal_after_it_was_found_fresh_makes_nothing_overdue() {
        let (fresh, refused) = (run("sync", 2 * HOUR, Fresh), run("sync", HOUR, Refused));
        let runs = [run("sync", 3 * HOUR, Succeeded)];
        let facts = Facts {
            due: Some(ago(2 * HOUR)),
            newest: Some(&refused),
            fresh: Some(&fresh),
            ..facts(&runs)
        };
        assert_eq!(judge(&facts, NOW).health, Health::Ok);
    }

    #[test]
    fn a_run_that_was_there_at_the_due_time_counts_when_it_has_ended() {
        let mut long = run("sync", 5 * HOUR, Succeeded);
        long.end.as_mut().expect("it has ended").at = ago(HOUR);
        let runs = [long];
        assert_eq!(
            judge(
                &Facts {
                    due: Some(ago(2 * HOUR)),
                    ..facts(&runs)
                },
                NOW
            )
            .health,
            Health::Ok
        );
    }

    #[rstest]
    #[case::long_scheduled(Some(24 * HOUR), Health::Critical)]
    #[case::scheduled_this_morning(Some(HOUR), Health::Ok)]
    #[case::nobody_knows(None, Health::Ok)]
    fn never_ran(#[case] scheduled: Option<i64>, #[case] health: Health) {
        let facts = Facts {
            due: Some(ago(2 * HOUR)),
            scheduled_since: scheduled.map(ago),
            ..facts(&[])
        };
        assert_eq!(judge(&facts, NOW).health, health);
    }

    #[rstest]
    #[case::within(HOUR, Health::Ok)]
    #[case::in_the_grace(HOUR + 200, Health::Ok)]
    #[case::beyond(HOUR + 400, Health::Warning)]
    fn over_its_limit(#[case] seconds: i64, #[case] health: Health) {
        let runs = [run("sync", seconds, Running)];
        let facts = Facts {
            time_limit: Some(Duration::from_secs(3_600)),
            ..facts(&runs)
        };
        assert_eq!(judge(&facts, NOW).health, health);
    }

    #[rstest]
    #[case::by_its_own_run("sync", Health::Ok)]
    #[case::by_another_job("rebuild", Health::Warning)]
    fn refused(#[case] by: &str, #[case] health: Health) {
        let mut newest = run("sync", 60, Refused);
        newest.held_by = Some(holder_of(by));
        let runs = [run("sync", HOUR, Succeeded)];
        assert_eq!(
            judge(
                &Facts {
                    newest: Some(&newest),
                    ..facts(&runs)
                },
                NOW
            )
            .health,
            health
        );
    }
}
