//! What front does when the guard or the keeper was killed.

use std::io;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{WaitOptions, WaitStatus, wait};

use super::Front;
use crate::clock::Boot;
use crate::store::Recorded;
use crate::supervise::cgroup::JobCgroup;
use crate::supervise::messages::{Cause, Ended, Status};
use crate::supervise::{ANSWER, fork, keeper, process, tree};

impl Front<'_> {
    pub(super) fn reap(&mut self) {
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            if pid == self.guard_pid {
                self.guard_reaped = true;
            } else if Some(pid.as_raw_nonzero().get()) == self.job {
                self.job_status = status_of(status);
            }
        }
    }

    /// The guard was killed: the job's first process dies by its parent-death signal, the rest is front's now.
    ///
    /// # Errors
    /// If it can't be seen who is left. Then front has to go: the keeper, left alone, looks with descriptors of its own.
    pub(super) fn end_the_tree(&mut self) -> io::Result<()> {
        self.reap();
        let keeper = self.keeper_pid.as_raw_nonzero().get();
        // Older children belong to whoever executed us, not to the job.
        let mut left = process::descendants(self.record.pid, &[keeper])?;
        left.retain(|p| p.id.start >= self.guard_id.start);
        for process in &left {
            let _ = tree::signal(process.id, libc::SIGKILL);
        }
        let populated = self.cgroup.as_ref().is_some_and(JobCgroup::is_populated);
        self.cgroup.iter().for_each(JobCgroup::kill);
        // Dead, but not yet ours to be reaped: its status is still to come.
        let to_be_reaped =
            self.job_status.is_none() && self.job.is_some_and(|pid| process::stat(pid).is_some());
        if left.is_empty() && !populated && !to_be_reaped {
            self.cgroup.iter().for_each(JobCgroup::remove);
            let status = self.job_status.unwrap_or(Status::Unknown);
            self.guard_reaped = true;
            self.ended = Some(Ended::without_guard(status, self.record.started, 0));
        }
        Ok(())
    }

    /// The keeper was killed; another process, for front does no store I/O, writes the end.
    pub(super) fn record_by_another(&mut self, ended: &Ended) {
        self.finished = true;
        if ended.cause == Some(Cause::Lost) {
            Self::error(&keeper::lost_lock());
        }
        let Some(token) = self.token else { return };
        let forked = fork(|| {
            let word =
                match keeper::record_end(self.plan, &self.record, token, ended, self.tail.as_ref())
                {
                    Ok(Recorded::Stored) => return,
                    Ok(Recorded::Spooled { why, file }) => {
                        keeper::spooled(&why, &file.display().to_string())
                    }
                    Err(error) => keeper::lost_record(&error.to_string()),
                };
            Self::error(&word);
        });
        let Ok(recorder) = forked else {
            return Self::error(&keeper::lost_record("no process for it"));
        };
        let give_up = Boot::now() + ANSWER;
        loop {
            match wait(WaitOptions::NOHANG) {
                Ok(Some((pid, _))) if pid == recorder => break,
                Ok(Some((pid, _))) => self.guard_reaped |= pid == self.guard_pid,
                Ok(None) if Boot::now() < give_up => self.wait_for_a_child(give_up),
                _ => return Self::error(&keeper::lost_record("the store does not answer")),
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
}

fn status_of(status: WaitStatus) -> Option<Status> {
    status
        .exit_status()
        .map(Status::Exited)
        .or_else(|| status.terminating_signal().map(Status::Signaled))
}
