//! That two far mounts are what they are said to be: one folder, whose flock(2) does not reach the other mount while data and POSIX
//! locks do.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

use super::arena::{Arena, Kind};
use super::host::Host;

/// A file of the store as a host calls it.
fn path(host: &Host, name: &str) -> String {
    let store = host.url().strip_prefix("sqlite:").expect("a database");
    store.replace("joblock.db", name)
}

/// Starts a program on a host, tells it something, and waits for its first line.
fn hold(host: &Host, words: &[&str], told: &str) -> Child {
    let mut command = Command::new(words[0]);
    command.args(&words[1..]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = host.spawn(command).expect("a process there");
    let stdin = child.stdin.as_mut().expect("its input");
    stdin.write_all(told.as_bytes()).expect("it listens");
    let mut line = String::new();
    let stdout = child.stdout.as_mut().expect("its output");
    BufReader::new(stdout).read_line(&mut line).expect("a line");
    assert_eq!(line, "ready\n");
    child
}

fn let_go(mut child: Child) {
    drop(child.stdin.take());
    assert!(child.wait().expect("wait").success());
}

/// Whether a program succeeds on a host.
fn works(host: &Host, words: &[&str]) -> bool {
    let mut command = Command::new(words[0]);
    command
        .args(&words[1..])
        .stderr(Stdio::null())
        .stdin(Stdio::null());
    let mut child = host.spawn(command).expect("a process there");
    child.wait().expect("wait").success()
}

/// See the module.
pub fn show() {
    let arena = Arena::new(Kind::Far, 1, "nobody");
    let (blue, green) = (&arena.hosts[0], &arena.hosts[1]);

    let file = |host| path(host, "file");
    let holder = hold(
        blue,
        &[
            "flock",
            &file(blue),
            "sh",
            "-c",
            "echo ready; read line; true",
        ],
        "",
    );
    assert!(!works(blue, &["flock", "-n", &file(blue), "true"]));
    assert!(works(green, &["flock", "-n", &file(green), "true"]));
    let_go(holder);
    assert!(works(blue, &["flock", "-n", &file(blue), "true"]));

    let database = |host| path(host, "t.db");
    let begin = "CREATE TABLE t (x); INSERT INTO t VALUES (1); BEGIN IMMEDIATE;\n.print ready\n";
    let holder = hold(blue, &["sqlite3", &database(blue)], begin);
    let write = "UPDATE t SET x = 2";
    assert!(works(
        green,
        &["sqlite3", &database(green), "SELECT x FROM t"]
    ));
    assert!(!works(green, &["sqlite3", &database(green), write]));
    let_go(holder);
    assert!(works(green, &["sqlite3", &database(green), write]));
}
