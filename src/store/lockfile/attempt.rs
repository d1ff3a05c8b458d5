//! One attempt to take a lock whose first gate is a kernel lock: look, and wait for what can be waited for.

use std::os::fd::AsFd;
use std::sync::MutexGuard;
use std::time::Duration;

use super::file::LockFile;
use super::slots;
use super::wait::Waiters;
use crate::clock::Boot;
use crate::store::sqlite::db::Db;
use crate::store::sqlite::locks;
use crate::store::{
    Attempt, Cleared, Grant, Holder, LockRequest, Observed, Place, StoreError, trouble,
};

/// How long an attempt that must not wait goes on while the kernel lock is taken and nobody is named as its holder:
/// somebody is about to be, or just was. Between the two stands a durable commit, which on a busy machine takes longer
/// than one would think: with 250 ms, starts were refused by nobody.
const UNNAMED: Duration = Duration::from_secs(2);
/// How long a waiter sleeps in the kernel before it looks again: whether the lock file is still the one that others
/// use, and whether the holder died and left somebody behind who inherited the lock.
const LOOK: Duration = Duration::from_secs(1);
/// How soon to look again where nothing but time helps.
pub const SOON: Duration = Duration::from_millis(20);
/// How often a waiter asks whether it should give up.
const ASK: Duration = Duration::from_millis(100);

/// What one look came to.
pub enum Look {
    /// It is ours.
    Granted(Box<dyn Grant>),
    /// The state changed under it.
    Again,
    /// The kernel lock is taken, and nobody is named as its holder.
    Unnamed(Observed),
    /// The kernel lock is taken by the holder.
    Taken(Observed),
    /// The kernel lock is ours, but the holder is not gone for good yet; look again after so long.
    Leased(Observed, Duration),
}

/// What a store does at each step.
pub trait Steps {
    /// Where this process stands.
    fn here(&self) -> &Place;
    /// The threads that wait.
    fn waiters(&self) -> &Waiters;
    /// The database, where the lock may have been taken over from this machine by others.
    fn shared_db(&self) -> Option<MutexGuard<'_, Db>>;
    /// Opens the lock file, not locked.
    fn open(&self, request: &LockRequest<'_>) -> Result<LockFile, StoreError>;
    /// Who has the lock, by what stands in the store.
    fn look(&self, request: &LockRequest<'_>) -> Result<Observed, StoreError>;
    /// The kernel lock is ours: decides, and takes the lock if it may.
    fn decide(&self, request: &LockRequest<'_>, file: LockFile) -> Result<Look, StoreError>;
}

/// See [`crate::store::Locks::try_acquire`].
pub fn attempt(
    steps: &impl Steps,
    request: &LockRequest<'_>,
    until: Option<Boot>,
) -> Result<Attempt, StoreError> {
    check_size(request)?;
    let mut unnamed_until = None;
    let mut locked = None;
    loop {
        let file = match locked.take() {
            Some(file) => file,
            None => steps.open(request)?,
        };
        let path = file.path.clone();
        let (look, file) = if file.try_lock().map_err(|e| trouble::from_io(&path, &e))? {
            if sweep(steps, request, None)? {
                (steps.decide(request, file)?, None)
            } else {
                (Look::Leased(steps.look(request)?, SOON), None)
            }
        } else {
            (without_lock(steps, request, &file)?, Some(file))
        };
        let now = Boot::now();
        let interrupted = (request.interrupted)();
        let left = if interrupted {
            Duration::ZERO
        } else {
            until.unwrap_or(now).since(now)
        };
        match (look, file) {
            (Look::Granted(grant), _) => return Ok(Attempt::Granted(grant)),
            (Look::Again, _) => {}
            (Look::Unnamed(_), _)
                if !interrupted && now < *unnamed_until.get_or_insert(now + UNNAMED) =>
            {
                std::thread::sleep(SOON / 4);
            }
            (Look::Unnamed(seen) | Look::Taken(seen) | Look::Leased(seen, _), _)
                if left.is_zero() =>
            {
                return Ok(Attempt::Held(Box::new(seen)));
            }
            (_, Some(file)) => {
                let waited = steps.waiters().wait(
                    &request.lock,
                    file,
                    left.min(LOOK),
                    ASK,
                    request.interrupted,
                );
                locked = waited.map_err(|e| trouble::from_io(&path, &e))?;
            }
            (Look::Leased(_, pause), None) => {
                sleep(pause.clamp(SOON, LOOK).min(left), request.interrupted);
            }
            (_, None) => std::thread::sleep(SOON.min(left)),
        }
    }
}

/// Ends what is left here of runs that another machine took the lock over from, which did so by the lease, without a look at
/// this one. `false`: one of them still has processes of its own, which end it and themselves.
fn sweep(
    steps: &impl Steps,
    request: &LockRequest<'_>,
    file: Option<&LockFile>,
) -> Result<bool, StoreError> {
    let left = match steps.shared_db() {
        Some(mut db) => db.read(|conn| locks::unswept(conn, &request.lock, steps.here()))?,
        None => Vec::new(),
    };
    for holder in left {
        let run = holder.run_id.clone();
        match request.clearing.clear(&holder, file.map(LockFile::as_fd)) {
            Cleared::Alive => return Ok(false),
            Cleared::Stuck(left) => return Err(StoreError::Leftovers { run, left }),
            Cleared::Gone { .. } => {
                if let Some(mut db) = steps.shared_db() {
                    // once more does no harm
                    let _ = db.write(|tx| locks::swept(tx, &run));
                }
            }
        }
    }
    Ok(true)
}

/// A holder that fits into no block could never have a heartbeat: better not started than killed.
fn check_size(request: &LockRequest<'_>) -> Result<(), StoreError> {
    let size = serde_json::to_vec(&request.holder).map_or(usize::MAX, |json| json.len());
    if size <= slots::HOLDER {
        return Ok(());
    }
    Err(StoreError::Unusable(format!(
        "what is to be written about the holder takes {size} bytes, and {} is the most: shorten the names of user, host and cgroup",
        slots::HOLDER
    )))
}

/// Sleeps in short pieces, so that it can be interrupted.
fn sleep(mut left: Duration, interrupted: &dyn Fn() -> bool) {
    while !left.is_zero() && !interrupted() {
        let piece = left.min(ASK);
        std::thread::sleep(piece);
        left -= piece;
    }
}

/// Somebody else has the kernel lock.
fn without_lock(
    steps: &impl Steps,
    request: &LockRequest<'_>,
    file: &LockFile,
) -> Result<Look, StoreError> {
    let mut seen = steps.look(request)?;
    // what it wrote before it lost the lock again
    let is_own = |holder: &Holder| holder.run_id == request.holder.run_id;
    if seen.holder.as_ref().is_some_and(is_own) {
        seen.holder = None;
    }
    let Some(holder) = &seen.holder else {
        sweep(steps, request, Some(file))?;
        return Ok(Look::Unnamed(seen));
    };
    if !holder.place.same_pids(steps.here()) {
        return Ok(Look::Taken(seen));
    }
    match request.clearing.clear(holder, Some(file.as_fd())) {
        Cleared::Alive => Ok(Look::Taken(seen)),
        // its leftovers had the lock; or it ended meanwhile, and somebody else has it
        Cleared::Gone { .. } => Ok(Look::Unnamed(seen)),
        Cleared::Stuck(left) => Err(StoreError::Leftovers {
            run: holder.run_id.clone(),
            left,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sleep_is_as_long_as_it_is_to_be_unless_it_is_interrupted() {
        let took = |left, interrupted: bool| {
            let began = Boot::now();
            sleep(left, &|| interrupted);
            Boot::now().since(began)
        };
        let long = Duration::from_secs(20);
        assert!(took(ASK + SOON, false) >= ASK + SOON);
        assert!(took(Duration::ZERO, false) < long && took(long, true) < long);
    }
}
