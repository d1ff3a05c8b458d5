//! Who waits for a lock: each waiter has one byte of the file `<lock>.waiting` locked, so that others can count them.
//!
//! The locks belong to open file descriptions (fcntl(2), `F_OFD_SETLK`): the kernel drops them however the waiter dies, and
//! nobody else has the descriptor. They are counted for `--max-waiters` and `status` only; no grant depends on them.
//!
//! Not guaranteed: that waiters on other machines are counted, where the mount's record locks don't reach them. Then each
//! machine counts its own.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::path::Path;

use super::file;

/// Bytes that waiters lock. Waiters beyond that many are not counted.
const PLACES: libc::off_t = 100_000;

/// A place among those who wait; it is given up when it is dropped.
#[derive(Debug)]
pub struct Queued(#[expect(dead_code, reason = "open, it holds the place")] File);

/// Takes a place in the queue at `path`. With a `limit`: only if fewer than that wait; else the error is how many do.
pub fn enter(path: &Path, limit: Option<u32>) -> io::Result<Result<Queued, u32>> {
    let file = match file::open(path, true, false) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            file::create(path)?;
            file::open(path, true, false)?
        }
        other => other?,
    };
    let fd = file.as_raw_fd();
    let places = limit.map_or(PLACES, |limit| PLACES.min(limit.into()));
    for place in 0..places {
        if !try_lock(fd, place)? {
            continue;
        }
        // Places may be left open below those of others who came with a higher limit, or with none.
        let others = others(fd)?;
        return Ok(match limit {
            Some(limit) if others >= limit => Err(others),
            _ => Ok(Queued(file)),
        });
    }
    Ok(match limit {
        Some(_) => Err(others(fd)?),
        None => Ok(Queued(file)),
    })
}

/// How many wait in the queue at `path`.
pub fn length(path: &Path) -> io::Result<u32> {
    match file::open(path, false, false) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        file => others(file?.as_raw_fd()),
    }
}

/// How many have a place through another descriptor.
fn others(fd: RawFd) -> io::Result<u32> {
    let (mut from, mut count) = (0, 0);
    while from < PLACES {
        let mut lock = range(from, PLACES - from);
        // SAFETY: the descriptor is open, and `lock` is a valid flock for the kernel to fill in.
        if unsafe { libc::fcntl(fd, libc::F_OFD_GETLK, &raw mut lock) } != 0 {
            return Err(io::Error::last_os_error());
        }
        if i32::from(lock.l_type) == libc::F_UNLCK {
            break;
        }
        count += 1;
        from = lock.l_start + 1;
    }
    Ok(count)
}

fn try_lock(fd: RawFd, place: libc::off_t) -> io::Result<bool> {
    let lock = range(place, 1);
    // SAFETY: the descriptor is open, and `lock` outlives the call.
    if unsafe { libc::fcntl(fd, libc::F_OFD_SETLK, &raw const lock) } == 0 {
        return Ok(true);
    }
    match io::Error::last_os_error() {
        error if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => Ok(false),
        error => Err(error),
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "libc's constants and fields differ in width"
)]
fn range(from: libc::off_t, length: libc::off_t) -> libc::flock {
    // SAFETY: `flock` is a plain struct of integers, for which zeros are a value.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = libc::F_WRLCK as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    lock.l_start = from;
    lock.l_len = length;
    lock
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_get_a_place_and_one_that_is_given_up_is_free() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("a.waiting");
        assert_eq!(length(&path).expect("no queue"), 0);
        // who can't look does not know that nobody waits
        std::fs::write(dir.path().join("file"), "").expect("a file");
        assert!(length(&dir.path().join("file/x")).is_err());
        let enter = |limit| enter(&path, limit).expect("a queue");
        let one = enter(Some(2)).expect("free");
        let two = enter(Some(2)).expect("free");
        assert_eq!(enter(Some(2)).err(), Some(2));
        assert_eq!(length(&path).expect("a queue"), 2);
        let three = enter(None).expect("no limit");
        drop(one);
        // the first byte is free, and two wait
        assert_eq!(enter(Some(2)).err(), Some(2));
        let four = enter(Some(3)).expect("free");
        drop((two, three, four));
        let _five = enter(Some(1)).expect("free");
        assert_eq!(enter(Some(1)).err(), Some(1));
    }
}
