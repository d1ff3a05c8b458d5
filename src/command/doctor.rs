//! `joblock doctor`: proves that the store does what locks need, with `--peer` between two machines. Exits with 69 if it doesn't.

use std::time::Duration;

use super::reading::Reading;
use super::silent;
use super::{Setting, go_on_where_it_may_hang};
use crate::cli::{DoctorArgs, Global};
use crate::clock::Wall;
use crate::config::DEFAULT_PATH;
use crate::duration;
use crate::exit;
use crate::output::doctor::{DoctorJson, text, worst};
use crate::output::{Page, json, print, say};
use crate::peer::{self, Outcome, verdict};
use crate::store::mount::lies;
use crate::store::{About, Finding, Level, Purpose, StoreUrl};

/// How long the other side is waited for.
const WAIT: Duration = Duration::from_secs(2 * 60);

/// Runs it.
pub fn run(args: &DoctorArgs, global: &Global) -> anyhow::Result<u8> {
    let mut answer = Examined::default();
    let url = examine(global, &mut answer);
    let outcome = match url {
        Some(url) if args.peer => meet(&url, args.wait.unwrap_or(WAIT), &mut answer),
        _ => None,
    };
    let Examined { about, findings } = answer;
    let document = if args.json {
        let doctor = DoctorJson::new(about.as_ref(), &findings, outcome.as_ref());
        json::document(doctor)?
    } else {
        let page = Page::of_stdout(Wall::now());
        text(&page, about.as_ref(), &findings, args.peer)
    };
    print(document.as_bytes())?;
    Ok(if worst(&findings) == Level::Bad {
        exit::STORE_UNUSABLE
    } else {
        exit::OK
    })
}

/// The store, and what was found.
#[derive(Debug, Default)]
struct Examined {
    about: Option<About>,
    findings: Vec<Finding>,
}

impl Examined {
    fn found(&mut self, level: Level, what: &str, detail: String) {
        self.findings.push(Finding {
            level,
            what: what.to_owned(),
            detail,
        });
    }
}

/// Goes as far as it can; what stops it is the last finding. The answer: which store is meant, if its mount answers.
fn examine(global: &Global, answer: &mut Examined) -> Option<StoreUrl> {
    let setting = match Setting::read(global) {
        Ok(setting) => setting,
        Err(error) => {
            answer.found(Level::Bad, "jobs file and store", format!("{error:#}"));
            return None;
        }
    };
    let file = match &setting.file {
        Some(file) => format!("{}, {} jobs", file.path.display(), file.jobs.len()),
        None => format!("none: no --config, no $JOBLOCK_CONFIG, no {DEFAULT_PATH}"),
    };
    answer.found(Level::Ok, "jobs file", file);
    let named = format!("named by {}", setting.store.source);
    answer.found(Level::Ok, "which store", named);
    let url = setting.store.url.clone();
    if let Err(error) = go_on_where_it_may_hang(&url) {
        answer.found(Level::Bad, "the store", format!("{error:#}"));
        return None;
    }
    match Reading::of(setting, Purpose::Read) {
        Ok(reading) => {
            answer.findings.extend(reading.store().probe());
            answer.findings.extend(silent::findings(&reading));
            answer.about = Some(reading.store().about());
        }
        Err(error) => {
            // where there is no store yet, it is the time to say what one would come to
            for lie in lies::of_store(&url).unwrap_or_default() {
                answer.found(Level::Bad, "mount", lie.to_string());
            }
            answer.found(Level::Bad, "the store", format!("{error:#}"));
        }
    }
    Some(url)
}

/// Both sides together.
fn meet(url: &StoreUrl, wait: Duration, answer: &mut Examined) -> Option<Outcome> {
    let folder = match peer::folder_of(url) {
        Ok(folder) => folder,
        Err(error) => {
            answer.found(Level::Bad, "the other side", error.to_string());
            return None;
        }
    };
    // what stopped the examination is its last finding
    let last = answer.findings.last();
    let why = last.map_or("", |finding| &finding.detail);
    let store = answer.about.as_ref().ok_or(why);
    let mut waits = true;
    let mut begins = |step: &str| match (step == peer::MEETING, waits) {
        (true, _) => say(format_args!(
            "waiting up to {} in {} for `joblock doctor --peer` on the other machine",
            duration::text(wait),
            folder.display()
        )),
        (false, true) => {
            waits = false;
            say("the other side is there; this takes about 20 seconds");
        }
        _ => {}
    };
    let outcome = peer::play(url, &folder, store, wait, &mut begins);
    answer.findings.extend(verdict::findings(&outcome));
    Some(outcome)
}
