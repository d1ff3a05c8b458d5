//! The store as its users see it: a row, sightings and a history that change in transactions, lock files made of blocks,
//! and kernel locks. What a transaction does to the row is decided by the product; the statements are played here, and
//! `tests/simulation.rs` shows on a real database that they do the same.

use std::collections::HashMap;
use std::time::Duration;

use crate::lease::blocks;
use crate::lease::heartbeat::Wishes;
use crate::lease::row::Row;
use crate::lease::takeover::{FileId, Sighting};
use crate::name::{RunId, Token};

use super::machine::{Place, Time};
use super::statement;

/// How kernel locks and leases work here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `sqlite:` on a disk of one machine.
    Local,
    /// `sqlite:?shared`, where kernel locks reach every machine.
    Reach,
    /// `sqlite:?shared`, where they don't.
    NoReach,
    /// `lockfile:` on a server that never gives a lock away.
    FileForGood,
    /// `lockfile:` on a server with a lease of its own.
    FileLease,
}

impl Kind {
    pub fn is_lockfile(self) -> bool {
        matches!(self, Kind::FileForGood | Kind::FileLease)
    }

    /// Which machines' kernel locks exclude each other: those with the same number.
    pub fn scope(self, host: usize) -> usize {
        if self == Kind::NoReach { host } else { 0 }
    }
}

/// The holder in a row: the number of its run.
pub type Who = usize;

/// What the history says of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Running,
    Ended,
    Abandoned,
    Refused,
    NotStarted,
}

/// What can be put back from a backup.
#[derive(Debug, Clone, Default)]
pub struct Tables {
    pub row: Option<Row<Who>>,
    pub sightings: HashMap<Place, Sighting>,
    /// In the order in which they were inserted.
    pub history: Vec<(usize, Outcome)>,
}

impl Tables {
    fn row_of(&mut self, run: usize) -> Option<&mut Outcome> {
        let row = self.history.iter_mut().rev().find(|(r, _)| *r == run);
        row.map(|(_, outcome)| outcome)
    }

    /// What the history says of `run`.
    pub fn stands(&self, run: usize) -> Option<Outcome> {
        let row = self.history.iter().rev().find(|(r, _)| *r == run);
        row.map(|(_, outcome)| *outcome)
    }

    /// `rows::upsert`: what has an end keeps it.
    pub fn upsert(&mut self, run: usize, outcome: Outcome) {
        match self.row_of(run) {
            Some(row @ (Outcome::Running | Outcome::Abandoned)) if outcome != Outcome::Running => {
                *row = outcome;
            }
            Some(_) => {}
            None => self.history.push((run, outcome)),
        }
    }

    /// `rows::abandon`.
    pub fn abandon(&mut self, run: usize) {
        if let Some(row @ Outcome::Running) = self.row_of(run) {
            *row = Outcome::Abandoned;
        }
    }

    /// `rows::finish`.
    pub fn finish(&mut self, run: usize, owner: &RunId, token: Option<Token>, outcome: Outcome) {
        self.upsert(run, outcome);
        if let Some(token) = token {
            statement::release(&mut self.row, owner, token);
        }
    }
}

/// A grant's slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    pub token: Token,
    pub owner: RunId,
    pub run: usize,
    pub seq: u64,
    pub released: bool,
    pub ttl: Duration,
}

impl Slot {
    /// As a row of a database that does not know it.
    pub fn into_row(self, granted_on: FileId) -> Row<Who> {
        Row {
            token: self.token,
            owner: self.owner,
            released: self.released,
            seq: 0,
            ttl: self.ttl,
            granted_on,
            holder: self.run,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Block {
    #[default]
    Empty,
    Slot(Slot),
    Token(Token),
}

/// A lock file.
#[derive(Debug, Clone, Default)]
pub struct LockFile {
    pub blocks: [Block; 10],
    /// What a power cut leaves.
    on_disk: [Block; 10],
}

impl LockFile {
    pub fn write(&mut self, block: u64, value: Block, durable: bool) {
        let at = usize::try_from(block).expect("a block");
        self.blocks[at] = value;
        if durable {
            self.on_disk = self.blocks.clone();
        }
    }

    pub fn power_cut(&mut self) {
        self.blocks = self.on_disk.clone();
    }

    pub fn newest(&self) -> Option<&Slot> {
        let mut newest: Option<&Slot> = None;
        for block in &self.blocks {
            if let Block::Slot(slot) = block
                && newest.is_none_or(|n| blocks::newer((slot.token, slot.seq), (n.token, n.seq)))
            {
                newest = Some(slot);
            }
        }
        newest
    }

    fn token(&self, block: u64) -> Option<Token> {
        match self.blocks[usize::try_from(block).expect("a block")] {
            Block::Token(token) => Some(token),
            _ => None,
        }
    }

    pub fn wishes(&self, own: Token) -> Wishes {
        Wishes {
            claimed: self.token(blocks::claim(own)),
            revoked: self.token(blocks::REVOKE),
            stop: self.token(blocks::STOP),
        }
    }
}

pub struct Store {
    pub tables: Tables,
    pub backup: Tables,
    /// Counts how often the database was put back: who opened it before sees that it is another file.
    pub generation: u32,
    pub files: Vec<LockFile>,
    /// The file that stands at the lock's path.
    pub path: Option<usize>,
    pub spool: Vec<(usize, Option<Token>, Outcome)>,
    /// No room until then.
    pub full_until: Time,
    /// Everything takes longer until then.
    pub slow_until: Time,
}

impl Store {
    pub fn new() -> Self {
        Store {
            tables: Tables::default(),
            backup: Tables::default(),
            generation: 0,
            files: Vec::new(),
            path: None,
            spool: Vec::new(),
            full_until: 0,
            slow_until: 0,
        }
    }

    /// The file at the lock's path, made if it is missing.
    pub fn open(&mut self) -> usize {
        *self.path.get_or_insert_with(|| {
            self.files.push(LockFile::default());
            self.files.len() - 1
        })
    }

    pub fn file_id(file: usize) -> FileId {
        FileId {
            dev: 1,
            ino: file as u64 + 10,
        }
    }
}
