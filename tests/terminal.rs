//! A real pseudo terminal, with a script or an interactive shell around joblock: ^C, ^\, ^Z and fg do what they do
//! without joblock.

mod common;

use std::fs;
use std::process::Command;
use std::time::Duration;

use common::process::Process;
use common::terminal::Terminal;
use common::{Kind, Store, finish, stays, text, wait_for, wait_until};

/// The prompt of the interactive shells.
const PROMPT: &str = "<ready>";
const CTRL_C: &str = "\x03";
const CTRL_Z: &str = "\x1a";
const CTRL_BACKSLASH: &str = "\x1c";

/// Runs `script` in bash on a terminal; its `$@` are the words that stand before the job's command.
fn script(store: &Store, script: &str, before: &[&str]) -> Terminal {
    let mut bash = Command::new("bash");
    bash.args(["--norc", "-c", script, "bash"]).args(before);
    bash.env("READY", store.file("ready"))
        .env("SEEN", store.file("seen"));
    Terminal::run(store, &bash)
}

/// An interactive bash, with job control, in which `$RUN` stands for `joblock run … terminal --`.
fn interactive(store: &Store) -> Terminal {
    let mut bash = Command::new("bash");
    bash.args(["--norc", "--noprofile", "--noediting", "-i"]);
    bash.env("PS1", PROMPT)
        .env("READY", store.file("ready"))
        .env("SEEN", store.file("seen"));
    bash.env("RUN", store.prefix("terminal").join(" "));
    let mut shell = Terminal::run(store, &bash);
    shell.expect(PROMPT);
    shell
}

/// Has the interactive shell do one line, and gives what appears before the next prompt.
#[track_caller]
fn ask(shell: &mut Terminal, line: &str) -> String {
    shell.line(line);
    shell.expect(PROMPT)
}

#[track_caller]
fn wait_for_ready(store: &Store) {
    wait_until("the job is ready", || store.file("ready").exists());
    fs::remove_file(store.file("ready")).expect("ready again");
}

/// What a script on a terminal says, and how it ends, when `key` is pressed while its command runs: without joblock
/// and with it.
#[track_caller]
fn both_ways(store: &Store, text: &str, key: &str) -> [String; 2] {
    let run = store.prefix("key");
    let ways: [&[&str]; 2] = [&[], &run];
    ways.map(|before| {
        let mut terminal = script(store, text, before);
        wait_for_ready(store);
        terminal.type_in(key);
        let (said, status) = terminal.finish();
        format!("{said}{status}")
    })
}

#[test]
fn ctrl_c_ends_job_joblock_and_the_script_around_them() {
    let store = Store::local();
    let text = r#""$@" sh -c 'touch $READY; exec sleep 1000'; echo the script goes on: $?"#;
    let [plain, under] = both_ways(&store, text, CTRL_C);
    assert_eq!(under, plain);
    assert!(
        !under.contains("goes on"),
        "bash stops its script when a command died of ^C: {under}"
    );
    assert_eq!(store.outcomes("key"), ["signaled"]);
}

#[test]
fn ctrl_c_that_the_job_handles_lets_the_script_go_on() {
    let store = Store::local();
    let text = r#""$@" bash -c 'trap "echo handled; exit 0" INT; touch $READY; while :; do sleep 0.02; done'; echo the script goes on: $?"#;
    let [plain, under] = both_ways(&store, text, CTRL_C);
    assert_eq!(under, plain);
    assert!(under.contains("goes on: 0"), "{under}");
    assert_eq!(store.outcomes("key"), ["succeeded"]);
}

#[test]
fn ctrl_c_reaches_the_job_once() {
    let store = Store::local();
    let text = r#""$@" bash -c 'trap "echo INT >>$SEEN" INT; touch $READY; until [ -s $SEEN ]; do sleep 0.02; done; sleep 0.5; exit 8'; echo the script goes on: $?"#;
    let [plain, under] = both_ways(&store, text, CTRL_C);
    assert_eq!(under, plain);
    assert_eq!(
        text_of_seen(&store),
        "INT\nINT\n",
        "one for each of the two runs"
    );
}

fn text_of_seen(store: &Store) -> String {
    text(&store.file("seen"))
}

#[test]
fn ctrl_backslash_ends_job_and_joblock_by_quit() {
    let store = Store::local();
    let text = r#"exec 2>/dev/null; ulimit -c 0; "$@" sh -c 'touch $READY; exec sleep 1000'; echo the script goes on: $?"#;
    let [plain, under] = both_ways(&store, text, CTRL_BACKSLASH);
    assert_eq!(under, plain);
    assert!(under.contains("goes on: 131"), "{under}");
}

#[test]
fn the_job_has_the_terminal_and_reads_what_is_typed() {
    let store = Store::local();
    let text = r#""$@" sh -c 'test -t 0 && test -t 1 && test -t 2 && tty && read line && echo "got:$line" && stty -a </dev/tty >/dev/null && echo fine'"#;
    let mut terminal = script(&store, text, &store.prefix("typed"));
    terminal.expect("/dev/pts/");
    terminal.line("some words");
    terminal.expect("got:some words");
    terminal.expect("fine");
    terminal.finish();
    assert_eq!(store.outcomes("typed"), ["succeeded"]);
}

#[test]
fn ctrl_z_stops_the_job_and_fg_goes_on_with_it() {
    let store = Store::local();
    let mut shell = interactive(&store);
    shell.line(
        r"$RUN bash -c 'touch $READY; until [ -e $SEEN ]; do sleep 0.02; done; echo done; exit 7'",
    );
    wait_for_ready(&store);
    shell.type_in(CTRL_Z);
    shell.expect("Stopped");
    shell.expect(PROMPT);
    let bash = job_bash(&store);
    wait_until("the job is stopped as well", || bash.is_stopped());
    assert!(ask(&mut shell, "jobs -s").contains("$RUN"));
    fs::write(store.file("seen"), "").expect("the end");
    shell.line("fg");
    shell.expect("done");
    shell.expect(PROMPT);
    assert!(ask(&mut shell, "echo code=$?").contains("code=7"));
    assert_eq!(store.outcomes("terminal"), ["failed"]);
}

/// The job's first process: a bash that waits for `$SEEN`.
#[track_caller]
fn job_bash(store: &Store) -> Process {
    wait_for("the job among the marked processes", || {
        store.marked().into_iter().find(|p| {
            let line = fs::read(format!("/proc/{}/cmdline", p.pid)).unwrap_or_default();
            line.starts_with(b"bash\0-c\0touch")
        })
    })
}

#[test]
fn a_run_stopped_by_ctrl_z_beyond_its_ttl_keeps_its_lock() {
    let store = Store::new(Kind::Shared);
    let mut shell = interactive(&store);
    shell.line(r"${RUN/ run / run --ttl 2s } bash -c 'touch $READY; until [ -e $SEEN ]; do sleep 0.02; done; exit 7'",
    );
    wait_for_ready(&store);
    let bash = job_bash(&store);
    shell.type_in(CTRL_Z);
    shell.expect("Stopped");
    shell.expect(PROMPT);
    stays("the job is there", Duration::from_secs(4), || bash.lives());
    store.sh(&[], "terminal", "exit 0").expect(75);
    fs::write(store.file("seen"), "").expect("the end");
    shell.line("fg");
    shell.expect(PROMPT);
    assert!(ask(&mut shell, "echo code=$?").contains("code=7"));
    assert_eq!(store.outcomes("terminal"), ["failed", "refused"]);
}

#[test]
fn fg_and_then_ctrl_c_end_the_job_and_the_shell_says_130() {
    let store = Store::local();
    let mut shell = interactive(&store);
    shell.line("$RUN sh -c 'touch $READY; exec sleep 1000'");
    wait_for_ready(&store);
    for _ in 0..2 {
        shell.type_in(CTRL_Z);
        shell.expect("Stopped");
        shell.expect(PROMPT);
        shell.line("fg");
        shell.expect("sleep 1000'");
        // The shell names the command before it hands the terminal over and continues everybody.
        wait_until("everything goes on", || {
            store.marked().iter().all(|p| !p.is_stopped())
        });
    }
    shell.type_in(CTRL_C);
    shell.expect(PROMPT);
    assert!(ask(&mut shell, "echo code=$?").contains("code=130"));
}

#[test]
fn bg_lets_a_stopped_job_run_on_behind_the_prompt() {
    let store = Store::local();
    let mut shell = interactive(&store);
    shell.line(r"$RUN bash -c 'touch $READY; until [ -e $SEEN ]; do sleep 0.02; done; exit 7'");
    wait_for_ready(&store);
    shell.type_in(CTRL_Z);
    shell.expect("Stopped");
    shell.expect(PROMPT);
    ask(&mut shell, "bg");
    fs::write(store.file("seen"), "").expect("the end");
    ask(&mut shell, "wait %1");
    wait_until("the run's end", || store.outcomes("terminal") == ["failed"]);
}

#[test]
fn a_job_in_the_background_that_reads_the_terminal_is_stopped_until_fg() {
    let store = Store::local();
    let mut shell = interactive(&store);
    shell.line(r#"$RUN sh -c 'touch $READY; read line; echo "got:$line"' &"#);
    wait_for_ready(&store);
    shell.expect(PROMPT);
    wait_until("the shell knows that it stopped", || {
        ask(&mut shell, "jobs -s").contains("Stopped")
    });
    shell.line("fg");
    shell.line("typed");
    shell.expect("got:typed");
    shell.expect(PROMPT);
    assert!(ask(&mut shell, "echo code=$?").contains("code=0"));
}

#[test]
fn a_signal_by_kill_is_forwarded_once_on_a_terminal_too() {
    let store = Store::local();
    let mut terminal = script(
        &store,
        r#""$@" bash -c 'trap "echo TERM >>$SEEN" TERM; trap "exit 5" USR2; touch $READY; while :; do sleep 0.02; done'; echo code=$?"#,
        &store.prefix("killed"),
    );
    wait_for_ready(&store);
    let front = store.holder("killed").front;
    front.kill(15);
    wait_until("the job has seen it", || !text_of_seen(&store).is_empty());
    front.kill(12);
    terminal.expect("code=5");
    assert_eq!(text_of_seen(&store), "TERM\n");
}

#[test]
fn a_terminal_that_hangs_up_ends_the_run() {
    let store = Store::local();
    let mut shell = interactive(&store);
    shell.line("$RUN sh -c 'touch $READY; exec sleep 1000'");
    wait_for_ready(&store);
    shell.hang_up();
    wait_until("the end of every process", || store.marked().is_empty());
    assert_eq!(store.outcomes("terminal"), ["signaled"]);
}

#[test]
fn a_refused_start_on_a_terminal_says_who_holds_the_lock_and_what_to_do() {
    let store = Store::local();
    let mut first = store.run(&[], "held", &["sh", "-c", "touch $READY; exec sleep 1000"]);
    let first = common::start(first.env("READY", store.file("ready")));
    wait_for_ready(&store);
    let mut terminal = script(
        &store,
        r#""$@" echo second; echo code=$?"#,
        &store.prefix("held"),
    );
    let said = terminal.expect("code=75");
    assert!(
        said.contains("joblock: ") && said.contains("held"),
        "{said}"
    );
    first.process().kill(15);
    first.finish().expect(143);
}

#[test]
fn a_run_stopped_by_ctrl_z_can_be_ended_from_elsewhere_and_lets_go_of_its_lock() {
    let store = Store::local();
    let mut shell = interactive(&store);
    shell.line(r"$RUN bash -c 'touch $READY; while :; do sleep 0.02; done'");
    wait_for_ready(&store);
    shell.type_in(CTRL_Z);
    shell.expect("Stopped");
    shell.expect(PROMPT);
    let stop = ["--reason", "a test", "terminal"];
    finish(store.joblock("stop").args(stop)).expect(0);
    store.sh(&[], "terminal", "exit 0").expect(0);
    assert_eq!(store.outcomes("terminal"), ["stopped", "succeeded"]);
}
