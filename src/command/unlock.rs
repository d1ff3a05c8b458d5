//! `joblock unlock`: takes a lock away from its holder, and says what is left of it and where.

use anyhow::bail;

use super::reading::{Held, Reading};
use crate::cli::{Global, UnlockArgs};
use crate::exit;
use crate::output::{Page, record, say};
use crate::store::{Cleared, Holder};

/// Runs it.
pub fn run(args: &UnlockArgs, global: &Global) -> anyhow::Result<u8> {
    let reading = Reading::open_to_request(global)?;
    let job = args.job.as_str();
    let Some(held) = reading.held(job)? else {
        say(format_args!("nobody has the lock of {job}"));
        return Ok(exit::OK);
    };
    let page = Page::of_stdout(reading.now);
    say(format_args!(
        "the lock {} is held by {}",
        held.lock,
        record::holder(&page, &held.holder)
    ));
    reading
        .store()
        .revoke(&held.lock, &reading.request(held.token, &args.reason))?;
    let silent = if reading.look().is_gone(&held.holder) {
        say("its processes are gone: the next start takes over");
        None
    } else if args.kill && reading.keeper_is_deaf(&held.holder) {
        say("its keeper, who would see the revocation, is dead or stopped");
        end_run(&reading, &held)?;
        None
    } else {
        say(
            "revoked; waiting for its holder to kill the job and let go; ^C ends the waiting, not the revocation",
        );
        reading.watch(&held)?
    };
    clear(args, &reading, &held.holder)?;
    match silent {
        None => {
            say(format_args!("the lock {} is free", held.lock));
            Ok(exit::OK)
        }
        Some(silent) => unanswered(&reading, &held, silent.as_secs()),
    }
}

/// The holder does not answer. Where its machine is gone, or only its keeper, the lock can be had; where its processes are merely
/// stopped, they keep it.
fn unanswered(reading: &Reading, held: &Held, silent: u64) -> anyhow::Result<u8> {
    let Held {
        lock, holder, ttl, ..
    } = held;
    let host = &holder.place.host;
    say(format_args!(
        "{host} has given no sign of life for {silent} s"
    ));
    if reading.kernel_lock_is_free(lock)? {
        say("the kernel's lock is free: the next start takes over");
        return Ok(exit::OK);
    }
    if let Some(way) = holder.way_to_free(|| reading.mount()) {
        say(format_args!("the lock is not free: {way}"));
        return Ok(exit::LOCK_HELD);
    }
    let if_gone = if ttl.is_some() {
        format!("if {host} is gone, a file server frees it after its lease; if not, ")
    } else {
        String::new()
    };
    say(format_args!(
        "the lock is not free, somebody has the kernel's lock: {if_gone}on {host} end these processes, or let them go on if they are \
         stopped: {}",
        holder.processes
    ));
    Ok(exit::LOCK_HELD)
}

/// Ends a run that can't be told to end itself.
fn end_run(reading: &Reading, held: &Held) -> anyhow::Result<()> {
    match reading.kill_run_here(held) {
        Cleared::Gone { .. } => say("the run was killed, joblock's own processes with it"),
        Cleared::Alive => {
            bail!("joblock's own processes can't be ended: end them as their user, or as root")
        }
        Cleared::Stuck(left) => {
            bail!("these can't be ended: {left}; end them as root, or see what they wait for")
        }
    }
    Ok(())
}

/// What is left on this machine: named, and with `--kill` ended.
fn clear(args: &UnlockArgs, reading: &Reading, holder: &Holder) -> anyhow::Result<()> {
    let left = reading.left_here(holder).join(", ");
    if !args.kill {
        if !left.is_empty() {
            say(format_args!(
                "left on this machine: {left}; the next start ends them, or `--kill` does now"
            ));
        }
        return Ok(());
    }
    match reading.kill_left_here(holder) {
        Cleared::Gone { .. } if left.is_empty() => say("nothing of it is left on this machine"),
        Cleared::Gone { .. } => say(format_args!("ended on this machine: {left}")),
        Cleared::Alive => {
            say("its own processes are alive on this machine, and end the job themselves");
        }
        Cleared::Stuck(left) => {
            bail!("these can't be ended: {left}; end them as root, or see what they wait for")
        }
    }
    Ok(())
}
