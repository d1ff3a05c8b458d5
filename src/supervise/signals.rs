//! Signals: what the caller had set for us, what we block, and how we die of one.
//!
//! joblock blocks signals and reads them from a signalfd(2), so that nothing is ever done inside a handler.
//! The job must not notice: it gets back the mask and the dispositions that front was started with. Since a blocked signal
//! needs no other disposition, only two of those ever differ: Rust's for SIGPIPE and ours for SIGCHLD.
//! Rust's runtime ignores SIGPIPE and opens /dev/null over closed standard streams before `main`;
//! what stood there before is noted by a constructor that runs earlier (`.init_array`, ELF gABI).

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

/// Those whose dispositions do not stay as the caller set them.
const CHANGED: [i32; 2] = [libc::SIGPIPE, libc::SIGCHLD];
/// Bit `n - 1`: signal `n` of [`CHANGED`] was ignored when the program was started.
static IGNORED: AtomicU64 = AtomicU64::new(0);
/// Bit `n - 1`: signal `n` was blocked when the program was started.
static BLOCKED: AtomicU64 = AtomicU64::new(0);
/// Bit `n`: descriptor `n` (0 to 2) was closed when the program was started.
static CLOSED: AtomicU8 = AtomicU8::new(0);

const LAST: i32 = 64;

extern "C" fn note_what_the_caller_set() {
    let mut ignored = 0;
    let mut blocked = 0;
    let mut closed = 0;
    // SAFETY: sigprocmask(2) and fcntl(2) with valid pointers; a null new set only reads.
    unsafe {
        let mut mask = MaybeUninit::<libc::sigset_t>::zeroed();
        libc::sigprocmask(libc::SIG_BLOCK, ptr::null(), mask.as_mut_ptr());
        for signal in CHANGED.into_iter().filter(|&s| is_ignored(s)) {
            ignored |= bit(signal);
        }
        for signal in 1..=LAST {
            if libc::sigismember(mask.as_ptr(), signal) == 1 {
                blocked |= bit(signal);
            }
        }
        for fd in 0..3 {
            if libc::fcntl(fd, libc::F_GETFD) == -1 {
                closed |= 1 << fd;
            }
        }
    }
    IGNORED.store(ignored, Ordering::Relaxed);
    BLOCKED.store(blocked, Ordering::Relaxed);
    CLOSED.store(closed, Ordering::Relaxed);
}

#[used]
// SAFETY: the section holds pointers to functions that the C runtime calls before main; this is one.
#[unsafe(link_section = ".init_array")]
static BEFORE_MAIN: extern "C" fn() = note_what_the_caller_set;

fn bit(signal: i32) -> u64 {
    1 << (signal - 1)
}

/// Whether the caller had `signal` ignored, as nohup(1) does with SIGHUP.
pub fn was_ignored(signal: i32) -> bool {
    if CHANGED.contains(&signal) {
        IGNORED.load(Ordering::Relaxed) & bit(signal) != 0
    } else {
        is_ignored(signal)
    }
}

fn is_ignored(signal: i32) -> bool {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: sigaction(2) with a null new action only reads; every field of the plain struct may be zero.
    unsafe {
        libc::sigaction(signal, ptr::null(), action.as_mut_ptr()) == 0
            && (*action.as_ptr()).sa_sigaction == libc::SIG_IGN
    }
}

/// Whether standard stream `fd` (0 to 2) was closed when the program was started.
pub fn was_closed(fd: i32) -> bool {
    CLOSED.load(Ordering::Relaxed) & (1 << fd) != 0
}

/// Signals that front passes on: all but the two that nobody can catch, the child's, and those that the
/// kernel raises for a fault of our own (a blocked one of those would still kill us, signal(7)).
fn is_ours(signal: i32) -> bool {
    !matches!(
        signal,
        libc::SIGKILL
            | libc::SIGSTOP
            | libc::SIGSEGV
            | libc::SIGBUS
            | libc::SIGFPE
            | libc::SIGILL
            | libc::SIGSYS
            | libc::SIGTRAP
            | libc::SIGPIPE
            | 32
            | 33
    )
}

fn set_of(signals: impl Iterator<Item = i32>) -> libc::sigset_t {
    let mut set = MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: sigemptyset(3) and sigaddset(3) on a set of our own.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for signal in signals {
            libc::sigaddset(set.as_mut_ptr(), signal);
        }
        set.assume_init()
    }
}

fn set_mask(set: &libc::sigset_t) {
    // SAFETY: sigprocmask(2) with a valid set; the process has one thread where this is called.
    unsafe {
        libc::sigprocmask(libc::SIG_SETMASK, ptr::from_ref(set), ptr::null_mut());
    }
}

/// What it was before.
fn set_disposition(signal: i32, handler: libc::sighandler_t) -> libc::sighandler_t {
    // SAFETY: SIG_DFL, SIG_IGN and what this returned before are the only handlers ever given here.
    unsafe { libc::signal(signal, handler) }
}

/// A signal that was read.
#[derive(Debug, Clone, Copy)]
pub struct Arrived {
    /// Its number.
    pub signal: i32,
    /// It was sent by a process (kill(2), sigqueue(3)), not by the terminal or the kernel.
    pub by_process: bool,
}

/// The blocked signals of this process, as a descriptor to poll.
pub struct Signals(OwnedFd);

impl Signals {
    /// For front: everything it passes on, and SIGCHLD. A child's end must be waited for even if the caller had SIGCHLD ignored.
    pub fn of_front() -> io::Result<Signals> {
        set_disposition(libc::SIGCHLD, libc::SIG_DFL);
        let set = set_of((1..=LAST).filter(|&s| is_ours(s)));
        set_mask(&set);
        Self::open(&set)
    }

    /// For guard: SIGCHLD alone. All others stay blocked as in front, which forked it, and are never looked at:
    /// nobody but SIGKILL and its own rules may end it, and the terminal does not stop it. So with the keeper.
    pub fn of_guard() -> io::Result<Signals> {
        Self::open(&set_of(std::iter::once(libc::SIGCHLD)))
    }

    /// For who has something to tidy up before a ^C, or another request to end, ends it.
    pub fn to_end() -> io::Result<Signals> {
        let ends = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP];
        let set = set_of(ends.into_iter().filter(|&s| !was_ignored(s)));
        set_mask(&set);
        Self::open(&set)
    }

    fn open(set: &libc::sigset_t) -> io::Result<Signals> {
        // SAFETY: signalfd(2) with a valid set makes a new descriptor, which is then owned here.
        let fd = unsafe {
            libc::signalfd(
                -1,
                ptr::from_ref(set),
                libc::SFD_CLOEXEC | libc::SFD_NONBLOCK,
            )
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: as above.
        Ok(Signals(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// The next signal that waits, if one does.
    pub fn next(&self) -> Option<Arrived> {
        let mut info = MaybeUninit::<libc::signalfd_siginfo>::zeroed();
        let size = size_of::<libc::signalfd_siginfo>();
        // SAFETY: read(2) of at most `size` bytes into a buffer of `size` bytes; every bit pattern is a valid siginfo.
        let info = unsafe {
            let n = libc::read(self.0.as_raw_fd(), info.as_mut_ptr().cast(), size);
            if usize::try_from(n) != Ok(size) {
                return None;
            }
            info.assume_init()
        };
        Some(Arrived {
            signal: info.ssi_signo.cast_signed(),
            by_process: info.ssi_code <= 0,
        })
    }
}

impl std::os::fd::AsFd for Signals {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Gives the calling process the dispositions and the mask that the program was started with. Async-signal-safe.
pub fn restore_callers() {
    for signal in CHANGED {
        let handler = if was_ignored(signal) {
            libc::SIG_IGN
        } else {
            libc::SIG_DFL
        };
        set_disposition(signal, handler);
    }
    let blocked = BLOCKED.load(Ordering::Relaxed);
    set_mask(&set_of((1..=LAST).filter(|&s| blocked & bit(s) != 0)));
}

/// Gives this process `signal`'s default action: it stops for SIGTSTP, and dies for SIGINT, without a core file of its own.
/// Comes back after a stop, or where the signal does nothing (PID 1, an orphaned process group).
pub fn take(signal: i32) {
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
    let callers = set_disposition(signal, libc::SIG_DFL);
    let one = set_of(std::iter::once(signal));
    // SAFETY: raise(3), sigprocmask(2) with valid sets.
    unsafe {
        libc::raise(signal);
        libc::sigprocmask(libc::SIG_UNBLOCK, &raw const one, ptr::null_mut());
        libc::sigprocmask(libc::SIG_BLOCK, &raw const one, ptr::null_mut());
    }
    set_disposition(signal, callers);
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::Dumpable);
}
