//! What the jobs write to: it sees each of them alive or not, from outside of their machines, and refuses whoever comes
//! with an older token than the newest it has seen for that job, as anything should that is handed a fencing token.
//!
//! It listens where no test cuts the line. One thread does it all, so that what is seen has an order.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::common::wait_for;

/// How soon the witness hears of a test that is over.
const AGAIN: Duration = Duration::from_millis(200);

/// A run as it was seen.
#[derive(Debug, Clone)]
pub struct Seen {
    /// What its lock is of.
    pub job: String,
    /// Its token.
    pub token: u64,
    /// Where it said it was.
    pub host: String,
    /// First heard of.
    pub began: Instant,
    /// Last heard of.
    pub last: Instant,
    /// Accepted writes.
    pub accepted: u64,
    /// Refused ones, since they came with an older token than the newest.
    pub refused: u64,
    /// When the last process that had its connection was gone.
    pub gone: Option<Instant>,
}

#[derive(Default)]
struct State {
    runs: Vec<Seen>,
    newest: BTreeMap<String, u64>,
    may_end: BTreeMap<String, u64>,
    complaints: Vec<String>,
}

/// The witness.
pub struct Witness {
    state: Arc<Mutex<State>>,
    address: SocketAddr,
}

struct Connection {
    stream: TcpStream,
    unread: Vec<u8>,
    run: Option<usize>,
}

impl Witness {
    /// One that listens at `address` in a network namespace; the port is free to choose.
    pub fn new(namespace: &File, address: &str) -> Witness {
        let namespace = namespace.try_clone().expect("the namespace");
        let address = format!("{address}:0");
        // a socket stays in the namespace that it was made in
        let listener = thread::spawn(move || {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
                .expect("the lab's network");
            TcpListener::bind(address).expect("a port for the witness")
        })
        .join()
        .expect("a listener");
        listener.set_nonblocking(true).expect("fcntl");
        let address = listener.local_addr().expect("its address");
        let state = Arc::new(Mutex::new(State::default()));
        let watched = Arc::downgrade(&state);
        thread::spawn(move || {
            let mut connections = Vec::new();
            while let Some(state) = watched.upgrade() {
                look(&listener, &mut connections, &state);
            }
        });
        Witness { state, address }
    }

    /// What a job is called with to find it.
    pub fn arguments(&self) -> String {
        format!("{} {}", self.address.ip(), self.address.port())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("the witness")
    }

    /// The runs of a job, in the order in which they were first heard of.
    #[track_caller]
    pub fn runs(&self, job: &str) -> Vec<Seen> {
        let state = self.state();
        assert_eq!(state.complaints, [""; 0]);
        state
            .runs
            .iter()
            .filter(|r| r.job == job)
            .cloned()
            .collect()
    }

    /// The newest run of a job, if its token is at least `token`.
    #[track_caller]
    pub fn run(&self, job: &str, token: u64) -> Option<Seen> {
        self.runs(job).into_iter().find(|r| r.token >= token)
    }

    /// Waits for a run of a job with at least this token that lives on `host`: until some more of its writes are accepted.
    #[track_caller]
    pub fn lives(&self, job: &str, token: u64, host: &str) -> Seen {
        let accepted = self.run(job, token).map_or(0, |r| r.accepted);
        let run = wait_for(&format!("{job} alive on {host}"), || {
            self.run(job, token).filter(|r| r.accepted > accepted + 3)
        });
        assert_eq!(run.host, host, "{run:?}");
        run
    }

    /// Waits until nothing of a run is alive.
    #[track_caller]
    pub fn gone(&self, job: &str, token: u64) -> Instant {
        wait_for(&format!("the end of {job} {token}"), || {
            self.runs(job)
                .into_iter()
                .find(|r| r.token == token)
                .and_then(|r| r.gone)
        })
    }

    /// Lets the runs of a job end that have at most this token.
    pub fn let_end(&self, job: &str, token: u64) {
        self.state().may_end.insert(job.to_owned(), token);
    }

    /// No two runs of the job lived at once: each came after everything of the one before it was gone, and their tokens grew.
    /// `powerless`: tokens of runs whose machine stopped, so that nobody could tell of their end.
    #[track_caller]
    pub fn never_two(&self, job: &str, powerless: &[u64]) -> Vec<Seen> {
        let runs = self.runs(job);
        for pair in runs.windows(2) {
            let [old, new] = pair else { unreachable!() };
            assert!(new.token > old.token, "tokens only grow: {runs:#?}");
            assert!(
                powerless.contains(&old.token) || old.gone.is_some_and(|gone| gone <= new.began),
                "{job}: run {} began before {} was gone: {runs:#?}",
                new.token,
                old.token
            );
            assert!(
                powerless.contains(&old.token) || old.refused == 0,
                "{runs:#?}"
            );
        }
        runs
    }
}

/// One look at all that there is to read: at what is known first, then at who is new.
fn look(listener: &TcpListener, connections: &mut Vec<Connection>, state: &Mutex<State>) {
    let timeout = Timespec::try_from(AGAIN).expect("a short time");
    let mut fds: Vec<_> = connections
        .iter()
        .map(|c| PollFd::new(&c.stream, PollFlags::IN))
        .collect();
    fds.push(PollFd::new(listener, PollFlags::IN));
    let _ = poll(&mut fds, Some(&timeout));
    drop(fds);
    let mut state = state.lock().expect("the test");
    connections.retain_mut(|connection| connection.read(&mut state));
    while let Ok((stream, _)) = listener.accept() {
        stream.set_nonblocking(true).expect("fcntl");
        stream.set_nodelay(true).expect("setsockopt");
        connections.push(Connection {
            stream,
            unread: Vec::new(),
            run: None,
        });
    }
}

impl Connection {
    /// False once the other side is gone.
    fn read(&mut self, state: &mut State) -> bool {
        let mut bytes = [0; 4096];
        loop {
            match self.stream.read(&mut bytes) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                Ok(count) if count > 0 => self.unread.extend_from_slice(&bytes[..count]),
                _ => {
                    if let Some(run) = self.run {
                        state.runs[run].gone = Some(Instant::now());
                    }
                    return false;
                }
            }
            while let Some(end) = self.unread.iter().position(|&b| b == b'\n') {
                let line: Vec<u8> = self.unread.drain(..=end).collect();
                let answer = self.hear(String::from_utf8_lossy(&line).trim(), state);
                // one that is dead by now does not take it
                let _ = writeln!(self.stream, "{answer}");
            }
        }
    }

    fn hear(&mut self, line: &str, state: &mut State) -> &'static str {
        let mut words = line.split(' ');
        let (Some(job), Some(Ok(token)), Some(host)) = (
            words.next(),
            words.next().map(str::parse::<u64>),
            words.next(),
        ) else {
            state.complaints.push(format!("no job's line: {line:?}"));
            return "refused";
        };
        let now = Instant::now();
        let run = *self.run.get_or_insert_with(|| {
            if state.runs.iter().any(|r| r.job == job && r.token == token) {
                state
                    .complaints
                    .push(format!("two runs of {job} with token {token}"));
            }
            state.runs.push(Seen {
                job: job.to_owned(),
                token,
                host: host.to_owned(),
                began: now,
                last: now,
                accepted: 0,
                refused: 0,
                gone: None,
            });
            state.runs.len() - 1
        });
        let newest = state.newest.entry(job.to_owned()).or_insert(token);
        *newest = (*newest).max(token);
        let old = *newest > token;
        let run = &mut state.runs[run];
        run.last = now;
        if old {
            run.refused += 1;
            "refused"
        } else {
            run.accepted += 1;
            if state.may_end.get(job).is_some_and(|&end| token <= end) {
                "end"
            } else {
                "accepted"
            }
        }
    }
}
