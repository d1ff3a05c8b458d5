//! Waiting for a kernel lock with a limit.
//!
//! flock(2) has none, and a signal to interrupt it would be a signal to the whole process. So a thread blocks in it
//! and hands the locked file over. One that is still blocked when the wait is over stays, is asked for again by
//! the next wait for the same lock, and drops what it gets if nobody wants it any more: the kernel wakes it within
//! the moment that the lock is free, so it holds up nobody for longer than that.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::file::LockFile;
use crate::lease::takeover::FileId;
use crate::name::LockName;

#[derive(Default)]
struct State {
    /// Somebody waits: a lock that comes is kept for them.
    wanted: bool,
    /// The thread's result, until it is taken.
    got: Option<io::Result<LockFile>>,
    /// The thread has ended, or is about to without touching the lock any more.
    over: bool,
}

type Shared = Arc<(Mutex<State>, Condvar)>;

/// The threads that wait, at most one for each lock.
#[derive(Default)]
pub struct Waiters(Mutex<HashMap<LockName, (FileId, Shared)>>);

impl Waiters {
    /// Waits for `name`'s lock on `file`, `limit` at most, and not longer than until `interrupted` says so, which is
    /// asked every `ask`; `Ok(None)`: not in that time. What comes back may be another descriptor of the same file.
    pub fn wait(
        &self,
        name: &LockName,
        file: LockFile,
        limit: Duration,
        ask: Duration,
        interrupted: &dyn Fn() -> bool,
    ) -> io::Result<Option<LockFile>> {
        let shared = self.thread_for(name, file)?;
        let (state, woken) = &*shared;
        let until = Instant::now() + limit;
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(result) = state.got.take() {
                return result.map(Some);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || interrupted() {
                state.wanted = false;
                return Ok(None);
            }
            state = woken
                .wait_timeout(state, left.min(ask))
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    fn thread_for(&self, name: &LockName, file: LockFile) -> io::Result<Shared> {
        let mut threads = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // one that waits on a file which was replaced since may wait forever: it is left alone
        if let Some((_, shared)) = threads.get(name).filter(|(id, _)| *id == file.id) {
            let mut state = shared.0.lock().unwrap_or_else(PoisonError::into_inner);
            if !state.over {
                state.wanted = true;
                return Ok(Arc::clone(shared));
            }
        }
        let shared: Shared = Arc::new((
            Mutex::new(State {
                wanted: true,
                ..State::default()
            }),
            Condvar::new(),
        ));
        threads.insert(name.clone(), (file.id, Arc::clone(&shared)));
        let theirs = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("flock".into())
            .spawn(move || {
                let result = file.lock();
                let mut state = theirs.0.lock().unwrap_or_else(PoisonError::into_inner);
                state.over = true;
                if state.wanted {
                    state.got = Some(result.map(|()| file));
                }
                theirs.1.notify_all();
            })?;
        Ok(shared)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASK: Duration = Duration::from_millis(100);

    #[test]
    fn a_waiter_is_woken_by_the_release_and_an_old_one_serves_the_next_wait() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("a.lock");
        let name: LockName = "a".parse().expect("a name");
        let holder = LockFile::open_or_create(&path).expect("open");
        assert!(holder.try_lock().expect("lock"));
        let waiters = Waiters::default();
        let open = || LockFile::open_or_create(&path).expect("open");
        assert!(
            waiters
                .wait(&name, open(), Duration::from_millis(20), ASK, &|| false)
                .expect("wait")
                .is_none()
        );
        let got = std::thread::scope(|s| {
            let waiting =
                s.spawn(|| waiters.wait(&name, open(), Duration::from_secs(60), ASK, &|| false));
            drop(holder);
            waiting.join().expect("no panic")
        });
        let got = got.expect("wait").expect("the lock");
        assert!(!open().try_lock().expect("lock"));
        drop(got);
        assert!(open().try_lock().expect("lock"));
    }

    #[test]
    fn who_waits_for_a_file_that_was_replaced_keeps_nobody_from_the_new_one() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("a.lock");
        let name: LockName = "a".parse().expect("a name");
        let open = || LockFile::open_or_create(&path).expect("open");
        let holder = open();
        assert!(holder.try_lock().expect("lock"));
        let waiters = Waiters::default();
        let wait = |limit| {
            waiters
                .wait(&name, open(), limit, ASK, &|| false)
                .expect("wait")
        };
        assert!(wait(Duration::from_millis(20)).is_none());
        std::fs::remove_file(&path).expect("remove");
        assert!(wait(Duration::from_secs(60)).is_some());
    }

    #[test]
    fn a_lock_that_nobody_wants_any_more_is_let_go() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("a.lock");
        let name: LockName = "a".parse().expect("a name");
        let holder = LockFile::open_or_create(&path).expect("open");
        assert!(holder.try_lock().expect("lock"));
        let waiters = Waiters::default();
        assert!(
            waiters
                .wait(
                    &name,
                    LockFile::open_or_create(&path).expect("open"),
                    Duration::ZERO,
                    ASK,
                    &|| false
                )
                .expect("wait")
                .is_none()
        );
        drop(holder);
        // blocks until the thread has let go
        LockFile::open_or_create(&path)
            .expect("open")
            .lock()
            .expect("lock");
    }
}
