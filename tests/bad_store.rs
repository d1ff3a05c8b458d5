//! A store that can't be used: exit code 69, a message that says what to do, and the job is not started.

mod common;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use common::{Finished, Kind, Store, finish, joblock, may_use_root, start, text, wait_until};
use rstest::rstest;

const MOUNTS: &str = "mounts of its own";

/// The job's command: it leaves a mark that it ran.
fn mark(store: &Store) -> [String; 2] {
    [
        "touch".to_owned(),
        store.file("the-job-ran").display().to_string(),
    ]
}

/// `joblock run … bad -- touch MARK` on whatever the store's URL says.
fn run(store: &Store) -> Command {
    let mark = mark(store);
    store.run(&[], "bad", &[&mark[0], &mark[1]])
}

/// 69, nothing on stdout, a word from joblock, and no job. Gives what it said.
#[track_caller]
fn assert_unusable(store: &Store, done: Finished) -> String {
    let done = done.expect(69);
    assert_eq!(done.out(), "");
    assert!(done.err().starts_with("joblock: "), "{done}");
    assert!(!done.err().contains("panicked"), "{done}");
    assert!(
        !store.file("the-job-ran").exists(),
        "the job was started: {done}"
    );
    done.err()
}

/// A script that mounts something, then becomes the command in `$@`, all in a mount namespace of its own.
fn mounted(store: &Store, script: &str, command: &Command) -> Command {
    let mut unshare = store.program("unshare");
    unshare.args([
        "--mount",
        "bash",
        "-c",
        &format!("set -e; {script}; exec \"$@\""),
        "bash",
    ]);
    unshare.arg(command.get_program()).args(command.get_args());
    unshare.env("STORE", store.path());
    unshare
}

/// A store that has been used once.
fn used(kind: Kind) -> Store {
    let store = Store::new(kind);
    store.sh(&[], "bad", "exit 0").expect(0);
    store
}

fn database(store: &Store) -> std::path::PathBuf {
    let sqlite = store.path().join("joblock.db");
    if sqlite.exists() {
        sqlite
    } else {
        store.path().join("history.db")
    }
}

#[rstest]
fn a_missing_folder_is_69_and_is_named(#[values("sqlite:", "lockfile:")] scheme: &str) {
    let mut store = Store::local();
    let missing = store.file("no/such/folder");
    store.set_url(format!("{scheme}{}/store", missing.display()));
    let said = assert_unusable(&store, finish(&mut run(&store)));
    assert!(said.contains(missing.to_str().expect("a path")), "{said}");
    assert!(!missing.exists());
}

#[rstest]
fn a_path_of_the_wrong_kind_is_69_and_is_named(#[values("sqlite:", "lockfile:")] scheme: &str) {
    let mut store = Store::local();
    let path = store.file("wrong");
    match scheme {
        "sqlite:" => fs::create_dir(&path).expect("a folder"),
        _ => fs::write(&path, "a file").expect("a file"),
    }
    store.set_url(format!("{scheme}{}", path.display()));
    let said = assert_unusable(&store, finish(&mut run(&store)));
    assert!(said.contains(path.to_str().expect("a path")), "{said}");
}

#[rstest]
#[case("mysql:host/db")]
#[case("nonsense")]
#[case("sqlite:")]
fn a_url_that_means_nothing_starts_no_job(#[case] url: &str) {
    let mut store = Store::local();
    store.set_url(url.to_owned());
    let done = finish(&mut run(&store));
    assert!([69, 125].contains(&done.code()), "{done}");
    assert!(done.err().starts_with("joblock: "), "{done}");
    assert!(!store.file("the-job-ran").exists());
}

// shows: corrupt local, shared, lockfile
#[rstest]
fn a_database_that_is_garbage_is_69_and_stays_as_it_is(
    #[values(Kind::Local, Kind::Shared, Kind::Lockfile)] kind: Kind,
    #[values(0, 200)] from: usize,
) {
    let store = used(kind);
    let database = database(&store);
    for beside in ["-wal", "-shm", "-journal"] {
        let _ = fs::remove_file(format!("{}{beside}", database.display()));
    }
    // From 0: not even the header is SQLite's. From 200: a header, and nonsense behind it.
    let mut bytes = fs::read(&database).expect("the database");
    for (index, byte) in bytes.iter_mut().enumerate().skip(from) {
        *byte = u8::try_from(index * 7 % 251).expect("a byte");
    }
    fs::write(&database, &bytes).expect("the database");
    let said = assert_unusable(&store, finish(&mut run(&store)));
    assert!(said.contains(database.to_str().expect("a path")), "{said}");
    assert!(
        fs::read(&database).expect("the database") == bytes,
        "nothing was repaired or overwritten"
    );
}

#[rstest]
fn a_file_of_somebody_elses_is_69_and_stays_as_it_is(#[values("text", "database")] what: &str) {
    let store = Store::local();
    let path = store.path().join("joblock.db");
    if what == "text" {
        fs::write(&path, "dear diary\n").expect("a file");
    } else {
        sqlite3(&path, "CREATE TABLE diary (day TEXT)");
    }
    let before = fs::read(&path).expect("the file");
    let said = assert_unusable(&store, finish(&mut run(&store)));
    assert!(said.contains(path.to_str().expect("a path")), "{said}");
    assert!(fs::read(&path).expect("the file") == before);
}

/// Changes a database from outside.
#[track_caller]
fn sqlite3(database: &Path, statement: &str) {
    let status = Command::new("sqlite3")
        .arg(database)
        .arg(statement)
        .status()
        .expect("sqlite3");
    assert!(status.success());
}

#[rstest]
fn a_store_of_a_newer_version_is_69_with_both_versions(
    #[values(Kind::Local, Kind::Shared, Kind::Lockfile)] kind: Kind,
) {
    let store = used(kind);
    sqlite3(&database(&store), "PRAGMA user_version = 9001");
    let said = assert_unusable(&store, finish(&mut run(&store)));
    assert!(said.contains("9001") && said.contains("newer"), "{said}");
}

// shows: read-only local, shared, lockfile
#[rstest]
fn a_read_only_store_is_69(#[values(Kind::Local, Kind::Shared, Kind::Lockfile)] kind: Kind) {
    if !may_use_root(MOUNTS) {
        return;
    }
    for store in [used(kind), Store::new(kind)] {
        let read_only = "mount --bind $STORE $STORE; mount -o remount,bind,ro $STORE";
        let said = assert_unusable(
            &store,
            finish(&mut mounted(&store, read_only, &run(&store))),
        );
        assert!(
            said.contains(store.path().to_str().expect("a path")),
            "{said}"
        );
    }
}

/// A disk whose kernel gives up on it (ext4's `errors=remount-ro`) while a job runs: its end can be written nowhere, and that is told.
// shows: read-only local, shared, lockfile
#[rstest]
#[case::local(Kind::Local, 7)]
#[case::shared(Kind::Shared, 79)]
#[case::lockfile(Kind::Lockfile, 7)]
fn a_disk_that_fails_under_a_job_ends_it_only_where_the_lease_ends(
    #[case] kind: Kind,
    #[case] code: i32,
) {
    if !may_use_root(MOUNTS) {
        return;
    }
    let store = Store::new(kind);
    let job = "touch $BEGAN; until [ -e $GO ]; do sleep 0.01; done; exit 7";
    let run = store.run(&["--ttl", "3s"], "bad", &["sh", "-c", job]);
    let go = if code == 7 { "touch $GO" } else { "true" };
    let script = format!(
        "truncate -s 32M $DISK; mkfs.ext4 -q -F $DISK; mount -o loop,errors=remount-ro $DISK $STORE; \
         \"$@\" & run=$!; until [ -e $BEGAN ]; do sleep 0.01; done; \
         echo test >/sys/fs/ext4/$(basename $(findmnt -no SOURCE $STORE))/trigger_fs_error; \
         ! touch $STORE/x 2>/dev/null; {go}; code=0; wait $run || code=$?; \
         {joblock} doctor --store {url} || true; exit $code",
        joblock = joblock(),
        url = store.url(),
    );
    let mut command = mounted(&store, &script, &run);
    for name in ["DISK", "BEGAN", "GO"] {
        command.env(name, store.file(name));
    }
    let done = finish(&mut command).expect(code);
    let said = done.err();
    assert!(said.contains("could NOT be recorded"), "{done}");
    assert!(
        !said.contains("another user") && !said.contains("damaged"),
        "{done}"
    );
    assert!(done.out().contains("no job starts there"), "doctor: {done}");
}

// shows: disk-full local, shared, lockfile
#[rstest]
fn a_full_disk_is_69_for_a_new_store_and_for_one_in_use(
    #[values(Kind::Local, Kind::Shared, Kind::Lockfile)] kind: Kind,
) {
    if !may_use_root(MOUNTS) {
        return;
    }
    let full = "cat /dev/zero >$STORE/ballast 2>/dev/null || true";
    // New: not a byte is left.
    let store = Store::new(kind);
    let script = format!("mount -t tmpfs -o size=64k none $STORE; {full}");
    assert_unusable(&store, finish(&mut mounted(&store, &script, &run(&store))));
    // In use: it works, then the disk fills up, and when there is room again it works again.
    let store = Store::new(kind);
    let again = store.run(&[], "bad", &["echo", "ran"]);
    let script = format!(
        "mount -t tmpfs -o size=4m none $STORE; \"$@\"; {full}; code=0; \"$@\" || code=$?; \
         rm $STORE/ballast; \"$@\"; exit $code"
    );
    let done = finish(&mut mounted(&store, &script, &again)).expect(69);
    assert_eq!(done.out(), "ran\nran\n", "{done}");
}

#[rstest]
#[case::read_only(
    "mount --bind $STORE $STORE; mount -o remount,bind,ro $STORE",
    "mount -o remount,rw"
)]
#[case::full(
    "cp -a $STORE $STORE.copy; mount -t tmpfs -o size=4m,mode=700 none $STORE; cp -a $STORE.copy/. $STORE; \
     \"$@\" >/dev/null; cat /dev/zero >$STORE/ballast 2>/dev/null || true",
    "until 1 MiB is free"
)]
fn doctor_passes_no_store_where_no_job_can_start(
    #[case] script: &str,
    #[case] says: &str,
    #[values(Kind::Local, Kind::Shared, Kind::Lockfile)] kind: Kind,
) {
    if !may_use_root(MOUNTS) {
        return;
    }
    let store = used(kind);
    let done = finish(&mut mounted(&store, script, &store.joblock("doctor"))).expect(69);
    let found = done
        .out()
        .lines()
        .find(|line| line.starts_with("bad") && line.contains(says))
        .map(str::to_owned);
    assert!(found.is_some(), "{done}");
    assert!(!done.out().contains("join its group"), "{done}");
    assert!(done.out().contains("don't rely on it"), "{done}");
}

// shows: disk-full local, shared, lockfile
#[test]
fn a_disk_that_fills_up_while_the_job_runs_costs_the_job_nothing() {
    if !may_use_root(MOUNTS) {
        return;
    }
    for kind in [Kind::Local, Kind::Shared, Kind::Lockfile] {
        let store = Store::new(kind);
        let fill = "cat /dev/zero >$STORE/ballast 2>/dev/null; sleep 4; echo ran; exit 7";
        let mut options = vec![];
        if kind == Kind::Shared {
            options.extend(["--ttl", "2s"]);
        }
        let command = store.run(&options, "fills", &["sh", "-c", fill]);
        // Afterwards there is room again, and the history is read in the same place.
        let script = format!(
            "mount -t tmpfs -o size=4m none $STORE; code=0; \"$@\" || code=$?; rm $STORE/ballast; \
             {} run --store '{url}' fills -- true; {} history --store '{url}' --json fills >&2; exit $code",
            joblock(),
            joblock(),
            url = store.url()
        );
        let done = finish(&mut mounted(&store, &script, &command)).expect(7);
        assert_eq!(done.out(), "ran\n", "{done}");
        let told = |words: &str| done.err().matches(words).count();
        let kept = told("\"outcome\": \"failed\"") == 1;
        let lost_loudly =
            told("could NOT be recorded") == 1 && told("\"outcome\": \"abandoned\"") == 1;
        assert!(kept || lost_loudly, "{kind:?}: {done}");
    }
}

#[rstest]
fn a_store_that_one_may_not_enter_is_69_and_nothing_else_is_used_instead(
    #[values(Kind::Local, Kind::Shared, Kind::Lockfile)] kind: Kind,
) {
    if !may_use_root("becoming another user") {
        return;
    }
    let store = used(kind);
    // The program itself must be within the other user's reach.
    let program = store.file("joblock");
    // By another process: a file that this one has open for writing can't be executed by its other threads' children.
    let copied = std::process::Command::new("cp")
        .arg(joblock())
        .arg(&program)
        .status();
    assert!(copied.expect("cp").success());
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("its mode");
    let mark = mark(&store);
    for (folder, files) in [(0o700, 0o600), (0o755, 0o644)] {
        fs::set_permissions(store.file(""), fs::Permissions::from_mode(0o777))
            .expect("the test's folder");
        for entry in fs::read_dir(store.path()).expect("the store") {
            let path = entry.expect("a file").path();
            if path.metadata().expect("a file").is_file() {
                fs::set_permissions(&path, fs::Permissions::from_mode(files)).expect("its mode");
            }
        }
        fs::set_permissions(store.path(), fs::Permissions::from_mode(folder)).expect("its mode");
        let mut nobody = store.program("setpriv");
        nobody
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .arg(&program);
        nobody.args([
            "run",
            "--store",
            store.url(),
            "bad",
            "--",
            &mark[0],
            &mark[1],
        ]);
        nobody.env("HOME", store.file("home"));
        let said = assert_unusable(&store, finish(&mut nobody));
        assert!(
            said.contains(store.path().to_str().expect("a path")),
            "{said}"
        );
    }
}

// shows: replaced-database local
#[test]
fn a_database_that_is_replaced_under_its_holder_does_not_start_a_second_run() {
    let store = Store::local();
    let script = "touch $READY; until [ -e $SEEN ]; do sleep 0.02; done; exit 3";
    let mut first = store.run(&[], "bad", &["sh", "-c", script]);
    let first = start(
        first
            .env("READY", store.file("ready"))
            .env("SEEN", store.file("seen")),
    );
    wait_until("the job", || store.file("ready").exists());
    let database = database(&store);
    let before = database.metadata().expect("the database").ino();
    // Both exist when the inode of the new one is chosen, so it can't be the old one's again.
    fs::copy(&database, store.path().join("copy")).expect("a copy");
    fs::rename(store.path().join("copy"), &database).expect("the copy in its place");
    assert_ne!(database.metadata().expect("the database").ino(), before);
    let second = finish(&mut run(&store));
    assert!([69, 75].contains(&second.code()), "{second}");
    assert!(!store.file("the-job-ran").exists());
    fs::write(store.file("seen"), "").expect("the end");
    let first = first.finish().expect(3);
    assert!(text(&store.file("seen")).is_empty() && first.out().is_empty());
}

/// Its folder is renamed, and a copy of it put in its place: who has the lock by the copy is told so only when the holder's job is gone.
// shows: store-folder-replaced local, shared, lockfile
#[rstest]
#[case::local(Kind::Local)]
#[case::shared(Kind::Shared)]
#[case::lockfile(Kind::Lockfile)]
fn a_folder_that_is_replaced_by_its_copy_costs_the_holder_its_lock(#[case] kind: Kind) {
    let store = Store::new(kind);
    let pid = store.file("pid");
    let script = format!("echo $$ >{}; exec sleep 1000", pid.display());
    let short = ["--ttl", "4s"];
    let holder = start(&mut store.run(&short, "sync", &["sh", "-c", &script]));
    wait_until("the job runs", || pid.exists());
    let away = store.file("away");
    fs::rename(store.path(), &away).expect("renamed");
    let mut copy = Command::new("cp");
    finish(copy.arg("-a").arg(&away).arg(store.path())).expect(0);
    let script = format!("! kill -0 $(cat {})", pid.display());
    let waits = ["--ttl", "4s", "-w", "1m"];
    let next = start(&mut store.run(&waits, "sync", &["sh", "-c", &script]));
    holder.finish().expect(79);
    next.finish().expect(0);
    let outcomes = store.outcomes("sync");
    // which of the two tells of its end first is up to the machine
    assert!(
        ["lost", "abandoned"].contains(&&*outcomes[0]),
        "{outcomes:?}"
    );
    assert_eq!(outcomes[1..], ["succeeded"]);
}
