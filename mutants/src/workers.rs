//! A list of things to do, by a few threads: tests wait most of their time.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// How many; else two.
const WORKERS: &str = "MUTANTS_WORKERS";

/// Does `work` with each, in their order as far as that can be; with the first error, no more is begun.
pub fn all<T: Sync, R: Send>(
    things: &[T],
    work: impl Fn(&T) -> anyhow::Result<R> + Sync,
) -> anyhow::Result<Vec<R>> {
    let workers = std::env::var(WORKERS)
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(2);
    let (next, done, error) = (
        AtomicUsize::new(0),
        Mutex::new(Vec::new()),
        Mutex::new(None),
    );
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some(thing) = things.get(next.fetch_add(1, Ordering::Relaxed)) {
                    match work(thing) {
                        Ok(result) => done.lock().expect("whole").push(result),
                        Err(e) => {
                            next.store(things.len(), Ordering::Relaxed);
                            error.lock().expect("whole").get_or_insert(e);
                        }
                    }
                }
            });
        }
    });
    match error.into_inner().expect("whole") {
        Some(error) => Err(error),
        None => Ok(done.into_inner().expect("whole")),
    }
}
