//! What the commands that look at a store begin with: the jobs file, the store, this machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::Context;

use super::{Setting, go_on_where_it_may_hang};
use crate::cli::{Global, Target};
use crate::clock::{Boot, Wall};
use crate::config::{Job, JobsFile};
use crate::duration::Span;
use crate::look::{Found, Look};
use crate::name::{JobName, LockName, Token};
use crate::output::{Page, say, show};
use crate::plan::{self, Environment};
use crate::store::lockfile::file::LockFile;
use crate::store::mount::Mount;
use crate::store::record::RunRecord;
use crate::store::{self, Cleared, Clearing, Holder, Place, Purpose, Request, Store, remote};
use crate::supervise::aside;
use crate::supervise::origin;
use crate::supervise::tree::{Tree, alive_here};
use crate::vigil::{Sight, Vigil};

/// How often somebody who waits for a run's end looks.
const LOOK: Duration = Duration::from_millis(250);

/// How often the kernel's lock is asked for before it counts as taken.
const TRIES: u32 = 5;

/// A store that was opened, and what is known beside it.
pub struct Reading {
    store: Box<dyn Store>,
    database: PathBuf,
    jobs_file: Option<JobsFile>,
    here: Place,
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
    /// Opens the store that is meant, to look; it is not created.
    pub fn open(global: &Global) -> anyhow::Result<Self> {
        Self::of(Setting::read(global)?, Purpose::Read)
    }

    /// Opens the store that is meant, to ask something of a holder.
    pub fn open_to_request(global: &Global) -> anyhow::Result<Self> {
        Self::of(Setting::read(global)?, Purpose::Request)
    }

    /// Opens the store of a setting that was read before.
    pub fn of(setting: Setting, purpose: Purpose) -> anyhow::Result<Self> {
        go_on_where_it_may_hang(&setting.store.url)?;
        let store = store::open(&setting.store.url, purpose, setting.store.pinned.as_deref())?;
        let here = Place::here();
        Ok(Reading {
            store,
            database: setting.store.url.database(),
            jobs_file: setting.file,
            tree: Tree::new(here.clone()),
            here,
            now: Wall::now(),
        })
    }

    /// Inside a job: the store that the job's own `joblock` used, whatever a jobs file says by now.
    pub fn open_from_job(global: &Global) -> anyhow::Result<Self> {
        let environment = Environment::read();
        let named = global.store.as_ref().or(environment.store.as_ref());
        let store = plan::locate_store(named.map(AsRef::as_ref), None, &environment)?;
        Self::of(
            Setting {
                environment,
                file: None,
                store,
            },
            Purpose::Read,
        )
    }

    /// The store.
    pub fn store(&self) -> &dyn Store {
        aside::sign_of_life();
        &*self.store
    }

    /// This machine.
    pub fn here(&self) -> &Place {
        &self.here
    }

    /// The store's database file.
    pub fn database(&self) -> &Path {
        &self.database
    }

    /// The mount that it lies on, if that is not of a local file system.
    pub fn mount(&self) -> Option<Mount> {
        remote::on_the_way(&self.database)
    }

    /// A look at it from here.
    pub fn look(&self) -> Look<'_> {
        Look::new(self.store(), alive_here)
    }

    /// The names of the jobs file's jobs.
    pub fn declared(&self) -> Vec<&str> {
        self.jobs_file
            .iter()
            .flat_map(|file| file.jobs.keys())
            .map(JobName::as_str)
            .collect()
    }

    /// What the jobs file says of `job`.
    pub fn job(&self, job: &str) -> Option<&Job> {
        let name: JobName = job.parse().ok()?;
        self.jobs_file.as_ref()?.jobs.get(&name)
    }

    /// How long attempts of `job` are kept, if the jobs file says so.
    pub fn keep(&self, job: &JobName) -> Option<Span> {
        Some(self.jobs_file.as_ref()?.keep(job)?.value)
    }

    /// The lock of `job`.
    pub fn lock_of(&self, job: &str) -> anyhow::Result<LockName> {
        let declared = self.job(job).and_then(|j| j.lock.as_ref());
        self.look().lock_of(job, declared.map(|at| &at.value))
    }

    /// When the jobs file was last changed: its schedules are not older than that, as far as anybody knows.
    pub fn jobs_file_since(&self) -> Option<Wall> {
        let changed = fs::metadata(&self.jobs_file.as_ref()?.path)
            .and_then(|m| m.modified())
            .ok()?;
        let since_epoch = changed.duration_since(UNIX_EPOCH).ok()?;
        i64::try_from(since_epoch.as_millis()).ok().map(Wall)
    }

    /// The run that `target` means. Several: they are listed on stderr, and there is none.
    pub fn one(&self, target: &Target) -> anyhow::Result<Option<RunRecord>> {
        match self.look().find(target, &self.declared())? {
            Found::One(run) => Ok(Some(*run)),
            Found::Several(runs) => {
                let page = Page {
                    width: None,
                    colour: false,
                    ..Page::of_stdout(self.now)
                };
                let list = show::candidates(&page, &runs);
                say(format_args!(
                    "{} could be any of these, give more digits:\n{list}",
                    target.as_str()
                ));
                Ok(None)
            }
        }
    }

    /// Who has the lock of `job`, be it a run of it or of another job.
    ///
    /// # Errors
    /// The store's, and that nobody knows `job`.
    pub fn held(&self, job: &str) -> anyhow::Result<Option<Held>> {
        self.look().known(job, &self.declared())?;
        let lock = self.lock_of(job)?;
        let Some(seen) = self.look().lock(&lock)? else {
            return Ok(None);
        };
        let Some((holder, token)) = seen.holder.zip(seen.token) else {
            return Ok(None);
        };
        Ok(Some(Held {
            lock,
            holder,
            token,
            seq: seen.seq,
            ttl: seen.ttl,
        }))
    }

    /// A request for the grant with `token`, in the name of the calling user.
    pub fn request(&self, token: Token, reason: &str) -> Request {
        let who = origin::who();
        let user = who.sudo_user.unwrap_or(who.user);
        Request {
            token,
            by: format!("{user}@{}", self.here.host),
            reason: reason.to_owned(),
            at: Wall::now(),
        }
    }

    /// Waits until the run that holds `held` has let go; if its holder no longer answers, no longer than that: the
    /// answer is how long it has been silent then.
    pub fn watch(&self, held: &Held) -> anyhow::Result<Option<Duration>> {
        let mut vigil = Vigil::new(held.holder.run_id.clone(), held.seq, Boot::now());
        loop {
            let now = Boot::now();
            let seen = self
                .store()
                .inspect(&held.lock)
                .context("can't see what became of the request")?;
            match vigil.see(&seen, now) {
                Sight::Over => return Ok(None),
                Sight::Silent(silent) => return Ok(Some(silent)),
                // Gone without a release: nothing of it runs.
                Sight::Holds if self.look().is_gone(&held.holder) => return Ok(None),
                Sight::Holds => sleep(LOOK),
            }
        }
    }

    /// Whether the kernel's lock can be had. It is taken for a moment to know that, as nothing else tells on NFS, and asked for a few
    /// times: a file server takes a moment itself to throw out a machine whose lease is over.
    pub fn kernel_lock_is_free(&self, lock: &LockName) -> anyhow::Result<bool> {
        let path = self.store().lock_file(lock);
        let tried = || format!("can't see whether {} is locked", path.display());
        let file = LockFile::open_or_create(&path).with_context(tried)?;
        for _ in 0..TRIES {
            if file.try_lock().with_context(tried)? {
                return Ok(true);
            }
            sleep(LOOK);
        }
        Ok(false)
    }

    /// What a run left on this machine: pids and names.
    pub fn left_here(&self, holder: &Holder) -> Vec<String> {
        self.tree.left(holder)
    }

    /// Whether the run's keeper, who would see what is asked of it, is dead or stopped here.
    pub fn keeper_is_deaf(&self, holder: &Holder) -> bool {
        self.tree.keeper_is_deaf(holder)
    }

    /// Kills the whole run here, joblock's own processes with it.
    pub fn kill_run_here(&self, held: &Held) -> Cleared {
        let lock_file = self.store.lock_file(&held.lock);
        self.tree.end_run(&held.holder, &lock_file)
    }

    /// Kills that.
    pub fn kill_left_here(&self, holder: &Holder) -> Cleared {
        self.tree.clear(holder, None)
    }
}
