//! Files in the folder where doctors meet: each writes its own, in blocks with a sum, and reads the other's.
//!
//! The first block is a [`Sign`], written again and again; each further one is a letter and is written once. A reader opens the file
//! anew for each look, past the page cache where that can be had: network file systems promise that what was
//! written is seen by whoever opens the file after that, and hardly more.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::name::RunId;
use crate::store::lockfile::file;
use crate::store::lockfile::slots::{self, BLOCK, Block};
use crate::store::trust;

/// More letters than the script has.
const BLOCKS: u64 = 64;
/// What is older than this, by the file system's own clock, was left by a doctor that is gone.
const OLD: Duration = Duration::from_secs(3600);

/// How often a folder is tried that another one may be making, or removing.
const TRIES: u32 = 20;
const AGAIN: Duration = Duration::from_millis(100);

const END: &str = ".mail";

/// How a doctor shows itself to others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sign {
    /// Which script it has.
    pub protocol: u32,
    /// Its joblock's version.
    pub joblock: String,
    /// Its host's name.
    pub host: String,
    /// How often it was written: one that grows is alive.
    pub beat: u64,
    /// With whom it would go through the script.
    pub offer: Option<RunId>,
    /// With whom it will.
    pub paired: Option<RunId>,
    /// They are a pair, and it looks no further.
    pub met: bool,
}

/// Our own mailbox.
#[derive(Debug)]
pub struct Mailbox {
    /// The folder.
    pub folder: PathBuf,
    /// Whose.
    pub id: RunId,
    /// As long as it is there.
    file: Option<File>,
    said: u64,
}

/// A file of the doctor `id`.
pub fn path(folder: &Path, id: &RunId, end: &str) -> PathBuf {
    folder.join(format!("{id}{end}"))
}

/// The doctor that a file is named for.
fn whose(name: &str) -> Option<RunId> {
    name.split_once('.')?.0.parse().ok()
}

/// What another wrote into its block with that number: letters count from 1. `None`: it is not there yet.
pub fn read<T: DeserializeOwned>(folder: &Path, id: &RunId, block: u64) -> io::Result<Option<T>> {
    let file = file::open(&path(folder, id, END), false, true)?;
    match slots::read_at(&file, block * BLOCK as u64)? {
        Block::Newer(version) => Err(io::Error::other(format!(
            "it writes blocks of version {version}, this joblock knows {}",
            slots::VERSION
        ))),
        other => Ok(other.whole()),
    }
}

/// The sign of another; `None` where it can't be read (any more).
pub fn sign(folder: &Path, id: &RunId) -> Option<Sign> {
    read(folder, id, 0).ok().flatten()
}

impl Mailbox {
    /// Makes the folder, if need be, and a mailbox in it.
    pub fn make(folder: &Path, id: &RunId) -> io::Result<Self> {
        let mut tries = 0;
        loop {
            match Self::try_make(folder, id) {
                // another one is about to give the folder that it made to the group, or removes it, being the last
                Err(error)
                    if tries < TRIES
                        && matches!(
                            error.kind(),
                            io::ErrorKind::PermissionDenied | io::ErrorKind::NotFound
                        ) =>
                {
                    tries += 1;
                    sleep(AGAIN);
                }
                other => return other,
            }
        }
    }

    fn try_make(folder: &Path, id: &RunId) -> io::Result<Self> {
        file::create_folder(folder)?;
        trust::check_part(folder, true).map_err(io::Error::other)?;
        if let Some(store) = folder.parent()
            && file::mode_in(folder)? != file::mode_in(store)?
        {
            let kind = io::ErrorKind::PermissionDenied;
            return Err(io::Error::new(
                kind,
                "its rights are not those of the store's folder: remove it",
            ));
        }
        let path = path(folder, id, END);
        file::create(&path)?;
        let file = file::open(&path, true, true)?;
        // readers may go by the size that they know
        file.set_len(BLOCKS * BLOCK as u64)?;
        Ok(Mailbox {
            folder: folder.to_owned(),
            id: id.clone(),
            file: Some(file),
            said: 0,
        })
    }

    /// Shows a sign.
    pub fn show(&self, sign: &Sign) -> io::Result<()> {
        slots::write_at(self.file()?, 0, sign, true)
    }

    fn file(&self) -> io::Result<&File> {
        self.file.as_ref().ok_or(io::ErrorKind::NotFound.into())
    }

    /// Writes the next letter.
    pub fn say<T: Serialize>(&mut self, letter: &T) -> io::Result<()> {
        self.said += 1;
        slots::write_at(self.file()?, self.said * BLOCK as u64, letter, true)
    }

    /// A file of ours.
    pub fn own(&self, end: &str) -> PathBuf {
        path(&self.folder, &self.id, end)
    }

    /// Whose mailboxes there are.
    pub fn others(&self) -> io::Result<Vec<RunId>> {
        self.make_the_folder_known()?;
        let mut others = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let name = entry?.file_name();
            let id = name.to_str().and_then(|name| name.strip_suffix(END));
            others.extend(
                id.and_then(|id| id.parse().ok())
                    .filter(|id| *id != self.id),
            );
        }
        others.sort();
        Ok(others)
    }

    /// A network file system's client may go on showing a folder as it was half a minute ago, but not after a change of its own.
    fn make_the_folder_known(&self) -> io::Result<()> {
        let path = self.own(".look");
        file::create(&path)?;
        fs::remove_file(&path)
    }

    /// Removes what doctors that are gone left behind, by the dates that the file system gave their files and ours.
    pub fn sweep(&self) -> io::Result<()> {
        let own = self.file()?.metadata()?.mtime();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let name = entry.file_name();
            let is_a_doctors = name.to_str().and_then(whose).is_some();
            // one that is gone by now was another's
            let Ok(meta) = entry.metadata() else {
                continue;
            };
            let age = own.saturating_sub(meta.mtime());
            if is_a_doctors && u64::try_from(age).is_ok_and(|age| age > OLD.as_secs()) {
                // another may be at it, too
                let _ = fs::remove_file(entry.path());
            }
        }
        Ok(())
    }
}

impl Drop for Mailbox {
    /// Removes all files of ours, the folder if they were the last, and those of others who have no mailbox any more: whoever tries
    /// the lock of one that was just ended makes its file anew.
    fn drop(&mut self) {
        // NFS clients keep a file that is removed while it is open, under another name
        self.file = None;
        let names = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let names: Vec<_> = names
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        let stays = |id: &str| id != self.id.as_str() && names.contains(&format!("{id}{END}"));
        for name in &names {
            if whose(name).is_some_and(|id| !stays(id.as_str())) {
                let _ = fs::remove_file(self.folder.join(name));
            }
        }
        let _ = fs::remove_dir(&self.folder);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn doctor(folder: &Path) -> Mailbox {
        Mailbox::make(folder, &RunId::random()).expect("a mailbox")
    }

    #[test]
    fn letters_come_in_their_order_and_nothing_is_left() {
        let dir = tempfile::tempdir().expect("a folder");
        let folder = dir.path().join("peer");
        let mut one = doctor(&folder);
        let two = doctor(&folder);
        assert_eq!(two.others().expect("a list"), [one.id.clone()]);
        let heard = |number| read::<String>(&folder, &one.id, number).expect("read");
        assert_eq!(heard(1), None);
        one.say(&"a").expect("write");
        one.say(&"b").expect("write");
        let heard = |number| read::<String>(&folder, &one.id, number).expect("read");
        assert_eq!(
            (heard(1), heard(2), heard(3)),
            (Some("a".into()), Some("b".into()), None)
        );
        let late = one.own(".flock");
        drop(one);
        assert!(folder.exists());
        file::create(&late).expect("a file of one that is gone");
        drop(two);
        assert!(!folder.exists());
    }

    #[test]
    fn a_folder_that_is_being_removed_or_made_is_tried_again() {
        let dir = tempfile::tempdir().expect("a folder");
        let folder = dir.path().join("peer");
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        drop(doctor(&folder));
                    }
                });
            }
        });
        assert!(!folder.exists());
    }

    #[test]
    fn only_old_files_of_doctors_are_swept() {
        let dir = tempfile::tempdir().expect("a folder");
        let folder = dir.path().join("peer");
        let own = doctor(&folder);
        let now = own
            .own(END)
            .metadata()
            .expect("stat")
            .modified()
            .expect("time");
        let make = |name: String, age: u64| {
            let file = File::create(folder.join(&name)).expect("a file");
            file.set_modified(now - Duration::from_secs(age))
                .expect("a date");
            name
        };
        let young = make(format!("{}.mail", RunId::random()), 600);
        let old = make(format!("{}.flock", RunId::random()), 7200);
        let somebody = make("notes.txt".into(), 7200);
        own.sweep().expect("a sweep");
        assert!(folder.join(young).exists() && folder.join(somebody).exists());
        assert!(!folder.join(old).exists() && own.own(END).exists());
    }
}
