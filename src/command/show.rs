//! `joblock show`: everything about one run.

use super::reading::Reading;
use crate::cli::{Global, ShowArgs};
use crate::exit;
use crate::output::show::{ShowJson, text};
use crate::output::{Page, json, print};

/// Runs it.
pub fn run(args: &ShowArgs, global: &Global) -> anyhow::Result<u8> {
    let reading = Reading::open(global)?;
    let Some(run) = reading.one(&args.target)? else {
        return Ok(exit::OWN_FAILURE);
    };
    let tail = reading.store().tail(&run.run_id)?;
    let answer = if args.json {
        json::document(ShowJson::new(&run, tail.as_ref()))?
    } else {
        text(&Page::of_stdout(reading.now), &run, tail.as_ref())
    };
    print(answer.as_bytes())?;
    Ok(exit::OK)
}
