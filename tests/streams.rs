//! The job's streams are what they would be without joblock: bytes, order, timing, who is blocked and who gets SIGPIPE.

mod common;

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use common::process::Process;
use common::{Holder, Kind, Store, finish, text, wait_until};

/// Bytes that look like nothing: no pattern that a lost or doubled block could hide in.
fn noise(length: usize) -> Vec<u8> {
    let mut state: u64 = 0x9E37_79B9_7F4A_7C15;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// Equal or not, without printing a hundred megabytes.
#[track_caller]
fn assert_same(seen: &[u8], expected: &[u8]) {
    assert_eq!(seen.len(), expected.len(), "length");
    let differs = seen.iter().zip(expected).position(|(a, b)| a != b);
    assert_eq!(differs, None, "position of the first byte that differs");
}

fn path(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

#[test]
fn a_hundred_megabytes_come_through_a_pipe_byte_for_byte() {
    let store = Store::local();
    let source = store.file("source");
    let bytes = noise(100 << 20);
    fs::write(&source, &bytes).expect("the source");
    let done = finish(&mut store.run(&[], "big", &["cat", path(&source)])).expect(0);
    assert_same(&done.stdout, &bytes);
    assert_eq!(done.stderr, b"");
}

#[test]
fn stdout_and_stderr_at_once_stay_apart_byte_for_byte() {
    let store = Store::local();
    let source = store.file("source");
    let bytes = noise(20 << 20);
    fs::write(&source, &bytes).expect("the source");
    let script = format!("cat {0} & cat {0} >&2; wait", source.display());
    let done = store.sh(&[], "both", &script).expect(0);
    assert_same(&done.stdout, &bytes);
    assert_same(&done.stderr, &bytes);
}

#[test]
fn stdout_and_stderr_into_one_pipe_keep_their_order() {
    let store = Store::local();
    let script = "i=0; while [ $i -lt 20000 ]; do echo out $i; echo err $i >&2; i=$((i + 1)); done";
    let mut shell = store.program("sh");
    shell.args(["-c", r#""$@" 2>&1"#, "sh"]);
    shell.args(store.prefix("order")).args(["sh", "-c", script]);
    let done = finish(&mut shell).expect(0);
    let lines: Vec<String> = (0..20000).map(|i| format!("out {i}\nerr {i}\n")).collect();
    let expected = lines.concat();
    assert_same(&done.stdout, expected.as_bytes());
}

#[test]
fn a_single_byte_arrives_while_the_job_still_runs() {
    let store = Store::local();
    let go = store.file("go");
    let script = format!(
        "printf x; printf y >&2; while [ ! -e {} ]; do sleep 0.02; done; printf z",
        go.display()
    );
    let mut run = store
        .run(&[], "byte", &["sh", "-c", &script])
        .spawn()
        .expect("joblock");
    let (mut out, mut err) = (
        run.stdout.take().expect("out"),
        run.stderr.take().expect("err"),
    );
    let mut byte = [0];
    // The job can't end before it is told to: these reads return only because nothing is kept back.
    out.read_exact(&mut byte).expect("the byte");
    assert_eq!(&byte, b"x");
    err.read_exact(&mut byte).expect("the byte");
    assert_eq!(&byte, b"y");
    fs::write(&go, "").expect("go");
    let mut rest = String::new();
    out.read_to_string(&mut rest).expect("the rest");
    assert_eq!(rest, "z");
    assert_eq!(run.wait().expect("its end").code(), Some(0));
}

#[test]
fn standard_input_reaches_the_job_byte_for_byte() {
    let store = Store::local();
    let bytes = noise(5 << 20);
    let source = store.file("source");
    fs::write(&source, &bytes).expect("the source");
    let mut run = store.run(&[], "input", &["cat"]);
    let done = finish(run.stdin(File::open(&source).expect("the source"))).expect(0);
    assert_same(&done.stdout, &bytes);
}

#[test]
fn what_the_job_leaves_on_standard_input_is_there_for_the_next_command() {
    let store = Store::local();
    let mut shell = store.program("sh");
    let script = r#"printf '1\n2\n3\n' | { "$@"; cat; }"#;
    shell.args(["-c", script, "sh"]).args(store.prefix("line"));
    shell.args(["sh", "-c", "read x; echo job $x"]);
    assert_eq!(finish(&mut shell).expect(0).out(), "job 1\n2\n3\n");
}

#[test]
fn a_reader_that_does_not_read_blocks_the_job_and_kills_nothing() {
    // F of a two second lease is below one second: a pump that blocks, or a heartbeat behind it, would lose the lock.
    let store = Store::new(Kind::Shared);
    let source = store.file("source");
    let bytes = noise(8 << 20);
    fs::write(&source, &bytes).expect("the source");
    let mut run = store.run(&["--ttl", "2s"], "slow", &["cat", path(&source)]);
    let mut run = run.spawn().expect("joblock");
    let front = Process::of(i32::try_from(run.id()).expect("a pid")).expect("joblock");
    let job = Holder::of_front(front).guard.children()[0];
    common::stays(
        "the job waits for its reader",
        Duration::from_secs(5),
        || job.lives(),
    );
    let mut seen = Vec::new();
    run.stdout
        .take()
        .expect("out")
        .read_to_end(&mut seen)
        .expect("all of it");
    assert_same(&seen, &bytes);
    assert_eq!(run.wait().expect("its end").code(), Some(0));
}

/// Runs `"$@" | head -1` in bash and gives the exit codes of both sides.
fn pipe_into_head(store: &Store, before: &str, command: &[&str]) -> String {
    let mut bash = store.program("bash");
    let script = format!(r#"{before} "$@" | head -1 >/dev/null; echo "${{PIPESTATUS[*]}}""#);
    bash.args(["-c", &script, "bash"]).args(command);
    finish(&mut bash).expect(0).out()
}

#[test]
fn a_reader_that_is_gone_ends_the_job_as_in_a_plain_call() {
    let store = Store::local();
    let yes: &[&str] = &["yes"];
    let stubborn: &[&str] = &["sh", "-c", "trap '' PIPE; yes 2>/dev/null || exit 7"];
    for command in [yes, stubborn] {
        for before in ["", "trap '' PIPE; exec 2>/dev/null;"] {
            let plain = pipe_into_head(&store, before, command);
            let under = [&store.prefix("gone"), command].concat();
            let seen = pipe_into_head(&store, before, &under);
            assert_eq!(seen, plain, "{before} {command:?}");
        }
    }
}

#[test]
fn a_job_whose_reader_is_gone_and_that_writes_no_more_runs_on() {
    let store = Store::local();
    let (gone, done) = (store.file("gone"), store.file("done"));
    let script = format!(
        "echo first; while [ ! -e {} ]; do sleep 0.02; done; touch {}; exit 5",
        gone.display(),
        done.display()
    );
    let mut run = store
        .run(&[], "silent", &["sh", "-c", &script])
        .spawn()
        .expect("joblock");
    let mut line = [0; 6];
    run.stdout
        .take()
        .expect("out")
        .read_exact(&mut line)
        .expect("a line");
    fs::write(&gone, "").expect("gone");
    assert_eq!(run.wait().expect("its end").code(), Some(5));
    assert!(done.exists());
}

#[test]
fn closed_standard_streams_are_closed_for_the_job_too() {
    let store = Store::local();
    let look = store.file("look");
    let script = format!(
        "for fd in 0 1 2; do if [ -e /proc/$$/fd/$fd ]; then r=$r+; else r=$r-; fi; done; echo $r >{}",
        look.display()
    );
    for closed in 0..8 {
        let mut redirect = String::new();
        for (bit, word) in ["<&-", ">&-", "2>&-"].iter().enumerate() {
            if closed & (1 << bit) != 0 {
                redirect += word;
                redirect += " ";
            }
        }
        let line = format!(r#"exec {redirect}; exec "$@""#);
        let see = |arguments: &[&str]| {
            let _ = fs::remove_file(&look);
            let mut shell = store.program("bash");
            shell.args(["-c", &line, "bash"]).args(arguments);
            finish(&mut shell).expect(0);
            text(&look)
        };
        let job = ["sh", "-c", &script];
        let plain = see(&job);
        let run = store.prefix("closed");
        assert_eq!(see(&[&run[..], &job].concat()), plain, "with {redirect}");
    }
}

#[test]
fn a_write_to_a_closed_standard_output_fails_for_the_job_as_in_a_plain_call() {
    let store = Store::local();
    let line = r#"exec >&-; "$@""#;
    for job in [
        ["sh", "-c", "echo x 2>/dev/null; exit $?"],
        ["sh", "-c", "cat 2>/dev/null; exit $?"],
    ] {
        let code = |arguments: &[&str]| {
            let mut bash = store.program("bash");
            bash.args(["-c", line, "bash"]).args(arguments);
            finish(&mut bash).code()
        };
        let run = store.prefix("closed");
        assert_eq!(code(&[&run[..], &job].concat()), code(&job));
    }
}

#[test]
fn a_job_sees_no_descriptor_of_joblocks_but_the_one_that_holds_the_lock() {
    let store = Store::local();
    let job = ["sh", "-c", "ls -l /proc/$$/fd | sed -n 's/.* -> //p' >&2"];
    let mut plain = store.program(job[0]);
    let plain = finish(plain.args(&job[1..])).expect(0);
    let under = finish(&mut store.run(&[], "descriptors", &job)).expect(0);
    let (mine, others): (Vec<String>, Vec<String>) = under
        .err()
        .lines()
        .map(str::to_owned)
        .partition(|target| target.starts_with(path(&store.path())));
    assert_eq!(mine.len(), 1, "{under}");
    assert_eq!(
        others.len(),
        plain.err().lines().count(),
        "{under}\n{plain}"
    );
}

#[test]
fn arguments_arrive_unchanged_whatever_bytes_they_have() {
    let store = Store::local();
    let odd: [&[u8]; 12] = [
        b"",
        b" ",
        b"two words",
        b"'",
        b"\"",
        b"$HOME `id` \\",
        b"*",
        b"a\nb",
        b"--",
        b"-n",
        b"--store",
        b"\xff\xfe not UTF-8 \x80",
    ];
    let mut run = store.run(&[], "odd", &["sh", "-c", r#"printf '%s\0' "$@""#, "sh"]);
    run.args(odd.iter().map(|bytes| OsStr::from_bytes(bytes)));
    let done = finish(&mut run).expect(0);
    let expected: Vec<u8> = odd
        .iter()
        .flat_map(|bytes| [bytes, &b"\0"[..]].concat())
        .collect();
    assert_eq!(done.stdout, expected, "{done}");
}

#[test]
fn the_jobs_environment_and_working_folder_are_the_callers() {
    let store = Store::local();
    let mut run = store.run(
        &[],
        "surroundings",
        &["sh", "-c", r#"pwd; printf '%s\n' "$ODD""#],
    );
    run.env("ODD", OsStr::from_bytes(b"caf\xe9"))
        .current_dir("/usr");
    assert_eq!(finish(&mut run).expect(0).stdout, b"/usr\ncaf\xe9\n");
}

#[test]
fn the_job_is_told_who_it_is() {
    let store = Store::local();
    let script = r#"printf '%s ' "$JOBLOCK_JOB" "$JOBLOCK_RUN_ID" "$JOBLOCK_TOKEN" "$JOBLOCK_TRIGGER" "$JOBLOCK_STORE""#;
    let done = store
        .sh(&["--trigger", "schedule"], "told", script)
        .expect(0);
    let row = store.rows("told").pop().expect("a row");
    let expected = format!(
        "told {} {} schedule {} ",
        row["run_id"].as_str().expect("a run id"),
        row["token"],
        store.url()
    );
    assert_eq!(done.out(), expected);
}

#[test]
fn the_last_64_kib_of_the_output_are_kept_to_the_byte() {
    let store = Store::local();
    let source = store.file("source");
    let bytes = noise(200_001);
    fs::write(&source, &bytes).expect("the source");
    let done = finish(&mut store.run(&[], "tail", &["cat", path(&source)])).expect(0);
    assert_same(&done.stdout, &bytes);
    let kept = finish(store.joblock("logs").arg("tail")).expect(0);
    assert_same(&kept.stdout, &bytes[bytes.len() - 65536..]);
}

#[test]
fn a_short_output_without_a_newline_is_kept_whole_and_both_streams_are() {
    let store = Store::local();
    let done = store
        .sh(&[], "short", r"printf '\377out'; printf 'err' >&2")
        .expect(0);
    assert_eq!(done.stdout, b"\xffout");
    assert_eq!(done.stderr, b"err");
    let kept = finish(store.joblock("logs").arg("short")).expect(0);
    let either: [&[u8]; 2] = [b"\xffouterr", b"err\xffout"];
    assert!(either.contains(&kept.stdout.as_slice()), "{kept}");
}

#[test]
fn with_no_capture_the_job_has_the_callers_own_streams_and_nothing_is_kept() {
    let store = Store::local();
    let output = store.file("output");
    let file = File::create(&output).expect("a file");
    let mut run = store.run(&["--no-capture"], "bare", &["readlink", "/proc/self/fd/1"]);
    finish(run.stdout(file)).expect(0);
    assert_eq!(text(&output).trim(), path(&output));
    let kept = finish(store.joblock("logs").arg("bare"));
    assert_eq!(kept.stdout, b"", "{kept}");
}

#[test]
fn output_appended_to_a_file_stands_where_it_would_in_a_plain_call() {
    let store = Store::local();
    let log = store.file("log");
    fs::write(&log, "before\n").expect("the log");
    let append = || OpenOptions::new().append(true).open(&log).expect("the log");
    let mut run = store.run(&[], "append", &["sh", "-c", "echo out; echo err >&2"]);
    finish(run.stdout(append()).stderr(append())).expect(0);
    append().write_all(b"after\n").expect("the log");
    let mut lines: Vec<String> = text(&log).lines().map(str::to_owned).collect();
    lines[1..3].sort();
    assert_eq!(lines, ["before", "err", "out", "after"]);
}

#[test]
fn output_to_a_full_device_does_not_hang_and_the_job_ends_by_itself() {
    let store = Store::local();
    let mut run = store.run(
        &[],
        "full",
        &["sh", "-c", "head -c 1000000 /dev/zero; exit 9"],
    );
    let full = OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .expect("/dev/full");
    finish(run.stdout(full)).expect(9);
}

#[test]
fn a_left_process_that_keeps_the_pipe_open_does_not_keep_joblock() {
    let store = Store::local();
    let done = store
        .sh(&[], "left", "setsid sleep 1000 & echo started")
        .expect(0);
    assert_eq!(done.out(), "started\n");
    assert!(
        store.of_jobs().is_empty(),
        "the job's daemon is ended with it"
    );
}

/// `SigIgn`, `SigBlk` and `SigCgt` of a job.
fn signal_state(command: &mut Command) -> String {
    finish(command).expect(0).out()
}

#[test]
fn ignored_and_blocked_signals_reach_the_job_as_in_a_plain_call() {
    let store = Store::local();
    let job = ["grep", "-E", "^Sig(Ign|Blk|Cgt)", "/proc/self/status"];
    let run = store.prefix("signals");
    let env = "/usr/bin/env";
    let surroundings: [&[&str]; 5] = [
        &[env],
        &[env, "--ignore-signal=HUP"],
        &[env, "--ignore-signal=PIPE"],
        &[env, "--ignore-signal=INT,QUIT,TERM,USR1,CHLD"],
        &[env, "--block-signal=TERM,USR2,CHLD"],
    ];
    for around in surroundings {
        let call = |rest: &[&str]| {
            let mut command = store.program(around[0]);
            command.args(&around[1..]).args(rest);
            signal_state(&mut command)
        };
        assert_eq!(call(&[&run[..], &job].concat()), call(&job), "{around:?}");
    }
}

#[test]
fn limits_umask_and_niceness_reach_the_job_as_in_a_plain_call() {
    let store = Store::local();
    let job = [
        "bash",
        "-c",
        "umask; ulimit -a; nice; cat /proc/self/oom_score_adj",
    ];
    let around = r#"umask 027; ulimit -n 300; ulimit -c 0; exec nice -n 3 "$@""#;
    let call = |rest: &[&str]| {
        let mut bash = store.program("bash");
        bash.args(["-c", around, "bash"]).args(rest);
        finish(&mut bash).expect(0).out()
    };
    let run = store.prefix("limits");
    assert_eq!(call(&[&run[..], &job].concat()), call(&job));
}

#[test]
fn joblock_ends_though_nobody_reads_the_output_that_is_left() {
    let store = Store::local();
    let go = store.file("go");
    let script = format!(
        "while [ ! -e {} ]; do sleep 0.02; done; echo unheard; exit 4",
        go.display()
    );
    let mut child = store
        .run(&[], "unheard", &["sh", "-c", &script])
        .spawn()
        .expect("joblock");
    drop(child.stdout.take());
    drop(child.stderr.take());
    fs::write(&go, "").expect("go");
    wait_until("its end", || child.try_wait().expect("wait").is_some());
    // Either the job was quicker than the news that nobody reads, or SIGPIPE ended it.
    let code = child.wait().expect("its end").code();
    assert!(code == Some(4) || code == Some(141), "{code:?}");
}
