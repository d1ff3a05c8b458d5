//! The caller's child: signals, stops, output and the exit code. It never touches the store, so it never hangs with it.
//!
//! It is also the last subreaper: when the guard is killed, what is left of the job becomes front's and front ends it.

mod rescue;
mod start;

use std::io::{self, IsTerminal};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::Pid;

use super::ANSWER;
use super::cgroup::JobCgroup;
use super::keeper;
use super::messages::{
    Cause, Channel, Ended, FromGuard, FromKeeper, FrontToGuard, FrontToKeeper, Level, Received,
    Status, Word,
};
use super::outcome;
use super::pump::Pump;
use super::signals::{self, Arrived, Signals};
use super::tail::TailFile;
use super::timer::Alarm;
use crate::clock::Boot;
use crate::exit;
use crate::name::Token;
use crate::output;
use crate::plan::{RunPlan, Wait};
use crate::store::record::RunRecord;
use crate::store::{ProcessId, remote};

pub use start::run;

/// How long the keeper may take to record that the start was cancelled.
const CANCELLED: Duration = Duration::from_secs(15);
/// How soon front looks again at what it must end by itself.
const AGAIN: Duration = Duration::from_millis(20);

#[expect(
    clippy::struct_excessive_bools,
    reason = "each is one end that comes at its own time, in any order"
)]
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
    /// The guard was told that the end is recorded.
    dismissed: bool,
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
        if self.ended.is_none()
            && self.guard_gone
            && let Err(error) = self.end_the_tree()
        {
            Self::error(&format!(
                "the guard, joblock's process above the job, was killed, and it can't be seen what is left of the job ({error}): \
                 the keeper ends it"
            ));
            return Some(exit::of_signal(libc::SIGKILL));
        }
        let ended = self.ended.clone()?;
        if !self.drained {
            self.drain(&ended);
        }
        if !self.finished && self.keeper_gone {
            self.record_by_another(&ended);
        }
        if !self.finished && self.give_up.is_some_and(|at| Boot::now() >= at) {
            if ended.cause == Some(Cause::Lost) {
                // whoever else would say so hangs
                Self::error(&keeper::lost_lock());
            }
            let pid = self.keeper_pid.as_raw_nonzero();
            Self::error(&format!(
                "{}; the end of this run is not recorded yet; pid {pid} goes on trying",
                self.silence()
            ));
            self.finished = true;
        }
        if self.finished && self.keeper_gone && !self.guard_reaped && !self.dismissed {
            self.guard.send(&FrontToGuard::Recorded, None);
            self.dismissed = true;
        }
        let guard_is_done = self.guard_reaped || !self.finished;
        (self.finished && guard_is_done && self.pumps.iter().all(Pump::is_done))
            .then(|| self.exit_code(&ended))
    }

    fn without_a_grant(&mut self) -> Option<u8> {
        if self.keeper_gone {
            Self::error(
                "the keeper, joblock's process at the store, was killed: the job was not started, and this attempt may be in no history",
            );
            return Some(
                self.cancelled
                    .map_or(exit::OWN_FAILURE, |signal| self.die_of(signal)),
            );
        }
        if self.give_up.is_some_and(|at| Boot::now() >= at) {
            if self.plan.wait == Wait::Forever && self.cancelled.is_none() {
                Self::error(&format!("{}; it is waited for", self.silence()));
                self.give_up = None;
                return None;
            }
            Self::error(&format!("{}; the job was not started", self.silence()));
            // It may hang in the kernel: it is not waited for.
            let _ = rustix::process::kill_process(self.keeper_pid, rustix::process::Signal::KILL);
            let code = exit::STORE_UNUSABLE;
            return Some(self.cancelled.map_or(code, |signal| self.die_of(signal)));
        }
        None
    }

    /// That the store does not answer, and which mount it is.
    fn silence(&self) -> String {
        remote::on_the_way(&self.plan.store.database()).map_or_else(
            || {
                "the store does not answer: is its disk in order, see the kernel's log (dmesg)?"
                    .into()
            },
            |mount| remote::silent(&mount),
        )
    }

    fn exit_code(&self, ended: &Ended) -> u8 {
        if ended.cause == Some(Cause::TimeLimit) {
            let limit = self.plan.time_limit.unwrap_or_default();
            Self::error(&format!(
                "{} ran over its time limit of {} and was ended",
                self.plan.job,
                crate::duration::text(limit)
            ));
        }
        if let Status::NotExecuted(errno) = ended.status {
            self.explain_not_executed(errno);
        }
        if ended.cause == Some(Cause::GuardGone) {
            if self.job.is_none() && ended.status == Status::Unknown {
                Self::error(
                    "the guard, joblock's process above the job, ended before it told of the job's start: \
                     the job was not started, or killed at once",
                );
                return exit::OWN_FAILURE;
            }
            Self::error(
                "the guard, joblock's process above the job, was killed: what was left of the job was ended",
            );
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
        let command = self.plan.shown_command();
        let program = command[0].to_string_lossy();
        let why = io::Error::from_raw_os_error(errno);
        let hint = if command.len() == 1 && program.contains(char::is_whitespace) {
            format!(
                "; one word with spaces is one program name: did you mean `-- sh -c '{program}'`?"
            )
        } else {
            String::new()
        };
        Self::error(&format!("can't run {program}: {why}{hint}"));
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
                Received::Message(FromKeeper::Finished(ended), _) => {
                    self.finished = true;
                    self.ended = Some(ended);
                }
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
            Self::error(&format!("run {id} of {}, token {token}", self.plan.job));
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
                Received::Message(FromGuard::FirstEnded(status), _) => {
                    self.job_status = Some(status);
                }
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
                let give_up = Boot::now() + CANCELLED;
                self.give_up = Some(self.give_up.map_or(give_up, |at| at.min(give_up)));
                self.keeper.send(&FrontToKeeper::Cancel, None);
            }
        }
    }

    /// The terminal's own signals have reached the job already, which is in the same process group.
    fn pass_on(&self, arrived: Arrived) {
        if arrived.by_process || !self.on_terminal {
            self.guard.send(&FrontToGuard::Signal(arrived.signal), None);
        }
    }

    fn drain(&mut self, ended: &Ended) {
        for pump in &mut self.pumps {
            pump.drain(&mut |bytes| {
                if let Some(tail) = &mut self.tail {
                    tail.add(bytes);
                }
            });
        }
        self.keeper
            .send(&FrontToKeeper::Drained(ended.clone()), None);
        self.drained = true;
        self.give_up = Some(Boot::now() + ANSWER);
    }

    fn say(&mut self, word: &Word) {
        if self.plan.wait == Wait::Forever && self.token.is_none() && self.cancelled.is_none() {
            // whoever speaks does not hang
            self.give_up = None;
        }
        let wanted = match word.level {
            Level::Error => true,
            Level::Warning => self.plan.verbosity >= 0,
            Level::Person => {
                self.plan.verbosity > 0 || (self.plan.verbosity == 0 && io::stderr().is_terminal())
            }
            Level::Detail => self.plan.verbosity > 0,
        };
        if wanted {
            Self::error(&word.text);
        }
    }

    fn error(text: &str) {
        output::say(text);
    }
}
