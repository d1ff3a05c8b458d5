//! `joblock status`: who runs what, where, since when.

use std::collections::BTreeSet;

use super::reading::Reading;
use crate::cli::{Global, StatusArgs};
use crate::exit;
use crate::look::Look;
use crate::output::status::{JobStatus, StatusJson, detail, text};
use crate::output::{Page, doctor, json, print};

/// Runs it.
pub fn run(args: &StatusArgs, global: &Global) -> anyhow::Result<u8> {
    let reading = Reading::open(global)?;
    let look = reading.look();
    for job in &args.jobs {
        look.known(job.as_str(), &reading.declared())?;
    }
    let asked: Vec<String> = args
        .jobs
        .iter()
        .map(|job| job.as_str().to_owned())
        .collect();
    let listed = if asked.is_empty() {
        all(&reading, &look)?
    } else {
        asked
    };
    let jobs = listed
        .iter()
        .map(|job| status(&reading, &look, job))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let about = reading.store().about();
    let page = Page::of_stdout(reading.now);
    let answer = if args.json {
        json::document(StatusJson::new(&about, &jobs, page.now))?
    } else if args.jobs.is_empty() {
        text(&page, &about, &jobs)
    } else {
        let lists: Vec<String> = jobs.iter().map(|job| detail(&page, job)).collect();
        format!("{}\n{}\n", lists.join("\n"), doctor::store_line(&about))
    };
    print(answer.as_bytes())?;
    Ok(exit::OK)
}

/// Those of the jobs file and those with a history, by name.
fn all(reading: &Reading, look: &Look<'_>) -> anyhow::Result<Vec<String>> {
    let mut jobs: BTreeSet<String> = look.jobs()?.into_iter().collect();
    jobs.extend(reading.declared().into_iter().map(str::to_owned));
    Ok(jobs.into_iter().collect())
}

fn status(reading: &Reading, look: &Look<'_>, job: &str) -> anyhow::Result<JobStatus> {
    let declared = reading.job(job);
    let name = reading.lock_of(job)?;
    let schedule = declared
        .and_then(|j| j.schedule.as_ref())
        .map(|at| &at.value);
    let seen = look.lock(&name)?;
    Ok(JobStatus {
        job: job.to_owned(),
        waiting: look.waiting(&name)?,
        silent: seen
            .as_ref()
            .and_then(|seen| seen.silence_elsewhere(reading.here(), reading.now)),
        to_free: seen
            .as_ref()
            .and_then(|seen| seen.to_free(reading.here(), || reading.mount(), reading.now)),
        seen,
        lock: name.into(),
        last: look.last_run(job)?,
        last_success: look.last_success(job)?,
        next_due: schedule.and_then(|s| s.next_due(reading.now)),
        schedule: schedule.map(ToString::to_string),
    })
}
