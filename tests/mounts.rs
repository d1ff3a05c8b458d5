//! Mounts that lie: a start on one is refused before the job runs, with what to change, unless somebody accepts it
//! and says why, which stands in the record. Real mounts: bindfs, overlays, read-only ones; those of NFS are in `nfs_mounts.rs`.

mod common;

use common::{Finished, Kind, Store, finish, joblock, may_use_root};
use rstest::rstest;
use rusqlite::Connection;
use serde_json::Value;

const WHY: &str = "mounts of its own";

/// bindfs leaves locks to the kernel, and so to the mount.
const BINDFS: &str = "bindfs $STORE $FAR";
/// It passes them on, and SQLite's in its own name: they keep others past the mount off, and nobody on it.
const FORWARDING: &str = "bindfs --enable-lock-forwarding --multithreaded $STORE $FAR";

const ACCEPT: [&str; 2] = [
    "--accept-unsafe-mount",
    "one machine has it all\nand is the only one",
];

/// The arguments of a run whose job leaves a mark.
fn run<'a>(options: &[&'a str], mark: &'a str) -> Vec<&'a str> {
    [&["run"], options, &["job", "--", "touch", mark]].concat()
}

/// A folder that a script mounts something at, as the place of a store. Past the mount, the store is at `store.path()`.
struct Place {
    store: Store,
    kind: Kind,
}

impl Place {
    fn new(kind: Kind) -> Place {
        let store = Store::new(kind);
        std::fs::create_dir(store.file("far")).expect("a folder");
        Place { store, kind }
    }

    fn far(&self) -> String {
        self.store.file("far").display().to_string()
    }

    /// Of the store on the mount.
    fn url(&self) -> String {
        self.url_in(&self.far())
    }

    fn url_in(&self, folder: &str) -> String {
        match self.kind {
            Kind::Local => format!("sqlite:{folder}/joblock.db"),
            Kind::Shared => format!("sqlite:{folder}/joblock.db?shared"),
            Kind::Lockfile => format!("lockfile:{folder}"),
        }
    }

    /// `script`, then `joblock ARGUMENTS` on the store, all in namespaces that end with it, whatever the script mounted.
    fn joblock(&self, script: &str, arguments: &[&str]) -> Finished {
        self.joblock_at(&self.url(), script, arguments)
    }

    fn joblock_at(&self, url: &str, script: &str, arguments: &[&str]) -> Finished {
        let mut command = self.store.program("unshare");
        command
            .args(["--mount", "--pid", "--fork", "--mount-proc", "--kill-child"])
            .args(["bash", "-c", &format!("set -e; {script}; \"$@\"; exit")])
            .args(["bash", joblock()])
            .args([&arguments[..1], &["--store", url], &arguments[1..]].concat())
            .env("STORE", self.store.path())
            .env("FAR", self.far());
        finish(&mut command)
    }

    /// A start, and whether its job ran.
    fn start(&self, script: &str, options: &[&str]) -> (Finished, bool) {
        let mark = self.store.file("the-job-ran");
        let _ = std::fs::remove_file(&mark);
        let shown = mark.display().to_string();
        let done = self.joblock(script, &run(options, &shown));
        (done, mark.exists())
    }

    /// A start with these options is refused: 69, no job, no word on stdout; what it said.
    #[track_caller]
    fn refused(&self, script: &str, options: &[&str]) -> String {
        let (done, ran) = self.start(script, options);
        assert!(!ran, "{done}");
        assert_eq!(done.out(), "");
        done.expect(69).err()
    }

    /// A start with these options runs; what it said.
    #[track_caller]
    fn runs(&self, script: &str, options: &[&str]) -> String {
        let (done, ran) = self.start(script, options);
        assert!(ran, "{done}");
        done.expect(0).err()
    }
}

// shows: mount-that-lies shared, lockfile
#[rstest]
#[case::lockfile(
    Kind::Lockfile,
    "leaves flock(2) locks and SQLite's (fcntl(2)) locks to this kernel"
)]
#[case::shared(Kind::Shared, "leaves SQLite's (fcntl(2)) locks to this kernel")]
#[case::shared_by_the_mount(Kind::Local, "leaves SQLite's (fcntl(2)) locks to this kernel")]
fn fuse_whose_locks_end_at_it_or_are_had_by_two_is_refused(#[case] kind: Kind, #[case] says: &str) {
    if !may_use_root(WHY) {
        return;
    }
    let place = Place::new(kind);
    for _ in 0..2 {
        let said = place.refused(BINDFS, &[]);
        assert!(said.contains(says), "{said}");
        assert!(said.contains("--accept-unsafe-mount REASON"), "{said}");
        let said = place.refused(FORWARDING, &[]);
        assert!(
            said.contains("lets two processes have SQLite's (fcntl(2)) locks at once")
                && !said.contains("flock(2)"),
            "{said}"
        );
        // once there is a store, nothing changes
        place.runs(BINDFS, &ACCEPT);
    }
    let left = place.store.path().read_dir().expect("the store");
    let names = left.map(|entry| entry.expect("a file").file_name());
    let probes = names.filter(|name| name.to_string_lossy().starts_with("probe."));
    assert_eq!(probes.count(), 0);
}

/// Somebody's file is open on a mount that hangs, or whose daemon is gone. What a killed run left is looked for among all processes, his too.
// shows: dead-mount-of-others local, shared, lockfile
#[rstest]
fn a_dead_mount_that_others_use_holds_no_start_up(
    #[values(Kind::Local, Kind::Shared, Kind::Lockfile)] kind: Kind,
    #[values("STOP", "KILL")] signal: &str,
) {
    if !may_use_root(WHY) {
        return;
    }
    let place = Place::new(kind);
    let url = place.url_in(&place.store.path().display().to_string());
    let began = place.store.file("began");
    // nothing of the file may be remembered, or its mount would not be asked
    let script = format!(
        "bindfs -o attr_timeout=0 -o entry_timeout=0 $STORE $FAR; : >$FAR/open; sleep 1000 <$FAR/open & \
         {joblock} run --store {url} job -- sh -c 'setsid sleep 1000 & : >{began}; exec sleep 1000' & \
         until [ -e {began} ]; do sleep 0.01; done; \
         pkill -{signal} -x bindfs; pkill -KILL -x joblock; ! timeout -s KILL 1 stat -L /proc/$(pgrep -o sleep)/fd/0",
        joblock = joblock(),
        began = began.display(),
    );
    let mark = place.store.file("the-job-ran").display().to_string();
    let done = place.joblock_at(&url, &script, &run(&["-w", "50"], &mark));
    done.expect(0);
    assert!(place.store.file("the-job-ran").exists());
    assert_eq!(place.store.outcomes("job"), ["abandoned", "succeeded"]);
}

/// The jobs file lies on a mount that hangs: every command says so, and which.
#[test]
fn a_jobs_file_on_a_mount_that_hangs_is_told_in_time() {
    if !may_use_root(WHY) {
        return;
    }
    let place = Place::new(Kind::Local);
    let url = place.url_in(&place.store.path().display().to_string());
    let script = format!(
        "bindfs -o attr_timeout=0 -o entry_timeout=0 $STORE $FAR; : >$STORE/jobs.toml; {joblock} history --config $FAR/jobs.toml; \
         pkill -STOP -x bindfs; export JOBLOCK_CONFIG=$FAR/jobs.toml; \
         {joblock} run job -- true & one=$!; {joblock} history & other=$!; \
         for pid in $one $other; do code=0; wait $pid || code=$?; [ $code = 69 ]; done; unset JOBLOCK_CONFIG",
        joblock = joblock(),
    );
    let done = place.joblock_at(&url, &script, &["run", "job", "--", "true"]);
    let said = done.expect(0).err();
    let told = said.matches("the jobs file").count();
    assert!(told == 2 && said.contains("does not answer"), "{said}");
}

/// The job's command lies on a mount that hangs: it is executed later, or never, and a run is ended in time all the same.
#[rstest]
#[case::time_limit(&["-t", "1", "-k", "1"], "true", 124)]
#[case::signal(&[], "kill -TERM $front", 143)]
#[case::unlock(&[], "$JOBLOCK unlock job --reason x", 79)]
fn a_command_on_a_mount_that_hangs_is_ended_in_time(
    #[case] options: &[&str],
    #[case] then: &str,
    #[case] code: i32,
) {
    if !may_use_root(WHY) {
        return;
    }
    let place = Place::new(Kind::Local);
    let url = place.url_in(&place.store.path().display().to_string());
    let begun = "[ \"$(wc -w </proc/$front/task/$front/children)\" = 2 ] && \
                 [ -n \"$(cat /proc/$(cut -d' ' -f1 /proc/$front/task/$front/children)/task/*/children)\" ]";
    let script = format!(
        "bindfs -o attr_timeout=0 -o entry_timeout=0 $STORE $FAR; cp /bin/sleep $STORE/; pkill -STOP -x bindfs; \
         export JOBLOCK={joblock} JOBLOCK_STORE={url}; \
         $JOBLOCK run {options} job -- $FAR/sleep 1000 & front=$!; until {begun}; do sleep 0.01; done; \
         {then}; code=0; wait $front || code=$?; [ $code = {code} ]",
        joblock = joblock(),
        options = options.join(" "),
    );
    place.joblock_at(&url, &script, &["history"]).expect(0);
    assert_ne!(place.store.outcomes("job"), ["running"]);
}

// shows: mount-that-lies shared, lockfile
#[rstest]
fn what_is_accepted_is_warned_of_and_stands_in_the_record(
    #[values(Kind::Shared, Kind::Lockfile)] kind: Kind,
) {
    if !may_use_root(WHY) {
        return;
    }
    let place = Place::new(kind);
    for reason in ["", " \t"] {
        let options = ["--accept-unsafe-mount", reason];
        place
            .joblock(BINDFS, &run(&options, "/nowhere"))
            .expect(125);
    }
    let said = place.runs(BINDFS, &ACCEPT);
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(
        said.contains("one machine has it all\\nand") && said.contains("to this kernel"),
        "{said}"
    );
    assert_eq!(place.runs(BINDFS, &[&ACCEPT[..], &["-q"]].concat()), "");
    // nobody says why any more
    place.refused(BINDFS, &[]);
    // and where nothing is wrong nothing is accepted, or said
    for options in [&ACCEPT[..], &[]] {
        assert_eq!(place.runs("mount --bind $STORE $FAR", options), "");
    }

    // what only looks or asks takes the store as it is
    for verb in ["status", "history", "check"] {
        place.joblock(BINDFS, &[verb]).expect(0);
    }
    place
        .joblock(BINDFS, &["prune", "--dry-run", "--keep", "1d", "job"])
        .expect(0);
    let done = place
        .joblock(BINDFS, &["prune", "--keep", "1d", "job"])
        .expect(69);
    assert!(done.err().contains("nothing was deleted"), "{done}");
    let done = place.joblock(BINDFS, &["init"]).expect(0);
    assert!(
        done.err().contains("to this kernel") && done.out().contains("found the store"),
        "{done}"
    );
    for verb in ["stop", "unlock"] {
        let done = place.joblock(BINDFS, &[verb, "job", "--reason", "test"]);
        assert!(!done.err().contains("to this kernel"), "{done}");
    }
    let shown = place
        .joblock(BINDFS, &["history", "--json", "job"])
        .expect(0);
    let answer: Value = serde_json::from_str(&shown.out()).expect("JSON");
    let accepted = |row: usize| &answer["runs"][row]["unsafe_mount"];
    assert_eq!(answer["runs"].as_array().map(Vec::len), Some(4), "{answer}");
    assert_eq!(*accepted(0), Value::Null);
    assert_eq!(accepted(1)["reason"], ACCEPT[1]);
    assert_eq!(accepted(1)["accepted"], serde_json::json!([]));
    for row in [2, 3] {
        assert_eq!(accepted(row)["reason"], ACCEPT[1]);
        let list = accepted(row)["accepted"].as_array().expect("a list");
        assert_eq!(list.len(), 1, "{answer}");
        assert!(list[0].as_str().expect("text").contains(&place.far()));
    }
    let run = answer["runs"][3]["run_id"].as_str().expect("a run id");
    let shown = place.joblock(BINDFS, &["show", run]).expect(0).out();
    assert!(
        shown.contains("unsafe mount") && shown.contains("one machine has it all"),
        "{shown}"
    );
}

#[rstest]
fn doctor_finds_each_lie_and_says_what_to_change(
    #[values(Kind::Shared, Kind::Lockfile)] kind: Kind,
) {
    if !may_use_root(WHY) {
        return;
    }
    let place = Place::new(kind);
    place.runs(BINDFS, &ACCEPT);
    let lies = |script: &str| {
        let done = place.joblock(script, &["doctor", "--json"]);
        let answer: Value = serde_json::from_str(&done.out()).expect("JSON");
        let findings = answer["findings"].as_array().expect("findings");
        let mounts = findings.iter().filter(|f| f["what"] == "mount");
        let mounts = mounts.filter(|f| f["level"] == "bad");
        let text: Vec<_> = mounts
            .map(|f| f["detail"].as_str().expect("text").to_owned())
            .collect();
        assert_eq!(done.code(), if text.is_empty() { 0 } else { 69 }, "{done}");
        text
    };
    for (script, says) in [
        (BINDFS, "to this kernel"),
        (FORWARDING, "lets two processes"),
    ] {
        let found = lies(script);
        assert!(
            found.len() == 1
                && found[0].contains(says)
                && found[0].contains("put the store on another file system"),
            "{found:?}"
        );
    }
    let bound = "mount --bind $STORE $FAR";
    assert_eq!(lies(bound), Vec::<String>::new());
}

/// A write-ahead log works on no mount that others can have: no reason makes it do so.
#[test]
fn no_reason_accepts_a_local_store_on_somebody_elses_mount() {
    if !may_use_root(WHY) {
        return;
    }
    let place = Place::new(Kind::Local);
    place.store.sh(&[], "job", "exit 0").expect(0);
    let said = place.refused(BINDFS, &ACCEPT);
    assert!(
        said.contains("its journal is WAL") && said.contains("joblock init --shared"),
        "{said}"
    );
}

// shows: mount-that-lies local, shared, lockfile
#[rstest]
fn a_read_only_mount_is_refused_before_anything_and_for_no_reason_accepted(
    #[values(Kind::Local, Kind::Shared, Kind::Lockfile)] kind: Kind,
    #[values(true, false)] used: bool,
) {
    if !may_use_root(WHY) {
        return;
    }
    let place = Place::new(kind);
    let read_only = "mount --bind $STORE $FAR; mount -o remount,bind,ro $FAR";
    if used {
        place.store.sh(&[], "job", "exit 0").expect(0);
    }
    for options in [&[][..], &ACCEPT] {
        let said = place.refused(read_only, options);
        let says = format!("{far} is mounted read-only", far = place.far());
        let remount = format!("mount -o remount,rw {}", place.far());
        assert!(said.contains(&says) && said.contains(&remount), "{said}");
    }
    if used {
        place.joblock(read_only, &["history"]).expect(0);
    }
}

/// Over a layer that other machines could have, as far as the mount table tells.
const OVERLAY: &str = "bindfs $STORE $FAR; mount -t tmpfs none /mnt; \
     mkdir -p $FAR/jobs /mnt/up /mnt/work /mnt/all; \
     mount -t overlay o -o lowerdir=$FAR,upperdir=/mnt/up,workdir=/mnt/work /mnt/all; mkdir /mnt/all/own";

// shows: mount-that-lies local, lockfile
#[rstest]
fn an_overlay_over_a_mount_that_others_have_is_refused(
    #[values(Kind::Local, Kind::Lockfile)] kind: Kind,
) {
    if !may_use_root(WHY) {
        return;
    }
    let place = Place::new(kind);
    let begin = |folder: &str, options: &[&str]| {
        let url = place.url_in(&format!("/mnt/all/{folder}"));
        place.joblock_at(&url, OVERLAY, &run(options, "/mnt/ran"))
    };
    let done = begin("jobs", &[]).expect(69);
    let far = place.far();
    assert!(
        done.err()
            .contains(&format!("/mnt/all is an overlay over {far} (fuse)"))
            && done
                .err()
                .contains(&format!("use the store below {far} itself")),
        "{done}"
    );
    begin("jobs", &ACCEPT).expect(0);
    // a folder that was made in the overlay is another one on each machine, and looks like one
    begin("own", &[]).expect(69);
}

/// A file server's lease, where the kernel does not tell it: `doctor` says what follows from it.
#[test]
fn the_servers_lease_can_stand_in_the_url() {
    if !may_use_root(WHY) {
        return;
    }
    let place = Place::new(Kind::Lockfile);
    let lease = |url: &str, script: &str| {
        let done = place.joblock_at(url, script, &["doctor", "--json"]);
        let answer: Value = serde_json::from_str(&done.out()).expect("JSON");
        let findings = answer["findings"].as_array().expect("findings").clone();
        let lease = findings.into_iter().find(|f| f["what"] == "server's lease");
        lease.map(|f| f["detail"].as_str().expect("text").to_owned())
    };
    place.runs(BINDFS, &ACCEPT);
    assert_eq!(lease(&place.url(), BINDFS), None);
    let url = format!("{}?server-lease=90s", place.url());
    let found = lease(&url, BINDFS).expect("a finding");
    assert!(
        found.starts_with("1m30s (as the store's URL says, ?server-lease)")
            && found.contains("heartbeat each 10s")
            && found.contains("TERM after 40s, KILL after 1m, and is gone after 1m10s"),
        "{found}"
    );
    // a disk of this machine's own has no server
    let own = format!("lockfile:{}?server-lease=90s", place.store.path().display());
    assert_eq!(lease(&own, "true"), None);
    // the job's own joblock finds the same store
    let script = "echo $JOBLOCK_STORE";
    let tell = [&["run"], &ACCEPT[..], &["job", "--", "sh", "-c", script]].concat();
    let told = place.joblock_at(&url, BINDFS, &tell).expect(0).out();
    assert_eq!(told.trim(), format!("{}?server-lease=1m30s", place.url()));
    let too_short = format!("{}?server-lease=1s", place.url());
    let done = place
        .joblock_at(&too_short, BINDFS, &run(&[], "/nowhere"))
        .expect(125);
    assert!(done.err().contains("it takes 2s"), "{done}");
}

/// A store of before there was this column: read as it is, and made new by the first run.
#[rstest]
fn an_older_store_gets_the_column(#[values(Kind::Local, Kind::Lockfile)] kind: Kind) {
    let store = Store::new(kind);
    store.sh(&[], "job", "exit 0").expect(0);
    let name = match kind {
        Kind::Lockfile => "history.db",
        _ => "joblock.db",
    };
    let db = Connection::open(store.path().join(name)).expect("the database");
    db.execute_batch("ALTER TABLE runs DROP COLUMN unsafe_mount")
        .expect("a column less");
    drop(db);
    assert_eq!(store.rows("job")[0]["unsafe_mount"], Value::Null);
    store.sh(&ACCEPT, "job", "exit 0").expect(0);
    assert_eq!(store.rows("job")[1]["unsafe_mount"]["reason"], ACCEPT[1]);
}
