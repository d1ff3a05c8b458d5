//! What front, keeper and guard say to each other: JSON in `SOCK_SEQPACKET` datagrams (unix(7)), one message each,
//! with at most one descriptor. The end of file tells that the other side is gone.

use std::ffi::OsString;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::clock::Wall;
pub use crate::lease::fence::{Cause, Deadline};
use crate::name::Token;

/// Larger than any message: texts in them are bounded by their writers.
const LARGEST: usize = 64 * 1024;

/// How the job's first process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Status {
    /// exit(3) with this code.
    Exited(i32),
    /// By this signal.
    Signaled(i32),
    /// execve(2) failed: the error number.
    NotExecuted(i32),
    /// Nobody was left who could tell.
    Unknown,
}

/// The tree is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// Of the job's first process.
    pub status: Status,
    /// Who or what ended it, if not itself.
    pub cause: Option<Cause>,
    /// From spawn to now, BOOTTIME.
    pub duration: Duration,
    /// Processes that were left when the first one ended.
    pub leaked: u32,
    /// `ru_maxrss` of the tree.
    pub peak_memory_kib: u64,
    /// User and system time of the tree.
    pub cpu: Duration,
}

impl Ended {
    /// For a tree that front or keeper ended, as the guard was killed: what it had counted is gone with it.
    pub fn without_guard(status: Status, began: Wall, leaked: u32) -> Ended {
        Ended {
            status,
            cause: Some(Cause::GuardGone),
            duration: Wall::now().since(began).unwrap_or_default(),
            leaked,
            peak_memory_kib: 0,
            cpu: Duration::ZERO,
        }
    }
}

/// Keeper to guard.
#[derive(Debug, Serialize, Deserialize)]
pub enum ToGuard {
    /// The lock is ours; the locked descriptor comes along. Start the job.
    Start {
        /// Variables to add to the job's environment.
        variables: Vec<(String, OsString)>,
        /// `None`: the kernel lock alone decides.
        deadline: Option<Deadline>,
    },
    /// Renewed.
    Renewed(Option<Deadline>),
    /// End the job.
    End(Cause),
}

/// Front to guard.
#[derive(Debug, Serialize, Deserialize)]
pub enum FrontToGuard {
    /// Pass this signal on to the job's first process.
    Signal(i32),
    /// The end is recorded: nothing is left to hold the lock for.
    Recorded,
}

/// Guard to front and to keeper.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum FromGuard {
    /// The job runs; the pid of its first process.
    Started(i32),
    /// The job's first process was stopped by this signal.
    Stopped(i32),
    /// The job's first process has ended so, and others of its tree are still there.
    FirstEnded(Status),
    /// The job and all that it started are gone.
    Ended(Ended),
}

/// Front to keeper.
#[derive(Debug, Serialize, Deserialize)]
pub enum FrontToKeeper {
    /// Interrupted while it waited for the lock.
    Cancel,
    /// The tree is gone, by the guard's word or by front's own doing, and all output was read; the tail is complete. The guard may have been
    /// killed before it told the keeper the same.
    Drained(Ended),
}

/// Keeper to front.
#[derive(Debug, Serialize, Deserialize)]
pub enum FromKeeper {
    /// Tell the user.
    Say(Word),
    /// The job will not run; exit with this code.
    NotRun {
        /// For the exit.
        code: u8,
    },
    /// It is going to run.
    Granted(Token),
    /// The end is recorded as this, the lock is free.
    Finished(Ended),
}

/// A line for stderr.
#[derive(Debug, Serialize, Deserialize)]
pub struct Word {
    /// Who wants to read it.
    pub level: Level,
    /// Without the prefix.
    pub text: String,
}

/// Who wants to read a [`Word`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Level {
    /// Everybody: an error, a loss.
    Error,
    /// Everybody but who gave `-q`: what was done all the same.
    Warning,
    /// A person at a terminal, or who gave `-v`; never with `-q`.
    Person,
    /// Who gave `-v`.
    Detail,
}

/// One end of a connection.
pub struct Channel(OwnedFd);

/// What came.
pub enum Received<M> {
    /// A message, and a descriptor if one came along.
    Message(M, Option<OwnedFd>),
    /// The other side is gone.
    Gone,
    /// Nothing yet.
    Nothing,
}

impl Channel {
    /// A connected pair, both closed on exec.
    pub fn pair() -> rustix::io::Result<(Channel, Channel)> {
        let (a, b) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        Ok((Channel(a), Channel(b)))
    }

    /// Sends. That the other side is gone is learned by reading, so a failure is no error here. Never blocks:
    /// a side that reads nothing for hundreds of messages is stopped, and what it misses is repeated (renewals) or it is dead.
    pub fn send<M: Serialize>(&self, message: &M, fd: Option<BorrowedFd<'_>>) -> bool {
        let Ok(bytes) = serde_json::to_vec(message) else {
            return false;
        };
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let fds: Vec<BorrowedFd<'_>> = fd.into_iter().collect();
        if !fds.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(&fds));
        }
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        loop {
            match sendmsg(&self.0, &[IoSlice::new(&bytes)], &mut control, flags) {
                Err(Errno::INTR) => {}
                result => return result.is_ok(),
            }
        }
    }

    /// Receives without blocking.
    pub fn receive<M: DeserializeOwned>(&self) -> Received<M> {
        let mut bytes = vec![0u8; LARGEST];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let length = loop {
            match recvmsg(
                &self.0,
                &mut [IoSliceMut::new(&mut bytes)],
                &mut control,
                flags,
            ) {
                Ok(message) if message.bytes == 0 => return Received::Gone,
                Ok(message) => break message.bytes,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Received::Nothing,
                Err(_) => return Received::Gone,
            }
        };
        let fd = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        // What can't be read was not written by this program: treat its writer as gone, which fails safe on every side.
        serde_json::from_slice(&bytes[..length])
            .map_or(Received::Gone, |message| Received::Message(message, fd))
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_keep_their_bounds_and_carry_a_descriptor() {
        let (a, b) = Channel::pair().expect("socketpair");
        let (_, pipe) = rustix::pipe::pipe().expect("pipe");
        assert!(a.send(&FrontToGuard::Signal(15), Some(pipe.as_fd())));
        assert!(a.send(&FrontToGuard::Signal(2), None));
        assert!(matches!(
            b.receive(),
            Received::Message(FrontToGuard::Signal(15), Some(_))
        ));
        assert!(matches!(
            b.receive(),
            Received::Message(FrontToGuard::Signal(2), None)
        ));
        assert!(matches!(b.receive::<FrontToGuard>(), Received::Nothing));
        drop(a);
        assert!(matches!(b.receive::<FrontToGuard>(), Received::Gone));
    }
}
