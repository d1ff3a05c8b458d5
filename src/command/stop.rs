//! `joblock stop`: asks a run to end, on whichever host it is.

use anyhow::bail;

use super::reading::{Held, Reading};
use crate::cli::{Global, StopArgs};
use crate::exit;
use crate::output::record::outcome;
use crate::output::{Page, record, say};

/// Runs it.
pub fn run(args: &StopArgs, global: &Global) -> anyhow::Result<u8> {
    let reading = Reading::open_to_request(global)?;
    let job = args.job.as_str();
    let Some(held) = reading.held(job)?.filter(|held| held.holder.job == job) else {
        say(format_args!(
            "{job} is not running: there is nothing to stop"
        ));
        return Ok(exit::OK);
    };
    let Held {
        lock,
        holder,
        token,
        ..
    } = &held;
    if reading.look().is_gone(holder) {
        say(format_args!(
            "{job} is not running: the processes of its last run are gone, and the next start takes over"
        ));
        return Ok(exit::OK);
    }
    if reading.keeper_is_deaf(holder) {
        bail!(
            "the keeper of this run (pid {}), who would see the request, is dead or stopped: end the run with \
             joblock unlock {job} --kill --reason TEXT",
            holder.processes.keeper.pid
        );
    }
    reading
        .store()
        .request_stop(lock, &reading.request(*token, &args.reason))?;
    let page = Page::of_stdout(reading.now);
    say(format_args!(
        "asked {} to stop",
        record::holder(&page, holder)
    ));
    say("waiting for its end; ^C ends the waiting, not the request");
    match reading.watch(&held)? {
        None => {
            let run = reading.look().run(&holder.run_id)?;
            let how = run.as_ref().map_or_else(|| "over".to_owned(), outcome);
            say(format_args!(
                "run {} has ended: {how}",
                holder.run_id.short()
            ));
            Ok(exit::OK)
        }
        Some(silent) => bail!(
            "{} on {} has given no sign of life for {} s: the request stays in place. If that host is gone, \
             take the lock away: joblock unlock {job} --reason TEXT",
            holder.run_id.short(),
            holder.place.host,
            silent.as_secs(),
        ),
    }
}
