//! What a FUSE mount does with locks: whether the kernel here keeps them, or the daemon behind it has them, which may pass
//! them on; and whether a second process gets what a first one has.
//!
//! The mount table tells neither. But a lock that the kernel keeps stands in the descriptor's `fdinfo` (`proc_pid_fdinfo(5)`), and
//! one that it left to the daemon does not: `fuse_file_flock` and `fuse_file_lock` in the kernel's fs/fuse/file.c. So one is taken, on
//! a file that is made for it. A daemon that takes the lock in its own name lets all processes here have it: bindfs
//! with `--enable-lock-forwarding` does that to fcntl(2)'s.
//!
//! Not told by this: whether the daemon passes it on to other machines.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

use rustix::fs::{FlockOperation, fcntl_lock, flock};
use rustix::io::Errno;

use super::lies::Locks;
use crate::kernel_file;
use crate::name::RunId;
use crate::store::lockfile::probe::posix_excludes;

/// The kinds of lock that don't do what they should.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Tried {
    /// The kernel keeps them to itself.
    pub kept_here: Vec<Locks>,
    /// Two processes here can have one at once.
    pub had_by_two: Vec<Locks>,
}

/// Tries the kinds `asked` for on the FUSE mount that `folder` is on.
pub fn try_locks(folder: &Path, asked: &[Locks]) -> io::Result<Tried> {
    let path = folder.join(format!("probe.{}", RunId::random()));
    let mut tried = Tried::default();
    let done = asked
        .iter()
        .try_for_each(|kind| try_kind(&path, *kind, &mut tried));
    // nobody else uses it, and nothing depends on it
    let _ = fs::remove_file(&path);
    done.map(|()| tried)
}

fn try_kind(path: &Path, kind: Locks, tried: &mut Tried) -> io::Result<()> {
    let open = || {
        let mut options = File::options();
        options.read(true).write(true).create(true).open(path)
    };
    let file = open()?;
    let take = |file: &File| match kind {
        Locks::Flock => flock(file, FlockOperation::NonBlockingLockExclusive),
        Locks::Posix => fcntl_lock(file, FlockOperation::NonBlockingLockExclusive),
    };
    take(&file)?;
    let seen = kernel_file::text(format!("/proc/self/fdinfo/{}", file.as_raw_fd()))?;
    if seen.lines().any(|line| line.starts_with("lock:")) {
        tried.kept_here.push(kind);
        return Ok(());
    }
    let is_excluded = match kind {
        Locks::Flock => take(&open()?) == Err(Errno::WOULDBLOCK),
        Locks::Posix => posix_excludes(path)?,
    };
    if !is_excluded {
        tried.had_by_two.push(kind);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_of_ours_has_its_locks_kept_here() {
        let folder = tempfile::TempDir::new().expect("a folder");
        let both = [Locks::Flock, Locks::Posix];
        let tried = try_locks(folder.path(), &both).expect("locks");
        assert_eq!((tried.kept_here, tried.had_by_two), (both.into(), vec![]));
        assert_eq!(fs::read_dir(folder.path()).expect("the folder").count(), 0);
    }
}
