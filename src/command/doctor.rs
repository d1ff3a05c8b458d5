//! `joblock doctor`: proves that the store does what locks need. Exits with 69 if it doesn't.

use super::reading::{self, Reading};
use crate::cli::{DoctorArgs, Global};
use crate::exit;
use crate::output::doctor::{DoctorJson, text, worst};
use crate::output::{Page, json, print};
use crate::store::{Finding, Level};

/// Runs it.
pub fn run(args: &DoctorArgs, global: &Global) -> anyhow::Result<u8> {
    let (jobs_file, mut findings) = reading::jobs_file_findings(global);
    let store = jobs_file.and_then(|jobs| Reading::open_with(global, jobs));
    let about = match &store {
        Ok(reading) => {
            findings.extend(reading.store().probe());
            Some(reading.store().about())
        }
        Err(error) => {
            findings.push(Finding { level: Level::Bad, what: "the store".into(), detail: format!("{error:#}") });
            None
        }
    };
    let answer = if args.json {
        json::document(DoctorJson::new(about.as_ref(), &findings))?
    } else {
        text(&Page::of_stdout(crate::clock::Wall::now()), about.as_ref(), &findings)
    };
    print(answer.as_bytes())?;
    Ok(if worst(&findings) == Level::Bad { exit::STORE_UNUSABLE } else { exit::OK })
}
