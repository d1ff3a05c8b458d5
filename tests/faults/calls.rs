//! Which errors make sense for which system call. An error that a call can't return is not injected: it would show
//! nothing about the program.
//!
//! EINTR comes once, never from then on: who repeats an interrupted call for as long as it is interrupted is right to. It is
//! left out where a call never waits (sockets and signalfd here are asked without blocking, open(2) gives it for FIFOs and
//! the like only).
//!
//! What the loader and the runtime do before `main` is not the program's own: there it is killed, but no call fails.
//!
//! At these calls, too, processes are only killed:
//! - sendmsg and recvmsg: datagrams between joblock's own processes, which fail because the other one is gone, and those who are killed
//!   show that;
//! - exit, and the calls that never fail: those that ask for ids, limits, times and signals (getpid, getuid, getrandom, `prlimit`, …);
//! - kill, pidfd_send_signal, setsid, setpgid, dup2, and wait4 and waitid that don't wait: they fail by who is there, or by what
//!   descriptors are open, and that is made true instead of told;
//! - prctl, sigaction, sigprocmask, timer_settime, timerfd_settime, ioctl, F_SETFL and the like: they fail only for arguments that
//!   are wrong, or a kernel that doesn't know them;
//! - brk and mmap without a file, futex: memory that can't be had ends a process, as a signal does;
//! - getcwd: it fails where the folder is gone.

use crate::tracer::older::{
    ACCESS, CHMOD, LSTAT, MKDIR, OPEN, READLINK, RENAME, RMDIR, STAT, UNLINK,
};
use crate::tracer::{Call, open_on, opening, string};

/// A way to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// SIGKILL before the call is done.
    KillAtEntry,
    /// SIGKILL when it is done.
    KillAtExit,
    /// No space left.
    NoSpace,
    /// The device fails.
    Io,
    /// Interrupted.
    Interrupted,
    /// Too many descriptors.
    Descriptors,
    /// No process, no timer to be had.
    Again,
    /// No memory for a mapped file.
    Memory,
    /// Half of what was to be written is.
    Short,
}

impl Kind {
    /// Its error.
    pub fn errno(self) -> Option<i32> {
        Some(match self {
            Kind::KillAtEntry | Kind::KillAtExit | Kind::Short => return None,
            Kind::NoSpace => libc::ENOSPC,
            Kind::Io => libc::EIO,
            Kind::Interrupted => libc::EINTR,
            Kind::Descriptors => libc::EMFILE,
            Kind::Again => libc::EAGAIN,
            Kind::Memory => libc::ENOMEM,
        })
    }

    /// As it is called in the evidence.
    pub fn name(self) -> &'static str {
        match self {
            Kind::KillAtEntry => "killed at its entry",
            Kind::KillAtExit => "killed at its exit",
            Kind::NoSpace => "ENOSPC",
            Kind::Io => "EIO",
            Kind::Interrupted => "EINTR",
            Kind::Descriptors => "EMFILE",
            Kind::Again => "EAGAIN",
            Kind::Memory => "ENOMEM",
            Kind::Short => "short write",
        }
    }
}

/// What a call goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Target {
    /// A file or folder of the store.
    Store,
    /// Another file.
    File,
    /// Where joblock's standard output or error goes: a file beside the store.
    Output,
    /// What the kernel makes up: /proc, /sys.
    Kernel,
    /// A file in memory.
    Memory,
    /// A pipe.
    Pipe,
    /// A socket, a timer, and so on.
    Other,
}

/// What a call is, for the list of points.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Seen {
    /// Its name.
    pub name: &'static str,
    /// What it goes to.
    pub target: Target,
    /// How it can fail, and whether also from then on.
    pub kinds: Vec<(Kind, bool)>,
}

fn of_path(path: &[u8], store: &str) -> Target {
    let path = String::from_utf8_lossy(path);
    if path.starts_with(store) {
        Target::Store
    } else if path.starts_with(store.trim_end_matches("store")) {
        Target::Output
    } else if path == "/proc" || path.starts_with("/proc/") || path.starts_with("/sys/") {
        Target::Kernel
    } else if path.starts_with("/memfd:") {
        Target::Memory
    } else if path.starts_with("pipe:") {
        Target::Pipe
    } else if path.starts_with('/') || !path.contains(':') {
        Target::File
    } else {
        Target::Other
    }
}

/// Whether this is a check of a debug build that no release build makes: it asks for each descriptor before it closes it.
pub fn is_of_debug_build(call: &Call) -> bool {
    call.number == libc::SYS_fcntl && call.arguments[1] == u64::from(libc::F_GETFD.cast_unsigned())
}

/// What `call`, which is about to be made, is. `store`: the folder that the store is in. `of_joblock`: `main` has begun.
#[expect(clippy::too_many_lines, reason = "a table, a line for each call")]
pub fn see(call: &Call, store: &str, of_joblock: bool) -> Seen {
    use Kind::{Again, Descriptors, Interrupted, Io, Memory, NoSpace, Short};
    let [first, second, third, fourth, fifth, _] = call.arguments;
    let by_fd = |fd: u64| {
        open_on(call.pid, fd).map_or(Target::Other, |p| {
            of_path(p.as_os_str().as_encoded_bytes(), store)
        })
    };
    let by_path = |address: u64| {
        let path = string(call.pid, address);
        if path.is_empty() {
            by_fd(first)
        } else {
            of_path(&path, store)
        }
    };
    let both = |kinds: &[Kind]| {
        kinds
            .iter()
            .flat_map(|&k| [(k, false), (k, true)])
            .collect::<Vec<_>>()
    };
    let (name, target, mut kinds) = match call.number {
        libc::SYS_openat | libc::SYS_openat2 | OPEN => {
            let (path, flags) = opening(call).unwrap_or_default();
            let target = by_path(path);
            let mut kinds = both(&[Descriptors, Io]);
            if flags & u64::from(libc::O_CREAT.cast_unsigned()) != 0 {
                kinds.extend(both(&[NoSpace]));
            }
            ("open", target, kinds)
        }
        number @ (libc::SYS_read | libc::SYS_pread64) => {
            let target = by_fd(first);
            let kinds = match target {
                Target::Store | Target::File | Target::Output => {
                    [both(&[Io]), vec![(Interrupted, false)]].concat()
                }
                Target::Kernel | Target::Memory => both(&[Io]),
                Target::Pipe => vec![(Interrupted, false)],
                Target::Other => vec![],
            };
            (
                if number == libc::SYS_read {
                    "read"
                } else {
                    "pread"
                },
                target,
                kinds,
            )
        }
        number @ (libc::SYS_write | libc::SYS_pwrite64) => {
            let target = by_fd(first);
            let mut kinds = match target {
                Target::Store | Target::File | Target::Output => {
                    [both(&[NoSpace, Io]), vec![(Interrupted, false)]].concat()
                }
                Target::Memory => both(&[NoSpace]),
                Target::Kernel => both(&[Io]),
                Target::Pipe => vec![(Interrupted, false)],
                Target::Other => vec![],
            };
            if third > 1 && !matches!(target, Target::Kernel | Target::Other) {
                kinds.extend(both(&[Short]));
            }
            (
                if number == libc::SYS_write {
                    "write"
                } else {
                    "pwrite"
                },
                target,
                kinds,
            )
        }
        libc::SYS_fsync => (
            "fsync",
            by_fd(first),
            [both(&[Io, NoSpace]), vec![(Interrupted, false)]].concat(),
        ),
        libc::SYS_fdatasync => (
            "fdatasync",
            by_fd(first),
            [both(&[Io, NoSpace]), vec![(Interrupted, false)]].concat(),
        ),
        libc::SYS_ftruncate => (
            "ftruncate",
            by_fd(first),
            [both(&[Io]), vec![(Interrupted, false)]].concat(),
        ),
        libc::SYS_fallocate => (
            "fallocate",
            by_fd(first),
            [both(&[NoSpace, Io]), vec![(Interrupted, false)]].concat(),
        ),
        libc::SYS_mkdirat => ("mkdir", by_path(second), both(&[NoSpace, Io])),
        MKDIR => ("mkdir", by_path(first), both(&[NoSpace, Io])),
        libc::SYS_renameat | libc::SYS_renameat2 => {
            ("rename", by_path(second), both(&[NoSpace, Io]))
        }
        RENAME => ("rename", by_path(first), both(&[NoSpace, Io])),
        libc::SYS_unlinkat => ("unlink", by_path(second), both(&[Io])),
        UNLINK => ("unlink", by_path(first), both(&[Io])),
        RMDIR => ("rmdir", by_path(first), both(&[Io])),
        CHMOD => ("chmod", by_path(first), both(&[Io])),
        libc::SYS_fchmodat => ("chmod", by_path(second), both(&[Io])),
        libc::SYS_fchmod => ("fchmod", by_fd(first), both(&[Io])),
        libc::SYS_fchown => ("fchown", by_fd(first), both(&[Io])),
        libc::SYS_newfstatat | libc::SYS_statx | libc::SYS_readlinkat | libc::SYS_faccessat => {
            ("stat", by_path(second), both(&[Io]))
        }
        STAT | LSTAT | READLINK | ACCESS | libc::SYS_statfs => {
            ("stat", by_path(first), both(&[Io]))
        }
        number @ (libc::SYS_fstat | libc::SYS_fstatfs | libc::SYS_getdents64) => {
            let target = by_fd(first);
            let kinds = match target {
                Target::Store | Target::File | Target::Kernel => both(&[Io]),
                _ => vec![],
            };
            (
                if number == libc::SYS_getdents64 {
                    "getdents"
                } else {
                    "fstat"
                },
                target,
                kinds,
            )
        }
        libc::SYS_flock => (
            "flock",
            by_fd(first),
            [both(&[Io]), vec![(Interrupted, false)]].concat(),
        ),
        libc::SYS_fcntl => match i32::try_from(second).unwrap_or(-1) {
            libc::F_DUPFD | libc::F_DUPFD_CLOEXEC => ("dup", by_fd(first), both(&[Descriptors])),
            libc::F_SETLK | libc::F_SETLKW | libc::F_OFD_SETLK => {
                ("lock", by_fd(first), both(&[Io]))
            }
            _ => ("fcntl", by_fd(first), vec![]),
        },
        libc::SYS_socketpair => ("socketpair", Target::Other, both(&[Descriptors])),
        libc::SYS_pipe2 => ("pipe", Target::Other, both(&[Descriptors])),
        libc::SYS_memfd_create => ("memfd_create", Target::Other, both(&[Descriptors])),
        libc::SYS_signalfd4 => ("signalfd", Target::Other, both(&[Descriptors])),
        libc::SYS_timerfd_create => ("timerfd_create", Target::Other, both(&[Descriptors])),
        libc::SYS_pidfd_open => ("pidfd_open", Target::Other, both(&[Descriptors])),
        libc::SYS_clone | libc::SYS_clone3 => ("fork", Target::Other, both(&[Again])),
        libc::SYS_timer_create => ("timer_create", Target::Other, both(&[Again])),
        libc::SYS_ppoll => ("poll", Target::Other, vec![(Interrupted, false)]),
        libc::SYS_clock_nanosleep => ("sleep", Target::Other, vec![(Interrupted, false)]),
        libc::SYS_wait4 if third & u64::from(libc::WNOHANG.cast_unsigned()) == 0 => {
            ("wait", Target::Other, vec![(Interrupted, false)])
        }
        libc::SYS_close => {
            let target = by_fd(first);
            // only what was written can be lost by it: no file system has a flush for folders
            let folder = || open_on(call.pid, first).is_some_and(|path| path.is_dir());
            let kinds = match target {
                Target::Store | Target::File if !folder() => {
                    vec![(Io, false), (Interrupted, false)]
                }
                _ => vec![],
            };
            ("close", target, kinds)
        }
        libc::SYS_mmap
            if i32::try_from(fifth.cast_signed()).unwrap_or(-1) >= 0 && fourth & 0x20 == 0 =>
        {
            ("mmap", by_fd(fifth), both(&[Memory]))
        }
        libc::SYS_execve => ("execve", Target::File, both(&[Io])),
        libc::SYS_sendmsg => ("sendmsg", Target::Other, vec![]),
        libc::SYS_recvmsg => ("recvmsg", Target::Other, vec![]),
        libc::SYS_exit_group => ("exit", Target::Other, vec![]),
        _ => ("another call", Target::Other, vec![]),
    };
    if !of_joblock {
        kinds.clear();
    }
    Seen {
        name,
        target,
        kinds,
    }
}
