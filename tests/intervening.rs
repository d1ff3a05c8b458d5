//! `stop`, `unlock` and `assert`: whoever asks reaches the holder, hears what came of it, and is never told that a lock is
//! free, or held, when it isn't.

mod records;

use std::process::{Child, Command, Stdio};
use std::thread::{self, JoinHandle, sleep};
use std::time::{Duration, Instant};

use joblock::name::Token;
use joblock::store::freeing::Freeing;
use joblock::store::lockfile::file::LockFile;
use joblock::store::record::{End, Outcome};
use joblock::store::{Grant, Renewal, Request};
use joblock::supervise::process;
use records::{Past, Went};
use rstest::rstest;

const HOUR: i64 = 3_600;

/// Far longer than anything here takes.
const LIMIT: Duration = Duration::from_secs(60);

/// Plays the keeper: renews until it is told something else, then ends the run so.
fn keep(mut grant: Box<dyn Grant>, outcome: Outcome) -> JoinHandle<Request> {
    thread::spawn(move || {
        let begun = Instant::now();
        while begun.elapsed() < LIMIT {
            match grant.renew().expect("a heartbeat") {
                Renewal::Renewed => sleep(Duration::from_millis(20)),
                Renewal::Stop(request) | Renewal::Revoked(request) => {
                    let end: End = Past::end(&Went::new(outcome, 1));
                    grant.release(&end, None).expect("the end is written");
                    return request;
                }
                Renewal::Lost(why) => panic!("lost: {why}"),
            }
        }
        panic!("nobody asked for anything");
    })
}

/// Exit code and stderr of `joblock`, whose stdout stays empty.
fn say(past: &Past, args: &[&str]) -> (i32, String) {
    let output = past.joblock(args).output().expect("it starts");
    assert!(
        output.stdout.is_empty(),
        "{args:?} has no answer to give: {output:?}"
    );
    (
        output.status.code().expect("it exits"),
        String::from_utf8(output.stderr).expect("UTF-8"),
    )
}

#[rstest]
#[case::local(Past::local())]
#[case::shared(Past::shared())]
#[case::lockfile(Past::lockfile())]
fn stop_tells_the_holder_who_asks_and_why_and_waits_for_its_end(#[case] past: Past) {
    let (record, grant) = past.begin("sync", &Went::new(Outcome::Running, HOUR));
    let token = grant.token();
    let keeper = keep(grant, Outcome::Stopped);
    let (code, said) = say(&past, &["stop", "sync", "--reason", "wrong file"]);
    assert_eq!(code, 0, "{said}");
    let request = keeper.join().expect("it was asked");
    assert_eq!(
        (request.token, request.reason.as_str()),
        (token, "wrong file")
    );
    assert!(request.by.contains('@'), "{request:?}");
    assert!(
        said.contains(record.run_id.short()) && said.contains("has ended: stopped"),
        "{said}"
    );
}

#[rstest]
#[case::local(Past::local())]
#[case::shared(Past::shared())]
#[case::lockfile(Past::lockfile())]
fn unlock_revokes_and_waits_until_the_holder_has_let_go(#[case] past: Past) {
    let (_, grant) = past.begin("sync", &Went::new(Outcome::Running, HOUR));
    let keeper = keep(grant, Outcome::Lost);
    let (code, said) = say(&past, &["unlock", "sync", "--reason", "blue is gone"]);
    assert_eq!(code, 0, "{said}");
    assert_eq!(keeper.join().expect("it was asked").reason, "blue is gone");
    assert!(said.contains("the lock sync is free"), "{said}");
    let (_, grant) = past.begin("sync", &Went::new(Outcome::Running, 1));
    assert_eq!(grant.token(), Token(2), "the token goes on");
}

#[test]
fn where_nothing_runs_there_is_nothing_to_do() {
    let past = Past::local();
    past.ran("sync", &Went::new(Outcome::Succeeded, HOUR));
    for verb in ["stop", "unlock"] {
        assert_eq!(say(&past, &[verb, "sync", "--reason", "x"]).0, 0);
        let (code, said) = say(&past, &[verb, "synk", "--reason", "x"]);
        assert_eq!(code, 125, "{said}");
        assert!(said.contains("\"sync\""), "{said}");
        assert_eq!(say(&past, &[verb, "sync"]).0, 125, "a reason is needed");
    }
}

#[test]
fn a_run_whose_processes_are_gone_is_not_waited_for() {
    let past = Past::local();
    let (_, grant) = past.begin_as("sync", &Went::new(Outcome::Running, 1), Past::gone());
    drop(grant);
    let (code, said) = say(&past, &["stop", "sync", "--reason", "x"]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("the next start takes over"), "{said}");
    assert_eq!(say(&past, &["unlock", "sync", "--reason", "x"]).0, 0);
}

#[test]
fn unlock_names_what_is_left_here_and_kills_it_only_when_told_to() {
    let past = Past::local();
    let (record, grant) = past.begin_as("sync", &Went::new(Outcome::Running, 1), Past::gone());
    drop(grant);
    let mut left = Command::new("sleep")
        .arg("1000")
        .env("JOBLOCK_RUN_ID", record.run_id.as_str())
        .stdin(Stdio::null())
        .spawn()
        .expect("sleep");
    let (code, said) = say(&past, &["unlock", "sync", "--reason", "x"]);
    assert_eq!(code, 0, "{said}");
    assert!(
        said.contains(&format!("pid {} (sleep", left.id())) && said.contains("--kill"),
        "{said}"
    );
    assert!(
        left.try_wait().expect("it can be asked").is_none(),
        "it was not touched"
    );
    let (code, said) = say(&past, &["unlock", "sync", "--reason", "x", "--kill"]);
    let status = left.wait().expect("it ends");
    assert_eq!(code, 0, "{said}");
    assert!(
        said.contains(&format!("ended on this machine: pid {}", left.id())),
        "{said}"
    );
    assert_eq!(
        std::os::unix::process::ExitStatusExt::signal(&status),
        Some(9)
    );
}

#[test]
fn a_holder_that_answers_no_more_is_waited_for_no_longer_than_its_lease() {
    let past = Past::shared();
    let went = Went::new(Outcome::Running, 1);
    let (_, _silent) = past.begin_with("sync", &went, process::own(), Some(Duration::from_secs(2)));
    let (code, said) = say(&past, &["stop", "sync", "--reason", "x"]);
    assert_eq!(code, 125, "{said}");
    assert!(
        said.contains("no sign of life") && said.contains("joblock unlock sync"),
        "{said}"
    );
}

const TTL: Duration = Duration::from_secs(2);

fn leased() -> Freeing {
    Freeing {
        leased: true,
        stays_on: None,
    }
}

/// By NFSv3; with `?server-lease=`, so that nobody has to wait here.
fn stays() -> Freeing {
    Freeing {
        stays_on: Some("srv:/srv/jobs".into()),
        ..leased()
    }
}

const WAY: &str = "run on srv: echo /srv/jobs > /proc/fs/nfsd/unlock_filesystem";

/// A machine that is gone, and a keeper that is stopped there (by a debugger, by the freezer), are silent alike.
#[rstest]
#[case::shared(Past::shared())]
#[case::lockfile(Past::lockfile())]
fn unlock_says_free_of_a_silent_holder_only_where_the_kernels_lock_can_be_had(#[case] past: Past) {
    let stopped = past.begin_elsewhere("sync", Some(leased()), TTL);
    let unlock = ["unlock", "sync", "--reason", "x"];
    let (code, said) = say(&past, &unlock);
    assert_eq!(code, 75, "{said}");
    let pid = process::own().pid;
    let stopped_there = format!("front {pid}, keeper {pid}, guard {pid}");
    for part in [
        &stopped_there,
        "on blue end these",
        "a file server frees it",
    ] {
        assert!(said.contains(part), "{part} is missing:\n{said}");
    }
    assert!(!said.contains("takes over"), "{said}");
    drop(stopped);
    let (code, said) = say(&past, &unlock);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("the next start takes over"), "{said}");
    // it was not kept
    let file = LockFile::open_or_create(&past.store.lock_file(&"sync".parse().expect("a name")));
    assert!(file.expect("a lock file").try_lock().expect("flock"));
}

#[test]
fn a_lock_that_an_nfs3_server_keeps_is_told_by_its_holders_mount() {
    let past = Past::lockfile();
    let grant = past.begin_elsewhere("sync", Some(stays()), TTL);
    past.grow_silent("sync", 100);
    let status = past.text(&["status", "sync"]);
    assert!(status.contains(WAY), "{status}");
    assert!(!status.contains("takes over"), "{status}");
    let doctor = past.joblock(&["doctor"]).output().expect("it starts");
    let said = String::from_utf8_lossy(&doctor.stdout);
    assert_eq!(doctor.status.code(), Some(69), "{said}");
    assert!(said.contains(WAY), "{said}");
    let (code, said) = say(&past, &["unlock", "sync", "--reason", "x"]);
    assert_eq!(code, 75, "{said}");
    assert!(said.contains(WAY), "{said}");
    // as somebody did there
    drop(grant);
    let (code, said) = say(&past, &["unlock", "sync", "--reason", "x"]);
    assert_eq!(code, 0, "{said}");
}

#[rstest]
#[case::shared(Past::shared())]
#[case::lockfile(Past::lockfile())]
fn of_a_silent_holder_elsewhere_nobody_says_that_its_processes_are_gone(#[case] past: Past) {
    let _stopped = past.begin_elsewhere("sync", Some(leased()), TTL);
    past.grow_silent("sync", 100);
    let status = past.text(&["status", "sync"]);
    assert!(status.contains("silent for 1"), "{status}");
    assert!(!status.contains("are gone"), "{status}");
    assert_eq!(past.json(&["status"])["jobs"][0]["state"], "abandoned");
}

#[rstest]
#[case::leased(Some(leased()), Some(2.0))]
#[case::never(Some(Freeing { leased: false, stays_on: None }), None)]
#[case::as_here(None, None)]
fn the_lease_of_a_lock_is_its_holders(#[case] freeing: Option<Freeing>, #[case] ttl: Option<f64>) {
    let past = Past::lockfile();
    let _grant = past.begin_elsewhere("sync", freeing, TTL);
    let lock = &past.json(&["status", "sync"])["jobs"][0]["lock"];
    assert_eq!(lock["ttl_seconds"].as_f64(), ttl, "{lock}");
}

#[test]
fn a_start_that_is_refused_hears_whether_the_holder_is_silent() {
    let past = Past::lockfile();
    let start = || {
        let (code, said) = say(&past, &["run", "-v", "-n", "sync", "--", "true"]);
        assert_eq!(code, 75, "{said}");
        said
    };
    let grant = past.begin_elsewhere("sync", Some(leased()), TTL);
    let said = start();
    assert!(said.contains("joblock stop sync"), "{said}");
    past.grow_silent("sync", 100);
    let said = start();
    assert!(
        said.contains("no sign of life for 10") && said.contains("joblock unlock sync"),
        "{said}"
    );
    assert!(!said.contains("joblock stop"), "{said}");
    grant
        .release(&Past::end(&Went::new(Outcome::Succeeded, 1)), None)
        .expect("the end is written");
    let _grant = past.begin_elsewhere("sync", Some(stays()), TTL);
    past.grow_silent("sync", 100);
    let said = start();
    assert!(
        said.contains("no sign of life for 10") && said.contains(WAY),
        "{said}"
    );
    assert!(!said.contains("joblock stop"), "{said}");
}

#[test]
fn a_run_writes_down_what_its_machine_has_the_store_by() {
    let past = Past::lockfile();
    let mut run = running(&past, "sync", &["sleep", "1000"]);
    let seen = past.store.inspect(&"sync".parse().expect("a name"));
    let holder = seen.expect("the store works").holder.expect("it runs");
    let local = Freeing {
        leased: false,
        stays_on: None,
    };
    assert_eq!(holder.freeing, Some(local));
    assert_eq!(say(&past, &["stop", "sync", "--reason", "x"]).0, 0);
    run.wait().expect("it ends");
}

/// `joblock assert` as a job calls it: by its environment alone.
fn inside(past: &Past, run: &str, token: &str, args: &[&str]) -> i32 {
    let mut command = assert_cmd::Command::new(env!("CARGO_BIN_EXE_joblock"));
    command
        .env("JOBLOCK_STORE", &past.url)
        .env("JOBLOCK_RUN_ID", run)
        .env("JOBLOCK_TOKEN", token);
    // A jobs file that names another store by now is no reason to look there.
    past.jobs_file("store = \"sqlite:elsewhere.db\"\n");
    command
        .env("JOBLOCK_CONFIG", past.path("joblock.toml"))
        .arg("assert")
        .args(args);
    command
        .output()
        .expect("it starts")
        .status
        .code()
        .expect("it exits")
}

#[rstest]
#[case::local(Past::local())]
#[case::shared(Past::shared())]
#[case::lockfile(Past::lockfile())]
fn assert_is_true_as_long_as_the_lock_is_held_and_no_longer(#[case] past: Past) {
    let (record, mut grant) = past.begin("sync", &Went::new(Outcome::Running, 1));
    let run = record.run_id.as_str();
    grant.renew().expect("a heartbeat");
    assert_eq!(inside(&past, run, "1", &[]), 0);
    assert_eq!(inside(&past, run, "1", &["sync"]), 0);
    assert_eq!(inside(&past, run, "1", &["mail"]), 1, "another job's lock");
    assert_eq!(inside(&past, run, "2", &[]), 1, "another token");
    assert_eq!(inside(&past, "", "", &[]), 1, "not inside a job");
    assert_eq!(
        inside(&past, "0123456789abcdef", "1", &[]),
        69,
        "a run that the store doesn't know"
    );
    grant
        .release(&Past::end(&Went::new(Outcome::Succeeded, 1)), None)
        .expect("the end is written");
    assert_eq!(inside(&past, run, "1", &[]), 1, "released");
    let (_, _grant) = past.begin("sync", &Went::new(Outcome::Running, 1));
    assert_eq!(inside(&past, run, "1", &[]), 1, "another run has it");
    past.lose();
    assert_eq!(inside(&past, run, "1", &[]), 69, "the store is gone");
}

#[test]
fn assert_is_false_from_the_moment_of_a_revocation() {
    let past = Past::local();
    let (record, grant) = past.begin("sync", &Went::new(Outcome::Running, 1));
    let at = joblock::clock::Wall::now();
    let request = Request {
        token: grant.token(),
        by: "ann@blue".into(),
        reason: "x".into(),
        at,
    };
    past.store
        .revoke(&record.lock, &request)
        .expect("it is revoked");
    assert_eq!(inside(&past, record.run_id.as_str(), "1", &[]), 1);
}

/// A real run of `command`, and not before it holds its lock.
fn running(past: &Past, job: &str, command: &[&str]) -> Child {
    let args = [&["run", job, "--"], command].concat();
    let child = past
        .plain(&args)
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let begun = Instant::now();
    while !past
        .store
        .jobs()
        .expect("the store works")
        .contains(&job.to_owned())
    {
        assert!(begun.elapsed() < LIMIT, "it never ran");
        sleep(Duration::from_millis(20));
    }
    child
}

// shows: unlock local, shared, lockfile
#[rstest]
#[case::local(Past::local())]
#[case::shared(Past::shared())]
#[case::lockfile(Past::lockfile())]
fn a_real_run_can_be_stopped_and_unlocked_from_elsewhere(#[case] past: Past) {
    let mut run = running(&past, "sync", &["sleep", "1000"]);
    let (code, said) = say(&past, &["stop", "sync", "--reason", "wrong file"]);
    assert_eq!(code, 0, "{said}");
    assert!(!run.wait().expect("it ends").success());
    let value = past.json(&["show", "sync"]);
    assert_eq!(value["run"]["outcome"], "stopped");
    assert!(
        value["run"]["notes"].to_string().contains("wrong file"),
        "{value}"
    );

    let run = running(&past, "mail", &["sleep", "1000"]);
    let reason = "blue is gone\njoblock: and green";
    let (code, said) = say(&past, &["unlock", "mail", "--reason", reason]);
    assert_eq!(code, 0, "{said}");
    let ended = run.wait_with_output().expect("it ends");
    assert_eq!(ended.status.code(), Some(79));
    // another one's words are none of joblock's
    let said = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains("blue is gone\\njoblock: and green"), "{said}");
    let value = past.json(&["show", "mail"]);
    assert_eq!(value["run"]["outcome"], "lost");
    assert!(
        value["run"]["notes"].to_string().contains("blue is gone"),
        "{value}"
    );
}

#[rstest]
#[case::local(Past::local())]
#[case::shared(Past::shared())]
#[case::lockfile(Past::lockfile())]
fn a_real_job_is_told_that_it_holds_its_lock(#[case] past: Past) {
    let joblock = env!("CARGO_BIN_EXE_joblock");
    past.joblock(&["run", "sync", "--", joblock, "assert", "sync"])
        .assert()
        .code(0);
    past.joblock(&["run", "sync", "--", joblock, "assert", "mail"])
        .assert()
        .code(1);
}
