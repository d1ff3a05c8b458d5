//! Who may do what with a store, tried with real users on real folders: outsiders, members of the store's group who mean
//! harm, links and FIFOs in place of its files, folders with wrong modes. SECURITY.md says what is promised.

mod common;

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::process::Process;
use common::{Finished, Kind, Store, finish, joblock, may_use_root, start, wait_until};
use rstest::rstest;
use rusqlite::Connection;

const GROUP: u32 = 54_321;
const MEMBER: u32 = 54_001;
const OUTSIDER: u32 = 54_002;
const ROOT: &str = "becoming other users";
/// What outsiders must not see.
const SECRET: &str = "s3cret-output";

/// A store for the group, as `init` makes it, on a path that everybody can reach; and the program, where they can run it.
struct Place {
    store: Store,
    kind: Kind,
}

impl Place {
    fn new(kind: Kind) -> Place {
        let place = Place {
            store: Store::new(kind),
            kind,
        };
        chmod(&place.store.file(""), 0o755);
        // By another process: a file that this one has open for writing can't be executed by its other threads' children.
        let copied = Command::new("cp")
            .arg(joblock())
            .arg(place.program())
            .status();
        assert!(copied.expect("cp").success());
        finish(
            place
                .store
                .joblock("init")
                .args(["--group", &GROUP.to_string()]),
        )
        .expect(0);
        place
    }

    fn program(&self) -> PathBuf {
        self.store.file("joblock")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.store.path().join(name)
    }

    fn database(&self) -> PathBuf {
        self.path(match self.kind {
            Kind::Lockfile => "history.db",
            Kind::Local | Kind::Shared => "joblock.db",
        })
    }

    fn lock(&self) -> PathBuf {
        self.path(match self.kind {
            Kind::Lockfile => "a.lock",
            Kind::Local | Kind::Shared => "joblock.db.locks/a.lock",
        })
    }

    fn spool(&self) -> PathBuf {
        self.path(match self.kind {
            Kind::Lockfile => "spool",
            Kind::Local | Kind::Shared => "joblock.db.spool",
        })
    }

    fn sql(&self, sql: &str) {
        let db = Connection::open(self.database()).expect("the database");
        db.busy_timeout(common::LIMIT).expect("a limit");
        db.execute_batch(sql)
            .unwrap_or_else(|e| panic!("{sql}: {e}"));
    }

    /// `joblock VERB --store URL ARGUMENTS` as somebody, under a umask.
    fn r#as(&self, user: u32, umask: &str, verb: &str, arguments: &[&str]) -> Finished {
        let script = format!("umask {umask}; exec \"$0\" \"$@\"");
        let mut command = self.by(user, &["sh", "-c", &script]);
        command
            .arg(self.program())
            .args([verb, "--store", self.store.url()])
            .args(arguments);
        finish(&mut command)
    }

    /// Any command as somebody.
    fn by(&self, user: u32, words: &[&str]) -> Command {
        let mut command = self.store.program("setpriv");
        if user != 0 {
            command.args([format!("--reuid={user}"), format!("--regid={user}")]);
            if user == MEMBER {
                command.arg(format!("--groups={GROUP}"));
            } else {
                command.arg("--clear-groups");
            }
        }
        command
            .args(words)
            .env("HOME", "/nonexistent")
            .current_dir("/");
        command
    }

    fn root(&self, verb: &str, arguments: &[&str]) -> Finished {
        self.r#as(0, "022", verb, arguments)
    }
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("chmod");
}

/// Everything in a folder, itself included, without following links.
fn all(folder: &Path) -> Vec<(PathBuf, fs::Metadata)> {
    let mut found = vec![(folder.to_owned(), folder.symlink_metadata().expect("stat"))];
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        let meta = entry.path().symlink_metadata().expect("stat");
        if meta.is_dir() {
            found.extend(all(&entry.path()));
        } else {
            found.push((entry.path(), meta));
        }
    }
    found
}

// shows: outsider local, shared, lockfile
#[rstest]
fn an_outsider_can_do_nothing_and_a_member_everything_whatever_the_umask(
    #[values(Kind::Local, Kind::Shared, Kind::Lockfile)] kind: Kind,
) {
    if !may_use_root(ROOT) {
        return;
    }
    let place = Place::new(kind);
    let job = ["a", "--", "echo", SECRET];
    for umask in ["000", "022", "077", "777"] {
        for user in [0, MEMBER] {
            place.r#as(user, umask, "run", &job).expect(0);
            place
                .r#as(
                    user,
                    umask,
                    "run",
                    &[&["-w", "1m", "--max-waiters", "2"], &job[..]].concat(),
                )
                .expect(0);
        }
    }
    // what the database could not take, and who waited
    let (record, umask) = (
        spooled_record(&place),
        rustix::process::umask(rustix::fs::Mode::empty()),
    );
    joblock::store::spool::Spool::at(place.spool())
        .write(&record)
        .expect("a spool file");
    rustix::process::umask(umask);
    let held = start(place.by(MEMBER, &[]).arg(place.program()).args([
        "run",
        "--store",
        place.store.url(),
        "a",
        "--",
        "sleep",
        "100",
    ]));
    place.store.holder("a");
    let waiting = start(place.by(0, &[]).arg(place.program()).args([
        "run",
        "--store",
        place.store.url(),
        "-w",
        "1h",
        "a",
        "--",
        "true",
    ]));
    let queue = place.lock().with_extension("waiting");
    common::wait_until("a waiter", || queue.exists());
    for (path, meta) in all(&place.store.path()) {
        let (mode, is_dir) = (meta.mode() & 0o7777, meta.is_dir());
        assert_eq!(
            mode,
            if is_dir { 0o2770 } else { 0o660 },
            "{}",
            path.display()
        );
        assert_eq!(meta.gid(), GROUP, "{}", path.display());
    }
    let before = fs::read_dir(place.store.path()).unwrap().count();
    for (verb, arguments) in [
        ("run", &job[..]),
        ("rerun", &["a"]),
        ("stop", &["a", "--reason", "x"]),
        ("unlock", &["a", "--kill", "--reason", "x"]),
        ("history", &[]),
        ("show", &["a"]),
        ("logs", &["a"]),
        ("status", &[]),
        ("prune", &["--keep", "1d"]),
        ("init", &[]),
        ("doctor", &[]),
        ("check", &[]),
    ] {
        let refused = place.r#as(OUTSIDER, "000", verb, arguments);
        let code = if verb == "check" { 3 } else { 69 };
        assert_eq!(refused.code(), code, "{verb}: {refused}");
        let told = refused.out() + &refused.err();
        assert!(
            !told.contains(SECRET) && told.contains("permission denied"),
            "{verb}: {refused}"
        );
    }
    let find = format!(
        "find {} -mindepth 1 2>/dev/null; cat {} 2>/dev/null; touch {}/x 2>/dev/null",
        place.store.path().display(),
        place.database().display(),
        place.store.path().display()
    );
    assert_eq!(
        finish(&mut place.by(OUTSIDER, &["sh", "-c", &find])).out(),
        ""
    );
    assert_eq!(fs::read_dir(place.store.path()).unwrap().count(), before);
    assert!(place.store.holder("a").keeper.lives());
    // a member stops root's and root a member's
    place.root("stop", &["a", "--reason", "enough"]).expect(0);
    held.finish();
    waiting.finish().expect(0);
    assert!(place.r#as(MEMBER, "022", "logs", &["a"]).code() == 0);
}

fn spooled_record(place: &Place) -> joblock::store::spool::Entry {
    let store =
        joblock::store::open(&url(place), joblock::store::Purpose::Read, None).expect("the store");
    let mut record = store
        .runs(&joblock::store::record::Query::default())
        .expect("rows")
        .remove(0);
    record.run_id = joblock::name::RunId::random();
    joblock::store::spool::Entry::new(record, None)
}

fn url(place: &Place) -> joblock::store::StoreUrl {
    joblock::plan::parse_store_url(place.store.url().as_ref(), Path::new("/")).expect("a URL")
}

#[derive(Debug, Clone, Copy)]
enum Trick {
    /// To root's own file.
    Link,
    /// To a folder of root's.
    LinkToFolder,
    SecondName,
    Fifo,
    Socket,
}

/// Something else in the place of a part of the store, laid by a member of its group: neither root nor another member touches it.
// shows: symlink local, shared, lockfile
#[rstest]
fn links_and_fifos_in_place_of_the_stores_files_are_refused(
    #[values(Kind::Local, Kind::Shared, Kind::Lockfile)] kind: Kind,
    #[values(
        Trick::Link,
        Trick::LinkToFolder,
        Trick::SecondName,
        Trick::Fifo,
        Trick::Socket
    )]
    trick: Trick,
) {
    if !may_use_root(ROOT) {
        return;
    }
    let place = Place::new(kind);
    let (victim, folder) = (place.store.file("shadow"), place.store.file("etc"));
    let mark = place.store.file("ran");
    let ran = mark.to_str().expect("a path");
    place.root("run", &["a", "--", "true"]).expect(0);
    let database = place.database();
    let beside = |end: &str| PathBuf::from(format!("{}{end}", database.display()));
    let mut parts = vec![
        place.lock(),
        database.clone(),
        place.spool(),
        beside("-journal"),
    ];
    match kind {
        Kind::Local => parts.extend([beside("-wal"), beside("-shm"), beside(".locks")]),
        Kind::Shared => parts.push(beside(".locks")),
        Kind::Lockfile => {}
    }
    for part in parts {
        let aside = place.store.file("aside");
        let was_there = fs::rename(&part, &aside).is_ok();
        fs::write(&victim, "root:secret-of-root").unwrap();
        chmod(&victim, 0o600);
        fs::create_dir_all(&folder).unwrap();
        match trick {
            Trick::Link => symlink(&victim, &part).unwrap(),
            Trick::LinkToFolder => symlink(&folder, &part).unwrap(),
            Trick::SecondName => fs::hard_link(&victim, &part).unwrap(),
            Trick::Fifo => assert!(
                Command::new("mkfifo")
                    .args(["-m", "660"])
                    .arg(&part)
                    .status()
                    .unwrap()
                    .success()
            ),
            Trick::Socket => drop(UnixListener::bind(&part).unwrap()),
        }
        // a second name is the file itself, and stays root's
        if !matches!(trick, Trick::SecondName) {
            std::os::unix::fs::lchown(&part, Some(MEMBER), Some(GROUP)).unwrap();
        }
        let before = victim.metadata().unwrap();
        for user in [0, MEMBER] {
            let refused = place.r#as(user, "022", "run", &["a", "--", "touch", ran]);
            assert_eq!(refused.code(), 69, "{}: {refused}", part.display());
            assert!(!refused.err().contains("secret-of-root"), "{refused}");
            let way_out =
                ["remove", "move the file away"].map(|words| refused.err().contains(words));
            assert!(
                user != 0
                    || way_out.contains(&true)
                    || refused.err().contains("a folder, and a file is needed"),
                "{}: {refused}",
                part.display()
            );
        }
        // looking ends as well, whatever it finds
        let looked = place.root("status", &["a"]);
        assert!(
            !looked.out().contains("secret-of-root") && !looked.err().contains("secret-of-root"),
            "{looked}"
        );
        assert!(!mark.exists(), "{}", part.display());
        let after = victim.metadata().unwrap();
        let same = |m: &fs::Metadata| (m.mode(), m.uid(), m.gid(), m.mtime_nsec(), m.len());
        assert_eq!(same(&before), same(&after), "{}", part.display());
        assert_eq!(
            fs::read_dir(&folder).unwrap().count(),
            0,
            "{}",
            part.display()
        );
        let mode = folder.metadata().unwrap().mode();
        assert_eq!(mode & 0o7000, 0, "{}", part.display());
        fs::remove_file(&part).unwrap();
        if was_there {
            fs::rename(&aside, &part).unwrap();
        }
    }
    place.root("run", &["a", "--", "true"]).expect(0);
}

/// The store's folder itself, in a folder that a group can write.
#[rstest]
fn a_link_in_place_of_the_stores_folder_is_refused(
    #[values(Kind::Local, Kind::Shared, Kind::Lockfile)] kind: Kind,
) {
    if !may_use_root(ROOT) {
        return;
    }
    let place = Place::new(kind);
    let (real, mark) = (place.store.file("real"), place.store.file("ran"));
    fs::rename(place.store.path(), &real).unwrap();
    chown(place.store.file(""), Some(0), Some(GROUP)).unwrap();
    chmod(&place.store.file(""), 0o1775);
    symlink(&real, place.store.path()).unwrap();
    let run = ["a", "--", "touch", mark.to_str().unwrap()];
    // the administrator's own
    place.root("run", &run).expect(0);
    fs::remove_file(&mark).unwrap();
    std::os::unix::fs::lchown(place.store.path(), Some(MEMBER), None).unwrap();
    let refused = place.root("run", &run).expect(69);
    assert!(refused.err().contains("user id 54001"), "{refused}");
    fs::remove_file(place.store.path()).unwrap();
    assert!(
        Command::new("mkfifo")
            .arg(place.store.path())
            .status()
            .unwrap()
            .success()
    );
    place.root("run", &run).expect(69);
    place.root("status", &[]).expect(69);
    assert!(!mark.exists());
}

#[rstest]
#[case::everybodys(0, 0, 0o777, "chmod o-w")]
#[case::sticky_with_somebody_first(0, 0, 0o1777, "user id 54002 put it there")]
#[case::an_undeclared_groups(0, GROUP, 0o770, "chmod g-w")]
#[case::another_users(OUTSIDER, 0, 0o700, "chown root")]
fn root_refuses_a_folder_that_others_can_write_and_doctor_says_so(
    #[case] owner: u32,
    #[case] group: u32,
    #[case] mode: u32,
    #[case] way_out: &str,
    #[values(Kind::Local, Kind::Shared, Kind::Lockfile)] kind: Kind,
    #[values(false, true)] above: bool,
) {
    if !may_use_root(ROOT) || above && mode & 0o1000 != 0 {
        return;
    }
    let store = Store::new(kind);
    chmod(&store.file(""), 0o755);
    store.sh(&[], "a", "true").expect(0);
    let folder = if above { store.file("") } else { store.path() };
    if mode & 0o1000 != 0 {
        let part = if matches!(kind, Kind::Lockfile) {
            "spool"
        } else {
            "joblock.db.spool"
        };
        fs::create_dir(store.path().join(part)).unwrap();
        chown(store.path().join(part), Some(OUTSIDER), None).unwrap();
    }
    chown(&folder, Some(owner), Some(group)).unwrap();
    chmod(&folder, mode);
    let refused = store.sh(&[], "a", "true").expect(69);
    assert!(
        refused.err().contains("root does not use the store") && refused.err().contains(way_out),
        "{refused}"
    );
    let doctor = finish(store.joblock("doctor").arg("--json")).expect(69);
    assert!(doctor.out().contains(way_out), "{doctor}");
    // it can still be read
    finish(store.joblock("history").arg("a")).expect(0);
    // what the line says helps
    chown(&folder, Some(0), Some(0)).unwrap();
    chmod(&folder, 0o755);
    if mode & 0o1000 == 0 {
        store.sh(&[], "a", "true").expect(0);
    }
}

/// An outsider was there first, in a sticky folder that everybody can write: a lock file of his own he could forge, and keep locked.
// shows: symlink lockfile
#[rstest]
fn root_uses_no_lock_file_that_an_outsider_made_and_none_that_is_a_link(
    #[values("a.lock", "a.waiting")] name: &str,
    #[values(false, true)] link: bool,
) {
    if !may_use_root(ROOT) {
        return;
    }
    let store = Store::new(Kind::Lockfile);
    chmod(&store.file(""), 0o755);
    chmod(&store.path(), 0o1777);
    store.sh(&[], "other", "true").expect(0);
    let (planted, precious) = (store.path().join(name), store.file("precious"));
    fs::write(&precious, "root:*:1::::::\n").unwrap();
    if link {
        symlink(&precious, &planted).unwrap();
    } else {
        fs::write(&planted, "").unwrap();
        chown(&planted, Some(OUTSIDER), None).unwrap();
    }
    // a place in the queue is for who waits
    let waits = name == "a.waiting";
    let began = store.file("began");
    let script = format!("touch {}; exec sleep 1000", began.display());
    let holder = waits.then(|| start(&mut store.run(&[], "a", &["sh", "-c", &script])));
    wait_until("the holder", || !waits || began.exists());
    let limit = ["-w", "1h", "--max-waiters", "3"];
    let options = if waits { &limit[..] } else { &[] };
    let refused = store.sh(options, "a", "true").expect(69);
    let says = if link {
        "symbolic link"
    } else {
        "user id 54002 put it there"
    };
    assert!(refused.err().contains(says), "{refused}");
    drop(holder);
    assert_eq!(fs::read_to_string(&precious).unwrap(), "root:*:1::::::\n");
}

#[rstest]
#[case::private(0, 0o700)]
#[case::readable(0, 0o755)]
#[case::a_groups(GROUP, 0o2770)]
#[case::a_groups_that_others_may_read(GROUP, 0o2775)]
#[case::sticky(0, 0o1777)]
fn root_uses_a_folder_that_is_its_own_or_made_for_a_group(#[case] group: u32, #[case] mode: u32) {
    if !may_use_root(ROOT) {
        return;
    }
    let store = Store::local();
    chown(store.path(), Some(0), Some(group)).unwrap();
    chmod(&store.path(), mode);
    store.sh(&[], "a", "true").expect(0);
    store.sh(&[], "a", "true").expect(0);
}

/// The store's folder was somebody else's, or a group's, and is root's now; one part of it is not.
// shows: group-member local, shared, lockfile
#[rstest]
fn root_uses_no_store_of_which_a_part_is_left_to_others(
    #[values(Kind::Local, Kind::Shared, Kind::Lockfile)] kind: Kind,
    #[values("spool", "journal")] part: &str,
    #[values(false, true)] by_the_group: bool,
) {
    if !may_use_root(ROOT) {
        return;
    }
    let store = Store::new(kind);
    chmod(&store.path(), 0o755);
    store.sh(&[], "a", "true").expect(0);
    let name = match (kind, part) {
        (Kind::Lockfile, "spool") => "spool",
        (Kind::Lockfile, _) => "history.db-journal",
        (_, "spool") => "joblock.db.spool",
        (Kind::Local, _) => "joblock.db-wal",
        (Kind::Shared, _) => "joblock.db-journal",
    };
    let path = store.path().join(name);
    if part == "spool" {
        let _ = fs::create_dir(&path);
    } else if !path.exists() {
        fs::write(&path, "").unwrap();
    }
    let (says, mode) = if by_the_group {
        chown(&path, Some(0), Some(GROUP)).unwrap();
        ("chmod g-w", if part == "spool" { 0o770 } else { 0o660 })
    } else {
        chown(&path, Some(MEMBER), None).unwrap();
        ("chown root", if part == "spool" { 0o700 } else { 0o600 })
    };
    chmod(&path, mode);
    let refused = store.sh(&[], "a", "true").expect(69);
    assert!(
        refused.err().contains(says) && refused.err().contains(name),
        "{refused}"
    );
    let doctor = finish(store.joblock("doctor").arg("--json")).expect(69);
    assert!(doctor.out().contains(says), "{doctor}");
    // what stands in SQLite's log would be in the database once it was read
    let rerun = finish(store.joblock("rerun").arg("a"));
    let why = if part == "spool" {
        (125, "can write the history")
    } else {
        (69, says)
    };
    assert!(
        rerun.code() == why.0 && rerun.err().contains(why.1),
        "{rerun}"
    );
    // what the line says helps
    chown(&path, Some(0), Some(0)).unwrap();
    store.sh(&[], "a", "true").expect(0);
}

/// A member writes a run of root's into the history, with a command of the member's choice.
// shows: group-member local, shared, lockfile
#[rstest]
fn root_runs_no_command_from_a_history_that_others_can_write(
    #[values(Kind::Local, Kind::Shared, Kind::Lockfile)] kind: Kind,
) {
    if !may_use_root(ROOT) {
        return;
    }
    let place = Place::new(kind);
    let mark = place.store.file("ran");
    place.root("run", &["a", "--", "true", "abcd"]).expect(0);
    let forged = format!("touch\0{}\0", mark.display());
    let hex = forged
        .bytes()
        .fold(String::new(), |hex, b| format!("{hex}{b:02x}"));
    place.sql(&format!("UPDATE runs SET command = x'{hex}'"));
    for target in ["a", place.store.rows("a")[0]["run_id"].as_str().unwrap()] {
        let refused = place.root("rerun", &[target]).expect(125);
        assert!(
            refused.err().contains("54321") && refused.err().contains("jobs file"),
            "{refused}"
        );
    }
    assert!(!mark.exists());
    // what only root can write is root's own word
    finish(
        Command::new("chmod")
            .args(["-R", "g-rwxs"])
            .arg(place.store.path())
            .stdout(std::process::Stdio::piped()),
    )
    .expect(0);
    place.root("rerun", &["a"]).expect(0);
    assert!(mark.exists());
}

/// A process that is none of joblock's.
struct Innocent(std::process::Child);

impl Innocent {
    fn start(program: &str, arguments: &[&str]) -> Innocent {
        Innocent(
            Command::new(program)
                .args(arguments)
                .spawn()
                .expect("a process"),
        )
    }

    fn process(&self) -> Process {
        Process::of(i32::try_from(self.0.id()).unwrap()).expect("it is there")
    }
}

impl Drop for Innocent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Start time of a process, field 22 of its stat.
fn start_of(process: Process) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", process.pid)).expect("its stat");
    let fields = stat.rsplit_once(')').expect("a name").1;
    fields
        .split_whitespace()
        .nth(19)
        .expect("a start")
        .parse()
        .expect("a number")
}

/// The lock `a` as held by a run with these processes and this cgroup, as a member could write it. Where the lock file says
/// otherwise it is put aside.
fn forge(place: &Place, keeper: (i32, u64), cgroup: &str) {
    let run = place.store.rows("a").remove(0);
    let here = joblock::store::Place::here();
    let id = |(pid, start): (i32, u64)| serde_json::json!({ "pid": pid, "start": start });
    let holder = serde_json::json!({
        "run_id": run["run_id"], "job": "a", "trigger": "schedule", "who": run["who"], "place": here, "cgroup": cgroup,
        "processes": { "front": id(keeper), "keeper": id(keeper), "guard": id(keeper) }, "since": 0,
    });
    let file = fs::metadata(place.lock()).expect("the lock file");
    let (dev, ino) = (file.dev(), file.ino());
    place.sql(&format!(
        "INSERT OR REPLACE INTO locks VALUES ('a', 50, {}, 0, 0, 2000, {dev}, {ino}, '{holder}')",
        run["run_id"].to_string().replace('"', "'")
    ));
}

// shows: group-member local, shared, lockfile
#[rstest]
fn a_forged_holder_makes_root_kill_nobody(
    #[values(Kind::Local, Kind::Shared, Kind::Lockfile)] kind: Kind,
) {
    if !may_use_root(ROOT) {
        return;
    }
    let place = Place::new(kind);
    place
        .root("run", &["a", "--ttl", "2s", "--", "true"])
        .expect(0);
    let innocent = Innocent::start("sleep", &["1000"]);
    let process = innocent.process();
    // by its pid: it runs, so the lock is held, and unlock may kill what is no more
    forge(&place, (process.pid, start_of(process)), "/proc/1");
    place.root("run", &["a", "--", "true"]).expect(75);
    let unlocked = place.root("unlock", &["a", "--kill", "--reason", "x"]);
    assert!(process.lives(), "{unlocked}");
    // a stopped one looks like a keeper that does not answer
    process.kill(19);
    common::wait_until("it is stopped", || process.is_stopped());
    let unlocked = place.root("unlock", &["a", "--kill", "--reason", "x"]);
    assert!(process.lives() && unlocked.code() == 125, "{unlocked}");
    process.kill(18);
    // by a folder that is called like a cgroup and has a FIFO to wait at
    let trap = place.store.file("trap");
    fs::create_dir(&trap).unwrap();
    for name in ["cgroup.events", "cgroup.kill", "memory.events"] {
        assert!(
            Command::new("mkfifo")
                .arg(trap.join(name))
                .status()
                .unwrap()
                .success()
        );
    }
    place.sql(&format!(
        "UPDATE runs SET oom_counters = '[{{\"folder\":\"{}\",\"id\":{},\"kills\":0}}]', outcome = 'running'",
        trap.display(),
        trap.metadata().unwrap().ino()
    ));
    forge(&place, (process.pid, 1), trap.to_str().unwrap());
    place
        .root("run", &["a", "-w", "90s", "--", "true"])
        .expect(0);
    assert!(process.lives());
}

/// Whoever knows it can write in a store of his own that the run is dead, and wait for root to end what is left of it.
#[test]
fn nothing_that_everybody_sees_tells_the_id_of_a_run() {
    if !may_use_root(ROOT) {
        return;
    }
    let place = Place::new(Kind::Local);
    let script = "echo $JOBLOCK_RUN_ID; exec sleep 1000";
    let arguments = [
        "run",
        "--store",
        place.store.url(),
        "--ttl",
        "2s",
        "a",
        "--",
    ];
    let mut run = place.store.program(place.program().to_str().unwrap());
    let mut run = run
        .args(arguments)
        .args(["sh", "-c", script])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("a run");
    let mut id = String::new();
    let out = run.stdout.take().expect("its output");
    BufReader::new(out).read_line(&mut id).expect("its id");
    let id = id.trim();
    // in a file, or the search would find itself
    let pattern = place.store.file("id");
    fs::write(&pattern, id).expect("write");
    chmod(&pattern, 0o644);
    let search = format!(
        "cd /proc && grep -lsFf {0} [1-9]*/cmdline [1-9]*/comm [1-9]*/cgroup [1-9]*/environ locks; \
         find /sys/fs/cgroup /dev/shm /run 2>/dev/null | grep -Ff {0}; true",
        pattern.display()
    );
    let seen_by = |user| finish(&mut place.by(user, &["sh", "-c", &search])).out();
    let (outsider, root) = (seen_by(OUTSIDER), seen_by(0));
    place
        .root("stop", &["a", "--reason", "seen enough"])
        .expect(0);
    run.wait().expect("its end");
    assert!(root.contains("/environ"), "root must find it: {root}");
    assert_eq!(outsider, "");
}

/// A daemon of root's that has locked the lock file for its own reasons, and a holder with its pid.
#[test]
fn a_process_that_took_the_lock_itself_is_nobodys_leftover() {
    if !may_use_root(ROOT) {
        return;
    }
    let place = Place::new(Kind::Local);
    place.root("run", &["a", "--", "true"]).expect(0);
    let lock = place.lock();
    let daemon = Innocent::start("flock", &["-F", lock.to_str().unwrap(), "sleep", "1000"]);
    let process = daemon.process();
    common::wait_until("its lock", || {
        let file = fs::File::open(&lock).unwrap();
        fs2::FileExt::try_lock_exclusive(&file).is_err()
    });
    forge(&place, (process.pid, 1), "/proc/1");
    place.root("run", &["a", "--", "true"]).expect(75);
    assert!(process.lives());
}

// shows: group-member local, shared, lockfile
#[rstest]
fn what_a_member_wrote_does_nothing_on_roots_terminal_and_in_roots_memory(
    #[values(Kind::Local, Kind::Shared, Kind::Lockfile)] kind: Kind,
) {
    if !may_use_root(ROOT) {
        return;
    }
    let place = Place::new(kind);
    let evil = "x\u{1b}]0;evil\u{7}\u{1b}[2J\u{9b}31m";
    place
        .root("run", &["a", "--", "printf", "%s", evil])
        .expect(0);
    place.sql(&format!(
        "UPDATE runs SET reason = '{evil}', host = '{evil}', note = '{evil}', who = json_set(who, '$.user', '{evil}'), end_note = '{evil}',
             container = '{evil}', tags = '{{\"k\":\"{}\"}}', outcome = 'failed', exit_code = 1",
        "\\u001b[2J"
    ));
    let mut said = Vec::new();
    for (verb, arguments) in [
        ("status", &[][..]),
        ("status", &["a"]),
        ("history", &[]),
        ("show", &["a"]),
        ("check", &[]),
    ] {
        said.push(place.root(verb, arguments));
    }
    let innocent = Innocent::start("sleep", &["1000"]);
    let holder = innocent.process();
    forge(&place, (holder.pid, start_of(holder)), "/proc/1");
    place.sql(&format!(
        "UPDATE locks SET holder = json_set(holder, '$.job', '{evil}', '$.place.host', '{evil}')"
    ));
    said.push(place.root("run", &["-v", "a", "--", "true"]).expect(75));
    said.push(place.root("status", &[]));
    for done in &said {
        let text = done.out() + &done.err();
        assert!(!text.contains(['\u{1b}', '\u{7}', '\u{9b}']), "{text:?}");
    }
    assert!(said[3].out().contains("\\x1b[2J"), "{}", said[3]);
    // a value that would not fit into memory, a few times over
    place.sql("DELETE FROM locks; UPDATE runs SET reason = zeroblob(30000000)");
    let huge = place.root("history", &[]);
    assert_eq!(huge.code(), 69, "{huge}");
    place.sql("UPDATE runs SET reason = NULL");
    fs::create_dir_all(place.spool()).unwrap();
    let sparse = fs::File::create(place.spool().join("0123456789abcdef.failed.json")).unwrap();
    sparse.set_len(1 << 40).unwrap();
    place.root("run", &["a", "--", "true"]).expect(0);
    // code in the schema
    place.sql("CREATE TRIGGER t AFTER INSERT ON runs BEGIN DELETE FROM runs; END");
    let refused = place.root("run", &["a", "--", "true"]).expect(69);
    assert!(refused.err().contains("triggers or views"), "{refused}");
}
