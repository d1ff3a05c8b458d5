//! `doctor --peer`: two doctors on two machines meet in the store's folder and try whether the locks of one are seen by the other.
//!
//! Nothing of it touches what a run looks at: all files lie in a folder of their own (`PATH.peer` beside a database, `DIRECTORY/peer`),
//! and each doctor's begin with a random id, so that a crashed one's leftovers are in nobody's way. They talk through
//! checksummed blocks ([`mailbox`]), each written by one side only: no lock is trusted to talk about locks. Who is alive is known by
//! blocks that change, never by clocks or dates ([`meeting`]). Once two have met, both go through one script, step by step
//! ([`trial`]), and exchange what they saw. What it comes to is a pure function of both reports ([`verdict`]).
//!
//! Not proved: anything about a third machine, about a machine that loses power, and about what an administrator
//! mounts tomorrow.

pub mod link;
pub mod mailbox;
pub mod meeting;
pub mod side;
pub mod sqlite;
pub mod trial;
pub mod verdict;

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Signal, set_parent_process_death_signal};

use crate::name::RunId;
use crate::store::{About, StoreError, StoreUrl, trust};
use crate::supervise::aside;
use crate::supervise::signals::Signals;
use link::Link;
use mailbox::Mailbox;
use meeting::Met;
use side::Side;
use trial::Report;

/// The step before the script.
pub const MEETING: &str = "waiting for the other side";

/// Of the script: two doctors with different ones don't understand each other.
pub const PROTOCOL: u32 = 1;

/// What came of it, as one side knows it.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// The other one did not come.
    Nobody {
        /// Where it was waited for.
        folder: PathBuf,
        /// What that lies on: a device, or server:export.
        source: Option<String>,
        /// For how long.
        waited: Duration,
        /// Who was there, and had met somebody else.
        busy: Vec<String>,
    },
    /// Somebody came whose joblock has another script: its version.
    Foreign(String),
    /// It ended before its end.
    Broken {
        /// In which step.
        step: String,
        /// Why.
        why: String,
        /// Who the other one was, if it said so.
        there: Option<Box<Side>>,
    },
    /// Both went through all of it.
    Through(Box<Both>),
}

/// Who the two are, and what they saw.
#[derive(Debug, Clone, PartialEq)]
pub struct Both {
    /// This side.
    pub here: Side,
    /// The other one.
    pub there: Side,
    /// What this side saw.
    pub seen_here: Report,
    /// What the other one saw.
    pub seen_there: Report,
}

/// Where two doctors of the store at `url` meet. Links on the way there are followed as the store follows them.
///
/// # Errors
/// If there is no way there.
pub fn folder_of(url: &StoreUrl) -> Result<PathBuf, StoreError> {
    Ok(match url {
        StoreUrl::Sqlite { path, .. } => {
            let mut name = trust::follow(path)?.path.into_os_string();
            name.push(".peer");
            name.into()
        }
        StoreUrl::Lockfile { directory, .. } => trust::follow(directory)?.path.join("peer"),
    })
}

/// Waits for the other one in `folder` (see [`folder_of`]) and goes through the script with it; what it made is removed
/// also when it is told to end (INT, TERM, HUP). `store`: what it is, or why it can't be opened. `begins` is told of each new step.
/// The calling process must have one thread.
pub fn play(
    url: &StoreUrl,
    folder: &Path,
    store: Result<&About, &str>,
    wait: Duration,
    begins: &mut dyn FnMut(&str),
) -> Outcome {
    let ends = match Signals::to_end() {
        Ok(ends) => ends,
        Err(error) => return broken(MEETING, error.to_string(), None),
    };
    if aside::is_aside() {
        let _ = set_parent_process_death_signal(Some(Signal::TERM));
    }
    let (mut last, mut ended) = (String::new(), false);
    play_on(url, folder, store, wait, &mut |step| {
        aside::sign_of_life();
        if last != step {
            step.clone_into(&mut last);
            begins(step);
        }
        // also for those who ask again
        ended |= ends.next().is_some();
        !ended
    })
}

fn broken(step: &str, why: String, there: Option<Box<Side>>) -> Outcome {
    Outcome::Broken {
        step: step.to_owned(),
        why,
        there,
    }
}

fn play_on(
    url: &StoreUrl,
    folder: &Path,
    store: Result<&About, &str>,
    wait: Duration,
    alive: &mut dyn FnMut(&str) -> bool,
) -> Outcome {
    let here = side::here(url, folder.parent().unwrap_or(folder), store);
    let mailbox = match Mailbox::make(folder, &RunId::random()) {
        Ok(mailbox) => mailbox,
        Err(error) => {
            let why = format!(
                "{} can't be written: {error}; run doctor as a user who may start jobs with this store",
                folder.display()
            );
            return broken(MEETING, why, None);
        }
    };
    let met = mailbox
        .sweep()
        .and_then(|()| meeting::meet(&mailbox, wait, &mut || alive(MEETING)));
    let peer = match met {
        Ok(Met::Peer(peer)) => peer,
        Ok(Met::Foreign(version)) => return Outcome::Foreign(version),
        Ok(Met::Nobody(busy)) => {
            return Outcome::Nobody {
                folder: folder.to_owned(),
                source: here.mount.map(|m| m.source),
                waited: wait,
                busy,
            };
        }
        Ok(Met::Ended) => return broken(MEETING, link::ENDED.to_owned(), None),
        Err(error) => return broken(MEETING, format!("{}: {error}", folder.display()), None),
    };
    match trial::run(&mut Link::new(mailbox, peer, alive), &here) {
        Ok((there, ours, theirs)) => Outcome::Through(Box::new(Both {
            here,
            there,
            seen_here: ours,
            seen_there: theirs,
        })),
        Err(trouble) => broken(&trouble.step, trouble.why, trouble.there),
    }
}
