//! `doctor --peer` on two machines with kernels of their own, over a real NFS (`nfs/lab`): what it proves, what it warns of, and
//! that both sides say the same.
//!
//! Needs root, and the network that Debian's packages come from, for the first time. `make nfs` runs it at full length.

mod common;

mod nfs {
    pub mod lab;
}

use common::Running;
use nfs::lab::{self, Lab};
use serde_json::Value;

/// The exit code of a doctor that found something bad.
const BAD: i32 = 69;

const FLOCK: &str = "the kernel's lock reaches the other side";
const SQLITE: &str = "SQLite's transactions exclude each other";

/// What both say, blue first.
struct Said([Value; 2]);

impl Said {
    /// The level and the words of a finding, which is the same on both sides.
    #[track_caller]
    fn of(&self, what: &str) -> (String, String) {
        let [blue, green] = self.0.each_ref().map(|answer| {
            let mut findings = answer["findings"].as_array().expect("a list").iter();
            let finding = findings.find(|f| f["what"] == what);
            let finding = finding.unwrap_or_else(|| panic!("nothing of {what:?}: {answer:#}"));
            let text = |key: &str| finding[key].as_str().unwrap_or_default().to_owned();
            (text("level"), text("detail"))
        });
        assert_eq!(blue.0, green.0, "{}\n{}", blue.1, green.1);
        blue
    }

    #[track_caller]
    fn is(&self, what: &str, level: &str, words: &str) {
        let (said, detail) = self.of(what);
        assert!(
            said == level && detail.contains(words),
            "{what}: {said}: {detail}"
        );
    }

    fn measured(&self, name: &str) {
        for (answer, host) in self.0.iter().zip(lab::CLIENTS) {
            let waited = &answer["peer"]["measured"]["here"];
            for (what, seconds) in waited.as_object().expect("what was measured") {
                let what = what.trim_end_matches("_seconds").replace('_', " ");
                match seconds.as_f64() {
                    Some(s) => println!("measured: {name}: {host}: {what} {s:.3} s"),
                    None => println!("measured: {name}: {host}: {what}: not within the trial"),
                }
            }
        }
    }
}

/// A store's URL in a new folder.
fn store(lab: &Lab, kind: &str, name: &str) -> String {
    let folder = lab.folder(name);
    let (url, option) = match kind {
        "lockfile" => (format!("lockfile:{folder}"), ""),
        _ => (format!("sqlite:{folder}/joblock.db"), "--shared"),
    };
    // where lockfile: is refused, there is none
    lab.x(
        "green",
        &format!("/host/joblock init {option} --store '{url}'"),
    );
    url
}

/// Both doctors at once.
#[track_caller]
fn meet(lab: &Lab, url: &str, code: i32) -> Said {
    let line =
        format!("cd / && exec /host/joblock doctor --peer --json --store '{url}' 2>/dev/null");
    let doctors = lab::CLIENTS.map(|host| lab.start(host, &line));
    let said = doctors.map(Running::finish).map(|done| {
        let done = done.expect(code);
        serde_json::from_slice(&done.stdout).unwrap_or_else(|e| panic!("no JSON: {e}\n{done}"))
    });
    let left = lab.x("green", &format!("ls {}/*peer", lab::MOUNT)).out();
    assert!(!left.contains(".mail"), "{left}");
    Said(said)
}

/// What a client keeps to itself looks the same from one side; a clock that is wrong is a warning.
#[test]
fn nfs_3_with_local_locks_is_proved_bad_and_without_them_good() {
    let Some(lab) = lab::borrow("vers=3,local_lock=flock") else {
        return;
    };
    lab.x("green", "date -s '+5 minutes'").expect(0);
    let said = meet(&lab, &store(&lab, "sqlite", "local-lock"), 0);
    lab.x("green", "date -s '-5 minutes'").expect(0);
    said.is("clocks", "warning", "that of ");
    said.is(FLOCK, "warning", "goes by its lease alone");
    said.is(
        FLOCK,
        "warning",
        "mount it on both without nolock, with local_lock=none",
    );
    said.is(SQLITE, "ok", "none was lost");
    said.is("the two sides", "ok", "blue as root");
    said.is("one store", "ok", "");
    if !lab::full() {
        lab.give_back();
        return;
    }
    let said = meet(&lab, &store(&lab, "lockfile", "local-lock-file"), BAD);
    said.is(FLOCK, "bad", "must not be used here");
    lab.give_back();
    drop(lab);

    let Some(lab) = lab::borrow("vers=3") else {
        return;
    };
    let said = meet(&lab, &store(&lab, "lockfile", "v3"), 0);
    said.is(FLOCK, "ok", "");
    said.is(SQLITE, "ok", "none was lost");
    said.is("takeover from a killed holder", "ok", "over NFS 3: never");
    said.measured("NFS 3");
    lab.give_back();
}

#[test]
fn nfs_4_is_proved_good_and_two_machines_of_one_name_bad() {
    let Some(lab) = lab::borrow("vers=4.2") else {
        return;
    };
    let url = store(&lab, "lockfile", "v4");
    let said = meet(&lab, &url, 0);
    for answer in &said.0 {
        assert_eq!(answer["verdict"], "ok", "{answer:#}");
    }
    said.is(
        "takeover from a killed holder",
        "ok",
        "the server's lease of 10 s",
    );
    said.is("mounts", "ok", "NFS 4.2 srv:/data");
    said.measured("NFS 4.2");
    if !lab::full() {
        lab.give_back();
        return;
    }

    // they share what the server knows a client by, and each takes the other's state away
    for host in lab::CLIENTS {
        let again = format!(
            "umount {0} && hostname twin && mount -t nfs -o vers=4.2 srv:/data {0}",
            lab::MOUNT
        );
        lab.x(host, &again).expect(0);
    }
    let said = meet(&lab, &url, BAD);
    said.is("host names", "bad", "both machines are called twin");

    // what the server knows them by is more than the name
    for host in lab::CLIENTS {
        let again = format!(
            "umount {0} && echo {host} >/sys/module/nfs/parameters/nfs4_unique_id && mount -t nfs -o vers=4.2 srv:/data {0}",
            lab::MOUNT
        );
        lab.x(host, &again).expect(0);
    }
    let said = meet(&lab, &url, 0);
    said.is("host names", "warning", "rename one");
    said.is(FLOCK, "ok", "");
    // not given back: nobody else wants such machines
}

/// What is refused, or works, without more to say: only at full length.
#[test]
fn mixed_and_lying_mounts_are_told() {
    if !lab::full() {
        return;
    }
    for [blue, green] in [["vers=3", "vers=4.2"], ["vers=4.0", "vers=4.1"]] {
        let Some(lab) = lab::borrow_each([blue, green]) else {
            return;
        };
        let name = format!("mixed-{green}");
        let said = meet(&lab, &store(&lab, "lockfile", &name), 0);
        said.is(FLOCK, "ok", "");
        said.is("mounts", "warning", &format!("only on blue: {blue}"));
        said.measured(&format!("blue {blue}, green {green}"));
        lab.give_back();
    }
    // one of the two is enough
    let Some(lab) = lab::borrow_each(["vers=3,local_lock=flock", "vers=3"]) else {
        return;
    };
    let said = meet(&lab, &store(&lab, "sqlite", "one-lies"), 0);
    said.is(FLOCK, "warning", "goes by its lease alone");
    lab.give_back();
    drop(lab);
    let Some(lab) = lab::borrow("vers=3,nolock") else {
        return;
    };
    let said = meet(&lab, &store(&lab, "lockfile", "no-lock"), BAD);
    said.is(FLOCK, "bad", "without nolock");
    said.is(SQLITE, "bad", "");
    lab.give_back();
}
