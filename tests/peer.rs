//! `doctor --peer`: two doctors meet in a store's folder, prove what holds between them, say the same, and leave nothing behind.
//!
//! Here on one machine; what looks like two has mounts of its own whose flock(2) does not reach the other one. On machines with
//! kernels of their own, over real NFS: `nfs_peer`.

mod common;

#[expect(dead_code, reason = "the campaign uses more of it")]
#[path = "campaign/fuse.rs"]
mod fuse;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread;

use joblock::store::Level;
use joblock::store::lockfile::probe;
use rstest::rstest;
use rustix::mount::MountPropagationFlags;
use serde_json::Value;

use common::{Finished, Kind, Running, Store, finish, joblock, may_use_root, start, wait_until};
use fuse::{Mood, Moods};

/// The exit code of a doctor that found something bad.
const BAD: i32 = 69;

fn doctor(store: &Store) -> Command {
    let mut command = store.joblock("doctor");
    command.args(["--peer", "--json"]);
    command
}

fn answer(done: &Finished) -> Value {
    serde_json::from_slice(&done.stdout).unwrap_or_else(|e| panic!("no JSON: {e}\n{done}"))
}

/// What is said of `what`: the level, and the words.
#[track_caller]
fn found(answer: &Value, what: &str) -> (String, String) {
    let findings = answer["findings"].as_array().expect("a list");
    let of = |f: &Value, key: &str| f[key].as_str().unwrap_or_default().to_owned();
    let finding = findings
        .iter()
        .find(|f| f["what"] == what)
        .unwrap_or_else(|| panic!("nothing of {what:?}: {answer:#}"));
    (of(finding, "level"), of(finding, "detail"))
}

/// Where doctors of a store meet.
fn meeting(store: &Store) -> PathBuf {
    if store.url().starts_with("lockfile:") {
        store.path().join("peer")
    } else {
        store.path().join("joblock.db.peer")
    }
}

/// What lies in a folder, if it is there.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect()
}

/// Waits until a doctor shows itself there.
fn wait_for_doctors(folder: &Path, number: usize) {
    wait_until("doctors in the folder", || {
        let names = names(folder);
        let mail = |name: &str| name.split_once('.').is_some_and(|(_, end)| end == "mail");
        names.iter().filter(|n| mail(n)).count() >= number
    });
}

/// All files of a store and what is in them.
fn contents(store: &Store) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    let mut folders = vec![store.path()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let bytes = fs::read(&path).expect("a file");
                found.push((path, bytes));
            }
        }
    }
    found.sort();
    found
}

/// They meet, though others crashed here before, while jobs start and end beside them.
#[test]
fn two_doctors_meet_and_say_that_it_is_one_machine() {
    at_once(
        [Kind::Local, Kind::Shared, Kind::Lockfile],
        meet_on_one_machine,
    );
}

/// Most of what a doctor does is to wait.
fn at_once<T: Send>(cases: impl IntoIterator<Item = T>, test: fn(T)) {
    thread::scope(|scope| {
        for case in cases {
            scope.spawn(move || test(case));
        }
    });
}

fn meet_on_one_machine(kind: Kind) {
    let store = Store::new(kind);
    store.sh(&[], "sync", "true").expect(0);
    let before = contents(&store);
    let crashed = start(&mut doctor(&store));
    wait_for_doctors(&meeting(&store), 1);
    let mailbox = names(&meeting(&store)).remove(0);
    crashed.process().kill(9);
    crashed.finish();
    let doctors = [start(&mut doctor(&store)), start(&mut doctor(&store))];
    wait_for_doctors(&meeting(&store), 3);
    store.sh(&[], "other", "true").expect(0);
    for done in doctors.map(Running::finish) {
        let answer = answer(&done.expect(0));
        assert_eq!(answer["verdict"], "warning", "{answer:#}");
        let (level, detail) = found(&answer, "the two sides");
        assert_eq!(level, "warning");
        assert!(detail.contains("proves nothing about two"), "{detail}");
        let peer = &answer["peer"];
        assert_eq!(peer["came"], true, "{peer:#}");
        let measured = &peer["measured"];
        for fact in ["one_machine", "kernel_locks_reach", "sqlite_locks_reach"] {
            assert_eq!(measured[fact], true, "{fact}: {measured:#}");
        }
        for side in ["here", "there"] {
            for waited in ["takeover_polling_seconds", "takeover_waiting_seconds"] {
                assert!(measured[side][waited].is_f64(), "{measured:#}");
            }
        }
        for what in [
            "the kernel's lock reaches the other side",
            "SQLite's locks reach the other side",
            "a child process keeps the lock",
            "takeover from a killed holder",
            "what one writes the other one reads",
            "SQLite's transactions exclude each other",
            "one store",
            "clocks",
            "joblock",
        ] {
            assert_eq!(found(&answer, what).0, "ok", "{what}: {answer:#}");
        }
    }
    // but for the one that was killed: only what is an hour old is removed
    let of_the_crashed = mailbox.split('.').next().expect("its name");
    for name in names(&meeting(&store)) {
        assert!(name.starts_with(of_the_crashed), "{name}");
    }
    fs::remove_dir_all(meeting(&store)).expect("the crashed one's");
    assert_eq!(store.outcomes("other"), ["succeeded"]);
    if kind == Kind::Lockfile {
        let lock = |files: &[(PathBuf, Vec<u8>)]| {
            let file = files.iter().find(|(p, _)| p.ends_with("sync.lock"));
            file.expect("a lock file").clone()
        };
        assert_eq!(lock(&before), lock(&contents(&store)));
    }
}

#[test]
fn a_text_says_the_verdict_last_and_what_to_change_and_nothing_is_left() {
    let store = Store::new(Kind::Lockfile);
    store.sh(&[], "sync", "true").expect(0);
    let before = contents(&store);
    let mut command = store.joblock("doctor");
    command.args(["--peer", "--wait", "50ms"]);
    let done = finish(&mut command).expect(BAD);
    let out = done.out();
    let end = out
        .split_once("don't rely on it: 1 thing is bad\n")
        .unwrap_or_else(|| panic!("{done}"))
        .1;
    assert!(
        end.starts_with("- the other side: nobody came within 50ms"),
        "{done}"
    );
    assert!(
        end.contains("start `joblock doctor --peer` on both machines"),
        "{done}"
    );
    assert!(
        done.err().contains("joblock: waiting up to 50ms in "),
        "{done}"
    );
    assert_eq!(contents(&store), before);
    assert!(!meeting(&store).exists());
}

#[test]
fn doctors_of_two_stores_do_not_meet() {
    let stores = [Store::new(Kind::Lockfile), Store::new(Kind::Lockfile)];
    let doctors = stores.each_ref().map(|store| {
        store.sh(&[], "sync", "true").expect(0);
        start(doctor(store).args(["--wait", "2s"]))
    });
    for done in doctors.map(Running::finish) {
        let answer = answer(&done.expect(BAD));
        assert_eq!(answer["peer"]["came"], false, "{answer:#}");
        assert_eq!(found(&answer, "the other side").0, "bad");
    }
}

/// A pair of the three goes through, and the third is told that it had none.
#[test]
fn of_three_doctors_two_pair_and_the_third_says_so() {
    let store = Store::new(Kind::Lockfile);
    store.sh(&[], "sync", "true").expect(0);
    let three = [0, 1, 2].map(|_| start(doctor(&store).args(["--wait", "6s"])));
    let mut came = three.map(|running| {
        let answer = answer(&running.finish());
        answer["peer"]["came"].as_bool().expect("a fact")
    });
    came.sort_unstable();
    assert_eq!(came, [false, true, true]);
    assert!(!meeting(&store).exists());
}

/// Who is told to end tidies up, and the other one hears of it at once.
#[rstest]
fn one_that_is_ended_leaves_nothing_and_the_other_one_says_so(
    #[values(libc::SIGINT, libc::SIGTERM)] signal: i32,
) {
    let store = Store::new(Kind::Lockfile);
    store.sh(&[], "sync", "true").expect(0);
    let one = start(&mut doctor(&store));
    wait_for_doctors(&meeting(&store), 1);
    one.process().kill(signal);
    let answer_of_one = answer(&one.finish().expect(BAD));
    assert!(
        found(&answer_of_one, "the other side")
            .1
            .contains("it was ended here")
    );
    assert!(!meeting(&store).exists());

    let two = [start(&mut doctor(&store)), start(&mut doctor(&store))];
    wait_until("both hold locks", || {
        let names = fs::read_dir(meeting(&store))
            .into_iter()
            .flatten()
            .flatten();
        let locks = names.filter(|e| e.file_name().to_string_lossy().ends_with(".name"));
        locks.count() == 2
    });
    two[0].process().kill(signal);
    let [_, other] = two.map(Running::finish);
    let other = answer(&other.expect(BAD));
    assert!(
        found(&other, "the other side")
            .1
            .contains("the other side was ended"),
        "{other:#}"
    );
    assert!(!meeting(&store).exists());
    assert!(store.marked().is_empty(), "{:?}", store.marked());
}

#[test]
fn no_link_is_followed() {
    let store = Store::new(Kind::Lockfile);
    store.sh(&[], "sync", "true").expect(0);
    let elsewhere = store.file("elsewhere");
    fs::create_dir(&elsewhere).expect("a folder");
    symlink(&elsewhere, meeting(&store)).expect("a link");
    let done = finish(doctor(&store).args(["--wait", "1s"])).expect(BAD);
    let (level, detail) = found(&answer(&done), "the other side");
    assert!(
        level == "bad" && detail.contains("can't be written"),
        "{detail}"
    );
    assert_eq!(fs::read_dir(&elsewhere).expect("it").count(), 0);
}

const GROUP: u32 = 54_010;
const MEMBER: u32 = 54_011;

/// Root on one machine, an operator on the other.
#[test]
fn root_and_a_member_of_the_stores_group_meet() {
    if !may_use_root("becoming another user") {
        return;
    }
    let store = Store::new(Kind::Shared);
    fs::set_permissions(store.file(""), fs::Permissions::from_mode(0o755)).expect("chmod");
    finish(store.joblock("init").args(["--group", &GROUP.to_string()])).expect(0);
    let program = store.file("joblock");
    let copied = Command::new("cp").arg(joblock()).arg(&program).status();
    assert!(copied.expect("cp").success());
    let mut member = store.program("setpriv");
    member
        .args([format!("--reuid={MEMBER}"), format!("--regid={MEMBER}")])
        .arg(format!("--groups={GROUP}"))
        .args(["sh", "-c", "umask 077; exec \"$0\" \"$@\""])
        .arg(&program)
        .args(["doctor", "--peer", "--json", "--store", store.url()])
        .current_dir("/");
    let both = [start(&mut member), start(&mut doctor(&store))];
    wait_for_doctors(&meeting(&store), 2);
    let made = fs::metadata(meeting(&store)).expect("the folder");
    assert_eq!((made.mode() & 0o7777, made.gid()), (0o2770, GROUP));
    for done in both.map(Running::finish) {
        let answer = answer(&done.expect(0));
        assert_eq!(answer["verdict"], "warning", "{answer:#}");
    }
    assert!(!meeting(&store).exists());
}

/// A thread with a mount, a host name and a boot id of its own, which starts doctors for us.
struct Machine {
    orders: Sender<(Command, Sender<Running>)>,
    moods: Moods,
}

impl Machine {
    /// With `folder` mounted at `point` by a file system whose flock(2) is its own.
    fn boot(name: &'static str, folder: &Path, point: &Path) -> Machine {
        fs::create_dir(point).expect("a mount point");
        let moods = Moods::new();
        let (orders, inbox) = channel::<(Command, Sender<Running>)>();
        let (folder, point, kept) = (folder.to_owned(), point.to_owned(), moods.clone());
        let (ready, booted) = channel();
        thread::spawn(move || {
            let what = libc::CLONE_FS | libc::CLONE_NEWNS | libc::CLONE_NEWUTS;
            // SAFETY: unshare(2) takes a number and changes what this thread alone sees.
            assert_eq!(unsafe { libc::unshare(what) }, 0);
            let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
            rustix::mount::mount_change("/", private).expect("mounts of its own");
            rustix::system::sethostname(name.as_bytes()).expect("a name");
            let server = fuse::mount(&folder, &point, kept).expect("a mount");
            thread::spawn(server);
            let id = point.with_extension("boot_id");
            let fresh = fs::read_to_string("/proc/sys/kernel/random/uuid").expect("an id");
            fs::write(&id, fresh).expect("write");
            rustix::mount::mount_bind(&id, "/proc/sys/kernel/random/boot_id").expect("a boot id");
            ready.send(()).expect("the test");
            for (mut command, answer) in inbox {
                let _ = answer.send(start(&mut command));
            }
        });
        booted.recv().expect("a machine");
        Machine { orders, moods }
    }

    fn start(&self, command: Command) -> Running {
        let (sender, receiver) = channel();
        self.orders.send((command, sender)).expect("a machine");
        receiver.recv().expect("a process")
    }
}

fn two_machines(store: &Store) -> Option<[Machine; 2]> {
    if !may_use_root("it mounts file systems") || !fuse::is_there() {
        return None;
    }
    let machine = |name| Machine::boot(name, &store.path(), &store.file(name));
    Some(["blue", "green"].map(machine))
}

/// The command of a doctor that knows the store by another path.
fn at(store: &Store, name: &str) -> Command {
    let path = store.path().display().to_string();
    let there = store.file(name).display().to_string();
    let mut command = store.program(joblock());
    command
        .args(["doctor", "--peer", "--json", "--store"])
        .arg(store.url().replace(&path, &there));
    command
}

/// A second job would run under `lockfile:`; a shared database has its lease.
#[test]
fn where_flock_does_not_reach_it_is_proved_and_said_and_what_to_do() {
    let lockfile = (Kind::Lockfile, BAD, "bad", "must not be used here");
    let shared = (Kind::Shared, 0, "warning", "goes by its lease alone");
    at_once([lockfile, shared], without_flock);
}

fn without_flock((kind, code, level, words): (Kind, i32, &str, &str)) {
    let store = Store::new(kind);
    let Some(machines) = two_machines(&store) else {
        return;
    };
    let init: &[&str] = if kind == Kind::Lockfile {
        &[]
    } else {
        &["--shared"]
    };
    finish(store.joblock("init").args(init)).expect(0);
    let doctors = [
        machines[0].start(at(&store, "blue")),
        machines[1].start(at(&store, "green")),
    ];
    for (done, other) in doctors
        .map(Running::finish)
        .into_iter()
        .zip(["green", "blue"])
    {
        let answer = answer(&done.expect(code));
        let (said, detail) = found(&answer, "the kernel's lock reaches the other side");
        assert_eq!(said, level, "{detail}");
        assert!(
            detail.contains(words) && detail.contains("FUSE"),
            "{detail}"
        );
        let peer = &answer["peer"];
        assert_eq!(peer["there"]["host"], other, "{peer:#}");
        assert_eq!(peer["measured"]["kernel_locks_reach"], false, "{peer:#}");
        assert_eq!(peer["measured"]["sqlite_locks_reach"], true, "{peer:#}");
        for what in [
            "the two sides",
            "host names",
            "SQLite's locks reach the other side",
            "SQLite's transactions exclude each other",
            "what one writes the other one reads",
        ] {
            assert_eq!(found(&answer, what).0, "ok", "{what}: {answer:#}");
        }
    }
    assert!(!meeting(&store).exists());
}

#[test]
fn a_mount_that_does_not_answer_hangs_no_doctor() {
    let store = Store::new(Kind::Lockfile);
    let Some(machines) = two_machines(&store) else {
        return;
    };
    finish(&mut store.joblock("init")).expect(0);
    let doctor = machines[0].start(at(&store, "blue"));
    wait_for_doctors(&meeting(&store), 1);
    machines[0].moods.set(Mood::Hangs);
    let done = doctor.finish().expect(BAD);
    machines[0].moods.set(Mood::Well);
    let (level, detail) = found(&answer(&done), "the store");
    assert!(
        level == "bad" && detail.contains("does not answer"),
        "{detail}"
    );
}

/// What is forked beside it has the trial's lock until it executes its program, and not longer. Not beside tests that look at locks of this
/// process's own.
#[test]
fn what_another_thread_starts_meanwhile_keeps_no_lock_that_doctor_tries() {
    let dir = tempfile::tempdir().expect("a folder");
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let other = scope.spawn(|| {
            let mut started = Vec::new();
            while !over.load(Ordering::Relaxed) {
                started.push(Command::new("sleep").arg("600").spawn().expect("sleep"));
            }
            for mut child in started {
                child.kill().expect("kill");
                child.wait().expect("wait");
            }
        });
        let mut findings = (0..100).flat_map(|_| probe::locks(dir.path(), false));
        let bad = findings.find(|finding| finding.level != Level::Ok);
        over.store(true, Ordering::Relaxed);
        other.join().expect("the other thread");
        assert_eq!(bad.map(|bad| bad.what), None);
    });
}
