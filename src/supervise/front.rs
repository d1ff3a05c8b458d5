//! The caller's child: signals, stops, output and the exit code. It never touches the store, so it never hangs with it.
//!
//! It is also the last subreaper: when the guard is killed, what is left of the job becomes front's and front ends it.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, WaitOptions, WaitStatus, wait};

use super::cgroup::{JobCgroup, Seen};
use super::messages::{
    Cause, Channel, Ended, FromGuard, FromKeeper, FrontToGuard, FrontToKeeper, Level, Received,
    Status, Word,
};
use super::pump::{Pump, Streams};
use super::signals::{self, Arrived, Signals};
use super::tail::TailFile;
use super::timer::Alarm;
use super::{fork, give_up_streams, guard, keeper, origin, outcome, process};
use crate::clock::Boot;
use crate::exit;
use crate::name::Token;
use crate::plan::{RunPlan, Wait};
use crate::store::record::RunRecord;
use crate::store::{Place, ProcessId, Processes, Recorded};

/// How long the store may take for an answer, over the time that the user waits for the lock.
const ANSWER: Duration = Duration::from_secs(30);
/// How soon front looks again at what it must end by itself.
const AGAIN: Duration = Duration::from_millis(20);

/// Runs `plan` from the first fork to the exit code. Where the job died of a terminal's INT or QUIT, it does not return:
/// front dies of it too.
///
/// # Errors
/// If the system refuses processes, pipes or timers; the job was not started then.
pub fn run(plan: &RunPlan) -> io::Result<u8> {
    let place = Place::here();
    let signals = Signals::of_front()?;
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    let cgroups = Seen::own();
    let record = origin::describe(plan, &place, cgroups.as_ref());
    let cgroup = cgroups.and_then(|seen| JobCgroup::of(&record.run_id, &seen));
    let on_terminal = has_terminal();
    let streams = Streams::open(plan.capture.is_some())?;
    let tail = if streams.pumps.is_empty() {
        None
    } else {
        plan.capture.map(TailFile::new).transpose()?
    };

    let (front_to_guard, guard_to_front) = Channel::pair()?;
    let (front_to_keeper, keeper_to_front) = Channel::pair()?;
    let (guard_to_keeper, keeper_to_guard) = Channel::pair()?;
    let Streams { pumps, job } = streams;

    // What the other two must not keep open is moved into the one closure that needs it, and dropped in the others.
    let mut front_only = Some((front_to_guard, front_to_keeper, pumps, signals));
    let mut for_keeper = Some((keeper_to_front, keeper_to_guard, tail));
    let mut for_guard = Some(guard::Sides {
        front: guard_to_front,
        keeper: guard_to_keeper,
        streams: job,
        own_group: !on_terminal,
        cgroup: cgroup.clone(),
    });
    let guard = fork(|| {
        drop((front_only.take(), for_keeper.take()));
        if let Some(sides) = for_guard.take() {
            let _ = guard::run(plan, sides);
        }
    })?;
    drop(for_guard.take());
    let guard_id = process::identify(guard.as_raw_nonzero().get());

    let keeper = fork(|| {
        drop(front_only.take());
        give_up_streams();
        let _ = rustix::process::setsid();
        signals::ignore_all();
        if let Some((front, guard, tail)) = for_keeper.take() {
            let own = process::own();
            let front_id = process::identify(
                rustix::process::getppid().map_or(0, |p| p.as_raw_nonzero().get()),
            );
            let processes = Processes {
                front: front_id,
                keeper: own,
                guard: guard_id,
            };
            let holder = origin::holder(&record, &place, processes, cgroup.as_ref());
            keeper::run(
                plan,
                record.clone(),
                holder,
                keeper::Sides { front, guard, tail },
            );
        }
    })?;
    let tail = for_keeper.take().and_then(|(_, _, tail)| tail);
    let Some((to_guard, to_keeper, pumps, signals)) = front_only.take() else {
        return Ok(exit::OWN_FAILURE);
    };
    let front = Front {
        plan,
        record,
        on_terminal,
        signals,
        alarm: Alarm::new()?,
        guard: to_guard,
        keeper: to_keeper,
        guard_id,
        keeper_pid: keeper,
        guard_pid: guard,
        cgroup,
        pumps,
        tail,
        job: None,
        job_status: None,
        token: None,
        cancelled: None,
        not_run: None,
        ended: None,
        drained: false,
        finished: false,
        guard_gone: false,
        guard_reaped: false,
        keeper_gone: false,
        give_up: answer_by(plan),
    };
    Ok(front.until_the_end())
}

fn answer_by(plan: &RunPlan) -> Option<Boot> {
    match plan.wait {
        Wait::No => Some(Boot::now() + ANSWER),
        Wait::For(time) => Some(Boot::now() + time + ANSWER),
        Wait::Forever => None,
    }
}

/// Whether there is a controlling terminal, so that a shell may be doing job control (tty(4)).
fn has_terminal() -> bool {
    rustix::fs::open(
        "/dev/tty",
        OFlags::RDONLY | OFlags::NOCTTY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .is_ok()
}

struct Front<'a> {
    plan: &'a RunPlan,
    record: RunRecord,
    on_terminal: bool,
    signals: Signals,
    alarm: Alarm,
    guard: Channel,
    keeper: Channel,
    guard_id: ProcessId,
    guard_pid: Pid,
    keeper_pid: Pid,
    cgroup: Option<JobCgroup>,
    pumps: Vec<Pump>,
    tail: Option<TailFile>,
    job: Option<i32>,
    job_status: Option<Status>,
    token: Option<Token>,
    cancelled: Option<i32>,
    not_run: Option<u8>,
    ended: Option<Ended>,
    drained: bool,
    finished: bool,
    guard_gone: bool,
    guard_reaped: bool,
    keeper_gone: bool,
    give_up: Option<Boot>,
}

impl Front<'_> {
    fn until_the_end(mut self) -> u8 {
        loop {
            self.hear_keeper();
            self.hear_guard();
            self.take_signals();
            for pump in &mut self.pumps {
                pump.turn(&mut |bytes| {
                    if let Some(tail) = &mut self.tail {
                        tail.add(bytes);
                    }
                });
            }
            if let Some(code) = self.verdict() {
                return code;
            }
            self.sleep();
        }
    }

    /// The exit code, once there is nothing left to wait for.
    fn verdict(&mut self) -> Option<u8> {
        if let Some(code) = self.not_run {
            return Some(self.cancelled.map_or(code, |signal| self.die_of(signal)));
        }
        if self.token.is_none() {
            return self.without_a_grant();
        }
        if self.ended.is_none() && self.guard_gone {
            self.end_the_tree();
        }
        let ended = self.ended.clone()?;
        if !self.drained {
            self.drain();
        }
        if !self.finished && self.keeper_gone {
            self.record_by_another(&ended);
        }
        if !self.finished && self.give_up.is_some_and(|at| Boot::now() >= at) {
            let pid = self.keeper_pid.as_raw_nonzero();
            self.error(&format!("the store does not answer: the end of this run is not recorded yet; pid {pid} goes on trying"));
            self.finished = true;
        }
        let guard_is_done = self.guard_reaped || !self.finished;
        (self.finished && guard_is_done && self.pumps.iter().all(Pump::is_done))
            .then(|| self.exit_code(&ended))
    }

    fn without_a_grant(&mut self) -> Option<u8> {
        if self.keeper_gone {
            self.error(
                "the keeper, joblock's process at the store, was killed: the job was not started",
            );
            return Some(
                self.cancelled
                    .map_or(exit::OWN_FAILURE, |signal| self.die_of(signal)),
            );
        }
        if self.give_up.is_some_and(|at| Boot::now() >= at) {
            self.error("the store does not answer: the job was not started; is its file system mounted and alive?");
            // It may hang in the kernel: it is not waited for.
            let _ = rustix::process::kill_process(self.keeper_pid, rustix::process::Signal::KILL);
            return Some(exit::STORE_UNUSABLE);
        }
        None
    }

    fn exit_code(&self, ended: &Ended) -> u8 {
        if ended.cause == Some(Cause::TimeLimit) {
            let limit = self.plan.time_limit.unwrap_or_default();
            self.error(&format!(
                "{} ran over its time limit of {} and was ended",
                self.plan.job,
                crate::duration::text(limit)
            ));
        }
        if let Status::NotExecuted(errno) = ended.status {
            self.explain_not_executed(errno);
        }
        match (outcome::exit_code(ended), ended.status) {
            (code, Status::Signaled(signal @ (libc::SIGINT | libc::SIGQUIT)))
                if self.on_terminal && code == exit::of_signal(signal) =>
            {
                self.die_of(signal)
            }
            (code, _) => code,
        }
    }

    /// On a terminal, a shell and its script must see that the signal ended us; PID 1 can't die of it, and nobody asks.
    fn die_of(&self, signal: i32) -> u8 {
        if self.on_terminal {
            signals::take(signal);
        }
        exit::of_signal(signal)
    }

    fn explain_not_executed(&self, errno: i32) {
        let program = self.plan.command[0].to_string_lossy();
        let why = io::Error::from_raw_os_error(errno);
        let hint = if self.plan.command.len() == 1 && program.contains(char::is_whitespace) {
            format!(
                "; one word with spaces is one program name: did you mean `-- sh -c '{program}'`?"
            )
        } else {
            String::new()
        };
        self.error(&format!("can't run {program}: {why}{hint}"));
    }

    fn sleep(&self) {
        let sweeping = self.ended.is_none() && self.guard_gone && self.token.is_some();
        let waiting_for_store = if self.token.is_none() || self.ended.is_some() {
            self.give_up
        } else {
            None
        };
        let again = sweeping.then(|| Boot::now() + AGAIN);
        self.alarm.set(again.or(waiting_for_store));
        let mut fds = vec![
            PollFd::new(&self.signals, PollFlags::IN),
            PollFd::new(&self.alarm, PollFlags::IN),
        ];
        if !self.guard_gone {
            fds.push(PollFd::new(&self.guard, PollFlags::IN));
        }
        if !self.keeper_gone {
            fds.push(PollFd::new(&self.keeper, PollFlags::IN));
        }
        fds.extend(self.pumps.iter().flat_map(Pump::interests));
        let _ = poll(&mut fds, None);
    }

    fn hear_keeper(&mut self) {
        while !self.keeper_gone {
            match self.keeper.receive() {
                Received::Message(FromKeeper::Say(word), _) => self.say(&word),
                Received::Message(FromKeeper::NotRun { code }, _) => self.not_run = Some(code),
                Received::Message(FromKeeper::Granted(token), _) => self.granted(token),
                Received::Message(FromKeeper::Finished, _) => self.finished = true,
                Received::Gone => self.keeper_gone = true,
                Received::Nothing => break,
            }
        }
    }

    fn granted(&mut self, token: Token) {
        self.token = Some(token);
        self.give_up = None;
        self.record.token = Some(token);
        if self.plan.verbosity > 0 {
            let id = self.record.run_id.short();
            self.error(&format!("run {id} of {}, token {token}", self.plan.job));
        }
        // It came while the grant was on its way: now it is the job's.
        if let Some(signal) = self.cancelled.take() {
            self.guard.send(&FrontToGuard::Signal(signal), None);
        }
    }

    fn hear_guard(&mut self) {
        while !self.guard_gone {
            match self.guard.receive() {
                Received::Message(FromGuard::Started(pid), _) => self.job = Some(pid),
                Received::Message(FromGuard::Stopped(signal), _) => self.stop_with_the_job(signal),
                Received::Message(FromGuard::Continued, _) => {}
                Received::Message(FromGuard::Ended(ended), _) => self.ended = Some(ended),
                Received::Gone => self.guard_gone = true,
                Received::Nothing => break,
            }
        }
    }

    /// The shell waits for a stop of its child, which is front. Comes back when the shell continues it.
    fn stop_with_the_job(&mut self, signal: i32) {
        if self.on_terminal {
            signals::take(if signal == libc::SIGSTOP {
                libc::SIGTSTP
            } else {
                signal
            });
            self.guard.send(&FrontToGuard::Signal(libc::SIGCONT), None);
        }
    }

    fn take_signals(&mut self) {
        while let Some(arrived) = self.signals.next() {
            match arrived.signal {
                libc::SIGCHLD => self.reap(),
                signal if signals::was_ignored(signal) => {}
                _ if self.token.is_none() => self.interrupt(arrived.signal),
                _ if self.ended.is_none() => self.pass_on(arrived),
                _ => {}
            }
        }
    }

    /// A signal while there is no job yet does what its default action would do, but in good order.
    fn interrupt(&mut self, signal: i32) {
        match signal {
            libc::SIGTSTP | libc::SIGTTIN | libc::SIGTTOU => signals::take(signal),
            libc::SIGCONT | libc::SIGWINCH | libc::SIGURG => {}
            _ => {
                self.cancelled = Some(signal);
                self.keeper.send(&FrontToKeeper::Cancel(signal), None);
            }
        }
    }

    /// The terminal's own signals have reached the job already, which is in the same process group.
    fn pass_on(&self, arrived: Arrived) {
        if arrived.by_process || !self.on_terminal {
            self.guard.send(&FrontToGuard::Signal(arrived.signal), None);
        }
    }

    fn reap(&mut self) {
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            if pid == self.guard_pid {
                self.guard_reaped = true;
            } else if Some(pid.as_raw_nonzero().get()) == self.job {
                self.job_status = status_of(status);
            }
        }
    }

    /// The guard was killed: the job's first process dies by its parent-death signal, the rest is front's now.
    fn end_the_tree(&mut self) {
        self.reap();
        let keeper = self.keeper_pid.as_raw_nonzero().get();
        // Older children belong to whoever executed us, not to the job.
        let left: Vec<_> = process::descendants(self.record.pid, &[keeper])
            .into_iter()
            .filter(|p| p.id.start >= self.guard_id.start)
            .collect();
        for process in &left {
            let _ = super::tree::signal(process.id, libc::SIGKILL);
        }
        let populated = self.cgroup.as_ref().is_some_and(JobCgroup::is_populated);
        self.cgroup.iter().for_each(JobCgroup::kill);
        if left.is_empty() && !populated {
            self.cgroup.iter().for_each(JobCgroup::remove);
            let ended = Ended {
                status: self.job_status.unwrap_or(Status::Unknown),
                cause: Some(Cause::GuardGone),
                duration: crate::clock::Wall::now()
                    .since(self.record.started)
                    .unwrap_or_default(),
                leaked: 0,
                peak_memory_kib: 0,
                cpu: Duration::ZERO,
            };
            self.keeper
                .send(&FrontToKeeper::TreeGone(ended.clone()), None);
            self.guard_reaped = true;
            self.ended = Some(ended);
        }
    }

    fn drain(&mut self) {
        for pump in &mut self.pumps {
            pump.drain(&mut |bytes| {
                if let Some(tail) = &mut self.tail {
                    tail.add(bytes);
                }
            });
        }
        self.keeper.send(&FrontToKeeper::Drained, None);
        self.drained = true;
        self.give_up = Some(Boot::now() + ANSWER);
    }

    /// The keeper was killed; another process, for front does no store I/O, writes the end.
    fn record_by_another(&mut self, ended: &Ended) {
        self.finished = true;
        let Some(token) = self.token else { return };
        let recorded = fork(|| {
            let word =
                match keeper::record_end(self.plan, &self.record, token, ended, self.tail.as_ref())
                {
                    Ok(Recorded::Stored) => return,
                    Ok(Recorded::Spooled { why, file }) => {
                        keeper::spooled(&why, &file.display().to_string())
                    }
                    Err(error) => keeper::lost_record(&error.to_string()),
                };
            self.error(&word);
        });
        let Ok(recorder) = recorded else {
            return self.error(&keeper::lost_record("no process for it"));
        };
        let give_up = Boot::now() + ANSWER;
        loop {
            match wait(WaitOptions::NOHANG) {
                Ok(Some((pid, _))) if pid == recorder => break,
                Ok(Some((pid, _))) => self.guard_reaped |= pid == self.guard_pid,
                Ok(None) if Boot::now() < give_up => self.wait_for_a_child(give_up),
                _ => return self.error(&keeper::lost_record("the store does not answer")),
            }
        }
        // Only now may the guard let go of the lock: it waits for front to go, and front no longer waits for it.
        self.guard_reaped = true;
    }

    fn wait_for_a_child(&self, until: Boot) {
        self.alarm.set(Some(until));
        let _ = poll(
            &mut [
                PollFd::new(&self.signals, PollFlags::IN),
                PollFd::new(&self.alarm, PollFlags::IN),
            ],
            None,
        );
        while self.signals.next().is_some() {}
    }

    fn say(&self, word: &Word) {
        let wanted = match word.level {
            Level::Error => true,
            Level::Person => {
                self.plan.verbosity > 0 || (self.plan.verbosity == 0 && io::stderr().is_terminal())
            }
            Level::Detail => self.plan.verbosity > 0,
        };
        if wanted {
            self.error(&word.text);
        }
    }

    fn error(&self, text: &str) {
        let _ = writeln!(io::stderr(), "joblock: {text}");
    }
}

fn status_of(status: WaitStatus) -> Option<Status> {
    status
        .exit_status()
        .map(Status::Exited)
        .or_else(|| status.terminating_signal().map(Status::Signaled))
}
