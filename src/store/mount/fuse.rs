//! Who keeps a FUSE mount's locks: the kernel here, or the daemon behind it, which may pass them on.
//!
//! The mount table does not tell. But a lock that the kernel keeps stands in the descriptor's `fdinfo` (`proc_pid_fdinfo(5)`), and
//! one that it left to the daemon does not: `fuse_file_flock` and `fuse_file_lock` in the kernel's fs/fuse/file.c. So one is taken, on
//! a file that is made for it.
//!
//! Not told by this: whether the daemon passes it on to other machines.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

use rustix::fs::{FlockOperation, fcntl_lock, flock};

use super::lies::Locks;
use crate::kernel_file;
use crate::name::RunId;

/// Which of the kinds `asked` for the kernel keeps to itself on the FUSE mount that `folder` is on.
pub fn kept_here(folder: &Path, asked: &[Locks]) -> io::Result<Vec<Locks>> {
    let path = folder.join(format!("probe.{}", RunId::random()));
    let file = File::options().write(true).create_new(true).open(&path)?;
    let answer = asked
        .iter()
        .filter_map(|kind| match is_kept_here(&file, *kind) {
            Ok(kept) => kept.then_some(Ok(*kind)),
            Err(error) => Some(Err(error)),
        })
        .collect();
    // nobody else uses it, and nothing depends on it
    let _ = fs::remove_file(&path);
    answer
}

fn is_kept_here(file: &File, kind: Locks) -> io::Result<bool> {
    match kind {
        Locks::Flock => flock(file, FlockOperation::NonBlockingLockExclusive)?,
        Locks::Posix => fcntl_lock(file, FlockOperation::NonBlockingLockExclusive)?,
    }
    let seen = kernel_file::text(format!("/proc/self/fdinfo/{}", file.as_raw_fd()));
    match kind {
        Locks::Flock => flock(file, FlockOperation::Unlock)?,
        Locks::Posix => fcntl_lock(file, FlockOperation::Unlock)?,
    }
    Ok(seen?.lines().any(|line| line.starts_with("lock:")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_of_ours_has_its_locks_kept_here() {
        let folder = tempfile::TempDir::new().expect("a folder");
        let both = [Locks::Flock, Locks::Posix];
        let kept = kept_here(folder.path(), &both).expect("locks");
        assert_eq!(kept, both);
        assert_eq!(fs::read_dir(folder.path()).expect("the folder").count(), 0);
    }
}
