//! The parent of the job: holds the lock's descriptor and the deadline, ends the tree, and tells how it ended.
//!
//! It touches no store and no output, so nothing that hangs there can keep it from killing. One thread, one loop.
//! Behind its own deadline stands a kernel timer that kills even a guard that is stopped; the job's first process then
//! dies by its parent-death signal, and front, the next subreaper, ends the rest.

use std::ffi::OsString;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, WaitOptions, WaitStatus, wait, waitid};

use super::cgroup::JobCgroup;
use super::messages::{Cause, Channel, Ended, FromGuard, FrontToGuard, Received, Status, ToGuard};
use super::signals::Signals;
use super::spawn::{Spawn, Spawned};
use super::timer::{Alarm, Suicide};
use super::{give_up_streams, process, tree};
use crate::clock::Boot;
use crate::lease::fence::{Acts, Fence};
use crate::plan::{Leftovers, RunPlan};

/// How long a guard whose keeper is gone keeps the lock for front to have the end recorded.
const RECORDING: Duration = Duration::from_secs(60);

/// What the guard has from the fork on.
pub struct Sides {
    /// To front.
    pub front: Channel,
    /// To the keeper.
    pub keeper: Channel,
    /// The job's standard output and error, where front pumps them.
    pub streams: [Option<OwnedFd>; 2],
    /// The job gets a process group of its own.
    pub own_group: bool,
    /// The job's cgroup, to be made.
    pub cgroup: Option<JobCgroup>,
}

/// Lives until the tree is gone. Run in a freshly forked process, which must exit after it.
///
/// # Errors
/// If the system refuses a descriptor or a timer, before anything is started.
pub fn run(plan: &RunPlan, sides: Sides) -> io::Result<()> {
    let signals = Signals::of_guard()?;
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    let mut guard = Guard {
        plan,
        sides,
        signals,
        alarm: Alarm::new()?,
        suicide: Suicide::new()?,
        lock: None,
        fence: Fence::new(plan.kill_after, plan.time_limit, Boot::now()),
        job: None,
        status: None,
        leaked: 0,
        front_gone: false,
        recorded: false,
        front_was_stopped: false,
        keeper_gone: false,
    };
    if let Some(ended) = guard.until_the_tree_is_gone() {
        guard.report(&ended);
    }
    Ok(())
}

#[expect(
    clippy::struct_excessive_bools,
    reason = "each is one event that comes at its own time, in any order"
)]
struct Guard<'a> {
    plan: &'a RunPlan,
    sides: Sides,
    signals: Signals,
    alarm: Alarm,
    suicide: Suicide,
    lock: Option<OwnedFd>,
    fence: Fence,
    job: Option<Spawned>,
    status: Option<Status>,
    leaked: u32,
    front_gone: bool,
    /// Front says that the end is recorded.
    recorded: bool,
    /// The job was stopped, and front with it on a terminal.
    front_was_stopped: bool,
    keeper_gone: bool,
}

impl Guard<'_> {
    /// `None` if nothing was ever started, because front or keeper went before.
    fn until_the_tree_is_gone(&mut self) -> Option<Ended> {
        loop {
            // Renewals first: after a stop the newest deadline counts, not the one that passed while it waited in the socket.
            self.hear_keeper();
            self.hear_front();
            if self.is_idle() {
                if self.front_gone || self.keeper_gone {
                    return None;
                }
            } else if self.reap() {
                return Some(self.ended());
            }
            self.mind_the_time();
            self.sleep();
        }
    }

    fn sleep(&self) {
        self.alarm.set(self.next_moment());
        let interest = |gone: bool| {
            if gone {
                PollFlags::empty()
            } else {
                PollFlags::IN
            }
        };
        let mut fds = vec![
            PollFd::new(&self.signals, PollFlags::IN),
            PollFd::new(&self.alarm, PollFlags::IN),
        ];
        // A socket whose other end is gone would wake poll for ever.
        if !self.front_gone {
            fds.push(PollFd::new(&self.sides.front, interest(false)));
        }
        if !self.keeper_gone {
            fds.push(PollFd::new(&self.sides.keeper, interest(false)));
        }
        let _ = poll(&mut fds, None);
        while self.signals.next().is_some() {}
    }

    fn hear_keeper(&mut self) {
        let mut start = None;
        while !self.keeper_gone {
            match self.sides.keeper.receive() {
                Received::Message(
                    ToGuard::Start {
                        variables,
                        deadline,
                    },
                    lock,
                ) => {
                    if self.is_idle() {
                        self.fence.renewed(deadline);
                        start = Some((variables, lock));
                    }
                }
                Received::Message(ToGuard::Renewed(deadline), _) => {
                    self.fence.renewed(deadline);
                    // Nothing was started after a late look: the timer would only keep this process from telling.
                    if self.job.is_some() {
                        self.suicide.set(self.fence.suicide_at());
                    }
                }
                Received::Message(ToGuard::End(cause), _) if self.is_idle() => {
                    self.fence.not_started(cause);
                }
                Received::Message(ToGuard::End(cause), _) => self.end(cause),
                Received::Gone => self.keeper_gone = true,
                Received::Nothing => break,
            }
        }
        // Only now: what was said after it, while this process was stopped, counts too.
        if let Some((variables, lock)) = start {
            self.start(&variables, lock);
        }
    }

    /// Nothing was started, nor tried.
    fn is_idle(&self) -> bool {
        self.job.is_none() && self.status.is_none()
    }

    fn hear_front(&mut self) {
        while !self.front_gone {
            match self.sides.front.receive() {
                Received::Message(FrontToGuard::Signal(signal), _) => self.pass_on(signal),
                Received::Message(FrontToGuard::Recorded, _) => self.recorded = true,
                Received::Gone => {
                    self.front_gone = true;
                    if self.job.is_some() {
                        self.end(Cause::FrontGone);
                    }
                }
                Received::Nothing => break,
            }
        }
    }

    fn start(&mut self, variables: &[(String, OsString)], lock: Option<OwnedFd>) {
        self.lock = lock;
        if !self.fence.may_start(Boot::now()) {
            // the timer is not set: in the past, it would kill this process before it could tell
            self.status = Some(Status::Unknown);
            return;
        }
        self.suicide.set(self.fence.suicide_at());
        if self.front_is_gone_now() {
            self.status = Some(Status::Unknown);
            self.fence.not_started(Cause::FrontGone);
            return;
        }
        let cgroup = self.sides.cgroup.as_ref().and_then(JobCgroup::make);
        let spawn = Spawn {
            cgroup: cgroup.as_ref().map(AsFd::as_fd),
            command: &self.plan.command,
            variables,
            streams: std::mem::take(&mut self.sides.streams),
            lock: self.lock.as_ref().map(AsFd::as_fd),
            own_group: self.sides.own_group,
        };
        match spawn.start() {
            Ok(job) => {
                self.tell(&FromGuard::Started(job.pid.as_raw_nonzero().get()));
                self.job = Some(job);
            }
            Err(error) => {
                self.status = Some(Status::NotExecuted(
                    error.raw_os_error().unwrap_or(libc::EINVAL),
                ));
            }
        }
        give_up_streams();
    }

    fn front_is_gone_now(&mut self) -> bool {
        self.hear_front();
        self.front_gone
    }

    fn pass_on(&self, signal: i32) {
        // Not reaped yet, so the pid is still the job's.
        if let (Some(job), None) = (&self.job, self.status) {
            // SAFETY: kill(2) on our own child.
            unsafe {
                libc::kill(job.pid.as_raw_nonzero().get(), signal);
            }
        }
    }

    fn end(&mut self, cause: Cause) {
        let acts = self.fence.end(cause, Boot::now());
        self.act(acts);
    }

    fn mind_the_time(&mut self) {
        if self.job.is_some() {
            let acts = self.fence.mind(self.status.is_some(), Boot::now());
            self.act(acts);
        }
    }

    fn act(&self, acts: Acts) {
        if acts.terminate {
            self.signal_tree(self.plan.signal);
        }
        if acts.kill {
            self.signal_tree(libc::SIGKILL);
            self.sides.cgroup.iter().for_each(JobCgroup::kill);
        }
    }

    /// Says how many there were.
    fn signal_tree(&self, signal: i32) -> u32 {
        tree::terminate(signal).unwrap_or_else(|_| {
            // No file to look at /proc with (too many are open): what the kernel reaches without one.
            self.pass_on(signal);
            if let (Some(job), None, true) = (&self.job, self.status, self.sides.own_group) {
                let _ = rustix::process::kill_process_group(job.pid, Signal::CONT);
                // SAFETY: kill(2) on the group of our own child, which is not waited for.
                unsafe {
                    libc::kill(-job.pid.as_raw_nonzero().get(), signal);
                }
            }
            0
        })
    }

    fn next_moment(&self) -> Option<Boot> {
        self.job.as_ref()?;
        self.fence.next_moment(self.status.is_some())
    }

    /// True once there is no child left, of whatever depth: orphans become this subreaper's children.
    fn reap(&mut self) -> bool {
        let mut none_left = self.job.is_none();
        loop {
            match wait(WaitOptions::NOHANG | WaitOptions::UNTRACED) {
                Ok(Some((pid, status))) if self.is_job(pid) && self.status.is_none() => {
                    self.note(status);
                }
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => {
                    none_left = true;
                    break;
                }
            }
        }
        none_left
    }

    fn is_job(&self, pid: Pid) -> bool {
        self.job.as_ref().is_some_and(|job| job.pid == pid)
    }

    fn note(&mut self, status: WaitStatus) {
        if let Some(signal) = status.stopping_signal() {
            self.tell_front(&FromGuard::Stopped(signal));
            self.front_was_stopped = true;
        } else {
            let failure = self.job.as_ref().and_then(Spawned::failure);
            self.status = failure
                .map(Status::NotExecuted)
                .or_else(|| status.exit_status().map(Status::Exited))
                .or_else(|| status.terminating_signal().map(Status::Signaled));
            self.see_to_leftovers();
        }
    }

    fn see_to_leftovers(&mut self) {
        if let Err(Errno::CHILD) = waitid(
            WaitId::All,
            WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT,
        ) {
            return;
        }
        // Should this process be killed before the rest is gone, front still knows the job's own code.
        if let Some(status) = self.status {
            self.tell_front(&FromGuard::FirstEnded(status));
        }
        match self.plan.leftovers {
            Leftovers::End if !self.fence.is_ending() => {
                self.leaked = self.signal_tree(self.plan.signal);
                self.fence.end_leftovers(Boot::now());
            }
            Leftovers::WaitFor if self.fence.cause().is_none() => {
                let own = process::own().pid;
                let left = process::descendants(own, &[]).unwrap_or_default();
                self.leaked = u32::try_from(left.len()).unwrap_or(u32::MAX);
            }
            _ => {}
        }
    }

    fn ended(&self) -> Ended {
        let (peak_memory_kib, cpu) = children_usage();
        Ended {
            status: self.status.unwrap_or(Status::Unknown),
            cause: self.fence.cause(),
            duration: Boot::now().since(self.fence.began()),
            leaked: self.leaked,
            peak_memory_kib,
            cpu,
        }
    }

    fn tell_front(&self, message: &FromGuard) {
        self.sides.front.send(message, None);
    }

    fn tell(&self, message: &FromGuard) {
        self.tell_front(message);
        self.sides.keeper.send(message, None);
    }

    /// Tells the end; the lock's descriptor is closed by this process's exit, after the keeper has had the end to record.
    fn report(&mut self, ended: &Ended) {
        self.suicide.set(None);
        self.sides.cgroup.iter().for_each(JobCgroup::remove);
        self.tell(&FromGuard::Ended(ended.clone()));
        if self.front_was_stopped
            && let Some(front) = rustix::process::getppid()
        {
            // Front stopped with the job (^Z), and the job is gone: nothing will ever continue it but a shell's `fg`.
            let _ = rustix::process::kill_process(front, Signal::CONT);
        }
        // With the keeper gone, this is the last descriptor: front has the end recorded first, and then says so or goes.
        // (A quick keeper may also be gone because it has recorded the end already; front knows that too.)
        self.hear_keeper();
        let give_up = Boot::now() + RECORDING;
        self.hear_front();
        while self.keeper_gone && !self.front_gone && !self.recorded && Boot::now() < give_up {
            self.alarm.set(Some(give_up));
            let _ = poll(
                &mut [
                    PollFd::new(&self.sides.front, PollFlags::IN),
                    PollFd::new(&self.alarm, PollFlags::IN),
                ],
                None,
            );
            self.hear_front();
        }
    }
}

/// Largest resident set in KiB of any one, and CPU time of all children that were waited for (getrusage(2)).
fn children_usage() -> (u64, Duration) {
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: rusage is plain data, for which zero is valid; getrusage(2) fills it.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_CHILDREN, usage.as_mut_ptr());
        usage.assume_init()
    };
    let time = |t: libc::timeval| {
        Duration::from_secs(t.tv_sec.unsigned_abs())
            + Duration::from_micros(t.tv_usec.unsigned_abs())
    };
    (
        usage.ru_maxrss.unsigned_abs(),
        time(usage.ru_utime) + time(usage.ru_stime),
    )
}
