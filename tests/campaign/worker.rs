//! A worker starts one attempt after the other, does to each what the plan says, and writes down what came of it.

use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::arena::Arena;
use super::plan::{Attempt, PATIENCE, THREE, Torment, Victims};
use super::random::Random;
use super::torment::{self, Family, Freezer, Target};
use super::witness::Witness;

/// How long any attempt may take, its wait and its torment included, before it counts as stuck.
const STUCK: Duration = Duration::from_secs(PATIENCE.as_secs() + 60);

/// What came of an attempt.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is one fact that the verdict asks for"
)]
#[derive(Debug)]
pub struct Tried {
    /// What was planned.
    pub attempt: Attempt,
    /// How front ended; `None`: it was stuck, and was killed.
    pub status: Option<ExitStatus>,
    /// What joblock said.
    pub said: String,
    /// Who was sent SIGKILL by us.
    pub killed: Victims,
    /// Who was stopped by us.
    pub stopped: Victims,
    /// The job had begun when the torment began.
    pub in_the_job: bool,
    /// There was a keeper when front was killed.
    pub had_a_keeper: bool,
    /// The whole of it was frozen.
    pub frozen: bool,
    /// Nothing befell its store meanwhile.
    pub calm: bool,
}

impl Tried {
    /// Its exit code, if front ended by itself.
    pub fn code(&self) -> Option<i32> {
        self.status.and_then(|status| status.code())
    }

    /// The signal that ended front.
    pub fn signal(&self) -> Option<i32> {
        self.status.and_then(|status| status.signal())
    }

    /// Whether anything was done to it.
    pub fn was_tormented(&self) -> bool {
        self.killed | self.stopped != 0 || self.frozen
    }
}

/// Makes the attempt.
pub fn make(arena: &Arena, witness: &Witness, attempt: Attempt, turn: u64) -> Tried {
    let mut tried = Tried {
        attempt,
        status: None,
        said: String::new(),
        killed: 0,
        stopped: 0,
        in_the_job: false,
        had_a_keeper: true,
        frozen: false,
        calm: true,
    };
    let calm = arena.calm.now();
    let command = || arena.command(&tried.attempt);
    let mut child = loop {
        match arena.hosts[tried.attempt.host].spawn(command()) {
            Ok(child) => break child,
            // a host that is just losing power starts nothing
            Err(error) => assert!(
                !arena.calm.was_kept_since(calm),
                "joblock can't be started: {error}"
            ),
        }
    };
    let front = i32::try_from(child.id()).expect("a pid");
    match tried.attempt.torment {
        Torment::None => {}
        Torment::KillEarly(at, victims) => {
            thread::sleep(at);
            kill_early(&mut tried, front, victims, turn);
        }
        Torment::StopEarly(at, victims, pause) => {
            thread::sleep(at);
            let family = Family::begun(front);
            let (targets, hit) = family.select(victims & THREE, turn);
            tried.stopped = hit;
            torment::signal(&targets, Signal::STOP);
            thread::sleep(pause);
            torment::signal(&targets, Signal::CONT);
        }
        _ => {
            if let Some(job) = its_job(witness, tried.attempt.id, &mut child) {
                tried.in_the_job = true;
                torment_the_job(&mut tried, witness, front, job, turn);
            }
        }
    }
    tried.status = wait(&mut child, front);
    tried.calm = arena.calm.was_kept_since(calm);
    if let Some(mut stderr) = child.stderr.take() {
        let _ = stderr.read_to_string(&mut tried.said);
    }
    tried
}

fn kill_early(tried: &mut Tried, front: i32, victims: Victims, turn: u64) {
    let family = Family::begun(front);
    tried.had_a_keeper = family.has_a_keeper();
    let (targets, hit) = family.select(victims & THREE, turn);
    tried.killed = hit;
    torment::signal(&targets, Signal::KILL);
}

/// The pid of the attempt's job, once it has begun; `None`: it did not.
fn its_job(witness: &Witness, attempt: u64, child: &mut Child) -> Option<i32> {
    let end = Instant::now() + STUCK;
    while Instant::now() < end {
        if let Some(seen) = witness.begun(attempt, Duration::from_millis(20)) {
            return Some(seen.pid);
        }
        if !matches!(child.try_wait(), Ok(None)) {
            return None;
        }
    }
    None
}

fn torment_the_job(tried: &mut Tried, witness: &Witness, front: i32, job: i32, turn: u64) {
    // not only in its first millisecond
    thread::sleep(Duration::from_micros(turn % 60_000));
    let family = Family::whole(front, job);
    match tried.attempt.torment {
        Torment::Kill(victims, at_once) => {
            let (targets, hit) = family.select(victims, turn);
            tried.killed = hit;
            if at_once {
                tried.stopped = hit;
                torment::stop(&targets);
            }
            torment::signal(&targets, Signal::KILL);
        }
        Torment::Stop(victims, pause) => {
            let (targets, hit) = family.select(victims, turn);
            tried.stopped = hit;
            torment::signal(&targets, Signal::STOP);
            thread::sleep(pause);
            torment::signal(&targets, Signal::CONT);
        }
        Torment::StopKill(victims, pause) => {
            let (targets, hit) = family.select(victims, turn);
            tried.stopped = hit;
            tried.killed = hit;
            torment::signal(&targets, Signal::STOP);
            thread::sleep(pause);
            torment::signal(&targets, Signal::KILL);
        }
        Torment::Freeze(pause) => {
            witness.freezes(tried.attempt.id);
            let name = format!("campaign-{}-{}", std::process::id(), tried.attempt.id);
            if let Some(freezer) = Freezer::freeze(&name, front, job) {
                tried.frozen = true;
                thread::sleep(pause);
                freezer.thaw();
            } else {
                witness.does_not_freeze(tried.attempt.id);
            }
        }
        Torment::None | Torment::KillEarly(..) | Torment::StopEarly(..) => {}
    }
}

/// Waits for front's end; `None`: it did not come, and front was killed.
fn wait(child: &mut Child, front: i32) -> Option<ExitStatus> {
    let in_time = Target::of(front).is_none_or(|front| front.is_gone_within(STUCK));
    if !in_time {
        let _ = child.kill();
    }
    let status = child.wait().expect("wait");
    in_time.then_some(status)
}

/// One attempt after the other on one lock, until it is enough.
pub fn work(
    arena: &Arena,
    witness: &Witness,
    (seed, me): (u64, u64),
    lock: usize,
    torments: u64,
    is_enough: &(dyn Fn() -> bool + Sync),
) -> Vec<Tried> {
    let mut random = Random::of(seed, &[me]);
    let mut all = Vec::new();
    while !is_enough() {
        let id = (me << 32) | all.len() as u64;
        let attempt = Attempt::next(
            &mut random,
            id,
            arena.kind,
            lock,
            arena.hosts.len(),
            torments,
        );
        let turn = random.next();
        all.push(make(arena, witness, attempt, turn));
    }
    all
}
