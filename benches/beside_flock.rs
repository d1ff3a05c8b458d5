//! A run of `true` and a refused start, beside flock(1) and beside the script that joblock replaces.
//!
//! `cargo bench --bench beside_flock [-- ROUNDS]`. All of them take turns, in another order each round, so that whatever else the
//! machine does hits all alike; what is said is the ratio of medians to that of `flock -n LOCK true`.

use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const TRUE: &str = "/bin/true";
const ROUNDS: usize = 300;

/// One thing to measure.
struct Peer {
    name: &'static str,
    command: Vec<String>,
    code: i32,
    times: Vec<Duration>,
}

impl Peer {
    fn new(name: &'static str, code: i32, command: &[&str]) -> Peer {
        Peer {
            name,
            code,
            command: command.iter().map(|&word| word.to_owned()).collect(),
            times: Vec::new(),
        }
    }

    fn spawn(command: &[String]) -> Command {
        let mut spawn = Command::new(&command[0]);
        spawn.args(&command[1..]);
        for (name, _) in std::env::vars_os() {
            if name.as_encoded_bytes().starts_with(b"JOBLOCK_") {
                spawn.env_remove(name);
            }
        }
        let (stdin, stdout) = (Stdio::null(), Stdio::null());
        spawn.stdin(stdin).stdout(stdout).stderr(Stdio::null());
        spawn
    }

    fn measure(&mut self, counts: bool) {
        let mut command = Self::spawn(&self.command);
        let began = Instant::now();
        let status = command.status();
        let took = began.elapsed();
        let code = status.ok().and_then(|status| status.code());
        assert_eq!(code, Some(self.code), "{:?}", self.command);
        if counts {
            self.times.push(took);
        }
    }

    fn at(&self, percent: usize) -> Duration {
        let mut sorted = self.times.clone();
        sorted.sort_unstable();
        sorted[(sorted.len() - 1) * percent / 100]
    }
}

/// A process that holds a lock until it is dropped: its job reads until its standard input ends.
struct Holder(Child);

impl Holder {
    fn new(before_the_job: &[&str]) -> Holder {
        let words: Vec<String> = before_the_job
            .iter()
            .chain(&["sh", "-c", "echo held; cat"])
            .map(|&word| word.to_owned())
            .collect();
        let mut command = Peer::spawn(&words);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a holder");
        let mut word = [0; 5];
        let stdout = child.stdout.as_mut().expect("its output");
        stdout.read_exact(&mut word).expect("that it holds");
        Holder(child)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

fn main() {
    let rounds = std::env::args()
        .skip(1)
        .find_map(|word| word.parse().ok())
        .unwrap_or(ROUNDS);
    let on_disk = Path::new(env!("CARGO_TARGET_TMPDIR"));
    table("on this machine's disk", on_disk, rounds);
    let in_memory = Path::new("/dev/shm");
    if in_memory.is_dir() {
        table("in memory, where a sync costs nothing", in_memory, rounds);
    }
}

fn table(place: &str, below: &Path, rounds: usize) {
    let folder = tempfile::Builder::new().prefix("bench").tempdir_in(below);
    let folder = folder.expect("a folder for the stores");
    let file = |name: &str| folder.path().join(name).display().to_string();
    let (joblock, naive) = (
        env!("CARGO_BIN_EXE_joblock"),
        concat!(env!("CARGO_MANIFEST_DIR"), "/benches/naive.sh"),
    );
    let (free, held) = (file("free"), file("held"));
    let store = format!("sqlite:{}", file("joblock.db"));
    let database = file("naive.db");
    make_naive(&database);

    let (flock, run) = (
        ["flock", "-n", &held],
        [joblock, "run", "--store", &store, "held", "--"],
    );
    let script = [naive, &database, "held"];
    let holders = [Holder::new(&flock), Holder::new(&run), Holder::new(&script)];
    let with_true = |words: &[&'static str], more: &[&str]| -> Vec<String> {
        let all = words.iter().copied().chain(more.iter().copied());
        all.map(str::to_owned).chain([TRUE.to_owned()]).collect()
    };
    let peer = |name, code, words: &[&'static str], more: &[&str]| Peer {
        command: with_true(words, more),
        ..Peer::new(name, code, &[])
    };
    let url = ["--store", &store, "free", "--"];
    let mut peers = [
        peer("`flock -n LOCK true`", 0, &["flock", "-n"], &[&free]),
        peer("`joblock run JOB -- true`", 0, &[joblock, "run"], &url),
        peer(
            "the script with flock and sqlite3",
            0,
            &[naive],
            &[&database, "free"],
        ),
        peer("flock, refused", 1, &["flock", "-n"], &[&held]),
        peer("joblock, refused", 75, &[joblock, "run"], &run[2..]),
        peer("the script, refused", 75, &[naive], &script[1..]),
        peer("`true` alone", 0, &[], &[]),
        Peer::new("`joblock --version`", 0, &[joblock, "--version"]),
    ];
    for round in 0..rounds + 20 {
        let first = round % peers.len();
        peers.rotate_left(first);
        for peer in &mut peers {
            // the first rounds make the stores and warm the caches
            peer.measure(round >= 20);
        }
        peers.rotate_right(first);
    }
    drop(holders);
    print(place, rounds, &peers);
}

fn make_naive(database: &str) {
    let mut sqlite3 = Command::new("sqlite3")
        .arg(database)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("sqlite3");
    let mut stdin = sqlite3.stdin.take().expect("its input");
    stdin
        .write_all(b"CREATE TABLE runs (id INTEGER PRIMARY KEY, job, host, started, ended, outcome, code);")
        .expect("written");
    drop(stdin);
    assert!(sqlite3.wait().expect("sqlite3's end").success());
}

fn print(place: &str, rounds: usize, peers: &[Peer]) {
    let of_flock = peers[0].at(50).as_secs_f64();
    println!("\n{rounds} rounds, {place}; load {}:\n", load());
    println!("| what | median / flock's | median | 10 % | 90 % |");
    println!("|---|---|---|---|---|");
    for peer in peers {
        let ms = |percent| format!("{:.2} ms", peer.at(percent).as_secs_f64() * 1e3);
        let ratio = peer.at(50).as_secs_f64() / of_flock;
        let (name, median, low, high) = (peer.name, ms(50), ms(10), ms(90));
        println!("| {name} | {ratio:.2} | {median} | {low} | {high} |");
    }
}

fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or("?").to_owned()
}
