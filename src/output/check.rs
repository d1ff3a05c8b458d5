//! `check`: one line as the Monitoring Plugins guidelines want it.

use serde::Serialize;

use super::Page;
use super::record::{ended, outcome};
use super::text::visible;
use super::time::{about, took};
use crate::exit;
use crate::store::record::Outcome;
use crate::verdict::{Cause, Health, Verdict};

/// One job's part of the answer.
#[derive(Debug, Serialize)]
pub struct Checked {
    /// The job.
    pub job: String,
    /// How it is.
    pub status: Health,
    /// Why, in words that follow the job's name.
    pub text: String,
}

impl Checked {
    /// What `verdict` says of `job`.
    pub fn new(page: &Page, job: &str, verdict: &Verdict<'_>) -> Self {
        Checked {
            job: job.to_owned(),
            status: verdict.health,
            text: words(page, &verdict.cause),
        }
    }
}

fn words(page: &Page, cause: &Cause<'_>) -> String {
    match cause {
        Cause::Succeeded(run) => format!("succeeded {}", page.distance(ended(run))),
        Cause::Running(run) => format!("runs on {} since {}", run.host, page.when(run.started)),
        Cause::NeverRan => "has not run yet".to_owned(),
        Cause::Broken { run, again } => {
            let again = again
                .map(|r| format!(", runs again since {}", page.when(r.started)))
                .unwrap_or_default();
            let when = match run.outcome {
                // Nobody knows when its processes went.
                Outcome::Abandoned => format!(", begun {},", page.distance(run.started)),
                _ => format!(" {}", page.distance(ended(run))),
            };
            format!("{}{when} on {}{again}", outcome(run), run.host)
        }
        Cause::Overdue { due, last: None } => {
            format!("was due {} and has never run", page.when(*due))
        }
        Cause::Overdue {
            due,
            last: Some(run),
        } => {
            format!(
                "was due {} and last ran {}",
                page.when(*due),
                page.distance(run.started)
            )
        }
        Cause::Stopped(run) => format!("was stopped {}", page.distance(ended(run))),
        Cause::OverLimit { run, limit } => {
            let ran = page.now.since(run.started).map(about).unwrap_or_default();
            format!(
                "runs on {} for {ran}, over its limit of {}",
                run.host,
                took(*limit)
            )
        }
        Cause::Blocked(run) => format!(
            "was refused {}: {}",
            page.distance(run.started),
            outcome(run)
        ),
    }
}

/// The worst of all; unknown when there is nothing to check.
pub fn worst(checked: &[Checked]) -> Health {
    checked
        .iter()
        .map(|c| c.status)
        .max()
        .unwrap_or(Health::Unknown)
}

/// What `check` exits with.
pub fn exit_code(health: Health) -> u8 {
    match health {
        Health::Ok => exit::CHECK_OK,
        Health::Warning => exit::CHECK_WARNING,
        Health::Critical => exit::CHECK_CRITICAL,
        Health::Unknown => exit::CHECK_UNKNOWN,
    }
}

fn shout(health: Health) -> &'static str {
    match health {
        Health::Ok => "OK",
        Health::Warning => "WARNING",
        Health::Critical => "CRITICAL",
        Health::Unknown => "UNKNOWN",
    }
}

/// The line: what is not well, worst first, then the numbers behind a bar.
pub fn line(checked: &[Checked]) -> String {
    let health = worst(checked);
    let mut unwell: Vec<&Checked> = checked.iter().filter(|c| c.status != Health::Ok).collect();
    unwell.sort_by_key(|c| std::cmp::Reverse(c.status));
    let said = match (checked, unwell.as_slice()) {
        ([], _) => "no job has ever run, and no jobs file names one".to_owned(),
        ([only], _) => format!("{} {}", only.job, only.text),
        (all, []) => format!("all {} jobs are well", all.len()),
        (_, some) => some
            .iter()
            .map(|c| format!("{} {}", c.job, c.text))
            .collect::<Vec<_>>()
            .join("; "),
    };
    let count = |h| checked.iter().filter(|c| c.status == h).count();
    format!(
        "{} | jobs={} warning={} critical={}\n",
        first(health, &said),
        checked.len(),
        count(Health::Warning),
        count(Health::Critical)
    )
}

/// The line when joblock itself could not tell.
pub fn unknown(why: &str) -> String {
    format!("{}\n", first(Health::Unknown, why))
}

fn first(health: Health, said: &str) -> String {
    // A bar would begin the numbers, a line feed the long text.
    format!(
        "JOBLOCK {} - {}",
        shout(health),
        visible(said).replace('|', "/")
    )
}

/// `check --json`.
#[derive(Debug, Serialize)]
pub struct CheckJson<'a> {
    status: Health,
    exit_code: u8,
    error: Option<&'a str>,
    jobs: &'a [Checked],
}

impl<'a> CheckJson<'a> {
    /// What was found.
    pub fn new(checked: &'a [Checked]) -> Self {
        let status = worst(checked);
        CheckJson {
            status,
            exit_code: exit_code(status),
            error: None,
            jobs: checked,
        }
    }

    /// Why nothing could be found.
    pub fn unknown(why: &'a str) -> Self {
        let status = Health::Unknown;
        CheckJson {
            status,
            exit_code: exit_code(status),
            error: Some(why),
            jobs: &[],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::record::tests::{ago, page, run};
    use std::time::Duration;

    fn checked(job: &str, health: Health, cause: Cause<'_>) -> Checked {
        Checked::new(&page(None), job, &Verdict { health, cause })
    }

    #[test]
    fn the_worst_comes_first_and_numbers_last() {
        let (failed, stopped) = (
            run("sync", 750, Outcome::Failed),
            run("pay", 90, Outcome::Stopped),
        );
        let fine = run("mail", 90, Outcome::Succeeded);
        let all = [
            checked("mail", Health::Ok, Cause::Succeeded(&fine)),
            checked("pay", Health::Warning, Cause::Stopped(&stopped)),
            checked(
                "sync",
                Health::Critical,
                Cause::Broken {
                    run: &failed,
                    again: None,
                },
            ),
        ];
        assert_eq!(
            line(&all),
            "JOBLOCK CRITICAL - sync failed (exit 3) 12 min ago on green; pay was stopped 1 min ago \
             | jobs=3 warning=1 critical=1\n"
        );
        assert_eq!(exit_code(worst(&all)), 2);
    }

    #[test]
    fn nobody_knows_when_an_abandoned_run_ended() {
        let mut run = run("sync", 750, Outcome::Abandoned);
        run.end = None;
        let cause = Cause::Broken {
            run: &run,
            again: None,
        };
        assert_eq!(
            checked("sync", Health::Critical, cause).text,
            "abandoned, begun 12 min ago, on green"
        );
    }

    #[test]
    fn wellness_is_short() {
        let fine = run("mail", 90, Outcome::Succeeded);
        let one = || checked("mail", Health::Ok, Cause::Succeeded(&fine));
        assert_eq!(
            line(&[one()]),
            "JOBLOCK OK - mail succeeded 1 min ago | jobs=1 warning=0 critical=0\n"
        );
        assert_eq!(
            line(&[one(), one()]),
            "JOBLOCK OK - all 2 jobs are well | jobs=2 warning=0 critical=0\n"
        );
    }

    #[test]
    fn nothing_to_check_is_unknown() {
        assert!(line(&[]).starts_with("JOBLOCK UNKNOWN - "));
        assert_eq!(exit_code(worst(&[])), 3);
    }

    #[test]
    fn overdue_says_since_when() {
        let due = Cause::Overdue {
            due: ago(7_200),
            last: None,
        };
        assert_eq!(
            checked("sync", Health::Critical, due).text,
            "was due 2026-11-22 07:00:00 (2 h ago) and has never run"
        );
    }

    #[test]
    fn over_the_limit_says_both_times() {
        let run = run("sync", 18_000, Outcome::Running);
        let cause = Cause::OverLimit {
            run: &run,
            limit: Duration::from_secs(10_800),
        };
        assert_eq!(
            checked("sync", Health::Warning, cause).text,
            "runs on green for 5 h, over its limit of 3 h 0 min"
        );
    }

    #[test]
    fn an_error_is_one_line_without_a_bar() {
        assert_eq!(unknown("a | b\nc"), "JOBLOCK UNKNOWN - a / b\\nc\n");
    }
}
