//! `joblock doctor`: proves that the store does what locks need. Exits with 69 if it doesn't.

use super::Setting;
use super::reading::Reading;
use super::silent;
use crate::cli::{DoctorArgs, Global};
use crate::clock::Wall;
use crate::config::DEFAULT_PATH;
use crate::exit;
use crate::output::doctor::{DoctorJson, text, worst};
use crate::output::{Page, json, print};
use crate::store::{About, Finding, Level, Purpose};

/// Runs it.
pub fn run(args: &DoctorArgs, global: &Global) -> anyhow::Result<u8> {
    let mut findings = Vec::new();
    let about = examine(global, &mut findings);
    let answer = if args.json {
        json::document(DoctorJson::new(about.as_ref(), &findings))?
    } else {
        text(&Page::of_stdout(Wall::now()), about.as_ref(), &findings)
    };
    print(answer.as_bytes())?;
    Ok(if worst(&findings) == Level::Bad {
        exit::STORE_UNUSABLE
    } else {
        exit::OK
    })
}

/// Goes as far as it can; what stops it is the last finding.
fn examine(global: &Global, findings: &mut Vec<Finding>) -> Option<About> {
    let mut found = |level, what: &str, detail: String| {
        findings.push(Finding {
            level,
            what: what.to_owned(),
            detail,
        });
    };
    let setting = match Setting::read(global) {
        Ok(setting) => setting,
        Err(error) => {
            found(Level::Bad, "jobs file and store", format!("{error:#}"));
            return None;
        }
    };
    match &setting.file {
        Some(file) => found(
            Level::Ok,
            "jobs file",
            format!("{}, {} jobs", file.path.display(), file.jobs.len()),
        ),
        None => found(
            Level::Ok,
            "jobs file",
            format!("none: no --config, no $JOBLOCK_CONFIG, no {DEFAULT_PATH}"),
        ),
    }
    found(
        Level::Ok,
        "which store",
        format!("named by {}", setting.store.source),
    );
    match Reading::of(setting, Purpose::Read) {
        Ok(reading) => {
            findings.extend(reading.store().probe());
            findings.extend(silent::findings(&reading));
            Some(reading.store().about())
        }
        Err(error) => {
            found(Level::Bad, "the store", format!("{error:#}"));
            None
        }
    }
}
