//! `joblock assert`: tells a job by the exit code whether it still runs under its lock.

use std::env;

use anyhow::Context;

use super::reading::Reading;
use crate::cli::{AssertArgs, Global};
use crate::clock::Wall;
use crate::exit;
use crate::name::{RunId, Token};
use crate::output::say;
use crate::vigil::holds_now;

/// Runs it. An error is exit code 69: it can't be told.
pub fn run(args: &AssertArgs, global: &Global) -> anyhow::Result<u8> {
    let Some((run, token)) = marks() else {
        say("not inside a job: $JOBLOCK_RUN_ID and $JOBLOCK_TOKEN are missing");
        return Ok(exit::ASSERT_NOT_HELD);
    };
    let reading = Reading::open_from_job(global)?;
    let row = reading.store().by_prefix(run.as_str())?.into_iter().next();
    let row = row.with_context(|| {
        format!(
            "run {run} is not in the store {}",
            reading.store().about().url
        )
    })?;
    if let Some(job) = args.job.as_ref().filter(|job| **job != row.job) {
        say(format_args!("this is a run of {}, not of {job}", row.job));
        return Ok(exit::ASSERT_NOT_HELD);
    }
    let seen = reading.store().inspect(&row.lock)?;
    match holds_now(&seen, &run, token, Wall::now()) {
        Ok(()) => Ok(exit::OK),
        Err(why) => {
            say(format_args!(
                "the lock {} is not held by run {}: {why}",
                row.lock,
                run.short()
            ));
            Ok(exit::ASSERT_NOT_HELD)
        }
    }
}

/// Which run we are in, as the guard told the job.
fn marks() -> Option<(RunId, Token)> {
    let run = env::var("JOBLOCK_RUN_ID").ok()?.parse().ok()?;
    let token = env::var("JOBLOCK_TOKEN").ok()?.parse().ok()?;
    Some((run, Token(token)))
}
