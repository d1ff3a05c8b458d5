//! `joblock prune`: deletes old attempts, a slice at a time.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::Setting;
use super::reading::Reading;
use crate::cli::{Global, PruneArgs};
use crate::duration::Span;
use crate::exit;
use crate::name::JobName;
use crate::output::prune::{Job, PruneJson, notes, text};
use crate::output::{json, print, say};
use crate::store::mount::lies;
use crate::store::pruning::{Prune, Pruned};
use crate::store::{Purpose, StoreError, StoreUrl};

/// The shortest pause between two slices, in which those come in who wait for the database.
const PAUSE: Duration = Duration::from_millis(5);

/// Runs it.
pub fn run(args: &PruneArgs, global: &Global) -> anyhow::Result<u8> {
    let setting = Setting::read(global)?;
    let url = setting.store.url.clone();
    let reading = Reading::of(setting, Purpose::Request)?;
    if !args.dry_run {
        refuse_unsafe_mount(&url)?;
    }
    let jobs = wanted(args, &reading)?;
    let keep = |job: &JobName| args.keep.or_else(|| reading.keep(job));
    if !args.dry_run && args.jobs.is_empty() {
        refuse_what_is_kept_for_ever(args, &reading, &jobs)?;
    }
    if !jobs.is_empty() && jobs.iter().all(|job| keep(job).is_none()) {
        bail!(
            "nothing says how long to keep: give --keep DURATION, or set keep = \"90d\" at the top of the jobs file"
        );
    }
    let mut done = Vec::new();
    for job in jobs {
        let keep = keep(&job).unwrap_or(Span::Forever);
        let pruned = match keep {
            Span::For(keep) => prune(args, &reading, &job, keep)?,
            Span::Forever => Pruned::default(),
        };
        done.push(Job { job, keep, pruned });
    }
    let answer = if args.json {
        json::document(PruneJson::new(&done, args.dry_run))?
    } else {
        text(&done, args.dry_run)
    };
    print(answer.as_bytes())?;
    for note in notes(&done) {
        say(note);
    }
    Ok(exit::OK)
}

/// Its transactions are as unsafe there as a start's, and nobody has accepted that for them.
fn refuse_unsafe_mount(url: &StoreUrl) -> Result<(), StoreError> {
    let lies = lies::of_store(url)?;
    if lies.is_empty() {
        return Ok(());
    }
    Err(StoreError::Unusable(format!(
        "{}; nothing was deleted: a run with --keep and --accept-unsafe-mount REASON deletes what is old after itself",
        lies::listed(&lies)
    )))
}

/// `--keep` goes before the jobs file's, but what that keeps for ever has to be named: no history comes back.
fn refuse_what_is_kept_for_ever(
    args: &PruneArgs,
    reading: &Reading,
    jobs: &[JobName],
) -> anyhow::Result<()> {
    let for_ever = |job: &&JobName| reading.keep(job) == Some(Span::Forever);
    let kept: Vec<&str> = jobs.iter().filter(for_ever).map(JobName::as_str).collect();
    if args.keep.is_some_and(|keep| keep != Span::Forever) && !kept.is_empty() {
        bail!(
            "the jobs file keeps {} for ever: leave --keep out, or name the jobs to prune",
            kept.join(", ")
        );
    }
    Ok(())
}

fn wanted(args: &PruneArgs, reading: &Reading) -> anyhow::Result<Vec<JobName>> {
    let look = reading.look();
    for job in &args.jobs {
        look.known(job.as_str(), &reading.declared())?;
    }
    if !args.jobs.is_empty() {
        return Ok(args.jobs.clone());
    }
    let known = look.jobs()?;
    known
        .iter()
        .map(|job| {
            job.parse()
                .with_context(|| format!("a job in the history: {job:?}"))
        })
        .collect()
}

fn prune(
    args: &PruneArgs,
    reading: &Reading,
    job: &JobName,
    keep: Duration,
) -> anyhow::Result<Pruned> {
    let mut all = Pruned::default();
    let mut after = 0;
    loop {
        let began = Instant::now();
        let slice = reading.store().prune(&Prune {
            job: job.as_str().to_owned(),
            keep,
            now: reading.now,
            after,
            trust_clock: args.trust_clock,
            dry_run: args.dry_run,
        })?;
        all.attempts += slice.attempts;
        all.output_bytes += slice.output_bytes;
        all.future += slice.future;
        all.doubted += slice.doubted;
        match slice.next {
            Some(next) => after = next,
            None => return Ok(all),
        }
        if !args.dry_run {
            sleep(began.elapsed().max(PAUSE));
        }
    }
}
