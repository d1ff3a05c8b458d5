//! A locked lock file in the hands of its holder, or of somebody who is about to become it.
//!
//! Two descriptors. The *locked* one is inherited by the job; nothing is ever written through it, since a dirty
//! page behind it would keep the job from dying on a dead network mount. All blocks go through the
//! *second* one, which nobody inherits. On a mount that is not local both are `O_DIRECT`, so that what is read is
//! what stands on the server now.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::io::Errno;

use super::file::{self, LockFile};
use super::slots::{self, Block, Claim, Holders, Place, Slot};
use crate::lease::heartbeat::Wishes;
use crate::name::{RunId, Token};
use crate::store::Request;

/// See the module.
#[derive(Debug)]
pub struct Side {
    /// The locked descriptor and its path.
    pub lock: LockFile,
    second: File,
}

/// The wishes of others, with the words that came with them.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    /// What the lease decides by.
    pub wishes: Wishes,
    /// The revocation.
    pub revoke: Option<Request>,
    /// The request to stop.
    pub stop: Option<Request>,
}

impl Side {
    /// Takes over a file whose lock was just taken; `None`: its path names another file by now.
    pub fn of(lock: LockFile) -> io::Result<Option<Self>> {
        let Some(second) = lock.second()? else {
            return Ok(None);
        };
        if !lock.is_at_path()? {
            return Ok(None);
        }
        let size = rustix::fs::fstat(&second)?.st_size.cast_unsigned();
        if size < slots::SIZE {
            make_room(&second, size)?;
        }
        Ok(Some(Side { lock, second }))
    }

    /// What stands in the slots now.
    pub fn holders(&self) -> io::Result<Holders> {
        slots::holders(&self.second)
    }

    /// Writes a slot into its block.
    pub fn write(&self, slot: &Slot, durable: bool) -> io::Result<()> {
        slots::write(
            &self.second,
            Place::Slot(slot.token, slot.seq),
            slot,
            durable,
        )
    }

    /// Lays the claim on grant `token`, for good: its holder, should it be alive, sees it at its next heartbeat at the latest.
    pub fn claim(&self, token: Token, by: &RunId) -> io::Result<()> {
        slots::write(
            &self.second,
            Place::Claim(token),
            &Claim {
                token,
                by: by.clone(),
            },
            true,
        )
    }

    /// What others want of the holder of grant `own`.
    pub fn asked(&self, own: Token) -> io::Result<Asked> {
        asked(&self.second, own)
    }

    /// Whether the locked descriptor still reads: on NFS version 4 it gives EIO once the server has taken the lock away.
    /// Local file systems never take a lock away, and are not asked.
    pub fn still_locked(&self) -> io::Result<bool> {
        if self.lock.local {
            return Ok(true);
        }
        match slots::touch(&self.lock) {
            Ok(()) => Ok(true),
            Err(error) if matches!(error.raw_os_error(), Some(libc::EIO | libc::ESTALE)) => {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }
}

/// Room for every block at once, so that a full disk stops no heartbeat.
fn make_room(file: &File, size: u64) -> io::Result<()> {
    let flags = rustix::fs::FallocateFlags::empty();
    match rustix::fs::fallocate(file, flags, 0, slots::SIZE) {
        Err(Errno::NOSPC) => Err(io::ErrorKind::StorageFull.into()),
        Err(Errno::DQUOT) => Err(io::ErrorKind::QuotaExceeded.into()),
        // NFSv3 can't: a file that is all new is filled
        Err(Errno::OPNOTSUPP) if size == 0 => slots::fill(file),
        _ => Ok(()),
    }
}

impl AsFd for Side {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.lock.as_fd()
    }
}

/// What others want of the holder of grant `own`, by the blocks of `file`. A claim that can't be read is an error:
/// it may be one on us.
pub fn asked(file: &File, own: Token) -> io::Result<Asked> {
    let claimed = match slots::read::<Claim>(file, Place::Claim(own))? {
        Block::Empty => None,
        Block::Whole(claim) => Some(claim.token),
        Block::Torn | Block::Newer(_) => {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a claim in the lock file can't be read: move the file away once nothing runs under this lock",
            ));
        }
    };
    let revoke = slots::read::<Request>(file, Place::Revoke)?.whole();
    let stop = slots::read::<Request>(file, Place::Stop)?.whole();
    let wishes = Wishes {
        claimed,
        revoked: revoke.as_ref().map(|r| r.token),
        stop: stop.as_ref().map(|r| r.token),
    };
    Ok(Asked {
        wishes,
        revoke,
        stop,
    })
}

/// What a looker sees in the lock file at `path`: its newest slot, and what is asked of the holder of `own`.
/// `None`: there is no such file, or it is not for us to read.
pub fn look(
    path: &std::path::Path,
    own: Option<Token>,
) -> io::Result<Option<(Option<Slot>, Asked)>> {
    let file = match file::open(path, false, false) {
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied
            ) =>
        {
            return Ok(None);
        }
        other => other?,
    };
    let newest = slots::holders(&file)?.newest;
    let own = own.or(newest.as_ref().map(|slot| slot.token));
    let asked = own
        .map_or(Ok(Asked::default()), |own| asked(&file, own))
        .unwrap_or_default();
    Ok(Some((newest, asked)))
}

/// Leaves a request for the holder of a grant.
pub fn leave(lock: &LockFile, place: Place, request: &Request) -> io::Result<()> {
    match lock.second()? {
        Some(file) => slots::write(&file, place, request, true),
        None => Err(io::Error::other(
            "the lock file was replaced while it was written: try again",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Wall;

    #[test]
    fn what_is_laid_into_a_lock_file_is_seen_by_holder_and_lookers() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.lock");
        assert!(look(&path, None).unwrap().is_none());
        let side = Side::of(LockFile::open_or_create(&path).unwrap())
            .unwrap()
            .unwrap();
        let asked = |token: u64| side.asked(Token(token)).unwrap().wishes;
        assert_eq!(asked(1), Wishes::default());
        side.claim(Token(1), &RunId::random()).unwrap();
        assert_eq!(asked(1).claimed, Some(Token(1)));
        let request = Request {
            token: Token(1),
            by: "somebody on blue".into(),
            reason: "a test".into(),
            at: Wall(7),
        };
        leave(&side.lock, Place::Stop, &request).unwrap();
        leave(&side.lock, Place::Revoke, &request).unwrap();
        assert_eq!(
            (asked(1).stop, asked(1).revoked),
            (Some(Token(1)), Some(Token(1)))
        );
        let (newest, seen) = look(&path, Some(Token(1))).unwrap().unwrap();
        assert_eq!((newest, seen.stop.as_ref()), (None, Some(&request)));
        // without a grant nobody is asked for anything
        let (_, seen) = look(&path, None).unwrap().unwrap();
        assert_eq!(seen.stop, None);
        // what can't be looked at is not nothing
        assert!(look(&path.join("x"), None).is_err());
    }
}
