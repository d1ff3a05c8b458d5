//! What a run and a refused start cost the machine, counted by strace: syncs, forks, threads and programs executed to the one, and
//! an upper bound for all system calls. `docs/cost.md` says the numbers, and these tests keep them true: whoever adds a sync,
//! a fork or an exec finds out here, and whoever saves one corrects the table.

mod common;

use std::collections::HashSet;
use std::fs;
use std::process::Command;

use common::{Kind, Store, finish, joblock, start};
use rstest::rstest;

/// What one call of joblock cost, its three processes together, up to the job's own `execve`.
#[derive(Debug, Default, PartialEq, Eq)]
struct Cost {
    syncs: usize,
    forks: usize,
    threads: usize,
    /// Programs that were executed, joblock itself and the job among them.
    programs: usize,
    calls: usize,
}

impl Cost {
    /// Reads what `strace -f -o` wrote. `job`: the program whose own calls are not joblock's.
    fn read(trace: &str, job: &str) -> Cost {
        let mut cost = Cost::default();
        let mut not_ours = HashSet::new();
        for line in trace.lines() {
            let (pid, call) = line.split_once(' ').expect("a line of strace -f");
            let call = call.trim_start();
            // ends and signals, and the second half of a call that was interrupted by another process's line
            if call.starts_with(['+', '-', '<']) || not_ours.contains(pid) {
                continue;
            }
            let (name, arguments) = call.split_once('(').expect("a system call");
            match name {
                "fsync" | "fdatasync" | "syncfs" | "sync" | "sync_file_range" | "msync" => {
                    cost.syncs += 1;
                }
                "clone" | "clone3" if arguments.contains("CLONE_THREAD") => cost.threads += 1,
                "clone" | "clone3" | "fork" | "vfork" => cost.forks += 1,
                "execve" | "execveat" => {
                    cost.programs += 1;
                    if arguments.starts_with(&format!("{job:?}")) {
                        not_ours.insert(pid);
                    }
                }
                // a build with debug assertions asks for each descriptor before it closes it
                "fcntl" if arguments.contains("F_GETFD") => continue,
                _ => {}
            }
            cost.calls += 1;
        }
        cost
    }
}

/// `joblock run counted -- /bin/true` under strace, with exit code `code`. The trigger is told, since finding it takes a look at
/// every process above this one, and the program has its path, since looking for it takes a try in every folder of `$PATH`.
fn count(store: &Store, code: i32) -> Cost {
    let trace = store.file("trace");
    let mut strace = store.program("strace");
    strace.args(["-f", "-qq", "-o"]).arg(&trace);
    strace.args([joblock(), "run", "--store", store.url()]);
    strace.args(["--trigger", "other", "counted", "--", "/bin/true"]);
    strace.env("JOBLOCK_TRIGGER", "other");
    // cargo sets it, and the loader then looks for every library in every folder of it
    strace.env_remove("LD_LIBRARY_PATH");
    finish(&mut strace).expect(code);
    Cost::read(
        &fs::read_to_string(&trace).expect("strace's output"),
        "/bin/true",
    )
}

/// The row of docs/cost.md's first table that begins with `store` and `what`: the numbers of its other columns.
fn documented(store: &str, what: &str) -> Cost {
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/cost.md"));
    let text = text.expect("docs/cost.md");
    let row = text.lines().map(|line| {
        let cells = line.trim_matches('|').split('|');
        cells.map(|cell| cell.trim().replace('`', "")).collect()
    });
    let row: Vec<String> = row
        .into_iter()
        .find(|cells: &Vec<String>| cells.len() > 2 && cells[0] == store && cells[1] == what)
        .unwrap_or_else(|| panic!("docs/cost.md has no row for {store}, {what}"));
    let number = |column: usize| {
        row[column]
            .parse()
            .unwrap_or_else(|e| panic!("docs/cost.md, {store}, {what}: {e}: {:?}", row[column]))
    };
    Cost {
        syncs: number(2),
        forks: number(3),
        threads: number(4),
        programs: number(5),
        calls: number(6),
    }
}

#[track_caller]
fn compare(counted: &Cost, documented: &Cost) {
    let exact = |c: &Cost| (c.syncs, c.forks, c.threads, c.programs);
    assert_eq!(
        exact(counted),
        exact(documented),
        "syncs, forks, threads, programs: counted, and as docs/cost.md has it"
    );
    // The number of calls moves with who is scheduled when, with the machine's mounts and its cgroups.
    let slack = documented.calls / 8;
    assert!(
        counted.calls.abs_diff(documented.calls) <= slack,
        "{} system calls; docs/cost.md says about {}",
        counted.calls,
        documented.calls
    );
}

#[rstest]
#[case::local(Kind::Local, "sqlite:PATH")]
#[case::shared(Kind::Shared, "sqlite:PATH?shared")]
#[case::lockfile(Kind::Lockfile, "lockfile:DIRECTORY")]
fn a_run_costs_what_is_documented(#[case] kind: Kind, #[case] name: &str) {
    let store = Store::new(kind);
    for _ in 0..2 {
        finish(&mut store.run(&[], "counted", &["/bin/true"])).expect(0);
    }
    compare(&count(&store, 0), &documented(name, "a run of true"));
    assert_eq!(store.outcomes("counted"), ["succeeded"; 3]);
}

#[rstest]
#[case::local(Kind::Local, "sqlite:PATH")]
#[case::shared(Kind::Shared, "sqlite:PATH?shared")]
#[case::lockfile(Kind::Lockfile, "lockfile:DIRECTORY")]
fn a_refused_start_costs_what_is_documented(#[case] kind: Kind, #[case] name: &str) {
    let store = Store::new(kind);
    let go = store.file("go");
    let script = format!("until [ -e {} ]; do sleep 0.1; done", go.display());
    let holder = start(&mut store.run(&[], "counted", &["sh", "-c", &script]));
    store.holder("counted");
    finish(&mut store.run(&[], "counted", &["/bin/true"])).expect(75);
    compare(&count(&store, 75), &documented(name, "a refused start"));
    fs::write(&go, "").expect("the job may end");
    holder.finish().expect(0);
    assert_eq!(
        store.outcomes("counted"),
        ["succeeded", "refused", "refused"]
    );
}

/// A thousand rows of the same job cost its next start no more than a handful of pages on the way down two deeper trees.
#[test]
fn a_start_costs_the_same_after_a_thousand_runs() {
    let store = Store::local();
    finish(&mut store.run(&[], "counted", &["/bin/true"])).expect(0);
    let before = count(&store, 0);
    let database = store.path().join("joblock.db");
    let copies = "INSERT INTO runs SELECT n.value + 1000, printf('%016x', n.value), job, lock, token, trigger, who, reason, tags,
            repeats, host, boot_id, container, oom_counters, pid, command, cwd, started - n.value, outcome, ended, duration_ns,
            exit_code, signal, out_of_memory, peak_memory_kib, cpu_ns, leaked, end_note, held_by, note, redacted, unsafe_mount
        FROM runs, generate_series(1, 1000) n WHERE id = 1";
    let mut sqlite3 = store.program("sqlite3");
    finish(sqlite3.arg(&database).arg(copies)).expect(0);
    finish(&mut store.run(&[], "counted", &["/bin/true"])).expect(0);
    let after = count(&store, 0);
    assert_eq!(after.syncs, before.syncs);
    assert!(
        after.calls < before.calls + 30,
        "{} system calls, and {} before",
        after.calls,
        before.calls
    );
}

/// Short jobs alone must not let the log of a local store grow: whoever opens it next would read all of it.
#[test]
fn the_log_of_a_local_store_stays_short() {
    let store = Store::local();
    for _ in 0..60 {
        finish(&mut store.run(&[], "short", &["/bin/true"])).expect(0);
    }
    let log = store.path().join("joblock.db-wal");
    let frames = fs::metadata(&log).expect("the log").len() / 4120;
    // It is folded from 100 on, and a run writes 7.
    assert!((50..120).contains(&frames), "{frames} frames");
}

/// The counter counts: a shell that syncs, forks and executes is seen to.
#[test]
fn strace_sees_syncs_forks_and_programs() {
    let store = Store::local();
    let (trace, file) = (store.file("trace"), store.file("synced"));
    fs::write(&file, "").expect("write");
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-o"]).arg(&trace);
    strace
        .args(["sh", "-c", "sync \"$1\"; true"])
        .arg("sh")
        .arg(&file);
    finish(&mut strace).expect(0);
    let cost = Cost::read(&fs::read_to_string(&trace).expect("a trace"), "/bin/true");
    assert_eq!(
        (cost.syncs, cost.forks, cost.threads, cost.programs),
        (1, 1, 0, 2),
        "{cost:?}"
    );
}
