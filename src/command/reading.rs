//! What the commands that look at a store begin with: the jobs file, the store, this machine.

use std::env;
use std::thread::sleep;
use std::time::Duration;

use anyhow::Context;

use crate::cli::{Global, Target};
use crate::clock::{Boot, Wall};
use crate::config::{Job, JobsFile};
use crate::look::{Found, Look};
use crate::name::{JobName, LockName, Token};
use crate::output::{Page, say, show};
use crate::store::record::RunRecord;
use crate::store::{Cleared, Clearing, Finding, Holder, Level, Place, Request, Store};
use crate::supervise::origin;
use crate::supervise::tree::Tree;
use crate::vigil::{Sight, Vigil};

/// How often somebody who waits for a run's end looks.
const LOOK: Duration = Duration::from_millis(250);

/// A store that was opened, and what is known beside it.
pub struct Reading {
    store: Box<dyn Store>,
    jobs_file: Option<JobsFile>,
    tree: Tree,
    /// When it was opened: "now" for everything that is printed.
    pub now: Wall,
}

/// A lock that is held.
pub struct Held {
    /// Its name.
    pub lock: LockName,
    /// Who has it.
    pub holder: Holder,
    /// The grant's token.
    pub token: Token,
    /// The grant's heartbeats so far.
    pub seq: u64,
    /// Its lease, where it is one.
    pub ttl: Option<Duration>,
}

impl Reading {
    /// The store.
    pub fn store(&self) -> &dyn Store {
        &*self.store
    }

    /// A look at it from here.
    pub fn look(&self) -> Look<'_> {
        Look::new(&*self.store, &|holder| self.tree.alive(holder))
    }

    /// The names of the jobs file's jobs.
    pub fn declared(&self) -> Vec<&str> {
        self.jobs_file.iter().flat_map(|file| file.jobs.keys()).map(JobName::as_str).collect()
    }

    /// What the jobs file says of `job`.
    pub fn job(&self, job: &str) -> Option<&Job> {
        let name: JobName = job.parse().ok()?;
        self.jobs_file.as_ref()?.jobs.get(&name)
    }

    /// The run that `target` means. Several: they are listed on stderr, and there is none.
    pub fn one(&self, target: &Target) -> anyhow::Result<Option<RunRecord>> {
        match self.look().find(target, &self.declared())? {
            Found::One(run) => Ok(Some(*run)),
            Found::Several(runs) => {
                let page = Page { width: None, colour: false, ..Page::of_stdout(self.now) };
                say(format_args!("{} could be any of these, give more digits:", target.as_str()));
                eprint!("{}", show::candidates(&page, &runs));
                Ok(None)
            }
        }
    }
}
