//! A store with a past, kept as bytes, and put back into one and the same folder before each input: inodes and the
//! kernel lock of a living holder stay what they are.

use std::fs::{self, File};
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use joblock::clock::Wall;
use joblock::name::{LockName, Token};
use joblock::store::record::{Attempted, Outcome, Tail};
use joblock::store::{
    self, Attempt, Cleared, Clearing, Grant, Holder, LockRequest, Place, ProcessId, Purpose, Store,
    StoreUrl,
};
use rustix::fs::{FlockOperation, flock};
use tempfile::TempDir;

use super::request::{Looks, holder, record, success};

/// Whose holder lives: this process, which has its kernel lock.
pub const HELD: &str = "held";
/// Granted and released [`TOKEN`] times.
pub const FREE: &str = "free";
/// Whose holder is gone, and did not release it.
pub const DEAD: &str = "dead";
/// The newest token of [`FREE`].
pub const TOKEN: Token = Token(3);

/// Which store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Local,
    Shared,
    Lockfile,
}

pub const KINDS: [Kind; 3] = [Kind::Local, Kind::Shared, Kind::Lockfile];

pub struct Past {
    pub kind: Kind,
    pub url: StoreUrl,
    folder: TempDir,
    /// Every file as it was left.
    files: Vec<(PathBuf, Vec<u8>)>,
    _locked: File,
}

/// Never asks anybody to end, and nothing waits.
struct Gone;

impl Clearing for Gone {
    fn clear(&self, _: &Holder, _: Option<BorrowedFd<'_>>) -> Cleared {
        Cleared::Gone { ended: 0 }
    }
}

impl Past {
    pub fn new(kind: Kind) -> Past {
        // in memory: an input is a dozen syncs
        let memory = std::env::var_os("FUZZ_MEMORY").unwrap_or_else(|| "/dev/shm".into());
        let folder = if Path::new(&memory).is_dir() {
            TempDir::with_prefix_in("joblock-fuzz-", &memory)
        } else {
            TempDir::new()
        }
        .expect("a folder");
        let path = folder.path().join("s.db");
        let url = match kind {
            Kind::Local | Kind::Shared => StoreUrl::Sqlite {
                path,
                shared: kind == Kind::Shared,
                server_lease: None,
            },
            Kind::Lockfile => StoreUrl::Lockfile {
                directory: folder.path().to_owned(),
                server_lease: None,
            },
        };
        fill(&url);
        let mut files = Vec::new();
        collect(folder.path(), &mut files);
        let locked = File::open(lock_path(folder.path(), kind, HELD)).expect("a lock file");
        flock(&locked, FlockOperation::NonBlockingLockExclusive).expect("nobody has it");
        Past {
            kind,
            url,
            folder,
            files,
            _locked: locked,
        }
    }

    /// Everything as it was.
    pub fn restore(&self) {
        for folder in ["s.db.spool", "spool"] {
            let _ = fs::remove_dir_all(self.folder.path().join(folder));
        }
        for file in ["s.db-shm", "s.db-journal", "history.db-journal"] {
            let _ = fs::remove_file(self.folder.path().join(file));
        }
        for (path, bytes) in &self.files {
            fs::write(path, bytes).expect("it is put back");
        }
    }

    pub fn database(&self) -> PathBuf {
        self.folder.path().join(match self.kind {
            Kind::Lockfile => "history.db",
            _ => "s.db",
        })
    }

    pub fn spool(&self) -> PathBuf {
        self.folder.path().join(match self.kind {
            Kind::Lockfile => "spool",
            _ => "s.db.spool",
        })
    }

    pub fn lock_file(&self, lock: &str) -> PathBuf {
        lock_path(self.folder.path(), self.kind, lock)
    }

    /// A run's own ids and numbers, for `%BOOT%` and the like in texts that stand in the corpus.
    pub fn filled_in(text: &[u8]) -> Vec<u8> {
        let text = String::from_utf8_lossy(text);
        if !text.contains('%') {
            return text.into_owned().into_bytes();
        }
        let here = Place::here();
        let this = holder(&record(HELD)).processes.front;
        text.replace("%BOOT%", &here.boot_id)
            .replace("%TIME%", &here.time_ns)
            .replace("%PIDNS%", &here.pid_ns.to_string())
            .replace("%PID%", &this.pid.to_string())
            .replace("%START%", &this.start.to_string())
            .into_bytes()
    }
}

fn lock_path(folder: &Path, kind: Kind, lock: &str) -> PathBuf {
    match kind {
        Kind::Lockfile => folder.join(format!("{lock}.lock")),
        _ => folder.join(format!("s.db.locks/{lock}.lock")),
    }
}

fn collect(folder: &Path, files: &mut Vec<(PathBuf, Vec<u8>)>) {
    let mut paths: Vec<PathBuf> = fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            collect(&path, files);
        } else if !path.to_string_lossy().ends_with("-shm") {
            files.push((path.clone(), fs::read(&path).expect("a file")));
        }
    }
}

/// A request for `lock`, whose run ids are always the same, as inputs are about bytes at places.
pub fn request(lock: &str, number: u64) -> LockRequest<'static> {
    let mut record = record(lock);
    record.run_id = format!("{:016x}", 0xabcd_0000 + number)
        .parse()
        .expect("a run id");
    LockRequest {
        lock: record.lock.clone(),
        holder: holder(&record),
        record,
        ttl: None,
        clearing: &Looks,
        // or it would wait whenever nobody is named as the holder
        interrupted: &|| true,
    }
}

fn granted(store: &dyn Store, request: &LockRequest<'_>) -> Box<dyn Grant> {
    match store.try_acquire(request, None).expect("a store") {
        Attempt::Granted(grant) => grant,
        Attempt::Held(seen) => panic!("held: {seen:?}"),
    }
}

fn fill(url: &StoreUrl) {
    let store = store::open(url, Purpose::Run, None).expect("a store");
    let tail = Tail {
        bytes: b"so far\n".to_vec(),
        total: 7,
    };
    for n in 1..=TOKEN.0 {
        let mut grant = granted(store.as_ref(), &request(FREE, n));
        grant.renew().expect("ours");
        grant.release(&success(), Some(&tail)).expect("an end");
    }
    let mut living = granted(store.as_ref(), &request(HELD, 10));
    living.renew().expect("ours");
    // its processes are gone, and so is its descriptor
    let mut crashed = request(DEAD, 20);
    let nobody = ProcessId {
        pid: 1,
        start: u64::MAX,
    };
    crashed.holder.processes.front = nobody;
    crashed.holder.processes.keeper = nobody;
    crashed.holder.processes.guard = nobody;
    crashed.clearing = &Gone;
    let mut gone = granted(store.as_ref(), &crashed);
    gone.renew().expect("ours");
    let refused = Attempted {
        outcome: Outcome::Refused,
        held_by: Some(request(HELD, 10).holder),
        note: Some("a note".into()),
    };
    let again = request(HELD, 30);
    store.attempted(&again.record, &refused).expect("written");
    let stop = store::Request {
        token: living.token(),
        by: "ann on blue".into(),
        reason: "enough".into(),
        at: Wall::now(),
    };
    let name: LockName = HELD.parse().expect("a name");
    store.request_stop(&name, &stop).expect("asked");
    store
        .revoke(
            &name,
            &store::Request {
                token: Token(99),
                ..stop
            },
        )
        .expect("asked");
    drop((living, gone));
}
