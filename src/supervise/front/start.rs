//! How a run begins: one thread, no store open, three pairs of sockets, two forks.

use std::io;

use rustix::fs::{Mode, OFlags};
use rustix::process::Pid;

use super::Front;
use crate::clock::Boot;
use crate::plan::{RunPlan, Wait};
use crate::store::record::RunRecord;
use crate::store::{Place, ProcessId, Processes};
use crate::supervise::cgroup::{JobCgroup, Seen};
use crate::supervise::messages::Channel;
use crate::supervise::pump::{Pump, Streams};
use crate::supervise::signals::Signals;
use crate::supervise::tail::TailFile;
use crate::supervise::timer::Alarm;
use crate::supervise::{ANSWER, fork, give_up_streams, guard, keeper, origin, process};

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
    let Streams { pumps, job } = Streams::open(plan.capture.is_some())?;
    let tail = plan
        .capture
        .filter(|_| !pumps.is_empty())
        .map(TailFile::new)
        .transpose()?;

    let (guard, guard_to_front) = Channel::pair()?;
    let (keeper, keeper_to_front) = Channel::pair()?;
    let (guard_to_keeper, keeper_to_guard) = Channel::pair()?;
    let fronts = Fronts {
        guard,
        keeper,
        pumps,
        signals,
    };
    let keepers = keeper::Sides {
        front: keeper_to_front,
        guard: keeper_to_guard,
        tail,
    };
    let guards = guard::Sides {
        front: guard_to_front,
        keeper: guard_to_keeper,
        streams: job,
        own_group: !on_terminal,
        cgroup: cgroup.clone(),
    };
    let (fronts, keepers, pid_of_guard) = fork_guard(plan, fronts, keepers, guards)?;
    let guard_id = process::identify(pid_of_guard.as_raw_nonzero().get());
    let begin = Begin {
        record: &record,
        place: &place,
        guard: guard_id,
        cgroup: cgroup.as_ref(),
    };
    let (fronts, tail, keeper_pid) = fork_keeper(plan, fronts, keepers, &begin)?;
    let front = Front {
        plan,
        record,
        on_terminal,
        signals: fronts.signals,
        alarm: Alarm::new()?,
        guard: fronts.guard,
        keeper: fronts.keeper,
        guard_id,
        keeper_pid,
        guard_pid: pid_of_guard,
        cgroup,
        pumps: fronts.pumps,
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
        dismissed: false,
        keeper_gone: false,
        give_up: Some(answer_by(plan)),
    };
    Ok(front.until_the_end())
}

/// What front alone may keep open: whoever else had a copy would hide that front, or the job's reader, is gone.
struct Fronts {
    guard: Channel,
    keeper: Channel,
    pumps: Vec<Pump>,
    signals: Signals,
}

/// Everything is moved in, so that the child can close what is not its own; the parent gets its own back.
fn fork_guard(
    plan: &RunPlan,
    fronts: Fronts,
    keepers: keeper::Sides,
    guards: guard::Sides,
) -> io::Result<(Fronts, keeper::Sides, Pid)> {
    let mut others = Some((fronts, keepers));
    let mut guards = Some(guards);
    let pid = fork(|| {
        drop(others.take());
        if let Some(sides) = guards.take()
            && let Err(error) = guard::run(plan, sides)
        {
            Front::error(&format!(
                "the guard, joblock's process above the job, can't begin: {error}"
            ));
        }
    })?;
    let (fronts, keepers) = others.ok_or(io::ErrorKind::Other)?;
    Ok((fronts, keepers, pid))
}

/// What the keeper must know of a run that begins.
struct Begin<'a> {
    record: &'a RunRecord,
    place: &'a Place,
    guard: ProcessId,
    cgroup: Option<&'a JobCgroup>,
}

fn fork_keeper(
    plan: &RunPlan,
    fronts: Fronts,
    keepers: keeper::Sides,
    begin: &Begin<'_>,
) -> io::Result<(Fronts, Option<TailFile>, Pid)> {
    let front = process::own();
    let mut fronts = Some(fronts);
    let mut keepers = Some(keepers);
    let pid = fork(|| {
        drop(fronts.take());
        give_up_streams();
        let _ = rustix::process::setsid();
        let processes = Processes {
            front,
            keeper: process::own(),
            guard: begin.guard,
        };
        let holder = origin::holder(begin.record, begin.place, processes, begin.cgroup);
        if let Some(sides) = keepers.take() {
            keeper::run(plan, begin.record.clone(), holder, sides);
        }
    })?;
    let tail = keepers.and_then(|sides| sides.tail);
    Ok((fronts.ok_or(io::ErrorKind::Other)?, tail, pid))
}

fn answer_by(plan: &RunPlan) -> Boot {
    match plan.wait {
        Wait::For(time) => Boot::now() + time + ANSWER,
        // who waits for ever is only told then
        Wait::No | Wait::Forever => Boot::now() + ANSWER,
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
