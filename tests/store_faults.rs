//! What stores do when something is wrong: with the files, the database, the holder, the clock.

#[path = "common/request.rs"]
mod request;

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use joblock::clock::Boot;
use joblock::lease::timing::Timing;
use joblock::name::{RunId, Token};
use joblock::store::lockfile::slots::{self, Claim};
use joblock::store::record::{End, Outcome, Query};
use joblock::store::{
    Attempt, Expiry, Grant, Level, LockRequest, Purpose, Recorded, Renewal, Store, StoreError,
    StoreUrl, open,
};
use request::{GONE, Looks, request, success};
use rstest::rstest;
use rusqlite::Connection;

/// The shortest lease there is.
const TTL: Duration = Timing::MIN;

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Folder(tempfile::tempdir().expect("a folder"))
    }
    fn db(&self) -> PathBuf {
        self.0.path().join("s.db")
    }
    fn lock_file(&self) -> PathBuf {
        self.0.path().join("s.db.locks/job.lock")
    }
    fn store(&self, shared: bool) -> Box<dyn Store> {
        open(
            &StoreUrl::Sqlite {
                path: self.db(),
                shared,
                server_lease: None,
            },
            Purpose::Run,
            None,
        )
        .expect("a store")
    }
    fn lockfile(&self) -> Box<dyn Store> {
        open(
            &StoreUrl::Lockfile {
                directory: self.0.path().to_owned(),
                server_lease: None,
            },
            Purpose::Run,
            None,
        )
        .expect("a store")
    }
    fn sql(&self) -> Connection {
        Connection::open(self.db()).expect("a connection")
    }
}

fn short<'a>() -> LockRequest<'a> {
    LockRequest {
        ttl: Some(TTL),
        ..request("job", &GONE)
    }
}

fn granted(store: &dyn Store, request: &LockRequest<'_>) -> Box<dyn Grant> {
    match store.try_acquire(request, None).expect("an attempt") {
        Attempt::Granted(grant) => grant,
        Attempt::Held(seen) => panic!("held: {seen:?}"),
    }
}

/// One-shot attempts, each from a store that is opened anew, until one is granted; and how many were refused.
fn attempts(open: impl Fn() -> Box<dyn Store>) -> (Box<dyn Grant>, u32) {
    let until = Boot::now() + TTL * 15;
    let mut refused = 0;
    loop {
        match open().try_acquire(&short(), None).expect("an attempt") {
            Attempt::Granted(grant) => return (grant, refused),
            Attempt::Held(_) => refused += 1,
        }
        assert!(Boot::now() < until, "never granted");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn outcomes(store: &dyn Store) -> Vec<Outcome> {
    store
        .runs(&Query::default())
        .expect("runs")
        .iter()
        .map(|r| r.outcome)
        .collect()
}

fn message(result: Result<Box<dyn Store>, StoreError>) -> String {
    result.err().expect("an error").to_string()
}

// Where the kernel lock does not reach the holder: its lock file was deleted, and another one is there now.

#[rstest]
#[case::local(false)]
#[case::shared(true)]
fn a_silent_holder_out_of_reach_is_taken_over_after_its_lease_by_attempts_that_go_on_counting(
    #[case] shared: bool,
) {
    let folder = Folder::new();
    let dead = granted(&*folder.store(shared), &short());
    fs::remove_file(folder.lock_file()).expect("remove");
    let first_sight = Boot::now();
    let (grant, refused) = attempts(|| folder.store(shared));
    assert!(
        Boot::now().since(first_sight) >= TTL && refused > 1,
        "{refused}"
    );
    assert_eq!(grant.token(), Token(2));
    assert_eq!(
        outcomes(&*folder.store(shared)),
        [Outcome::Running, Outcome::Abandoned]
    );
    drop(dead);
}

#[rstest]
#[case::local(false)]
#[case::shared(true)]
fn a_holder_whose_lock_file_was_deleted_keeps_the_lock_by_its_row(#[case] shared: bool) {
    let folder = Folder::new();
    let mut holder = granted(&*folder.store(shared), &short());
    fs::remove_file(folder.lock_file()).expect("remove");
    let until = Boot::now() + TTL * 2;
    while Boot::now() < until {
        assert_eq!(holder.renew().expect("a heartbeat"), Renewal::Renewed);
        assert!(matches!(holder.expiry(), Expiry::After { ttl: TTL, .. }));
        assert!(matches!(
            folder.store(shared).try_acquire(&short(), None),
            Ok(Attempt::Held(_))
        ));
        std::thread::sleep(TTL / 18);
    }
    // and a request still reaches it
    let store = folder.store(shared);
    let stop = joblock::store::Request {
        token: Token(1),
        by: "root@here".into(),
        reason: "a test".into(),
        at: joblock::clock::Wall::now(),
    };
    store
        .request_stop(&"job".parse().expect("a name"), &stop)
        .expect("ask");
    assert_eq!(holder.renew().expect("a heartbeat"), Renewal::Stop(stop));
    assert_eq!(
        holder.release(&success(), None).expect("release"),
        Recorded::Stored
    );
    granted(&*store, &short());
}

// shows: late-write local, shared
#[rstest]
#[case::local(false)]
#[case::shared(true)]
fn a_holder_that_was_taken_over_is_told_and_can_free_nothing(#[case] shared: bool) {
    let folder = Folder::new();
    let mut stalled = granted(&*folder.store(shared), &short());
    fs::remove_file(folder.lock_file()).expect("remove");
    let (new, _) = attempts(|| folder.store(shared));
    assert!(matches!(
        stalled.renew().expect("a heartbeat"),
        Renewal::Lost(_)
    ));
    let lost = End {
        outcome: Outcome::Lost,
        ..success()
    };
    stalled
        .release(&lost, None)
        .expect("its end is still recorded");
    let store = folder.store(shared);
    assert_eq!(outcomes(&*store), [Outcome::Running, Outcome::Lost]);
    let seen = store
        .inspect(&"job".parse().expect("a name"))
        .expect("a look");
    assert_eq!((seen.token, seen.holder.is_some()), (Some(Token(2)), true));
    assert!(matches!(
        store.try_acquire(&request("job", &Looks), None),
        Ok(Attempt::Held(_))
    ));
    drop(new);
}

// shows: lock-file-deleted lockfile
// shows: late-write lockfile
#[test]
fn a_lockfile_holder_whose_file_was_deleted_is_lost_and_its_successor_waits_a_lease() {
    let folder = Folder::new();
    let mut holder = granted(&*folder.lockfile(), &short());
    fs::remove_file(folder.0.path().join("job.lock")).expect("remove");
    assert!(matches!(
        folder.lockfile().try_acquire(&short(), None),
        Ok(Attempt::Held(_))
    ));
    assert!(matches!(
        holder.renew().expect("a heartbeat"),
        Renewal::Lost(_)
    ));
    holder.release(&success(), None).expect("release");
    assert_eq!(granted(&*folder.lockfile(), &short()).token(), Token(2));
}

// The lease.

#[test]
fn a_lapsed_lease_is_not_revived() {
    let folder = Folder::new();
    let mut stalled = granted(&*folder.store(true), &short());
    let Expiry::After { sent, ttl } = stalled.expiry() else {
        panic!("no lease")
    };
    let lapsed = Timing::of(ttl).term_at(sent);
    while Boot::now() < lapsed {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(matches!(
        stalled.renew().expect("a heartbeat"),
        Renewal::Lost(_)
    ));
}

#[test]
fn a_claim_on_a_grant_ends_it_at_its_next_heartbeat_and_hurts_no_other() {
    let folder = Folder::new();
    let store = folder.store(true);
    granted(&*store, &short())
        .release(&success(), None)
        .expect("release");
    let mut holder = granted(&*store, &short());
    let file = fs::File::options()
        .write(true)
        .open(folder.lock_file())
        .expect("open");
    let claim = |n| {
        let claim = Claim {
            token: Token(n),
            by: RunId::random(),
        };
        slots::write(&file, slots::Place::Claim(Token(n)), &claim, true).expect("write");
    };
    claim(1);
    assert_eq!(holder.renew().expect("a heartbeat"), Renewal::Renewed);
    claim(2);
    assert!(matches!(
        holder.renew().expect("a heartbeat"),
        Renewal::Lost(_)
    ));
    // it is the owner still, and frees the lock itself
    holder
        .release(
            &End {
                outcome: Outcome::Lost,
                ..success()
            },
            None,
        )
        .expect("release");
    let mut next = granted(&*store, &short());
    assert_eq!(next.renew().expect("a heartbeat"), Renewal::Renewed);
}

#[rstest]
#[case::of_another_time_namespace(
    "UPDATE sightings SET time_ns = 'another', seen = json_set(seen, '$.first', 0)"
)]
#[case::of_another_boot(
    "UPDATE sightings SET boot_id = 'another', seen = json_set(seen, '$.first', 0)"
)]
#[case::from_the_future(
    "UPDATE sightings SET seen = json_set(seen, '$.first', 9000000000000000000)"
)]
#[case::of_another_renewal(
    "UPDATE sightings SET seen = json_set(seen, '$.first', 0, '$.mark.row_seq', 77)"
)]
fn a_sighting_that_is_not_ours_does_not_count(#[case] sql: &str) {
    let folder = Folder::new();
    let _dead = granted(
        &*folder.store(true),
        &LockRequest {
            ttl: Some(Duration::from_secs(3600)),
            ..short()
        },
    );
    fs::remove_file(folder.lock_file()).expect("remove");
    let again = || {
        folder
            .store(true)
            .try_acquire(&short(), None)
            .expect("an attempt")
    };
    assert!(matches!(again(), Attempt::Held(_)));
    assert_eq!(folder.sql().execute(sql, []).expect("sql"), 1);
    assert!(matches!(again(), Attempt::Held(_)));
}

#[test]
fn an_old_sighting_of_our_own_counts() {
    // the counterpart of the test above: with the right key, the same change lets the lock go
    let folder = Folder::new();
    let _dead = granted(
        &*folder.store(true),
        &LockRequest {
            ttl: Some(TTL),
            ..short()
        },
    );
    fs::remove_file(folder.lock_file()).expect("remove");
    assert!(matches!(
        folder.store(true).try_acquire(&short(), None),
        Ok(Attempt::Held(_))
    ));
    folder
        .sql()
        .execute(
            "UPDATE sightings SET seen = json_set(seen, '$.first', 0)",
            [],
        )
        .expect("sql");
    assert_eq!(granted(&*folder.store(true), &short()).token(), Token(2));
}

// The database.

#[rstest]
#[case::local(false)]
#[case::shared(true)]
fn a_select_left_open_stops_no_heartbeat_and_loses_no_record(#[case] shared: bool) {
    let folder = Folder::new();
    let store = folder.store(shared);
    granted(&*store, &short())
        .release(&success(), None)
        .expect("release");
    let mut holder = granted(&*store, &short());
    let sql = folder.sql();
    let mut statement = sql
        .prepare("SELECT * FROM runs, runs AS more")
        .expect("prepare");
    let mut rows = statement.query([]).expect("query");
    rows.next().expect("step").expect("a row");
    let until = Boot::now() + TTL * 2;
    while Boot::now() < until {
        assert_eq!(holder.renew().expect("a heartbeat"), Renewal::Renewed);
        std::thread::sleep(TTL / 9);
    }
    let end = success();
    let recorded = holder.release(&end, None).expect("recorded somewhere");
    assert_eq!(
        matches!(recorded, Recorded::Spooled { .. }),
        shared,
        "{recorded:?}"
    );
    let shown = store.runs(&Query::default()).expect("runs");
    assert_eq!(
        (shown[0].outcome, shown[0].end.as_ref()),
        (Outcome::Succeeded, Some(&end))
    );
    drop(rows);
    drop(statement);
    // whoever starts next folds the record in, which frees the lock
    assert_eq!(granted(&*store, &short()).token(), Token(3));
    assert_eq!(
        outcomes(&*store),
        [Outcome::Running, Outcome::Succeeded, Outcome::Succeeded]
    );
    assert_eq!(
        fs::read_dir(folder.0.path().join("s.db.spool")).map_or(0, Iterator::count),
        0
    );
}

#[rstest]
#[case::local(false)]
#[case::shared(true)]
fn a_writer_that_stopped_in_its_transaction_gives_others_an_error_not_a_grant(
    #[case] shared: bool,
) {
    let folder = Folder::new();
    let store = folder.store(shared);
    let sql = folder.sql();
    sql.execute_batch("BEGIN IMMEDIATE").expect("begin");
    let error = store.try_acquire(&short(), None).expect_err("no answer");
    assert!(matches!(error, StoreError::Timeout(_)), "{error}");
    sql.execute_batch("ROLLBACK").expect("rollback");
    assert_eq!(granted(&*store, &short()).token(), Token(1));
}

// shows: replaced-database local, shared
#[rstest]
#[case::local(false)]
#[case::shared(true)]
fn nothing_is_committed_to_a_database_that_was_replaced(#[case] shared: bool) {
    let folder = Folder::new();
    let store = folder.store(shared);
    let holder = granted(&*store, &short());
    fs::rename(folder.db(), folder.0.path().join("moved.db")).expect("rename");
    let recorded = holder.release(&success(), None).expect("spooled");
    assert!(
        matches!(&recorded, Recorded::Spooled { why, .. } if why.contains("replaced")),
        "{recorded:?}"
    );
    let error = store
        .try_acquire(&short(), None)
        .expect_err("an orphan")
        .to_string();
    assert!(error.contains("replaced"), "{error}");
}

#[test]
fn the_databases_of_others_and_damaged_ones_are_refused_with_a_word() {
    let folder = Folder::new();
    let url = StoreUrl::Sqlite {
        path: folder.db(),
        shared: false,
        server_lease: None,
    };
    let error = |content: &dyn Fn()| {
        let _ = fs::remove_file(folder.db());
        content();
        message(open(&url, Purpose::Run, None))
    };
    let newer = error(&|| {
        folder.store(false);
        folder
            .sql()
            .pragma_update(None, "user_version", 2)
            .expect("pragma");
    });
    assert!(
        newer.contains("store format 2") && newer.contains("newer"),
        "{newer}"
    );
    let foreign = error(&|| {
        folder
            .sql()
            .execute_batch("CREATE TABLE t (a)")
            .expect("sql");
    });
    assert!(foreign.contains("not a joblock database"), "{foreign}");
    let text =
        error(&|| fs::write(folder.db(), "to be or not to be, ".repeat(500)).expect("write"));
    assert!(text.contains("not a joblock database"), "{text}");
    let damaged = error(&|| {
        let fresh = Folder::new();
        fresh.store(true);
        let mut bytes = fs::read(fresh.db()).expect("read");
        bytes[4096..].fill(0xa5);
        fs::write(folder.db(), bytes).expect("write");
    });
    assert!(damaged.contains("damaged"), "{damaged}");
}

#[test]
fn paths_that_are_no_store_are_refused_with_a_word() {
    let folder = Folder::new();
    let at = |path: &Path, purpose| {
        message(open(
            &StoreUrl::Sqlite {
                path: path.to_owned(),
                shared: false,
                server_lease: None,
            },
            purpose,
            None,
        ))
    };
    let is_folder = at(folder.0.path(), Purpose::Run);
    assert!(is_folder.contains("is a folder"), "{is_folder}");
    let no_folder = at(&folder.0.path().join("none/s.db"), Purpose::Run);
    assert!(
        no_folder.contains("no such folder") && no_folder.contains("joblock init"),
        "{no_folder}"
    );
    for purpose in [Purpose::Read, Purpose::Request] {
        let none = at(&folder.db(), purpose);
        assert!(none.contains("no store there yet"), "{none}");
        assert!(!folder.db().exists());
    }
    fs::write(folder.0.path().join("file"), "").expect("write");
    let not_a_folder = at(&folder.0.path().join("file/s.db"), Purpose::Run);
    assert!(not_a_folder.contains("not a folder"), "{not_a_folder}");
    let lockfile = message(open(
        &StoreUrl::Lockfile {
            directory: folder.0.path().join("none"),
            server_lease: None,
        },
        Purpose::Run,
        None,
    ));
    assert!(lockfile.contains("no such folder"), "{lockfile}");
}

#[test]
fn a_store_that_is_pinned_and_missing_is_not_made() {
    let folder = Folder::new();
    for url in [
        StoreUrl::Sqlite {
            path: folder.db(),
            shared: false,
            server_lease: None,
        },
        StoreUrl::Lockfile {
            directory: folder.0.path().to_owned(),
            server_lease: None,
        },
    ] {
        let error = message(open(&url, Purpose::Run, Some("an-id")));
        assert!(error.contains("no store there yet"), "{error}");
    }
    assert_eq!(fs::read_dir(folder.0.path()).expect("read").count(), 0);
}

#[test]
fn a_holder_that_fits_into_no_slot_is_not_started() {
    let folder = Folder::new();
    for store in [folder.store(false), folder.lockfile()] {
        let mut request = short();
        request.holder.cgroup = Some("/long".repeat(1000));
        let error = store
            .try_acquire(&request, None)
            .expect_err("too long")
            .to_string();
        assert!(error.contains("bytes"), "{error}");
    }
}

// shows: two-names local
#[test]
fn a_link_to_the_database_leads_to_the_same_locks_and_a_second_name_is_refused() {
    let folder = Folder::new();
    let _holder = granted(&*folder.store(false), &request("job", &Looks));
    let elsewhere = Folder::new();
    symlink(folder.db(), elsewhere.db()).expect("link");
    assert!(matches!(
        elsewhere
            .store(false)
            .try_acquire(&request("job", &Looks), None),
        Ok(Attempt::Held(_))
    ));
    assert!(!elsewhere.lock_file().exists());
    fs::hard_link(folder.db(), folder.0.path().join("second.db")).expect("link");
    let error = message(open(
        &StoreUrl::Sqlite {
            path: folder.0.path().join("second.db"),
            shared: false,
            server_lease: None,
        },
        Purpose::Run,
        None,
    ));
    assert!(error.contains("more than one name"), "{error}");
}

#[test]
fn a_local_store_stays_local() {
    let folder = Folder::new();
    assert!(!folder.store(false).about().shared);
    let error = message(open(
        &StoreUrl::Sqlite {
            path: folder.db(),
            shared: true,
            server_lease: None,
        },
        Purpose::Run,
        None,
    ));
    assert!(error.contains("local"), "{error}");
    let other = Folder::new();
    assert!(other.store(true).about().shared);
    assert!(
        other.store(false).about().shared,
        "a shared one needs no ?shared to be known"
    );
}

#[test]
fn in_a_folder_for_a_group_all_files_are_for_the_group() {
    let folder = Folder::new();
    fs::set_permissions(folder.0.path(), Permissions::from_mode(0o2770)).expect("chmod");
    let _holder = granted(&*folder.store(false), &short());
    let mode = |name: &str| {
        fs::metadata(folder.0.path().join(name))
            .expect(name)
            .permissions()
            .mode()
            & 0o7777
    };
    for name in [
        "s.db",
        "s.db-wal",
        "s.db-shm",
        "s.db.locks/job.lock",
        "s.db.locks/gate",
    ] {
        assert_eq!(mode(name), 0o660, "{name}");
    }
    assert_eq!(mode("s.db.locks"), 0o2770);
}

// shows: corrupt lockfile
#[test]
fn torn_slots_of_a_lock_file_cost_no_token() {
    let folder = Folder::new();
    granted(&*folder.lockfile(), &short())
        .release(&success(), None)
        .expect("release");
    let path = folder.0.path().join("job.lock");
    let mut bytes = fs::read(&path).expect("read");
    bytes[..4 * 4096].fill(0xa5);
    fs::write(&path, bytes).expect("write");
    assert_eq!(granted(&*folder.lockfile(), &short()).token(), Token(2));
}

// shows: slow-reader lockfile
#[test]
fn a_history_that_takes_no_record_costs_a_lockfile_store_no_run() {
    let folder = Folder::new();
    let store = folder.lockfile();
    let sql = Connection::open(folder.0.path().join("history.db")).expect("a connection");
    sql.execute_batch("BEGIN IMMEDIATE").expect("begin");
    let holder = granted(&*store, &short());
    let end = success();
    assert!(matches!(
        holder.release(&end, None),
        Ok(Recorded::Spooled { .. })
    ));
    // the token goes on although no row has it
    let second = granted(&*store, &short());
    assert_eq!(second.token(), Token(2));
    sql.execute_batch("ROLLBACK").expect("rollback");
    assert_eq!(
        second.release(&success(), None).expect("release"),
        Recorded::Stored
    );
    let runs = store.runs(&Query::default()).expect("runs");
    let mut tokens: Vec<_> = runs.iter().map(|r| (r.token, r.outcome)).collect();
    tokens.sort_unstable();
    assert_eq!(
        tokens,
        [
            (Some(Token(1)), Outcome::Succeeded),
            (Some(Token(2)), Outcome::Succeeded)
        ]
    );
}

#[test]
fn doctor_names_what_is_wrong() {
    let folder = Folder::new();
    let store = folder.store(false);
    let holder = granted(&*store, &short());
    let sql = folder.sql();
    sql.execute_batch("UPDATE runs SET started = started + 3600000")
        .expect("sql");
    fs::set_permissions(folder.db(), Permissions::from_mode(0o666)).expect("chmod");
    fs::rename(folder.db(), folder.0.path().join("moved.db")).expect("rename");
    assert!(matches!(
        holder.release(&success(), None),
        Ok(Recorded::Spooled { .. })
    ));
    fs::rename(folder.0.path().join("moved.db"), folder.db()).expect("rename");
    let findings = store.probe();
    let level = |what: &str| {
        findings
            .iter()
            .find(|f| f.what.contains(what))
            .map(|f| f.level)
    };
    assert_eq!(level("wall clock"), Some(Level::Warning), "{findings:?}");
    assert_eq!(level("s.db"), Some(Level::Bad), "{findings:?}");
    assert_eq!(level("spool"), Some(Level::Warning), "{findings:?}");
}
