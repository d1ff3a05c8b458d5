//! The outside witness: it decides whether two jobs lived at once, and knows nothing of joblock.
//!
//! Each job connects, says that it begins, with its token, and waits for an answer. The kernel closes the connection when the
//! last process that has it is gone. One thread reads it all, so that what is seen has an order:
//!
//! - Before a beginning is judged, everything that was sent before it has been read: after one was read, all connections
//!   are read again, until a round brings no other.
//! - Who begins while an older connection of its lock is open makes that one *suspect*: it may be dying already, in the kernel,
//!   which closes its descriptors one by one. So it is asked. An answer, or its last word, can only come from a process that
//!   ran on after the other one had begun: an overlap. The end of the connection without either: it was dying.
//!   Neither, for [`SILENCE`]: it is stopped and not dead, an overlap as well.
//! - A register keeps the newest token of each lock, and rejects what comes with one that is not newer.
//!
//! A run that was frozen with its whole machine can't be judged by its connection: it is announced ([`Witness::freezes`]),
//! and for it the register decides, as it does for whatever a job writes to.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, accept_with,
    bind, listen, recv, send, socket_with, sockopt::socket_peercred,
};

/// How long a suspect may say nothing before it counts as alive: longer than the kernel takes to end a process on a busy machine.
const SILENCE: Duration = Duration::from_secs(20);
/// How soon the witness looks at the clock again.
const AGAIN: Duration = Duration::from_millis(100);

/// A job as it was seen.
#[derive(Debug, Clone)]
pub struct Seen {
    /// What it runs under.
    pub lock: String,
    /// Its token, 0 for a job that was given none.
    pub token: u64,
    /// Its run's id.
    pub run: String,
    /// Its first process.
    pub pid: i32,
    /// Everything of it is gone.
    pub gone: bool,
}

/// Two at once.
#[derive(Debug, Clone)]
pub struct Overlap {
    /// The lock.
    pub lock: String,
    /// Who lived on.
    pub old: u64,
    /// Who began.
    pub new: u64,
    /// What told.
    pub by: &'static str,
}

impl fmt::Display for Overlap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Overlap { lock, old, new, by } = self;
        write!(
            f,
            "OVERLAP under {lock}: attempt {old} lived when {new} had begun, as {by} tells"
        )
    }
}

/// What was seen since the last time it was asked.
#[derive(Debug, Default)]
pub struct Findings {
    /// By attempt.
    pub seen: HashMap<u64, Seen>,
    /// Two at once.
    pub overlaps: Vec<Overlap>,
    /// Two at once, where one was frozen with its machine and the register rejects its token for the other's.
    pub frozen: u64,
    /// What no job should say.
    pub complaints: Vec<String>,
}

#[derive(Default)]
struct State {
    findings: Findings,
    newest: HashMap<String, u64>,
    begun: HashMap<String, u64>,
    freezes: HashSet<u64>,
    over: bool,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The witness.
pub struct Witness {
    shared: Arc<Shared>,
    address: String,
    thread: Option<JoinHandle<()>>,
}

impl Witness {
    /// One that listens at an abstract socket of its own, which any job in this network namespace can reach.
    pub fn new() -> Witness {
        let mut unique = [0; 8];
        rustix::rand::getrandom(&mut unique, rustix::rand::GetRandomFlags::empty())
            .expect("getrandom");
        let address = format!("joblock-campaign-{:016x}", u64::from_ne_bytes(unique));
        let listener = socket_with(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            None,
        )
        .expect("a socket");
        let name = SocketAddrUnix::new_abstract_name(address.as_bytes()).expect("its name");
        bind(&listener, &name).expect("bind");
        listen(&listener, 1024).expect("listen");
        let shared = Arc::new(Shared::default());
        let mut collector = Collector {
            listener,
            shared: Arc::clone(&shared),
            connections: Vec::new(),
            begins: Vec::new(),
            asked: 0,
        };
        let thread = thread::Builder::new()
            .name("witness".into())
            .spawn(move || while collector.turn() {})
            .expect("a thread");
        Witness {
            shared,
            address,
            thread: Some(thread),
        }
    }

    /// Where jobs find it.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The job of `attempt`, once it has begun, or `None` after so long.
    pub fn begun(&self, attempt: u64, limit: Duration) -> Option<Seen> {
        let state = self.shared.state();
        let (state, _) = self
            .shared
            .changed
            .wait_timeout_while(state, limit, |s| !s.findings.seen.contains_key(&attempt))
            .unwrap_or_else(PoisonError::into_inner);
        state.findings.seen.get(&attempt).cloned()
    }

    /// How many jobs have begun under `lock`.
    pub fn count(&self, lock: &str) -> u64 {
        self.shared.state().begun.get(lock).copied().unwrap_or(0)
    }

    /// The whole run of `attempt` is about to be frozen, as its machine would be.
    pub fn freezes(&self, attempt: u64) {
        self.shared.state().freezes.insert(attempt);
    }

    /// It was not, after all.
    pub fn does_not_freeze(&self, attempt: u64) {
        self.shared.state().freezes.remove(&attempt);
    }

    /// Whether nothing was seen that must not be.
    pub fn is_content(&self) -> bool {
        let state = self.shared.state();
        state.findings.overlaps.is_empty() && state.findings.complaints.is_empty()
    }

    /// Whether a job that began is there still.
    pub fn is_watching(&self) -> bool {
        self.shared.state().findings.seen.values().any(|s| !s.gone)
    }

    /// What was seen, at the end.
    pub fn finish(mut self) -> Findings {
        self.end();
        std::mem::take(&mut self.shared.state().findings)
    }

    fn end(&mut self) {
        self.shared.state().over = true;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.end();
    }
}

/// A beginning that waits to be judged: the connection by its place among them.
struct Begin {
    at: usize,
    lock: String,
    attempt: u64,
    token: u64,
}

/// Somebody began while this connection was open.
struct Suspicion {
    new: u64,
    question: u64,
    since: Instant,
}

struct Connection {
    socket: OwnedFd,
    /// The attempt and its lock, once it has begun.
    of: Option<(u64, String)>,
    judged: bool,
    suspicions: Vec<Suspicion>,
    /// Its last word was said: what is left of it is the kernel's.
    bye: bool,
    gone: bool,
}

struct Collector {
    listener: OwnedFd,
    shared: Arc<Shared>,
    connections: Vec<Connection>,
    begins: Vec<Begin>,
    asked: u64,
}

impl Collector {
    /// Waits for something, reads all of it and judges; `false` at the end of the campaign.
    fn turn(&mut self) -> bool {
        let timeout = Timespec::try_from(AGAIN).expect("a short time");
        let mut fds: Vec<_> = self
            .connections
            .iter()
            .map(|c| PollFd::new(&c.socket, PollFlags::IN))
            .collect();
        fds.push(PollFd::new(&self.listener, PollFlags::IN));
        let _ = poll(&mut fds, Some(&timeout));
        drop(fds);
        let shared = Arc::clone(&self.shared);
        let mut state = shared.state();
        while self.read_all(&mut state) {}
        let mut begins = std::mem::take(&mut self.begins);
        begins.sort_by_key(|begin| begin.token);
        let any = !begins.is_empty();
        for begin in begins {
            self.judge(begin, &mut state);
        }
        self.mind_the_silent(&mut state);
        self.connections.retain(|c| !c.gone);
        if any {
            shared.changed.notify_all();
        }
        !state.over
    }

    /// Reads what there is on all connections, new ones too. Says whether somebody began.
    fn read_all(&mut self, state: &mut State) -> bool {
        while let Ok(socket) =
            accept_with(&self.listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)
        {
            self.connections.push(Connection {
                socket,
                of: None,
                judged: false,
                suspicions: Vec::new(),
                bye: false,
                gone: false,
            });
        }
        let before = self.begins.len();
        for at in 0..self.connections.len() {
            self.read(at, state);
        }
        self.begins.len() > before
    }

    fn read(&mut self, at: usize, state: &mut State) {
        let mut bytes = [0; 256];
        loop {
            let connection = &mut self.connections[at];
            if connection.gone {
                return;
            }
            match recv(&connection.socket, &mut bytes, RecvFlags::empty()) {
                Err(Errno::AGAIN) => return,
                Err(Errno::INTR) => {}
                Ok((size, _)) if size > 0 => {
                    let text = String::from_utf8_lossy(&bytes[..size]).into_owned();
                    self.hear(at, &text, state);
                }
                _ => {
                    connection.gone = true;
                    // whoever was suspected was dying when the other began
                    connection.suspicions.clear();
                    if let Some((attempt, _)) = &connection.of
                        && let Some(seen) = state.findings.seen.get_mut(attempt)
                    {
                        seen.gone = true;
                    }
                }
            }
        }
    }

    fn hear(&mut self, at: usize, text: &str, state: &mut State) {
        let words: Vec<&str> = text.split(' ').collect();
        let connection = &mut self.connections[at];
        match (words.as_slice(), &connection.of) {
            (["B", lock, token, run, attempt], None) => {
                let (Ok(token), Ok(attempt)) = (token.parse(), attempt.parse()) else {
                    return state
                        .findings
                        .complaints
                        .push(format!("not a beginning: {text:?}"));
                };
                let pid = socket_peercred(&connection.socket)
                    .map_or(0, |of| of.pid.as_raw_nonzero().get());
                let lock = (*lock).to_owned();
                connection.of = Some((attempt, lock.clone()));
                let seen = Seen {
                    lock: lock.clone(),
                    token,
                    run: (*run).to_owned(),
                    pid,
                    gone: false,
                };
                if state.findings.seen.insert(attempt, seen).is_some() {
                    state
                        .findings
                        .complaints
                        .push(format!("attempt {attempt} began twice"));
                }
                self.begins.push(Begin {
                    at,
                    lock,
                    attempt,
                    token,
                });
            }
            (["Y"], Some(_)) => {
                connection.bye = true;
                self.confirm(at, u64::MAX, "its last word", state);
            }
            ([answer], Some(_)) if answer.starts_with('O') => {
                let question = answer[1..].parse().unwrap_or(0);
                self.confirm(at, question, "its answer", state);
            }
            _ => state
                .findings
                .complaints
                .push(format!("no job's words: {text:?}")),
        }
    }

    /// The suspect ran on after each question up to this one.
    fn confirm(&mut self, at: usize, question: u64, by: &'static str, state: &mut State) {
        let connection = &mut self.connections[at];
        let Some((old, lock)) = connection.of.clone() else {
            return;
        };
        let (confirmed, open): (Vec<_>, Vec<_>) = connection
            .suspicions
            .drain(..)
            .partition(|s| s.question <= question);
        connection.suspicions = open;
        for suspicion in confirmed {
            state.overlap(&lock, old, suspicion.new, by);
        }
    }

    fn judge(&mut self, begin: Begin, state: &mut State) {
        let Begin {
            at,
            lock,
            attempt,
            token,
        } = begin;
        *state.begun.entry(lock.clone()).or_default() += 1;
        state.register(&lock, attempt, token);
        for other in 0..self.connections.len() {
            let old = &mut self.connections[other];
            let same = old.of.as_ref().is_some_and(|(_, of)| *of == lock);
            // of two in one round the later one is judged later, and finds the earlier one
            if other == at || !same || !old.judged || old.gone || old.bye {
                continue;
            }
            self.asked += 1;
            let question = format!("P{}", self.asked);
            if send(&old.socket, question.as_bytes(), SendFlags::NOSIGNAL) != Err(Errno::PIPE) {
                old.suspicions.push(Suspicion {
                    new: attempt,
                    question: self.asked,
                    since: Instant::now(),
                });
            }
        }
        self.connections[at].judged = true;
        // one that is dead by now does not take it
        let _ = send(&self.connections[at].socket, b"G", SendFlags::NOSIGNAL);
    }

    fn mind_the_silent(&mut self, state: &mut State) {
        for at in 0..self.connections.len() {
            let late = self.connections[at]
                .suspicions
                .iter()
                .filter(|s| s.since.elapsed() >= SILENCE)
                .map(|s| s.question)
                .max();
            if let Some(question) = late {
                self.confirm(at, question, "its silence", state);
            }
        }
    }
}

impl State {
    /// The register: what a job writes to would reject this one, and no job may come to that but one that was frozen.
    fn register(&mut self, lock: &str, attempt: u64, token: u64) {
        let newest = self.newest.entry(lock.to_owned()).or_default();
        if token > *newest {
            *newest = token;
        } else if token > 0 && !self.freezes.contains(&attempt) {
            let newest = *newest;
            self.findings.complaints.push(format!(
                "attempt {attempt} began under {lock} with token {token} when {newest} had been seen"
            ));
        }
    }

    fn overlap(&mut self, lock: &str, old: u64, new: u64, by: &'static str) {
        let token = |attempt| {
            self.findings
                .seen
                .get(&attempt)
                .map_or(0, |seen| seen.token)
        };
        let is_rejected =
            |frozen, other| self.freezes.contains(&frozen) && token(frozen) < token(other);
        if is_rejected(old, new) || is_rejected(new, old) {
            self.findings.frozen += 1;
            return;
        }
        self.findings.overlaps.push(Overlap {
            lock: lock.to_owned(),
            old,
            new,
            by,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(jobs: &[(u64, u64)]) -> State {
        let mut state = State::default();
        for (attempt, token) in jobs {
            let seen = Seen {
                lock: "a".into(),
                token: *token,
                run: String::new(),
                pid: 0,
                gone: false,
            };
            state.findings.seen.insert(*attempt, seen);
            state.register("a", *attempt, *token);
        }
        state
    }

    #[test]
    fn a_token_that_is_not_the_newest_is_told() {
        assert!(state(&[(1, 1), (2, 2)]).findings.complaints.is_empty());
        assert_eq!(state(&[(1, 2), (2, 2)]).findings.complaints.len(), 1);
        assert_eq!(state(&[(1, 3), (2, 2)]).findings.complaints.len(), 1);
    }

    #[test]
    fn only_the_older_token_of_a_frozen_run_excuses_two_at_once() {
        let told = |freezes: u64, old: u64, new: u64| {
            let mut state = state(&[(1, 1), (2, 2)]);
            state.freezes.insert(freezes);
            state.overlap("a", old, new, "a test");
            (state.findings.frozen, state.findings.overlaps.len())
        };
        assert_eq!(told(1, 1, 2), (1, 0));
        assert_eq!(told(1, 2, 1), (1, 0));
        assert_eq!(told(2, 1, 2), (0, 1));
        assert_eq!(told(3, 1, 2), (0, 1));
    }
}
