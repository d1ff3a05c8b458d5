//! Records that the database could not take: one file each, complete in itself, folded in by whoever writes next.
//!
//! A file appears under its name only when it is whole and on the disk. Folding in is done twice if need be and comes to the same.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::lockfile::file;
use super::record::{RunRecord, Tail};
use super::{Recorded, StoreError};
use crate::name::RunId;

/// No record is larger, in bytes: 16 MiB of output as a list of numbers, and the row. A larger file is none of ours.
const LARGEST: u64 = 80 << 20;
/// As much is folded in at once, in bytes, and at least one record.
const LARGEST_FOLD: u64 = 32 << 20;
/// As much is kept of records without their output, in bytes: whoever may write the store must not fill our memory.
const LARGEST_RECORDS: usize = 64 << 20;
/// How long one process folds in what others left, before it goes on with its own.
const LONGEST_FOLD: Duration = Duration::from_secs(5);

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

/// The part of an entry that is asked for often: to read the output takes a thousand times as long.
#[derive(Deserialize)]
struct Head {
    record: RunRecord,
}

/// Inode, size and time of a file: a record's never changes under its name.
type Stamp = (u64, u64, i64, i64);

/// A folder of them, made when the first is written.
#[derive(Debug, Clone)]
pub struct Spool {
    folder: PathBuf,
    /// What was read before.
    known: Arc<Mutex<HashMap<PathBuf, (Stamp, RunRecord)>>>,
}

impl Spool {
    /// The spool at `folder`.
    pub fn at(folder: PathBuf) -> Self {
        Spool {
            folder,
            known: Arc::default(),
        }
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

    /// Spools `record` if the database did not take it. One that the database took after all is folded in without harm.
    pub fn instead(
        &self,
        written: Result<(), StoreError>,
        record: &RunRecord,
        tail: Option<&Tail>,
    ) -> Result<Recorded, StoreError> {
        let Err(why) = written else {
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
        mut write: impl FnMut(&[Entry]) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let began = Instant::now();
        loop {
            let (paths, entries): (Vec<_>, Vec<_>) = self.entries().into_iter().unzip();
            if entries.is_empty() || began.elapsed() > LONGEST_FOLD {
                return Ok(());
            }
            write(&entries)?;
            for path in paths {
                match fs::remove_file(&path) {
                    // another one folded it in as well
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Ok(()),
                    _ => {}
                }
            }
        }
    }

    /// The files, the oldest first.
    fn files(&self) -> Vec<(PathBuf, Stamp)> {
        let folder = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let paths = folder
            .map(|file| file.path())
            .filter(|path| path.extension().is_some_and(|e| e == "json"));
        let mut files: Vec<_> = paths
            .filter_map(|path| {
                let meta = path.symlink_metadata().ok()?;
                let stamp = (meta.ino(), meta.size(), meta.mtime(), meta.mtime_nsec());
                Some((path, stamp))
            })
            .collect();
        files.sort_by_key(|(_, (_, _, seconds, nanoseconds))| (*seconds, *nanoseconds));
        files
    }

    /// The records that are there, without their output, in their order; the oldest, if there are too many. A file that can't be read
    /// or understood is left for somebody who can.
    pub fn records(&self) -> Vec<RunRecord> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let mut before = std::mem::take(&mut *known);
        let mut left = LARGEST_RECORDS;
        for (path, stamp) in self.files() {
            let same = before.remove(&path).filter(|(then, _)| *then == stamp);
            let head = || Some((stamp, read::<Head>(&path)?.record));
            let Some(found) = same.or_else(head) else {
                continue;
            };
            let size = serde_json::to_vec(&found.1).map_or(0, |json| json.len());
            let Some(rest) = left.checked_sub(size) else {
                break;
            };
            left = rest;
            known.insert(path, found);
        }
        let mut records: Vec<_> = known.values().map(|(_, record)| record.clone()).collect();
        in_order(&mut records, |record| record);
        records
    }

    /// The oldest of what is there, in its order.
    fn entries(&self) -> Vec<(PathBuf, Entry)> {
        let mut left = LARGEST_FOLD;
        let mut entries = Vec::new();
        for (path, (_, size, ..)) in self.files() {
            if size > left && !entries.is_empty() {
                break;
            }
            left = left.saturating_sub(size);
            entries.extend(read::<Entry>(&path).map(|entry| (path, entry)));
        }
        in_order(&mut entries, |(_, entry)| &entry.record);
        entries
    }

    /// The output of a run.
    pub fn tail(&self, run: &RunId) -> Option<Tail> {
        let run = run.as_str().as_bytes();
        let is_own = |path: &PathBuf| {
            let name = path.file_name();
            name.is_some_and(|name| name.as_encoded_bytes().starts_with(run))
        };
        let files = self.files().into_iter().map(|(path, _)| path);
        files
            .filter(is_own)
            .find_map(|path| read::<Entry>(&path)?.tail())
    }
}

/// By the time of their start, and those of one lock by their tokens, which no clock can put out of order.
fn in_order<T>(items: &mut Vec<T>, record: impl Fn(&T) -> &RunRecord) {
    let key = |item: &T| (record(item).started.0, record(item).end.is_some());
    items.sort_by_key(key);
    let mut granted: BTreeMap<_, Vec<usize>> = BTreeMap::new();
    for (at, item) in items.iter().enumerate() {
        if record(item).token.is_some() {
            granted
                .entry(record(item).lock.clone())
                .or_default()
                .push(at);
        }
    }
    let mut order: Vec<usize> = (0..items.len()).collect();
    for places in granted.values() {
        let mut by_token = places.clone();
        by_token.sort_by_key(|&at| (record(&items[at]).token, key(&items[at])));
        for (&to, from) in places.iter().zip(by_token) {
            order[to] = from;
        }
    }
    let mut taken: Vec<Option<T>> = items.drain(..).map(Some).collect();
    items.extend(order.into_iter().filter_map(|at| taken[at].take()));
}

fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    let file = file::open(path, false, false).ok()?;
    let size = file.metadata().ok()?.len();
    if size > LARGEST {
        return None;
    }
    serde_json::from_reader(io::BufReader::new(file.take(size))).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::Token;
    use crate::output::record::tests::run;
    use crate::store::record::Outcome;

    fn entry(ago: i64, token: u64) -> Entry {
        let mut record = run("sync", ago, Outcome::Succeeded);
        record.run_id = RunId::random();
        record.token = Some(Token(token));
        let tail = Tail {
            bytes: vec![7],
            total: 1,
        };
        Entry::new(record, Some(&tail))
    }

    #[test]
    fn what_waits_is_folded_in_whole_by_its_tokens_and_is_gone_then() {
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool::at(dir.path().join("spool"));
        // a clock was set back between the first and the second
        let entries = [entry(10, 1), entry(20, 2), entry(5, 3)];
        for entry in &entries {
            spool.write(entry).unwrap();
        }
        let tail = spool.tail(&entries[1].record.run_id).unwrap();
        assert_eq!((tail.bytes, tail.total), (vec![7], 1));
        let refuses = |_: &[Entry]| Err(StoreError::Timeout(String::new()));
        assert!(spool.fold(refuses).is_err());
        let mut folded = Vec::new();
        let mut fold = |new: &[Entry]| {
            folded.extend_from_slice(new);
            Ok(())
        };
        spool.fold(&mut fold).unwrap();
        spool.fold(&mut fold).unwrap();
        assert_eq!(folded, entries);
        assert_eq!(folded[0].tail().map(|tail| tail.bytes), Some(vec![7]));
        assert!(spool.records().is_empty());
    }

    #[test]
    fn what_another_folds_in_meanwhile_keeps_nothing_else_there() {
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool::at(dir.path().join("spool"));
        let first = spool.write(&entry(10, 1)).unwrap();
        spool.write(&entry(5, 2)).unwrap();
        spool
            .fold(|_| {
                fs::remove_file(&first).unwrap();
                Ok(())
            })
            .unwrap();
        assert!(spool.records().is_empty());
    }

    #[test]
    fn a_file_that_is_too_large_for_a_record_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool::at(dir.path().join("spool"));
        let path = spool.write(&entry(10, 1)).unwrap();
        assert_eq!(spool.records().len(), 1);
        let mut file = File::options().append(true).open(path).unwrap();
        file.write_all(&vec![b' '; usize::try_from(LARGEST).unwrap()])
            .unwrap();
        assert!(spool.records().is_empty());
    }
}
