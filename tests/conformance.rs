//! One suite for every store, through the traits: what a lock and a history promise, whoever keeps them.
//! A "store" that does not lock goes through it too and must fail.
//!
//! The workers are processes: this test program again, with a word in its environment that makes the same test
//! function work instead of looking on.

#[path = "common/nolock.rs"]
mod nolock;
#[path = "common/request.rs"]
mod request;

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use joblock::clock::{Boot, Wall};
use joblock::name::{LockName, Token};
use joblock::store::record::{Attempted, Outcome, Query};
use joblock::store::{
    Attempt, Cleared, Expiry, Grant, Level, LockRequest, Purpose, Renewal, Request, Store,
    StoreError, StoreUrl, open,
};
use nolock::NoLock;
use request::{GONE, Looks, Says, request, success};
use rstest::rstest;

const WORKERS: u64 = 8;
const ROUNDS: u64 = 125;
const WORK: &str = "CONFORMANCE_WORK_IN";
const MINUTE: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug)]
enum Kind {
    Local,
    Shared,
    Lockfile,
    None,
}

impl Kind {
    fn open(self, dir: &Path) -> Box<dyn Store> {
        let url = match self {
            Kind::Local => StoreUrl::Sqlite {
                path: dir.join("s.db"),
                shared: false,
                server_lease: None,
            },
            Kind::Shared => StoreUrl::Sqlite {
                path: dir.join("s.db"),
                shared: true,
                server_lease: None,
            },
            Kind::Lockfile => StoreUrl::Lockfile {
                directory: dir.to_owned(),
                server_lease: None,
            },
            Kind::None => return Box::new(NoLock(dir.to_owned())),
        };
        open(&url, Purpose::Run, None).expect("a store")
    }

    fn lock_file(self, dir: &Path) -> std::path::PathBuf {
        match self {
            Kind::Lockfile => dir.join("job.lock"),
            _ => dir.join("s.db.locks/job.lock"),
        }
    }
}

fn name() -> LockName {
    "job".parse().expect("a name")
}

fn granted(store: &dyn Store, request: &LockRequest<'_>) -> Box<dyn Grant> {
    match store.try_acquire(request, None).expect("an attempt") {
        Attempt::Granted(grant) => grant,
        Attempt::Held(seen) => panic!("held: {seen:?}"),
    }
}

/// Rounds of a job that reads a number, lets others run, and writes the number plus one, guarded by the lock alone.
fn work(kind: Kind, dir: &Path) {
    for _ in 0..ROUNDS {
        let store = kind.open(dir);
        let attempt = store.try_acquire(&request("job", &Looks), Some(Boot::now() + 10 * MINUTE));
        let Attempt::Granted(mut grant) = attempt.expect("an attempt") else {
            panic!("held for ten minutes")
        };
        let counter = dir.join("counter");
        let n: u64 = fs::read_to_string(&counter)
            .expect("the counter")
            .trim()
            .parse()
            .unwrap_or(0);
        let mut tokens = OpenOptions::new()
            .append(true)
            .open(dir.join("tokens"))
            .expect("the list of tokens");
        tokens
            .write_all(format!("{}\n", grant.token()).as_bytes())
            .expect("write");
        std::thread::sleep(Duration::from_micros(50));
        fs::write(&counter, (n + 1).to_string()).expect("write");
        if n.is_multiple_of(10) {
            assert_eq!(grant.renew().expect("a heartbeat"), Renewal::Renewed);
        }
        grant.release(&success(), None).expect("a release");
    }
}

/// What 8 processes break in 1,000 rounds.
fn broken_promises(kind: Kind, test: &str) -> Vec<String> {
    let dir = tempfile::tempdir().expect("a folder");
    fs::write(dir.path().join("counter"), "0").expect("write");
    fs::write(dir.path().join("tokens"), "").expect("write");
    let worker = || {
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command
            .args(["--exact", test, "--nocapture"])
            .env(WORK, dir.path())
            .stdout(Stdio::null());
        command.spawn().expect("a worker")
    };
    let workers: Vec<_> = (0..WORKERS).map(|_| worker()).collect();
    let mut broken = Vec::new();
    for mut worker in workers {
        if !worker.wait().expect("wait").success() {
            broken.push("a worker failed".to_owned());
        }
    }
    let all = WORKERS * ROUNDS;
    let counted = fs::read_to_string(dir.path().join("counter")).expect("the counter");
    if counted != all.to_string() {
        broken.push(format!("lost increments: {counted} of {all}"));
    }
    let tokens = fs::read_to_string(dir.path().join("tokens")).expect("the tokens");
    if !tokens.lines().map(str::parse).eq((1..=all).map(Ok)) {
        broken.push("tokens are not 1, 2, 3, … in the order of the runs".to_owned());
    }
    let runs = kind
        .open(dir.path())
        .runs(&Query::default())
        .expect("the history");
    let recorded: BTreeSet<_> = runs
        .iter()
        .filter(|r| r.outcome == Outcome::Succeeded)
        .filter_map(|r| r.token)
        .collect();
    if runs.len() as u64 != all || !recorded.into_iter().eq((1..=all).map(Token)) {
        broken.push(format!(
            "{} history rows for {all} runs, or not one for each token",
            runs.len()
        ));
    }
    broken
}

/// In a worker, works and says so.
fn is_worker(kind: Kind) -> bool {
    let Some(dir) = std::env::var_os(WORK) else {
        return false;
    };
    work(kind, Path::new(&dir));
    true
}

// shows: contention local
#[test]
fn sqlite_local_excludes() {
    if !is_worker(Kind::Local) {
        assert_eq!(
            broken_promises(Kind::Local, "sqlite_local_excludes"),
            [""; 0]
        );
    }
}

// shows: contention shared
#[test]
fn sqlite_shared_excludes() {
    if !is_worker(Kind::Shared) {
        assert_eq!(
            broken_promises(Kind::Shared, "sqlite_shared_excludes"),
            [""; 0]
        );
    }
}

// shows: contention lockfile
#[test]
fn lockfile_excludes() {
    if !is_worker(Kind::Lockfile) {
        assert_eq!(
            broken_promises(Kind::Lockfile, "lockfile_excludes"),
            [""; 0]
        );
    }
}

#[test]
fn a_store_that_does_not_lock_is_found_out() {
    if !is_worker(Kind::None) {
        let broken = broken_promises(Kind::None, "a_store_that_does_not_lock_is_found_out");
        assert!(
            broken.iter().any(|b| b.contains("lost increments")),
            "{broken:?}"
        );
        assert!(broken.iter().any(|b| b.contains("tokens")), "{broken:?}");
    }
}

#[rstest]
fn a_run_is_recorded_whole(#[values(Kind::Local, Kind::Shared, Kind::Lockfile)] kind: Kind) {
    let dir = tempfile::tempdir().expect("a folder");
    let store = kind.open(dir.path());
    let request = request("job", &GONE);
    let grant = granted(&*store, &request);
    let mut expected = request.record.clone();
    expected.token = Some(Token(1));
    assert_eq!(
        store.runs(&Query::default()).expect("runs"),
        [expected.clone()]
    );
    let tail = joblock::store::record::Tail {
        bytes: b"out\xff\0".to_vec(),
        total: 1000,
    };
    let end = success();
    grant.release(&end, Some(&tail)).expect("release");
    expected.outcome = Outcome::Succeeded;
    expected.end = Some(end.clone());
    assert_eq!(
        store.runs(&Query::default()).expect("runs"),
        [expected.clone()]
    );
    assert_eq!(store.tail(&expected.run_id).expect("tail"), Some(tail));
    assert_eq!(
        store.by_prefix(expected.run_id.short()).expect("runs"),
        [expected]
    );
    assert_eq!(store.last_success("job").expect("a time"), Some(end.at));
    assert_eq!(store.jobs().expect("jobs"), ["job"]);
    assert_eq!(store.locks().expect("locks"), [name()]);
}

#[rstest]
fn a_held_lock_is_refused_and_names_its_holder(
    #[values(Kind::Local, Kind::Shared, Kind::Lockfile)] kind: Kind,
) {
    let dir = tempfile::tempdir().expect("a folder");
    let (one, two) = (kind.open(dir.path()), kind.open(dir.path()));
    let first = request("job", &Looks);
    let _grant = granted(&*one, &first);
    let second = request("job", &Looks);
    let Attempt::Held(seen) = two.try_acquire(&second, None).expect("an attempt") else {
        panic!("granted twice")
    };
    assert_eq!(seen.holder, Some(first.holder.clone()));
    assert_eq!(seen.token, Some(Token(1)));
    let refused = Attempted {
        outcome: Outcome::Refused,
        held_by: seen.holder,
        note: Some("a word".into()),
    };
    two.attempted(&second.record, &refused).expect("a row");
    let runs = one
        .runs(&Query {
            outcomes: vec![Outcome::Refused],
            ..Query::default()
        })
        .expect("runs");
    assert_eq!(runs, [refused.of(&second.record)]);
    assert_eq!(runs[0].held_by, Some(first.holder));
    // another lock of the same store is free
    granted(&*two, &request("other", &Looks));
}

#[rstest]
fn tokens_survive_release_crash_revocation_and_the_deletion_of_the_lock_file(
    #[values(Kind::Local, Kind::Shared, Kind::Lockfile)] kind: Kind,
) {
    let dir = tempfile::tempdir().expect("a folder");
    let store = kind.open(dir.path());
    let next = || granted(&*store, &request("job", &GONE));
    next().release(&success(), None).expect("release");
    let crashed = next();
    assert_eq!(crashed.token(), Token(2));
    drop(crashed);
    let mut third = next();
    assert_eq!(third.token(), Token(3));
    let revoke = Request {
        token: Token(3),
        by: "root@here".into(),
        reason: "a test".into(),
        at: Wall::now(),
    };
    store.revoke(&name(), &revoke).expect("revoke");
    assert_eq!(
        store.inspect(&name()).expect("a look").revoked,
        Some(revoke.clone())
    );
    assert_eq!(
        third.renew().expect("a heartbeat"),
        Renewal::Revoked(revoke)
    );
    third.release(&success(), None).expect("release");
    fs::remove_file(kind.lock_file(dir.path())).expect("remove");
    let mut fourth = next();
    assert_eq!(fourth.token(), Token(4));
    // the revocation was for grant 3
    assert_eq!(fourth.renew().expect("a heartbeat"), Renewal::Renewed);
    drop(fourth);
    let store = kind.open(dir.path());
    let fifth = granted(&*store, &request("job", &GONE));
    assert_eq!(fifth.token(), Token(5));
    let outcomes: Vec<_> = store
        .runs(&Query::default())
        .expect("runs")
        .iter()
        .map(|r| (r.token, r.outcome))
        .collect();
    let of = |n, outcome| (Some(Token(n)), outcome);
    let expected = [
        of(5, Outcome::Running),
        of(4, Outcome::Abandoned),
        of(3, Outcome::Succeeded),
        of(2, Outcome::Abandoned),
        of(1, Outcome::Succeeded),
    ];
    assert_eq!(outcomes, expected);
}

#[rstest]
fn a_request_to_stop_reaches_the_grant_that_it_names(
    #[values(Kind::Local, Kind::Shared, Kind::Lockfile)] kind: Kind,
) {
    let dir = tempfile::tempdir().expect("a folder");
    let store = kind.open(dir.path());
    let mut grant = granted(&*store, &request("job", &GONE));
    let stop = |n| Request {
        token: Token(n),
        by: "root@here".into(),
        reason: "a test".into(),
        at: Wall(n.cast_signed()),
    };
    let asking = open_for_request(kind, dir.path());
    asking.request_stop(&name(), &stop(2)).expect("ask");
    assert_eq!(grant.renew().expect("a heartbeat"), Renewal::Renewed);
    asking.request_stop(&name(), &stop(1)).expect("ask");
    assert_eq!(grant.renew().expect("a heartbeat"), Renewal::Stop(stop(1)));
    let seen = store.inspect(&name()).expect("a look");
    assert_eq!(
        (seen.stopping, seen.holder.is_some()),
        (Some(stop(1)), true)
    );
}

fn open_for_request(kind: Kind, dir: &Path) -> Box<dyn Store> {
    let url = match kind {
        Kind::Lockfile => StoreUrl::Lockfile {
            directory: dir.to_owned(),
            server_lease: None,
        },
        _ => StoreUrl::Sqlite {
            path: dir.join("s.db"),
            shared: false,
            server_lease: None,
        },
    };
    open(&url, Purpose::Request, None).expect("a store")
}

#[rstest]
fn a_waiter_is_given_the_lock_when_it_is_released(
    #[values(Kind::Local, Kind::Shared, Kind::Lockfile)] kind: Kind,
) {
    let dir = tempfile::tempdir().expect("a folder");
    let store = kind.open(dir.path());
    let grant = granted(&*store, &request("job", &Looks));
    std::thread::scope(|s| {
        let waiting = s.spawn(|| {
            let store = kind.open(dir.path());
            matches!(store.try_acquire(&request("job", &Looks), Some(Boot::now() + MINUTE)), Ok(Attempt::Granted(g)) if g.token() == Token(2))
        });
        grant.release(&success(), None).expect("release");
        assert!(waiting.join().expect("no panic"));
    });
}

#[rstest]
fn a_wait_ends_when_it_is_over_or_interrupted(
    #[values(Kind::Local, Kind::Shared, Kind::Lockfile)] kind: Kind,
) {
    let dir = tempfile::tempdir().expect("a folder");
    let store = kind.open(dir.path());
    let _grant = granted(&*store, &request("job", &Looks));
    let other = kind.open(dir.path());
    let soon = Boot::now() + Duration::from_millis(300);
    assert!(matches!(
        other.try_acquire(&request("job", &Looks), Some(soon)),
        Ok(Attempt::Held(_))
    ));
    assert!(Boot::now() >= soon);
    let asked = AtomicBool::new(false);
    let interrupted = || asked.swap(true, Ordering::Relaxed);
    let request = LockRequest {
        interrupted: &interrupted,
        ..request("job", &Looks)
    };
    assert!(matches!(
        other.try_acquire(&request, Some(Boot::now() + 60 * MINUTE)),
        Ok(Attempt::Held(_))
    ));
}

#[rstest]
fn a_dead_holder_is_taken_over_at_once_and_swept_first(
    #[values(Kind::Local, Kind::Shared, Kind::Lockfile)] kind: Kind,
) {
    let dir = tempfile::tempdir().expect("a folder");
    let store = kind.open(dir.path());
    drop(granted(&*store, &request("job", &GONE)));
    let alive = store.try_acquire(&request("job", &Says(Cleared::Alive)), None);
    assert!(
        matches!(alive, Ok(Attempt::Held(_))),
        "its front lives: {alive:?}"
    );
    let stuck = store.try_acquire(
        &request("job", &Says(Cleared::Stuck("pid 7 (x)".into()))),
        None,
    );
    assert!(
        matches!(&stuck, Err(StoreError::Leftovers { left, .. }) if left == "pid 7 (x)"),
        "{stuck:?}"
    );
    assert_eq!(granted(&*store, &request("job", &GONE)).token(), Token(2));
}

#[rstest]
fn a_run_whose_processes_are_gone_is_shown_as_abandoned(
    #[values(Kind::Local, Kind::Shared, Kind::Lockfile)] kind: Kind,
) {
    let dir = tempfile::tempdir().expect("a folder");
    let store = kind.open(dir.path());
    let grant = granted(&*store, &request("job", &GONE));
    let shown = |alive: fn(&joblock::store::Holder) -> Option<bool>| {
        let query = Query {
            alive: Some(alive),
            ..Query::default()
        };
        store
            .runs(&query)
            .expect("runs")
            .iter()
            .map(|r| r.outcome)
            .collect::<Vec<_>>()
    };
    assert_eq!(shown(|_| Some(true)), [Outcome::Running]);
    assert_eq!(shown(|_| Some(false)), [Outcome::Abandoned]);
    grant.release(&success(), None).expect("release");
    assert_eq!(shown(|_| Some(false)), [Outcome::Succeeded]);
}

#[rstest]
fn the_end_of_a_run_whose_keeper_is_gone_is_written_by_another(
    #[values(Kind::Local, Kind::Shared, Kind::Lockfile)] kind: Kind,
) {
    let dir = tempfile::tempdir().expect("a folder");
    let store = kind.open(dir.path());
    let request = request("job", &GONE);
    drop(granted(&*store, &request));
    let end = success();
    store
        .end_of(&request.record, Token(1), &end, None)
        .expect("an end");
    // a second end changes nothing
    let other = joblock::store::record::End {
        outcome: Outcome::Lost,
        ..success()
    };
    store
        .end_of(&request.record, Token(1), &other, None)
        .expect("an end");
    let runs = store.runs(&Query::default()).expect("runs");
    assert_eq!(runs[0].end, Some(end));
    assert_eq!(store.inspect(&name()).expect("a look").holder, None);
}

#[rstest]
fn lookers_refuse_nobody(#[values(Kind::Local, Kind::Shared, Kind::Lockfile)] kind: Kind) {
    let dir = tempfile::tempdir().expect("a folder");
    let store = kind.open(dir.path());
    drop(granted(&*store, &request("job", &GONE)));
    let done = AtomicBool::new(false);
    std::thread::scope(|s| {
        for _ in 0..2 {
            s.spawn(|| {
                let store = kind.open(dir.path());
                while !done.load(Ordering::Relaxed) {
                    store.inspect(&name()).expect("a look");
                    store.runs(&Query::default()).expect("runs");
                }
            });
        }
        for _ in 0..100 {
            granted(&*store, &request("job", &GONE))
                .release(&success(), None)
                .expect("release");
        }
        done.store(true, Ordering::Relaxed);
    });
}

#[rstest]
#[case(Kind::Local, true)]
#[case(Kind::Shared, false)]
#[case(Kind::Lockfile, true)]
fn only_a_lease_expires(#[case] kind: Kind, #[case] never: bool) {
    let dir = tempfile::tempdir().expect("a folder");
    let store = kind.open(dir.path());
    let before = Boot::now();
    let mut grant = granted(
        &*store,
        &LockRequest {
            ttl: Some(MINUTE),
            ..request("job", &GONE)
        },
    );
    let first = grant.expiry();
    grant.renew().expect("a heartbeat");
    match (first, grant.expiry()) {
        (Expiry::Never, Expiry::Never) => assert!(never),
        (Expiry::After { sent: first, ttl }, Expiry::After { sent: second, .. }) => {
            assert!(!never && ttl == MINUTE && before <= first && first < second);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_store_is_pinned_by_its_id() {
    for kind in [Kind::Local, Kind::Shared, Kind::Lockfile] {
        let dir = tempfile::tempdir().expect("a folder");
        let about = kind.open(dir.path()).about();
        assert_eq!(about.id, kind.open(dir.path()).about().id);
        let url = match kind {
            Kind::Lockfile => StoreUrl::Lockfile {
                directory: dir.path().to_owned(),
                server_lease: None,
            },
            _ => StoreUrl::Sqlite {
                path: dir.path().join("s.db"),
                shared: false,
                server_lease: None,
            },
        };
        assert!(open(&url, Purpose::Run, Some(&about.id)).is_ok());
        let error = open(&url, Purpose::Run, Some("another"))
            .err()
            .expect("refused")
            .to_string();
        assert!(
            error.contains("store-id") && error.contains(&about.id),
            "{error}"
        );
    }
}

#[rstest]
fn doctor_finds_a_good_store_good(#[values(Kind::Local, Kind::Shared, Kind::Lockfile)] kind: Kind) {
    let dir = tempfile::tempdir().expect("a folder");
    let store = kind.open(dir.path());
    let findings = store.probe();
    let bad: Vec<_> = findings.iter().filter(|f| f.level != Level::Ok).collect();
    assert!(bad.is_empty(), "{bad:?}");
    for what in [
        "second open file",
        "second process",
        "survives exec",
        "freed by SIGKILL",
        "SQLite's locks",
        "journal",
        "integrity",
        "id",
        "clock",
    ] {
        assert!(
            findings.iter().any(|f| f.what.contains(what)),
            "nothing about {what}: {findings:?}"
        );
    }
    // the file that was tried on is gone again
    let left = std::fs::read_dir(dir.path())
        .expect("read")
        .flatten()
        .filter(|f| f.file_name().to_string_lossy().contains("probe"));
    assert_eq!(left.count(), 0);
}
