//! Where a part of the campaign takes place: a store in a folder of its own, and the hosts that meet there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use tempfile::TempDir;

use super::host::{Far, Host};
use super::plan::{Attempt, TTL};
use super::trouble::{Calm, SmallDisk};
use crate::common::{joblock, process};

/// The variable that marks every process of an arena.
const MARK: &str = "JOBLOCK_TEST_MARK";

/// Which kind of store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// `sqlite:PATH`.
    Local,
    /// `sqlite:PATH?shared`, where flock(2) reaches everybody.
    Shared,
    /// `sqlite:PATH` on two mounts of one folder whose flock(2) does not reach the other one, on hosts that don't see each other.
    Far,
    /// `lockfile:DIRECTORY`.
    Lockfile,
}

impl Kind {
    /// Whether a lock ends by itself.
    pub fn has_leases(self) -> bool {
        matches!(self, Kind::Shared | Kind::Far)
    }

    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Local => "local",
            Kind::Shared => "shared",
            Kind::Far => "far",
            Kind::Lockfile => "lockfile",
        }
    }
}

/// What stands between an attempt and its job.
#[derive(Debug, Clone)]
pub enum Starter {
    /// joblock, this one.
    Joblock(PathBuf),
    /// flock(1), which keeps the lock's descriptor to itself.
    FlockO,
    /// Nothing.
    NoLock,
}

/// See the module.
pub struct Arena {
    /// What store it has.
    pub kind: Kind,
    /// Its locks, named so that no other arena has them.
    pub locks: Vec<String>,
    /// Who starts jobs here.
    pub hosts: Vec<Host>,
    /// Whether the store is left alone just now.
    pub calm: Calm,
    /// Whether it is not, at times.
    pub troubled: bool,
    /// It has a small disk of its own, which is unmounted before the folder is removed.
    _disk: Option<SmallDisk>,
    folder: TempDir,
    witness: String,
    starter: Starter,
}

impl Arena {
    /// A new one with so many locks, whose jobs report to the witness at that address.
    pub fn new(kind: Kind, locks: usize, witness: &str) -> Arena {
        Arena::made(kind, locks, witness, false)
    }

    /// One whose store has a small disk of its own.
    pub fn on_a_small_disk(kind: Kind, locks: usize, witness: &str) -> Arena {
        Arena::made(kind, locks, witness, true)
    }

    fn made(kind: Kind, locks: usize, witness: &str, small: bool) -> Arena {
        let folder = folder();
        let store = folder.path().join("store");
        fs::create_dir(&store).expect("a folder for the store");
        let disk = small.then(|| SmallDisk::mount(&store).expect("a small disk"));
        let hosts = match kind {
            Kind::Far => ["blue", "green"]
                .into_iter()
                .map(|name| Host::Far(Far::boot(name, &store, folder.path()).expect("a far host")))
                .collect(),
            _ => vec![Host::Here(url(kind, &store))],
        };
        let unique = folder
            .path()
            .file_name()
            .map(|n| n.to_string_lossy().replace('.', ""));
        let unique = unique.unwrap_or_default();
        Arena {
            kind,
            locks: (0..locks)
                .map(|n| format!("{}{n}{unique}", kind.name()))
                .collect(),
            hosts,
            calm: Calm::default(),
            troubled: false,
            _disk: disk,
            folder,
            witness: witness.to_owned(),
            starter: Starter::Joblock(joblock().into()),
        }
    }

    /// The same, where jobs are started otherwise.
    pub fn with(mut self, starter: Starter) -> Arena {
        self.starter = starter;
        self
    }

    /// The store's folder, past all mounts.
    pub fn store(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    /// The database that has the history, past all mounts.
    pub fn history(&self) -> PathBuf {
        self.store().join(match self.kind {
            Kind::Lockfile => "history.db",
            _ => "joblock.db",
        })
    }

    /// Where records wait that the database could not take.
    pub fn spool(&self) -> PathBuf {
        self.store().join(match self.kind {
            Kind::Lockfile => "spool",
            _ => "joblock.db.spool",
        })
    }

    /// What makes an attempt: `joblock run …`, where it is started by joblock.
    pub fn command(&self, attempt: &Attempt) -> Command {
        let lock = &self.locks[attempt.lock];
        let mut command = match &self.starter {
            Starter::Joblock(joblock) => self.joblock(joblock, attempt),
            Starter::FlockO => {
                let mut flock = Command::new("flock");
                flock.arg("-o").arg(self.store().join(lock)).arg(job());
                flock
            }
            Starter::NoLock => Command::new(job()),
        };
        self.mark(&mut command);
        command
            .args(["run", &self.witness, lock])
            .args([attempt.id.to_string().as_str(), attempt.family])
            .arg(attempt.takes.as_millis().to_string())
            .arg(attempt.code.to_string());
        command
    }

    fn joblock(&self, joblock: &Path, attempt: &Attempt) -> Command {
        let mut command = Command::new(joblock);
        command.args([
            "run",
            "--store",
            self.hosts[attempt.host].url(),
            "-k",
            "0.2",
        ]);
        if self.kind != Kind::Lockfile {
            command.args(["--ttl", &format!("{}s", TTL.as_secs())]);
        }
        match attempt.wait {
            Some(time) => command.args(["-w", &format!("{}s", time.as_secs())]),
            None => command.arg("-n"),
        };
        if let Some(limit) = attempt.limit {
            command.args(["-t", &format!("{}", limit.as_secs_f64())]);
        }
        command
            .arg("--tag")
            .arg(format!("attempt={}", attempt.id))
            .args([&self.locks[attempt.lock], "--"])
            .arg(job());
        command
    }

    /// Adds the arena's mark, closes the input and takes the output.
    pub fn mark(&self, command: &mut Command) {
        for (name, _) in std::env::vars_os() {
            if name.as_encoded_bytes().starts_with(b"JOBLOCK_") {
                command.env_remove(name);
            }
        }
        command
            .env(MARK, self.folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
    }

    /// Every process that was started here and lives.
    pub fn processes(&self) -> Vec<process::Process> {
        process::with_environment(MARK, self.folder.path().as_os_str())
    }

    /// Keeps the arena's files for whoever looks into a failure; says where they are.
    pub fn keep(&self) -> PathBuf {
        let kept = std::env::temp_dir().join(self.folder.path().file_name().unwrap_or_default());
        let _ = Command::new("cp")
            .arg("-r")
            .arg(self.store())
            .arg(&kept)
            .status();
        kept
    }
}

impl Drop for Arena {
    /// Ends what a failed campaign left.
    fn drop(&mut self) {
        for left in self.processes() {
            left.kill(libc::SIGKILL);
        }
    }
}

fn url(kind: Kind, store: &Path) -> String {
    let store = store.display();
    match kind {
        Kind::Local => format!("sqlite:{store}/joblock.db"),
        Kind::Shared | Kind::Far => format!("sqlite:{store}/joblock.db?shared"),
        Kind::Lockfile => format!("lockfile:{store}"),
    }
}

/// In memory where that can be had: what a disk takes for a sync is not what is tried here.
fn folder() -> TempDir {
    TempDir::with_prefix_in("campaign-", "/dev/shm")
        .or_else(|_| TempDir::with_prefix("campaign-"))
        .expect("a folder for the arena")
}

/// The job, compiled once.
pub fn job() -> &'static Path {
    static JOB: OnceLock<PathBuf> = OnceLock::new();
    JOB.get_or_init(|| {
        let job = Path::new(env!("CARGO_TARGET_TMPDIR")).join("campaign-job");
        let made = job.with_extension(std::process::id().to_string());
        let done = Command::new("cc")
            .args(["-O2", "-static", "-Wall", "-Wextra", "-Werror", "-o"])
            .arg(&made)
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/campaign/job.c"))
            .output()
            .expect("cc, which building joblock needs as well");
        assert!(
            done.status.success(),
            "{}",
            String::from_utf8_lossy(&done.stderr)
        );
        // one that another program of this kind executes just now stays what it is
        fs::rename(&made, &job).expect("rename");
        job
    })
}
