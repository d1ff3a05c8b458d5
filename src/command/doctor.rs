//! `joblock doctor`: proves that the store does what locks need, with `--peer` between two machines. Exits with 69 if it doesn't.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Setting;
use super::reading::Reading;
use super::silent;
use crate::cli::{DoctorArgs, Global};
use crate::clock::{Boot, Wall};
use crate::config::DEFAULT_PATH;
use crate::duration;
use crate::exit;
use crate::output::doctor::{DoctorJson, text, worst};
use crate::output::{Page, json, print, say};
use crate::peer::worker::{self, Silence, Teller};
use crate::peer::{self, Outcome, verdict};
use crate::store::{About, Finding, Level, Purpose, StoreUrl};

/// How long the other side is waited for.
const WAIT: Duration = Duration::from_secs(2 * 60);
/// How often the child process says that it goes on.
const ALIVE: Duration = Duration::from_millis(500);

/// Runs it.
pub fn run(args: &DoctorArgs, global: &Global) -> anyhow::Result<u8> {
    let mut answer = Examined::default();
    let mut outcome = None;
    if args.peer {
        outcome = with_peer(args.wait.unwrap_or(WAIT), global, &mut answer);
    } else {
        let _ = examine(global, &mut answer);
    }
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
#[derive(Debug, Default, Serialize, Deserialize)]
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

/// Goes as far as it can; what stops it is the last finding. The answer: which store is meant.
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
    match Reading::of(setting, Purpose::Read) {
        Ok(reading) => {
            answer.findings.extend(reading.store().probe());
            answer.findings.extend(silent::findings(&reading));
            answer.about = Some(reading.store().about());
        }
        Err(error) => answer.found(Level::Bad, "the store", format!("{error:#}")),
    }
    Some(url)
}

/// What the child process tells.
#[derive(Debug, Serialize, Deserialize)]
enum Word {
    /// It goes on with this.
    Alive(String),
    /// What this side alone is like.
    Examined(Box<Examined>),
    /// It waits here for the other side.
    Waiting(PathBuf),
    /// What came of it.
    Outcome(Box<Outcome>),
}

/// Examines this side, and then both together. All of it is done by a child process, since a mount may hang.
fn with_peer(wait: Duration, global: &Global, answer: &mut Examined) -> Option<Outcome> {
    let (mut outcome, mut last) = (None, "the store's own findings".to_owned());
    let mut hear = |word| match word {
        Word::Alive(step) => {
            if last == peer::MEETING && step != last {
                say("the other side is there; this takes about 20 seconds");
            }
            last = step;
        }
        Word::Examined(examined) => *answer = *examined,
        Word::Waiting(folder) => say(format_args!(
            "waiting up to {} in {} for `joblock doctor --peer` on the other machine",
            duration::text(wait),
            folder.display()
        )),
        Word::Outcome(came) => outcome = Some(*came),
    };
    match worker::apart(|teller| work(teller, wait, global), &mut hear) {
        Ok(()) => {}
        Err(Silence::Hangs) => answer.found(
            Level::Bad,
            "the mount",
            format!(
                "it has not answered for {} ({last}): look whether the file server can be reached",
                duration::text(worker::HANGS)
            ),
        ),
        Err(Silence::Died(why)) => answer.found(Level::Bad, "doctor itself", why),
    }
    answer
        .findings
        .extend(outcome.as_ref().map(verdict::findings).unwrap_or_default());
    outcome
}

fn work(teller: &mut Teller<Word>, wait: Duration, global: &Global) {
    let mut examined = Examined::default();
    let url = examine(global, &mut examined);
    let about = examined.about.clone();
    let last = examined.findings.last();
    let why = last.map_or(String::new(), |finding| finding.detail.clone());
    let folder = url.map(|url| (peer::folder_of(&url), url));
    if let Some((Err(error), _)) = &folder {
        examined.found(Level::Bad, "the other side", error.to_string());
    }
    teller.tell(&Word::Examined(Box::new(examined)));
    let Some((Ok(folder), url)) = folder else {
        return;
    };
    // what stopped the examination is its last finding
    let store = about.as_ref().ok_or(why.as_str());
    teller.tell(&Word::Waiting(folder.clone()));
    let mut told: Option<(String, Boot)> = None;
    let mut alive = |step: &str| {
        let now = Boot::now();
        let is_new = told
            .as_ref()
            .is_none_or(|(last, at)| last != step || now.since(*at) > ALIVE);
        if !is_new {
            return true;
        }
        told = Some((step.to_owned(), now));
        teller.tell(&Word::Alive(step.to_owned()))
    };
    let outcome = peer::play(&url, &folder, store, wait, &mut alive);
    teller.tell(&Word::Outcome(Box::new(outcome)));
}
