//! A queue for writers: a file lock that is waited for with a limit, and passed by without it if need be.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use super::file;

/// A lock file that orders those who would otherwise race.
#[derive(Debug)]
pub struct Gate {
    path: PathBuf,
    file: Option<File>,
}

impl Gate {
    /// The gate at `path`, which is made at the first use.
    pub fn at(path: PathBuf) -> Self {
        Gate { path, file: None }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Waits until it is our turn, `limit` at most. The turn lasts as long as the answer is kept; `None`: it did not come, or there
    /// is no gate to be had, be it that something else stands in its place: the order of writers is all that depends on it.
    pub fn enter(&mut self, limit: Duration) -> Option<Turn<'_>> {
        let file = match self.file.take() {
            Some(file) => file,
            None => self.open().ok()?,
        };
        let file = match fs2::FileExt::try_lock_exclusive(&file) {
            Ok(()) => file,
            Err(error) if error.raw_os_error() == fs2::lock_contended_error().raw_os_error() => {
                wait(file, limit)?
            }
            Err(_) => return None,
        };
        Some(Turn {
            gate: self,
            file: Some(file),
        })
    }

    fn open(&self) -> io::Result<File> {
        match file::open(&self.path, true, false) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                file::create(&self.path)?;
                file::open(&self.path, true, false)
            }
            other => other,
        }
    }
}

/// flock(2) knows no limit: a thread blocks in it. If it comes too late the file is dropped, and the lock with it.
fn wait(file: File, limit: Duration) -> Option<File> {
    let (sender, receiver) = mpsc::sync_channel(0);
    let blocked = move || {
        if fs2::FileExt::lock_exclusive(&file).is_ok() {
            // fails if nobody waits any more
            let _ = sender.send(file);
        }
    };
    std::thread::Builder::new()
        .name("gate".into())
        .spawn(blocked)
        .ok()?;
    receiver.recv_timeout(limit).ok()
}

/// That it is our turn; dropped, it is the next one's.
#[derive(Debug)]
pub struct Turn<'a> {
    gate: &'a mut Gate,
    file: Option<File>,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        // nobody inherits this one, so unlocking is as good as closing, and the file need not be opened again;
        // one that can't be unlocked is closed
        self.gate.file = self
            .file
            .take()
            .filter(|file| fs2::FileExt::unlock(file).is_ok());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_passes_and_who_waits_too_long_is_told() {
        let dir = tempfile::tempdir().expect("a folder");
        let (mut one, mut two) = (
            Gate::at(dir.path().join("gate")),
            Gate::at(dir.path().join("gate")),
        );
        let turn = one.enter(Duration::ZERO).expect("free");
        assert!(two.enter(Duration::from_millis(10)).is_none());
        std::thread::scope(|s| {
            let waiting = s.spawn(|| two.enter(Duration::from_secs(60)).is_some());
            // it may be there before its turn, or not
            std::thread::sleep(Duration::from_millis(50));
            drop(turn);
            assert!(waiting.join().expect("no panic"));
        });
        assert!(one.enter(Duration::from_secs(60)).is_some());
    }
}
