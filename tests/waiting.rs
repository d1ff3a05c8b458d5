//! `--max-waiters`: so many wait, one more is refused at once and told why; a waiter that dies is counted no more.

mod common;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use common::{Kind, Running, Store, finish, start, wait_until};
use rstest::rstest;

fn queue(store: &Store, kind: Kind, lock: &str) -> PathBuf {
    match kind {
        Kind::Lockfile => store.path().join(format!("{lock}.waiting")),
        Kind::Local | Kind::Shared => store
            .path()
            .join(format!("joblock.db.locks/{lock}.waiting")),
    }
}

/// How many wait for the lock `a`, as the kernel sees it.
fn waiters(store: &Store, kind: Kind) -> usize {
    let Ok(meta) = fs::metadata(queue(store, kind, "a")) else {
        return 0;
    };
    let inode = format!(":{} ", meta.ino());
    let locks = fs::read_to_string("/proc/locks").expect("the kernel's locks");
    let ours =
        |line: &&str| line.contains("OFDLCK") && !line.contains("->") && line.contains(&inode);
    locks.lines().filter(ours).count()
}

/// A run of `a` that goes on until the file `go` is there.
fn holder(store: &Store) -> Running {
    let go = store.file("go");
    let script = format!("while ! [ -e {} ]; do sleep 0.01; done", go.display());
    let running = start(&mut store.run(&[], "a", &["sh", "-c", &script]));
    store.holder("a");
    running
}

fn waiter(store: &Store, limit: &[&str]) -> Running {
    start(&mut store.run(&[&["-v", "-w", "1h"], limit].concat(), "a", &["true"]))
}

const TWO: [&str; 2] = ["--max-waiters", "2"];

// shows: waiting local, shared, lockfile
#[rstest]
fn one_too_many_is_refused_at_once_and_told_why(
    #[values(Kind::Local, Kind::Shared, Kind::Lockfile)] kind: Kind,
) {
    let store = Store::new(kind);
    let holding = holder(&store);
    // one that has no limit is counted as well
    let waiting = [waiter(&store, &[]), waiter(&store, &TWO)];
    wait_until("two waiters", || waiters(&store, kind) == 2);
    let status = finish(store.joblock("status").arg("a")).expect(0).out();
    assert!(status.contains("2 wait for the lock"), "{status}");
    let refused = waiter(&store, &TWO).finish().expect(75);
    let says = refused.err();
    assert!(
        says.contains("2 wait for the lock a already, and --max-waiters is 2")
            && says.contains("it is held by run "),
        "{says}"
    );
    let row = store.rows("a").pop().expect("its row");
    assert_eq!(row["outcome"], "refused");
    assert_eq!(row["held_by"]["job"], "a");
    assert!(
        row["notes"][0].as_str().unwrap().contains("2 wait"),
        "{row}"
    );
    // -E replaces the code of this refusal too
    waiter(&store, &["--max-waiters", "1", "-E", "7"])
        .finish()
        .expect(7);
    // who would have to wait behind three may do so
    let third = waiter(&store, &["--max-waiters", "3"]);
    wait_until("three waiters", || waiters(&store, kind) == 3);
    fs::write(store.file("go"), "").unwrap();
    for run in waiting.into_iter().chain([holding, third]) {
        run.finish().expect(0);
    }
    assert_eq!(waiters(&store, kind), 0);
    // a free lock is taken without waiting, whatever the limit
    waiter(&store, &["--max-waiters", "1"]).finish().expect(0);
}

// shows: waiting local, shared, lockfile
#[rstest]
fn a_waiter_that_is_killed_is_counted_no_more(
    #[values(Kind::Local, Kind::Shared, Kind::Lockfile)] kind: Kind,
    #[values("front", "all")] whom: &str,
) {
    let store = Store::new(kind);
    let holding = holder(&store);
    let dying = waiter(&store, &TWO);
    wait_until("a waiter", || waiters(&store, kind) == 1);
    let staying = waiter(&store, &TWO);
    wait_until("two waiters", || waiters(&store, kind) == 2);
    waiter(&store, &TWO).finish().expect(75);
    let front = dying.process();
    let own = front.descendants();
    front.kill(9);
    if whom == "all" {
        for process in own {
            process.kill(9);
        }
    }
    drop(dying.finish());
    wait_until("its place to be free", || waiters(&store, kind) == 1);
    let next = waiter(&store, &TWO);
    wait_until("two waiters", || waiters(&store, kind) == 2);
    fs::write(store.file("go"), "").unwrap();
    for run in [holding, staying, next] {
        run.finish().expect(0);
    }
}

#[test]
fn of_many_at_once_no_more_than_so_many_wait() {
    let store = Store::local();
    let holding = holder(&store);
    let many: Vec<_> = (0..10).map(|_| waiter(&store, &TWO)).collect();
    wait_until("eight refusals", || {
        let rows = store.outcomes("a");
        rows.iter().filter(|outcome| *outcome == "refused").count() == 8
    });
    assert_eq!(waiters(&store, Kind::Local), 2);
    fs::write(store.file("go"), "").unwrap();
    let mut codes: Vec<i32> = many.into_iter().map(|run| run.finish().code()).collect();
    codes.sort_unstable();
    assert_eq!(codes, [0, 0, 75, 75, 75, 75, 75, 75, 75, 75]);
    holding.finish().expect(0);
}

#[test]
fn the_jobs_file_may_say_so_and_mistakes_are_answered() {
    let store = Store::local();
    let config = store.file("joblock.toml");
    fs::write(&config, "[jobs.a]\nmax-waiters = 1\ncommand = [\"true\"]").unwrap();
    let run = |options: &[&str]| {
        let mut run = store.joblock("run");
        run.arg("--config").arg(&config).args(options).arg("a");
        run
    };
    // without -w it is of no consequence
    finish(&mut run(&[])).expect(0);
    let holding = holder(&store);
    finish(&mut run(&[])).expect(75);
    let waiting = start(&mut run(&["-w", "1h"]));
    wait_until("a waiter", || waiters(&store, Kind::Local) == 1);
    finish(&mut run(&["-w", "1h"])).expect(75);
    fs::write(store.file("go"), "").unwrap();
    waiting.finish().expect(0);
    holding.finish().expect(0);
    let refused = finish(&mut store.run(&TWO, "a", &["true"])).expect(125);
    assert!(refused.err().contains("give -w DURATION"), "{refused}");
    finish(&mut store.run(&["-w", "1m", "--max-waiters", "0"], "a", &["true"])).expect(125);
    fs::write(&config, "[jobs.a]\nmax-waiters = 0").unwrap();
    let refused = finish(&mut run(&[])).expect(125);
    assert!(refused.err().contains("write 1 to 1000"), "{refused}");
}
