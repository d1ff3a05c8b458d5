//! How two doctors talk: letter by letter, both at the same step, and what that tells of their clocks.

use std::io;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::mailbox::{self, Mailbox};
use super::side::Side;
use crate::clock::{Boot, Wall};
use crate::name::RunId;

/// How long the other side may take for a step.
const STEP: Duration = Duration::from_secs(60);
/// How often one looks for a letter.
pub const LOOK: Duration = Duration::from_millis(20);
/// Why it ended, where somebody wanted that.
pub const ENDED: &str = "it was ended here";
/// Longer texts are cut, so that a report fits into a letter.
const LONGEST: usize = 120;

/// Why the script was not gone through.
#[derive(Debug)]
pub struct Trouble {
    /// In which step.
    pub step: String,
    /// Why.
    pub why: String,
    /// Who the other one is, if it had said so.
    pub there: Option<Box<Side>>,
}

#[derive(Serialize, Deserialize)]
struct Letter<T> {
    step: String,
    boot: Boot,
    wall: Wall,
    body: T,
}

/// The two mailboxes.
pub struct Link<'a> {
    mailbox: Mailbox,
    peer: RunId,
    number: u64,
    alive: &'a mut dyn FnMut(&str) -> bool,
    /// The smallest difference between our clock and the time of sending in the other's letters, in milliseconds of the wall clock.
    pub wall_ahead_ms: Option<i64>,
    /// The same in nanoseconds of BOOTTIME.
    pub boot_ahead_ns: Option<i64>,
    /// A name that the other one is to make.
    pub name: Option<PathBuf>,
    /// When it was seen.
    pub name_seen: Option<Boot>,
}

impl<'a> Link<'a> {
    /// With `peer`; `alive` is told the step, again and again, and says whether anybody still wants to know.
    pub fn new(mailbox: Mailbox, peer: RunId, alive: &'a mut dyn FnMut(&str) -> bool) -> Self {
        Link {
            mailbox,
            peer,
            number: 0,
            alive,
            wall_ahead_ms: None,
            boot_ahead_ns: None,
            name: None,
            name_seen: None,
        }
    }

    /// A file of ours.
    pub fn own(&self, end: &str) -> PathBuf {
        self.mailbox.own(end)
    }

    /// A file of the other's.
    pub fn theirs(&self, end: &str) -> PathBuf {
        mailbox::path(&self.mailbox.folder, &self.peer, end)
    }

    /// Whether ours are the files where one of both must be.
    pub fn is_first(&self) -> bool {
        self.mailbox.id < self.peer
    }

    /// Says that the step goes on.
    pub fn alive(&mut self, step: &str) {
        // who does not want to know any more is asked again between the steps
        let _ = (self.alive)(step);
    }

    /// Tells the other one `body`, and waits for what it says at the same step.
    ///
    /// # Errors
    /// If it says nothing, or can't be told.
    pub fn exchange<T: Serialize + DeserializeOwned>(
        &mut self,
        step: &str,
        body: &T,
    ) -> Result<T, Trouble> {
        let trouble = |why: String| Trouble {
            step: step.to_owned(),
            why,
            there: None,
        };
        let letter = Letter {
            step: step.to_owned(),
            boot: Boot::now(),
            wall: Wall::now(),
            body,
        };
        let said = self.mailbox.say(&letter);
        said.map_err(|e| trouble(format!("can't write to the other side: {e}")))?;
        self.number += 1;
        let until = Boot::now() + STEP;
        loop {
            if !(self.alive)(step) {
                return Err(trouble(ENDED.to_owned()));
            }
            self.look_for_the_name();
            match mailbox::read::<Letter<T>>(&self.mailbox.folder, &self.peer, self.number) {
                Ok(Some(letter)) if letter.step == step => {
                    self.compare_clocks(letter.boot, letter.wall);
                    return Ok(letter.body);
                }
                Ok(Some(letter)) => {
                    return Err(trouble(format!("the other side is at {:?}", letter.step)));
                }
                Ok(None) if Boot::now() > until => {
                    let why = "the other side fell silent: it was ended, or its mount hangs";
                    return Err(trouble(why.to_owned()));
                }
                Ok(None) => sleep(LOOK),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return Err(trouble("the other side was ended".to_owned()));
                }
                Err(error) => {
                    return Err(trouble(format!("can't read from the other side: {error}")));
                }
            }
        }
    }

    fn compare_clocks(&mut self, boot: Boot, wall: Wall) {
        let least = |known: Option<i64>, new: i64| Some(known.map_or(new, |known| known.min(new)));
        let ahead = Wall::now().0.saturating_sub(wall.0);
        self.wall_ahead_ms = least(self.wall_ahead_ms, ahead);
        let ahead = Boot::now()
            .0
            .cast_signed()
            .wrapping_sub(boot.0.cast_signed());
        self.boot_ahead_ns = least(self.boot_ahead_ns, ahead);
    }

    fn look_for_the_name(&mut self) {
        if let Some(name) = self.name.take_if(|name| name.symlink_metadata().is_ok()) {
            self.name_seen = Some(Boot::now());
            drop(name);
        }
    }
}

/// An error, short enough for a letter.
pub fn short(error: &impl ToString) -> String {
    error.to_string().chars().take(LONGEST).collect()
}
