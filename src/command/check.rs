//! `joblock check`: one line for monitoring.
//!
//! Everything that goes wrong is "unknown" (3) and on stdout: that is where monitoring looks.

use anyhow::Context;

use super::reading::Reading;
use crate::cli::{CheckArgs, Global};
use crate::clock::Wall;
use crate::exit;
use crate::look::Look;
use crate::output::check::{CheckJson, Checked, exit_code, line, unknown, worst};
use crate::output::{Page, json, print};
use crate::verdict::{Facts, GRACE, judge};

/// Runs it.
pub fn run(args: &CheckArgs, global: &Global) -> anyhow::Result<u8> {
    let (answer, code) = match check(args, global) {
        Ok(checked) => {
            let code = exit_code(worst(&checked));
            (
                if args.json {
                    json::document(CheckJson::new(&checked))?
                } else {
                    line(&checked)
                },
                code,
            )
        }
        Err(error) => {
            let why = format!("{error:#}");
            let answer = if args.json {
                json::document(CheckJson::unknown(&why))?
            } else {
                unknown(&why)
            };
            (answer, exit::CHECK_UNKNOWN)
        }
    };
    print(answer.as_bytes()).context("can't print the answer")?;
    Ok(code)
}

fn check(args: &CheckArgs, global: &Global) -> anyhow::Result<Vec<Checked>> {
    let reading = Reading::open(global)?;
    let look = reading.look();
    let declared = reading.declared();
    let jobs: Vec<String> = if !args.jobs.is_empty() {
        args.jobs
            .iter()
            .map(|job| job.as_str().to_owned())
            .collect()
    } else if declared.is_empty() {
        look.jobs()?
    } else {
        declared.iter().map(|job| (*job).to_owned()).collect()
    };
    for job in &jobs {
        look.known(job, &declared)?;
    }
    jobs.iter()
        .map(|job| check_one(&reading, &look, job))
        .collect()
}

fn check_one(reading: &Reading, look: &Look<'_>, job: &str) -> anyhow::Result<Checked> {
    let declared = reading.job(job);
    let runs = look.telling(job)?;
    let newest = look.newest(job)?;
    let fresh = look.last_fresh(job)?;
    let grace_ago = Wall(reading.now.0 - i64::try_from(GRACE.as_millis())?);
    let facts = Facts {
        runs: &runs,
        newest: newest.as_ref(),
        fresh: fresh.as_ref(),
        due: declared
            .and_then(|j| j.schedule.as_ref())
            .and_then(|at| at.value.previous_due(grace_ago)),
        scheduled_since: reading.jobs_file_since(),
        time_limit: declared
            .and_then(|j| j.time_limit.as_ref())
            .and_then(|at| at.value.limit()),
    };
    Ok(Checked::new(
        &Page::of_stdout(reading.now),
        job,
        &judge(&facts, reading.now),
    ))
}
