//! `joblock logs`: the kept output of a run, byte for byte.

use std::borrow::Cow;
use std::thread::sleep;
use std::time::Duration;

use super::reading::Reading;
use crate::cli::{Global, LogsArgs};
use crate::exit;
use crate::name::RunId;
use crate::output::logs::{LogsJson, missing_note, part_after};
use crate::output::text::harmless;
use crate::output::{Reader, is_on_terminal, json, print, say};
use crate::store::record::{Outcome, Tail};

/// How often a follower looks. The keeper saves what is new about once a second.
const LOOK: Duration = Duration::from_millis(500);

/// Runs it.
pub fn run(args: &LogsArgs, global: &Global) -> anyhow::Result<u8> {
    let reading = Reading::open(global)?;
    let Some(run) = reading.one(&args.target)? else {
        return Ok(exit::OWN_FAILURE);
    };
    if args.json {
        let tail = reading.store().tail(&run.run_id)?;
        print(json::document(LogsJson::new(&run, tail.as_ref()))?.as_bytes())?;
        return Ok(exit::OK);
    }
    if args.follow {
        follow(&reading, &run.run_id)?;
    } else {
        match reading.store().tail(&run.run_id)? {
            Some(tail) => drop(show_new(0, &tail)?),
            None => say(format_args!(
                "no output of run {} was kept",
                run.run_id.short()
            )),
        }
    }
    Ok(exit::OK)
}

/// Prints what is new until the run has ended and all of its output is out.
fn follow(reading: &Reading, run: &RunId) -> anyhow::Result<()> {
    let look = reading.look();
    let mut printed = 0;
    loop {
        // Asked before the tail is read: what an ended run wrote is all there.
        let goes_on = look
            .run(run)?
            .is_some_and(|row| row.outcome == Outcome::Running);
        if let Some(tail) = reading.store().tail(run)? {
            match show_new(printed, &tail)? {
                Some(total) => printed = total,
                None => return Ok(()),
            }
        }
        if !goes_on {
            return Ok(());
        }
        sleep(LOOK);
    }
}

/// How much is printed then; `None` when nobody reads any more.
fn show_new(printed: u64, tail: &Tail) -> anyhow::Result<Option<u64>> {
    let part = part_after(printed, tail);
    if part.missing > 0 {
        say(missing_note(printed, part.missing));
    }
    // what a job printed must not do more on a terminal than be read
    let shown = if is_on_terminal() {
        Cow::Owned(harmless(part.bytes))
    } else {
        Cow::Borrowed(part.bytes)
    };
    if !shown.is_empty() && print(&shown)? == Reader::Gone {
        return Ok(None);
    }
    Ok(Some(printed.max(tail.total)))
}
