//! Starts the job's first process, as its caller would have: same mask, same dispositions, same closed streams.
//!
//! Not by `std::process`: it can't start a process inside a cgroup (`CLONE_INTO_CGROUP`, clone(2)), and to move one there
//! later takes the kernel ten milliseconds, ten times what all of joblock takes.

use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::ptr;

use rustix::io::retry_on_intr;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal};

use super::signals;
use crate::exit;

/// `linux/sched.h`; the constant of the libc crate is too narrow for it.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// What the job's first process gets.
pub struct Spawn<'a> {
    /// Program and arguments; the program is looked for in `$PATH` (execvp(3)).
    pub command: &'a [OsString],
    /// Added to the environment.
    pub variables: &'a [(String, OsString)],
    /// Standard output and error where they are not the caller's own.
    pub streams: [Option<OwnedFd>; 2],
    /// The locked descriptor, which stays open over exec.
    pub lock: Option<BorrowedFd<'a>>,
    /// The folder of the cgroup that it starts in; where the kernel does not let it, it starts in the caller's.
    pub cgroup: Option<BorrowedFd<'a>>,
    /// Put it into a process group of its own.
    pub own_group: bool,
}

/// The job's first process, which executes its command, or will.
pub struct Spawned {
    /// It.
    pub pid: Pid,
    failure: OwnedFd,
}

impl Spawned {
    /// What execvp(3), or what comes before it, failed with; `None`: the command was executed. To be asked once the process is gone:
    /// it may be a long way to the command, on a mount that does not answer.
    pub fn failure(&self) -> Option<i32> {
        let mut errno = [0; 4];
        let read = retry_on_intr(|| rustix::io::read(&self.failure, &mut errno));
        matches!(read, Ok(4)).then(|| i32::from_ne_bytes(errno))
    }
}

impl Spawn<'_> {
    /// Forks, and has the child execute the command; does not wait for that. What is sent to the child before is blocked until then.
    ///
    /// Must be called from the main thread of a process that has no other: `PR_SET_PDEATHSIG` means
    /// the death of the *thread* that forked (prctl(2)).
    ///
    /// # Errors
    /// What fork(2) failed with; `EINVAL` for an argument with a NUL byte.
    pub fn start(self) -> io::Result<Spawned> {
        let words = self
            .command
            .iter()
            .map(|word| CString::new(word.as_bytes()))
            .collect::<Result<Vec<_>, _>>();
        let words = words.map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
        let mut argv: Vec<*const libc::c_char> = words.iter().map(|word| word.as_ptr()).collect();
        argv.push(ptr::null());
        for (name, value) in self.variables {
            // SAFETY: this process has one thread.
            unsafe { std::env::set_var(OsStr::new(name), value) };
        }
        let (failure, failed) = pipe_with(PipeFlags::CLOEXEC)?;
        let child = Child {
            argv: &argv,
            parent: rustix::process::getpid(),
            streams: self
                .streams
                .each_ref()
                .map(|s| s.as_ref().map(AsRawFd::as_raw_fd)),
            lock: self.lock.map(|fd| fd.as_raw_fd()),
            own_group: self.own_group,
        };
        // SAFETY: this process has one thread, so its copy is in order; the copy calls system calls only, and ends in them.
        let Some(pid) = unsafe { fork_into(self.cgroup) }? else {
            child.run(failed.as_raw_fd())
        };
        drop(failed);
        Ok(Spawned { pid, failure })
    }
}

/// fork(2), into `cgroup` where that is possible. `None`: this is the child.
///
/// # Safety
/// As fork(2): the calling process must have one thread.
unsafe fn fork_into(cgroup: Option<BorrowedFd<'_>>) -> io::Result<Option<Pid>> {
    let into_cgroup = |folder: BorrowedFd<'_>| {
        // SAFETY: zero is a valid value of every field of the plain struct that clone3 takes, with its size.
        unsafe {
            let mut args: libc::clone_args = std::mem::zeroed();
            args.flags = CLONE_INTO_CGROUP;
            args.exit_signal = u64::from(libc::SIGCHLD.cast_unsigned());
            args.cgroup = u64::from(folder.as_raw_fd().cast_unsigned());
            libc::syscall(
                libc::SYS_clone3,
                &raw mut args,
                size_of::<libc::clone_args>(),
            )
        }
    };
    let mut pid = cgroup.map_or(-1, into_cgroup);
    if pid < 0 {
        // SAFETY: by contract.
        pid = unsafe { libc::fork() }.into();
    }
    match pid {
        0 => Ok(None),
        -1 => Err(io::Error::last_os_error()),
        pid => Ok(i32::try_from(pid).ok().and_then(Pid::from_raw)),
    }
}

/// All that the child needs, made before the fork: it must not allocate.
struct Child<'a> {
    argv: &'a [*const libc::c_char],
    parent: Pid,
    streams: [Option<RawFd>; 2],
    lock: Option<RawFd>,
    own_group: bool,
}

impl Child<'_> {
    fn run(&self, failed: RawFd) -> ! {
        let error = match self.prepare() {
            Ok(()) => {
                // SAFETY: `argv` is a null-terminated array of C strings that live until this process executes or exits.
                unsafe { libc::execvp(self.argv[0], self.argv.as_ptr()) };
                io::Error::last_os_error()
            }
            Err(error) => error,
        };
        let errno = error.raw_os_error().unwrap_or(libc::EINVAL).to_ne_bytes();
        // SAFETY: write(2) of four bytes to a pipe of our own, and _exit(2), which runs nothing more of this process.
        unsafe {
            libc::write(failed, errno.as_ptr().cast(), errno.len());
            libc::_exit(exit::OWN_FAILURE.into())
        }
    }

    fn prepare(&self) -> io::Result<()> {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        if rustix::process::getppid() != Some(self.parent) {
            // The guard died between fork and prctl: its death signal will never come.
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        }
        if self.own_group {
            rustix::process::setpgid(None, None)?;
        }
        // SAFETY: dup2(2), fcntl(2) and close(2) on descriptors of this process, which is about to become the job.
        unsafe {
            for (stream, fd) in self
                .streams
                .iter()
                .zip([libc::STDOUT_FILENO, libc::STDERR_FILENO])
            {
                if let Some(stream) = *stream
                    && libc::dup2(stream, fd) == -1
                {
                    return Err(io::Error::last_os_error());
                }
            }
            if let Some(lock) = self.lock
                && libc::fcntl(lock, libc::F_SETFD, 0) == -1
            {
                return Err(io::Error::last_os_error());
            }
            let pumped = [false, self.streams[0].is_some(), self.streams[1].is_some()];
            for (fd, pumped) in (0..).zip(pumped) {
                if signals::was_closed(fd) && !pumped {
                    libc::close(fd);
                }
            }
        }
        signals::restore_callers();
        Ok(())
    }
}
