//! `prune`: what was deleted, and what was not and why.

use std::fmt::Write;

use serde::Serialize;

use super::time::memory;
use crate::duration::Span;
use crate::name::JobName;
use crate::store::pruning::Pruned;

/// What came of a job.
#[derive(Debug)]
pub struct Job {
    /// Its name.
    pub job: JobName,
    /// How long its attempts are kept.
    pub keep: Span,
    /// What was deleted.
    pub pruned: Pruned,
}

/// A line for each job that lost something, and how many there were in all.
pub fn text(jobs: &[Job], dry_run: bool) -> String {
    let mut out = String::new();
    let verb = if dry_run {
        "would be deleted"
    } else {
        "deleted"
    };
    for Job { job, keep, pruned } in jobs.iter().filter(|job| job.pruned.attempts > 0) {
        let _ = writeln!(
            out,
            "{job}: {} older than {keep} {verb}, with {} of output",
            attempts(pruned.attempts),
            memory(pruned.output_bytes.div_ceil(1024))
        );
    }
    if out.is_empty() {
        out.push_str("nothing to delete\n");
    }
    out
}

/// What was left alone and why, for stderr.
pub fn notes(jobs: &[Job]) -> Vec<String> {
    let mut notes = Vec::new();
    for Job { job, keep, pruned } in jobs {
        if pruned.future > 0 {
            notes.push(format!(
                "{job}: {} dated in the future left alone: was a clock wrong when they ran, or is this one?",
                attempts(pruned.future)
            ));
        }
        if pruned.doubted > 0 {
            notes.push(format!(
                "{job}: {} left alone that are older than {keep} by this machine's clock only: nothing on record shows that it is right. \
                 If it is, say --trust-clock, or wait: they go once attempts by this clock are on record for a while",
                attempts(pruned.doubted)
            ));
        }
    }
    notes
}

fn attempts(n: u64) -> String {
    match n {
        1 => "1 attempt".to_owned(),
        n => format!("{n} attempts"),
    }
}

/// `prune --json`.
#[derive(Debug, Serialize)]
pub struct PruneJson<'a> {
    dry_run: bool,
    attempts: u64,
    output_bytes: u64,
    jobs: Vec<JobJson<'a>>,
}

#[derive(Debug, Serialize)]
struct JobJson<'a> {
    job: &'a str,
    keep: String,
    attempts: u64,
    output_bytes: u64,
    dated_in_future: u64,
    doubted: u64,
}

impl<'a> PruneJson<'a> {
    /// Of these jobs.
    pub fn new(jobs: &'a [Job], dry_run: bool) -> Self {
        PruneJson {
            dry_run,
            attempts: jobs.iter().map(|job| job.pruned.attempts).sum(),
            output_bytes: jobs.iter().map(|job| job.pruned.output_bytes).sum(),
            jobs: jobs
                .iter()
                .map(|Job { job, keep, pruned }| JobJson {
                    job: job.as_str(),
                    keep: keep.to_string(),
                    attempts: pruned.attempts,
                    output_bytes: pruned.output_bytes,
                    dated_in_future: pruned.future,
                    doubted: pruned.doubted,
                })
                .collect(),
        }
    }
}
