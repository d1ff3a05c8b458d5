//! NFS mounts that lie, on machines with kernels of their own (`nfs/lab`): which are refused before the job runs, and
//! which are not, by what kernel and mount table really say. Others are in `mounts.rs`, and those that no test can
//! mount here (SMB, 9p, Lustre, …) in the tables of `store/mount/lies.rs`.
//!
//! Needs root, and the network that Debian's packages come from, for the first time.

mod common;

mod nfs {
    pub mod lab;
}

use nfs::lab::{self, Lab};
use serde_json::Value;

/// Where what is tried is mounted; the lab's own mount is elsewhere.
const HERE: &str = "/mnt/b";
const BLUE: &str = "blue";
/// Between the words of a command and its exit code.
const END: &str = "=ended=";

/// One word for the exit code, and what joblock said.
struct Start {
    code: i32,
    said: String,
}

impl Start {
    #[track_caller]
    fn refused(&self, says: &[&str]) {
        assert_eq!(self.code, 69, "{}", self.said);
        for text in says {
            assert!(self.said.contains(text), "{text}: {}", self.said);
        }
        assert!(!self.said.contains("the job ran"), "{}", self.said);
    }

    #[track_caller]
    fn ran(&self) {
        assert_eq!((self.code, self.said.as_str()), (0, "the job ran\n"));
    }
}

/// Each of `commands`, with the export at [`HERE`] by these options, by themselves whatever else is mounted: all in one
/// go, as each call of a guest takes its time.
fn with<const N: usize>(lab: &Lab, options: &str, commands: [&str; N]) -> [Start; N] {
    let export = if options.contains("vers=3") {
        "srv:/export/data"
    } else {
        "srv:/data"
    };
    // a server that was only just booted does not offer every version yet
    let mount = format!(
        "until mount -t nfs -o {options},nosharecache {export} {HERE}; do sleep 0.2; done 2>/dev/null"
    );
    let each = commands.map(|command| format!("{command}; echo \"{END}$?\""));
    let line = format!("{mount}; {}; umount {HERE}", each.join("; "));
    let done = lab.x(BLUE, &line).expect(0);
    let out = done.out();
    let mut rest = out.as_str();
    commands.map(|_| {
        let (said, after) = rest.split_once(END).expect("an end of each");
        let (code, after) = after.split_once('\n').expect("its code");
        rest = after;
        Start {
            code: code.parse().expect("a number"),
            said: said.to_owned(),
        }
    })
}

fn start(lab: &Lab, command: &str) -> Start {
    let done = lab.x(BLUE, command);
    Start {
        code: done.code(),
        said: done.out(),
    }
}

fn run(store: &str, options: &str) -> String {
    format!("/host/joblock run --store '{store}' {options} job -- echo the job ran")
}

// shows: mount-that-lies shared, lockfile
#[test]
fn nfs_mounts_that_lie_are_refused_and_those_that_do_not_are_not() {
    let Some(lab) = lab::borrow("vers=4.2") else {
        return;
    };
    lab.folder("lies");
    let lockfile = run(&format!("lockfile:{HERE}/lies"), "");
    let shared = run(&format!("sqlite:{HERE}/lies/joblock.db?shared"), "");
    let without = ["is mounted with nolock", "mount it without nolock"];
    let both = [lockfile.as_str(), &shared];
    // what stands last in each list is for the full length
    let short = usize::from(!lab::full());
    let honest = ["vers=3", "vers=4.2,nolock,local_lock=all", "vers=4.2"];
    for options in &honest[..honest.len() - short] {
        with(&lab, options, both).iter().for_each(Start::ran);
    }
    let lies = [
        ("vers=3,nolock", without),
        (
            "vers=4.2,softerr,timeo=100,retrans=1",
            ["gives up on its server after 20s", "mount it hard"],
        ),
        (
            "vers=3,local_lock=posix",
            ["local_lock=posix", "mount it with local_lock=none"],
        ),
        (
            "vers=3,soft,timeo=50,retrans=1",
            ["gives up on its server after 10s", "mount it hard"],
        ),
    ];
    for (options, says) in &lies[..lies.len() - short] {
        for start in with(&lab, options, both) {
            start.refused(says);
        }
    }
    let [on_lockfile, on_shared] = with(&lab, "vers=3,local_lock=flock", both);
    on_lockfile.refused(&["local_lock=flock", "mount it with local_lock=none"]);
    // its lease alone keeps two of a job apart, see lease_alone.rs
    on_shared.ran();

    let url = format!("lockfile:{HERE}/lies");
    let accept = run(&url, "--accept-unsafe-mount 'no other machine'");
    let [accepted] = with(&lab, "vers=3,nolock", [&accept]);
    assert_eq!(accepted.code, 0, "{}", accepted.said);
    assert!(
        accepted.said.contains("no other machine") && accepted.said.contains("the job ran"),
        "{}",
        accepted.said
    );
    // whoever has it mounted better sees what was done
    let history = format!("/host/joblock history --json --store {url} job");
    let [history] = with(&lab, "vers=4.2", [&history]);
    let history: Value = serde_json::from_str(&history.said).expect("JSON");
    let unsafe_mount = &history["runs"][0]["unsafe_mount"];
    assert_eq!(unsafe_mount["reason"], "no other machine", "{history}");
    let lie = unsafe_mount["accepted"][0].as_str().expect("a lie");
    assert!(lie.contains("nolock"), "{lie}");
    lab.give_back();
}

// shows: mount-that-lies lockfile
#[test]
fn locks_that_the_kernel_takes_again_without_a_word_are_refused() {
    let Some(lab) = lab::borrow("vers=4.2") else {
        return;
    };
    let folder = lab.folder("recovered");
    let set = |to: &str| {
        let line = format!("echo {to} >/sys/module/nfs/parameters/recover_lost_locks");
        lab.x(BLUE, &line).expect(0);
    };
    set("Y");
    let on_4 = start(&lab, &run(&format!("lockfile:{folder}"), ""));
    let on_3 = run(&format!("lockfile:{HERE}/recovered"), "");
    let [on_3] = with(&lab, "vers=3", [&on_3]);
    set("N");
    on_4.refused(&["recover_lost_locks", "echo N >/sys/module/nfs"]);
    // only version 4 has it
    on_3.ran();
    lab.x(BLUE, &run(&format!("lockfile:{folder}"), ""))
        .expect(0);
    lab.give_back();
}

// shows: mount-that-lies lockfile
#[test]
fn an_overlay_over_nfs_is_refused() {
    let Some(lab) = lab::borrow("vers=4.2") else {
        return;
    };
    lab.folder("below");
    let layers = format!(
        "cd /run && mkdir lies lies/up lies/work lies/all && mount -t overlay o -o \
         lowerdir={nfs},upperdir=/run/lies/up,workdir=/run/lies/work lies/all && mkdir lies/all/own",
        nfs = lab::MOUNT
    );
    lab.x(BLUE, &layers).expect(0);
    let at = |folder: &str| start(&lab, &run(&format!("lockfile:/run/lies/all/{folder}"), ""));
    let instead = format!("use the store below {} itself", lab::MOUNT);
    at("below").refused(&["/run/lies/all is an overlay over /mnt/a (nfs4)", &instead]);
    at("own").refused(&[&instead]);
    lab.x(BLUE, "umount /run/lies/all && rm -r /run/lies")
        .expect(0);
    lab.give_back();
}

/// A write-ahead log's index is shared memory, which ends at this machine: for no reason is it taken.
#[test]
fn a_local_store_is_never_used_on_nfs() {
    let Some(lab) = lab::borrow("vers=4.2") else {
        return;
    };
    let folder = lab.folder("wal");
    let own = run("sqlite:/run/own.db", "");
    lab.x(BLUE, &own).expect(0);
    lab.x(BLUE, &format!("cp /run/own.db {folder}/")).expect(0);
    for options in ["", "--accept-unsafe-mount because"] {
        let start = start(&lab, &run(&format!("sqlite:{folder}/own.db"), options));
        start.refused(&["its journal is WAL", "joblock init --shared"]);
    }
    lab.give_back();
}

/// What the kernel was told of the server's lease counts, or what the URL says if that is shorter: never a longer one.
#[test]
fn the_servers_lease_is_learnt_and_can_only_be_made_shorter() {
    let Some(lab) = lab::borrow("vers=4.2") else {
        return;
    };
    let folder = lab.folder("leases");
    let lease = |store: &str| {
        let url = format!(
            "{store}{}",
            if store.starts_with("sqlite:") {
                "&"
            } else {
                "?"
            }
        );
        let of = |parameter: &str| {
            let url = match parameter {
                "" => store.to_owned(),
                parameter => format!("{url}server-lease={parameter}"),
            };
            let done = lab.x(
                BLUE,
                &format!("/host/joblock doctor --json --store '{url}'"),
            );
            let answer: Value = serde_json::from_str(&done.out()).expect("JSON");
            let findings = answer["findings"].as_array().expect("findings");
            let found = findings.iter().find(|f| f["what"] == "server's lease");
            let found = found.unwrap_or_else(|| panic!("no lease: {done}"));
            let text = |key: &str| found[key].as_str().unwrap_or_default().to_owned();
            (text("level"), text("detail"))
        };
        [of(""), of("90s"), of("9s")]
    };
    let stores = [
        format!("lockfile:{folder}"),
        format!("sqlite:{folder}/joblock.db?shared"),
    ];
    for store in &stores[..if lab::full() { 2 } else { 1 }] {
        lab.x(BLUE, &run(store, "")).expect(0);
        let [told, longer, shorter] = lease(store);
        assert!(
            told.0 == "ok" && told.1.starts_with("10s (as the server told this kernel"),
            "{told:?}"
        );
        assert!(
            longer.0 == "warning"
                && longer.1.starts_with("10s (as the server told this kernel")
                && longer
                    .1
                    .contains("server-lease=1m30s in the store's URL is longer"),
            "{longer:?}"
        );
        assert!(
            shorter.0 == "ok" && shorter.1.starts_with("9s (as the store's URL says"),
            "{shorter:?}"
        );
        if store.starts_with("lockfile:") {
            assert!(
                shorter.1.contains("heartbeat each 1s")
                    && shorter
                        .1
                        .contains("TERM after 4s, KILL after 6s, and is gone after 7s"),
                "{shorter:?}"
            );
        }
    }
    lab.give_back();
}
