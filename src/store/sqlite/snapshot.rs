//! What a database held at its last commit, read past a lock that nobody gives back: its owner is stopped in the midst of a commit, or
//! was on a machine that lost its power, whose locks an NFSv3 server keeps.
//!
//! The database and its rollback journal are copied, and SQLite rolls the copy back. They were the same before the copy, when they had
//! rested for a while, and after it, so nobody wrote in between. As long as they stay the same nothing was committed either.
//! See <https://sqlite.org/fileformat2.html#the_rollback_journal>.
//!
//! Not guaranteed: anything for a database with a write-ahead log. Opening and closing the files gives up every POSIX lock that
//! this process has on them: no connection to them may be open.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use crate::store::lockfile::file;

/// File systems tell the time of a write to a few milliseconds.
const REST: Duration = Duration::from_millis(100);

/// No more bytes are copied of a file: whoever may write the store must not fill the file system of our temporary files.
const LARGEST: u64 = 1 << 30;

/// Which file, how long, and when it was written: in seconds and nanoseconds.
type Look = Option<[i64; 6]>;

/// What the database's files were like; by default, there were none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State([Look; 2]);

/// A copy that can be opened, until it is dropped; what is open by then can still be read.
#[derive(Debug)]
pub struct Snapshot {
    folder: TempDir,
    /// What it was taken of.
    pub state: State,
}

fn journal(path: &Path) -> PathBuf {
    let mut journal = path.as_os_str().to_owned();
    journal.push("-journal");
    journal.into()
}

/// Opened, as network file systems promise only then that it is not what they knew a while ago.
fn opened(path: &Path) -> io::Result<Option<File>> {
    match file::open(path, false, false) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn look(path: &Path) -> io::Result<Look> {
    let Some(file) = opened(path)? else {
        return Ok(None);
    };
    let meta = file.metadata()?;
    Ok(Some([
        meta.ino().cast_signed(),
        meta.size().cast_signed(),
        meta.mtime(),
        meta.mtime_nsec(),
        meta.ctime(),
        meta.ctime_nsec(),
    ]))
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    if let Some(file) = opened(from)? {
        io::copy(&mut file.take(LARGEST), &mut File::create_new(to)?)?;
    }
    Ok(())
}

impl State {
    /// What they are like now.
    pub fn of(path: &Path) -> io::Result<Self> {
        Ok(State([look(path)?, look(&journal(path))?]))
    }
}

impl Snapshot {
    /// Copies the database at `path` into a folder of our own. An error too if somebody writes it.
    pub fn take(path: &Path) -> io::Result<Self> {
        let state = State::of(path)?;
        std::thread::sleep(REST);
        // without links on the way, which SQLite is told to refuse
        let folder = tempfile::Builder::new()
            .prefix("joblock-")
            .tempdir_in(std::env::temp_dir().canonicalize()?)?;
        let taken = Snapshot { folder, state };
        if taken
            .state
            .0
            .iter()
            .flatten()
            .any(|look| look[1].cast_unsigned() > LARGEST)
        {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        copy(path, &taken.path())?;
        copy(&journal(path), &journal(&taken.path()))?;
        if State::of(path)? == taken.state {
            Ok(taken)
        } else {
            Err(io::ErrorKind::ResourceBusy.into())
        }
    }

    /// The copy.
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("copy.db")
    }
}
