//! Timers on `CLOCK_BOOTTIME`: they count through suspend, and fire at once after a thaw.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::{io, ptr};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

use crate::clock::Boot;

/// A descriptor that is readable from a moment on (timerfd_create(2)).
pub struct Alarm(OwnedFd);

impl Alarm {
    /// One that is not set.
    pub fn new() -> io::Result<Alarm> {
        Ok(Alarm(timerfd_create(
            TimerfdClockId::Boottime,
            TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK,
        )?))
    }

    /// Readable from `at` on; never, for `None`. Forgets what was set before.
    pub fn set(&self, at: Option<Boot>) {
        let spec = Itimerspec {
            it_interval: timespec(0),
            it_value: timespec(at.map_or(0, |at| at.0.max(1))),
        };
        // Fails for bad arguments only, timerfd_settime(2).
        let _ = timerfd_settime(&self.0, TimerfdTimerFlags::ABSTIME, &spec);
    }
}

impl AsFd for Alarm {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn timespec(nanos: u64) -> Timespec {
    // A time that is too far for the kernel's type is as good as the farthest it takes.
    let nanos = nanos.min(i64::MAX.unsigned_abs());
    Timespec {
        tv_sec: (nanos / 1_000_000_000).cast_signed(),
        tv_nsec: (nanos % 1_000_000_000).cast_signed(),
    }
}

/// A kernel timer that sends the calling process SIGKILL (timer_create(2)): it works on a process that is stopped.
/// Gone with the process; fork(2) does not inherit it.
pub struct Suicide(libc::timer_t);

impl Suicide {
    /// One that is not set.
    pub fn new() -> io::Result<Suicide> {
        let mut timer = MaybeUninit::<libc::timer_t>::uninit();
        // SAFETY: sigevent is plain data, for which zero is valid; timer_create(2) fills `timer` where it succeeds.
        unsafe {
            let mut event = MaybeUninit::<libc::sigevent>::zeroed().assume_init();
            event.sigev_notify = libc::SIGEV_SIGNAL;
            event.sigev_signo = libc::SIGKILL;
            if libc::timer_create(libc::CLOCK_BOOTTIME, &raw mut event, timer.as_mut_ptr()) != 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(Suicide(timer.assume_init()))
        }
    }

    /// Dies at `at`, unless set again before; never, for `None`.
    pub fn set(&self, at: Option<Boot>) {
        let value = timespec(at.map_or(0, |at| at.0.max(1)));
        let spec = libc::itimerspec {
            it_interval: libc::timespec {
                tv_sec: 0,
                tv_nsec: 0,
            },
            it_value: libc::timespec {
                tv_sec: value.tv_sec,
                tv_nsec: value.tv_nsec,
            },
        };
        // SAFETY: a timer of our own and a valid itimerspec.
        unsafe {
            libc::timer_settime(
                self.0,
                libc::TIMER_ABSTIME,
                &raw const spec,
                ptr::null_mut(),
            );
        }
    }
}
