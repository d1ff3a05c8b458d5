//! `joblock history`: the attempts of the past, newest first.

use chrono::Local;

use super::reading::Reading;
use crate::cli::{Global, HistoryArgs};
use crate::exit;
use crate::output::history::{HistoryJson, text};
use crate::output::{Page, json, print, say};
use crate::store::record::Query;

/// Runs it.
pub fn run(args: &HistoryArgs, global: &Global) -> anyhow::Result<u8> {
    let reading = Reading::open(global)?;
    let look = reading.look();
    if let Some(job) = &args.job {
        look.known(job.as_str(), &reading.declared())?;
    }
    let runs = look.runs(query(args, &reading))?;
    if args.json {
        print(json::document(HistoryJson::new(&runs))?.as_bytes())?;
        return Ok(exit::OK);
    }
    if runs.is_empty() {
        say("no such attempts");
    }
    print(text(&Page::of_stdout(reading.now), &runs).as_bytes())?;
    Ok(exit::OK)
}

fn query(args: &HistoryArgs, reading: &Reading) -> Query {
    Query {
        job: args.job.as_ref().map(|job| job.as_str().to_owned()),
        limit: (args.limit > 0).then_some(args.limit),
        since: args.since.map(|when| when.resolve(reading.now, &Local)),
        until: args.until.map(|when| when.resolve(reading.now, &Local)),
        outcomes: args.outcomes.clone(),
        host: args.host.clone(),
        trigger: args.trigger,
        ..Query::default()
    }
}
