//! Who asks for this attempt, from where: the part of its record that is known before anything is tried.

use std::fs;
use std::path::PathBuf;

use super::cgroup::{JobCgroup, Seen};
use super::{memory, process};
use crate::clock::Wall;
use crate::name::RunId;
use crate::plan::RunPlan;
use crate::store::record::{Outcome, RunRecord, UnsafeMount, Who};
use crate::store::{Holder, Place, Processes};

/// The record of the attempt that `plan` describes, as `running` and begun now.
pub fn describe(plan: &RunPlan, place: &Place, cgroups: Option<&Seen>) -> RunRecord {
    let command = plan.shown_command();
    RunRecord {
        run_id: RunId::random(),
        job: plan.job.clone(),
        lock: plan.lock.clone(),
        token: None,
        trigger: plan.trigger,
        who: who(),
        reason: plan.reason.clone(),
        tags: plan.tags.clone(),
        repeats: plan.repeats.clone(),
        host: place.host.clone(),
        boot_id: place.boot_id.clone(),
        container: cgroups.and_then(Seen::container),
        oom_counters: cgroups.map(memory::counters).unwrap_or_default(),
        pid: process::own().pid,
        redacted: command != plan.command,
        unsafe_mount: plan.accept_unsafe_mount.clone().map(|reason| UnsafeMount {
            reason,
            accepted: Vec::new(),
        }),
        command,
        cwd: std::env::current_dir().unwrap_or_else(|_| PathBuf::from("?")),
        started: Wall::now(),
        outcome: Outcome::Running,
        end: None,
        held_by: None,
        note: None,
    }
}

/// What will stand in the store as the holder.
pub fn holder(
    record: &RunRecord,
    place: &Place,
    processes: Processes,
    cgroup: Option<&JobCgroup>,
) -> Holder {
    Holder {
        run_id: record.run_id.clone(),
        job: record.job.as_str().to_owned(),
        trigger: record.trigger,
        who: record.who.clone(),
        place: place.clone(),
        processes,
        cgroup: cgroup.map(JobCgroup::path),
        nfs: None,
        freeing: None,
        since: Wall::now(),
    }
}

/// The calling user.
pub fn who() -> Who {
    let uid = rustix::process::getuid().as_raw();
    Who {
        uid,
        user: user_name(uid).unwrap_or_else(|| uid.to_string()),
        sudo_user: std::env::var("SUDO_USER")
            .ok()
            .filter(|user| !user.is_empty()),
        terminal: terminal(),
    }
}

/// From /etc/passwd alone: a static binary can't ask the name service switch.
fn user_name(uid: u32) -> Option<String> {
    let users = fs::read_to_string("/etc/passwd").ok()?;
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

/// The terminal behind one of the standard streams.
fn terminal() -> Option<String> {
    (0..3).find_map(|fd| {
        // SAFETY: a borrow for the length of two calls; a closed descriptor only makes them fail (Rust reopens 0 to 2 anyway).
        let fd = unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) };
        let name = rustix::termios::ttyname(fd, Vec::new()).ok()?;
        Some(
            name.to_string_lossy()
                .trim_start_matches("/dev/")
                .to_owned(),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_has_a_name() {
        assert_eq!(user_name(0).as_deref(), Some("root"));
    }
}
