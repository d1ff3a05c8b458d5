//! One attempt and, if it is granted, its run: front, keeper and guard as simulated processes, and the job's tree.
//! What they decide about the lock is the product's code; what they do besides is played as `supervise` does it.

use std::collections::VecDeque;
use std::time::Duration;

use crate::clock::Boot;
use crate::lease::fence::{Cause, Deadline, Fence};
use crate::lease::file_taker::{self, FileTaker};
use crate::lease::heartbeat::Wishes;
use crate::lease::holder::{self, FileRead, Lease};
use crate::lease::row::Row;
use crate::lease::takeover::{Mark, Sighting};
use crate::lease::taker::{self, Taker, Written};
use crate::name::{RunId, Token};

use super::excuses::Excuse;
use super::machine::{Place, Time};
use super::store::{Outcome, Slot, Who};

/// Which of a run's own processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Front,
    Keeper,
    Guard,
    /// Front's child that records an end where the keeper is gone.
    Recorder,
}

pub const ROLES: [Role; 4] = [Role::Front, Role::Keeper, Role::Guard, Role::Recorder];

#[derive(Debug, Clone, Copy, Default)]
pub struct Process {
    pub alive: bool,
    pub stopped: bool,
    /// When it last went on after it had been stopped.
    pub able_since: Time,
    /// Its wake-up that counts, and when it is; earlier ones don't.
    pub alarm: u64,
    pub next: Time,
}

/// A process of the job's tree.
#[derive(Debug, Clone)]
pub struct Member {
    pub alive: bool,
    /// It has the locked descriptor.
    pub has_lock: bool,
    pub ignores_term: bool,
    /// SIGKILL was sent; it dies then.
    pub dies_at: Option<Time>,
}

#[derive(Debug, Clone)]
pub enum Message {
    // to front
    Granted(Token),
    NotRun,
    Finished,
    Ended,
    // to the keeper
    Drained,
    // to the guard
    Start(Option<Deadline>, Option<Boot>),
    Renewed(Option<Deadline>, Option<Boot>),
    End(Cause),
    Recorded,
}

/// What the store is asked.
#[derive(Debug, Clone)]
pub enum Ask {
    Open,
    TryLock(usize),
    /// Who has the lock, as others see it.
    Inspect,
    /// The path still names the file; its newest slot; for a lockfile store the row too.
    Begin(usize),
    Grant {
        over: Option<Row<Who>>,
        file: Option<Row<Who>>,
    },
    GiveBack,
    Look(Row<Who>),
    Remember(Sighting),
    /// End what a run left here.
    Sweep(Who),
    Claim(Token),
    Mark(Row<Who>),
    /// A lockfile store's grant.
    WriteGrant(Token),
    WriteSlot {
        seq: u64,
        durable: bool,
    },
    ReadLock,
    ReadFile,
    RenewRow,
    ReadWishes,
    /// What was seen of a row, for a lockfile store.
    Seen(Row<Who>),
    /// The grant of a lockfile store in its history.
    Begun(Token, Option<Who>),
    Finish(Outcome),
    Attempted(Outcome),
    /// What is left of this run's own tree, by the keeper.
    EndTree,
}

/// What it answers.
#[derive(Debug, Clone)]
pub enum Answer {
    Failed,
    Done,
    File(usize),
    Locked(bool),
    Holder(Option<Who>),
    /// `None`: the path names another file by now.
    Begun(Option<(Option<Slot>, Option<Row<Who>>)>),
    Written(Written<Who>),
    Looked(Box<taker::Looked<Who>>),
    Alive(bool),
    Mark(Mark),
    FileRead(FileRead),
    Ours(bool),
    StillLocked(bool),
    Wishes(Wishes),
}

/// Where the keeper is.
pub enum Keeper {
    Begin,
    Opening,
    Locking,
    Inspecting,
    SweepingForLock,
    Beginning(Boot),
    Taking(Box<Taker<Who>>),
    /// The same in a lockfile store; the run that it ended, and when it sent its grant.
    FileTaking(Box<FileTaker<Who>>, Option<Who>),
    /// The grant stands, the history is being written.
    FileBegun(Boot),
    FileSpooled(Boot),
    FileBeginning(Boot),
    GivingBack,
    Pausing,
    Refusing,
    Holding(Box<Holding>),
    Finishing,
    Over,
}

/// The keeper while it has the lock.
pub struct Holding {
    pub lease: Lease,
    pub next_beat: Boot,
    pub renewing: bool,
    pub ending: Option<Cause>,
    pub ended: bool,
    pub drained: bool,
    pub drain_by: Option<Boot>,
    /// When the store took the slot of the heartbeat that goes on.
    pub slot_taken: Time,
}

#[expect(
    clippy::struct_excessive_bools,
    reason = "as in the product: each comes at its own time"
)]
pub struct Guard {
    pub fence: Fence,
    pub front_gone: bool,
    /// The fence let the job begin; the fork is on its way.
    pub spawning: bool,
    pub started: bool,
    pub over: bool,
    pub recorded: bool,
    pub reported: bool,
    pub give_up: Option<Boot>,
}

#[expect(
    clippy::struct_excessive_bools,
    reason = "as in the product: each comes at its own time"
)]
#[derive(Default)]
pub struct Front {
    pub token: Option<Token>,
    pub not_run: bool,
    pub ended: bool,
    pub drained: bool,
    pub finished: bool,
    pub give_up: Time,
}

/// What the job is going to do.
#[derive(Debug, Clone)]
pub struct Plan {
    pub ttl: Duration,
    /// How long the attempt waits.
    pub wait: Time,
    pub lasts: Time,
    pub children: usize,
    pub children_last: Time,
    pub children_have_lock: bool,
    pub ignores_term: bool,
    pub kill_after: Duration,
}

/// A kernel lock, taken through one open file.
#[derive(Debug, Clone, Copy, Default)]
pub struct KernelLock {
    pub file: usize,
    pub scope: usize,
    pub keeper: bool,
    pub guard: bool,
    /// The file server took it away, which I/O shows.
    pub taken_away: bool,
    /// The file server knows nothing of it any more, and nobody is told.
    pub forgotten: Option<Time>,
}

pub struct Run {
    pub owner: RunId,
    pub place: Place,
    pub plan: Plan,
    pub processes: [Process; 4],
    pub inbox: [VecDeque<Message>; 4],
    pub keeper: Keeper,
    /// The keeper waits for the store, or for a sweep.
    pub busy: bool,
    pub guard: Guard,
    /// Counts the settings of the guard's own timer.
    pub suicide: u64,
    pub front: Front,
    pub until: Time,
    pub unnamed_until: Option<Time>,
    /// The taker's last step.
    pub step: Pending,
    /// The token in the history when a lockfile store's taker began.
    pub seen: Option<Token>,
    /// When the heartbeat that goes on was begun.
    pub sending: Option<Boot>,
    pub recorded_by_another: bool,
    /// Its lock file may be another's by now.
    pub lost_file: bool,
    /// The store's generation when it was opened.
    pub generation: u32,
    pub lock: Option<KernelLock>,
    pub token: Option<Token>,
    pub tree: Vec<Member>,
    pub watch: Watch,
}

/// What a taker waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pending {
    Grant,
    Claim,
    Another,
}

/// What the rules must know of a run, and nobody in the world does.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is one thing that happened or not"
)]
#[derive(Debug, Clone, Default)]
pub struct Watch {
    pub began: Option<Time>,
    /// When the last renewal that succeeded was sent, on its own clock and as true time; at first, the grant.
    pub sent: Option<Boot>,
    pub leased: bool,
    /// It became a lease then, as its lock file was gone.
    pub leased_since: Time,
    /// The store took the slot of its last heartbeat that succeeded then.
    pub slot_taken: Time,
    /// The row was renewed then.
    pub row_renewed: Time,
    /// What the guard was last told that its deadline counts from.
    pub told: Option<Boot>,
    /// Its grant could not be given back.
    pub kept: bool,
    /// Somebody took its lapsed lease over, having first looked then.
    pub taken_over: Option<Time>,
    /// The claim on its grant was overwritten by one on a grant before.
    pub claim_hidden: bool,
    /// It had the kernel lock, and read its clock before it looked, then.
    pub asked: Time,
    /// What it found when it looked: for [`Watch::taken_over`].
    pub looked: Time,
    /// Nothing is promised about its overlaps any more, and why.
    pub excused: Option<Excuse>,
    /// Nobody could record its end, and it said so.
    pub told_loss: bool,
    /// The keeper lived to its own end.
    pub keeper_finished: bool,
    pub recorder_finished: bool,
    pub granted_at: Option<Time>,
    /// Its lock file was deleted while it lived, first then.
    pub replaced: Option<Time>,
    /// The database was put back from a backup.
    pub history_lost: bool,
}

impl Run {
    pub fn process(&mut self, role: Role) -> &mut Process {
        &mut self.processes[role as usize]
    }

    pub fn alive(&self, role: Role) -> bool {
        self.processes[role as usize].alive
    }

    pub fn tree_lives(&self) -> bool {
        self.tree.iter().any(|m| m.alive)
    }

    pub fn is_gone(&self) -> bool {
        !self.processes.iter().any(|p| p.alive) && !self.tree_lives()
    }

    /// One of the three is alive: [`Role::Recorder`] is none of them.
    pub fn any_of_three(&self) -> bool {
        self.processes[..3].iter().any(|p| p.alive)
    }

    /// Whether somebody still holds its kernel lock.
    pub fn holds_lock(&self) -> bool {
        self.lock.is_some_and(|lock| {
            !lock.taken_away
                && lock.forgotten.is_none()
                && (lock.keeper && self.alive(Role::Keeper)
                    || lock.guard && self.alive(Role::Guard)
                    || self.tree.iter().any(|m| m.alive && m.has_lock))
        })
    }
}

/// What the holder's next step is, as a question to the store.
pub fn ask_of(step: holder::Step) -> Result<Ask, holder::Beat> {
    Ok(match step {
        holder::Step::WriteSlot { seq, durable } => Ask::WriteSlot { seq, durable },
        holder::Step::ReadLock => Ask::ReadLock,
        holder::Step::ReadFile => Ask::ReadFile,
        holder::Step::RenewRow => Ask::RenewRow,
        holder::Step::ReadWishes => Ask::ReadWishes,
        holder::Step::Over(beat) => return Err(beat),
    })
}

/// What the taker's next step is, as a question to the store.
pub fn ask_of_taker(step: taker::Step<Who>) -> Result<Ask, taker::Over> {
    Ok(match step {
        taker::Step::Grant { over, file } => Ask::Grant { over, file },
        taker::Step::GiveBack => Ask::GiveBack,
        taker::Step::Look(old) => Ask::Look(old),
        taker::Step::Remember(sighting) => Ask::Remember(sighting),
        taker::Step::Clear(old) => Ask::Sweep(old.holder),
        taker::Step::Claim(token) => Ask::Claim(token),
        taker::Step::LookAgain(old) => Ask::Mark(old),
        taker::Step::Over(over) => return Err(over),
    })
}

/// And a lockfile store's taker's.
pub fn ask_of_file_taker(step: file_taker::Step<Who>) -> Result<Ask, taker::Over> {
    Ok(match step {
        file_taker::Step::Look(row) => Ask::Seen(row),
        file_taker::Step::Remember(sighting) => Ask::Remember(sighting),
        file_taker::Step::Clear(old) => Ask::Sweep(old),
        file_taker::Step::Claim(token) => Ask::Claim(token),
        file_taker::Step::LookAgain(row) => Ask::Mark(row),
        file_taker::Step::Write(token) => Ask::WriteGrant(token),
        file_taker::Step::ReadLock => Ask::ReadLock,
        file_taker::Step::Over(over) => return Err(over),
    })
}
