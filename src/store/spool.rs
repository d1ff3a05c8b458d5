//! Records that the database could not take: one file each, complete in itself, folded in by whoever writes next.
//!
//! A file appears under its name only when it is whole and on the disk. Folding in is done twice if need be and comes to the same.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::lockfile::file;
use super::record::{RunRecord, Tail};
use super::{Recorded, StoreError};

/// No record is larger, in bytes: 16 MiB of output as a list of numbers, and the row. A larger file is none of ours.
const LARGEST: u64 = 80 << 20;
/// As much is read at once.
const LARGEST_FOLD: u64 = 4 * LARGEST;

/// One record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// The whole row, with its end if it has one.
    pub record: RunRecord,
    /// Output and how much there was.
    tail: Option<(Vec<u8>, u64)>,
}

impl Entry {
    /// Of a record and the output that is kept with it.
    pub fn new(record: RunRecord, tail: Option<&Tail>) -> Self {
        Entry {
            record,
            tail: tail.map(|t| (t.bytes.clone(), t.total)),
        }
    }

    /// The output.
    pub fn tail(&self) -> Option<Tail> {
        self.tail
            .clone()
            .map(|(bytes, total)| Tail { bytes, total })
    }
}

/// A folder of them, made when the first is written.
#[derive(Debug, Clone)]
pub struct Spool {
    folder: PathBuf,
}

impl Spool {
    /// The spool at `folder`.
    pub fn at(folder: PathBuf) -> Self {
        Spool { folder }
    }

    /// Writes a record; its file.
    pub fn write(&self, entry: &Entry) -> io::Result<PathBuf> {
        file::create_folder(&self.folder)?;
        let stem = format!("{}.{}", entry.record.run_id, entry.record.outcome);
        let (new, path) = (
            self.folder.join(format!("{stem}.new")),
            self.folder.join(format!("{stem}.json")),
        );
        // left by one that crashed while it wrote: the run id is ours alone
        let _ = fs::remove_file(&new);
        let written = Self::write_whole(&new, entry).and_then(|()| fs::rename(&new, &path));
        if written.is_err() {
            // on a full disk even an empty file is one too many
            let _ = fs::remove_file(&new);
        }
        written?;
        File::open(&self.folder)?.sync_all()?;
        // the folder itself may be new: without its name, all in it is lost with the power
        if let Some(above) = self.folder.parent() {
            File::open(above)?.sync_all()?;
        }
        Ok(path)
    }

    fn write_whole(new: &Path, entry: &Entry) -> io::Result<()> {
        file::create(new)?;
        let mut file = file::open(new, true, false)?;
        file.write_all(&serde_json::to_vec(entry)?)?;
        file.sync_all()
    }

    /// Spools `record` if the database did not take it, else calls `fold`: this process is through with what matters, and the next
    /// start need not do it. A record that the database took after all is folded in without harm.
    pub fn instead(
        &self,
        written: Result<(), StoreError>,
        record: &RunRecord,
        tail: Option<&Tail>,
        fold: impl FnOnce() -> Result<(), StoreError>,
    ) -> Result<Recorded, StoreError> {
        let Err(why) = written else {
            // what can't be folded in now stays for the next one
            let _ = fold();
            return Ok(Recorded::Stored);
        };
        match self.write(&Entry::new(record.clone(), tail)) {
            Ok(file) => Ok(Recorded::Spooled {
                why: why.to_string(),
                file,
            }),
            Err(_) => Err(why),
        }
    }

    /// Has `write` store what is there, and removes it then.
    pub fn fold(
        &self,
        write: impl FnOnce(&[Entry]) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let (paths, entries): (Vec<_>, Vec<_>) = self.entries().into_iter().unzip();
        if !entries.is_empty() {
            write(&entries)?;
            for path in paths {
                let _ = fs::remove_file(path);
            }
        }
        Ok(())
    }

    /// What is there, in the order of tokens. A file that can't be read or understood is left for somebody who can.
    pub fn entries(&self) -> Vec<(PathBuf, Entry)> {
        let Ok(folder) = fs::read_dir(&self.folder) else {
            return Vec::new();
        };
        let paths = folder
            .filter_map(|file| file.ok().map(|f| f.path()))
            .filter(|path| path.extension().is_some_and(|e| e == "json"));
        let mut left = LARGEST_FOLD;
        let mut entries: Vec<_> = paths
            .filter_map(|path| read(&path, &mut left).map(|entry| (path, entry)))
            .collect();
        entries.sort_by_key(|(_, entry)| (entry.record.token, entry.record.started.0));
        entries
    }
}

/// `left`: how many bytes may be read yet. What is too much for now is read another time.
fn read(path: &Path, left: &mut u64) -> Option<Entry> {
    let file = file::open(path, false, false).ok()?;
    let size = file.metadata().ok()?.len();
    if size > LARGEST.min(*left) {
        return None;
    }
    *left -= size;
    serde_json::from_reader(io::BufReader::new(file.take(size))).ok()
}
