//! What a question does to the store, at one moment, and what the answer is.

use std::time::Duration;

use crate::lease::blocks;
use crate::lease::file_taker::{Found, may_begin, watch};
use crate::lease::holder::FileRead;
use crate::lease::row::{self, Row};
use crate::lease::takeover::{Mark, Unreleased};
use crate::lease::taker::{Looked, Written};

use super::machine::{MS, SECOND, Time};
use super::run::{Answer, Ask, Keeper, Role};
use super::statement;
use super::store::{Block, Kind, Outcome, Slot, Store, Who};
use super::world::{Event, World, name, say};

/// How a step fails although, or because, its process did all right.
enum Trouble {
    None,
    /// It does not happen.
    Failed,
    /// It happens, and the answer is an error all the same.
    Unknown,
}

impl Ask {
    /// It changes the database.
    fn is_transaction(&self) -> bool {
        matches!(
            self,
            Ask::Grant { .. }
                | Ask::GiveBack
                | Ask::Remember(_)
                | Ask::RenewRow
                | Ask::Begun(..)
                | Ask::Finish(_)
                | Ask::Attempted(_)
        )
    }

    fn uses_database(&self) -> bool {
        self.is_transaction() || matches!(self, Ask::Inspect | Ask::Look(_) | Ask::Seen(_))
    }

    fn writes(&self) -> bool {
        self.is_transaction()
            || matches!(
                self,
                Ask::Claim(_) | Ask::WriteGrant(_) | Ask::WriteSlot { .. }
            )
    }

    /// Nothing of the store's.
    fn is_local(&self) -> bool {
        matches!(self, Ask::Sweep(_) | Ask::EndTree)
    }
}

impl World {
    pub fn is_cut(&self, host: usize) -> bool {
        self.profile.kind != Kind::Local && self.now < self.hosts[host].cut_until
    }

    /// How long until what hangs is tried again.
    pub fn hangs(&mut self, host: usize) -> Time {
        let left = self.hosts[host].cut_until - self.now;
        left.min(5 * SECOND) + self.chance.below(SECOND)
    }

    pub fn applies(&mut self, event: Event) {
        let Event::Apply {
            run,
            role,
            ref ask,
            by_itself,
            late,
        } = event
        else {
            return;
        };
        let place = self.runs[run].place;
        let exists = self.runs[run].alive(role)
            && self.hosts[place.host].up
            && self.hosts[place.host].boot == place.boot;
        if !exists {
            // a write that was on its way to the server. A transaction takes a process to the end, and a kernel lock
            // that reaches the server is given back behind the write
            if late
                && !by_itself
                && ask.writes()
                && !ask.is_transaction()
                && self.profile.kind == Kind::NoReach
            {
                say!(self, run, &name(role), "late: {ask:?}");
                self.effect(run, ask);
            }
            return;
        }
        if by_itself && self.runs[run].processes[role as usize].stopped {
            return self.hold(run, role, event);
        }
        if self.is_cut(place.host) && !ask.is_local() {
            if self.profile.hard_mount {
                let delay = self.hangs(place.host);
                return self.at(delay, event);
            }
            let delay = self
                .chance
                .delay(SECOND, self.profile.base_ttl * SECOND / 2);
            let failed = Event::Answered(run, role, Box::new(Answer::Failed));
            // the request may have reached the server before; one for a database that is not there any more changes nothing
            if late
                && ask.writes()
                && !self.is_for_another_database(run, ask)
                && self.chance.permille(100)
            {
                self.effect(run, ask);
            }
            return self.at(delay, failed);
        }
        if !ask.is_local() {
            self.hosts[place.host].contact = self.now;
        }
        let answer = match self.trouble(run, ask) {
            Trouble::Failed => Answer::Failed,
            Trouble::Unknown => {
                self.effect(run, ask);
                Answer::Failed
            }
            Trouble::None => match self.effect(run, ask) {
                Some(answer) => answer,
                // not yet: processes that were killed take a while
                None => return self.at(20 * MS, event),
            },
        };
        say!(self, run, &name(role), "{ask:?} -> {answer:?}");
        let (usual, most) = match self.profile.kind {
            Kind::Local => (MS, 20 * MS),
            _ => (5 * MS, self.profile.base_ttl * SECOND / 30),
        };
        let delay = self.chance.delay(usual, most);
        self.at(delay, Event::Answered(run, role, Box::new(answer)));
    }

    /// It was opened before another one was put in its place.
    fn is_for_another_database(&self, run: usize, ask: &Ask) -> bool {
        ask.uses_database() && self.runs[run].generation != self.store.generation
    }

    fn trouble(&mut self, run: usize, ask: &Ask) -> Trouble {
        if ask.is_local() {
            return Trouble::None;
        }
        let full = self.now < self.store.full_until;
        if self.is_for_another_database(run, ask) || ask.is_transaction() && full {
            return Trouble::Failed;
        }
        if !self.chance.permille(self.profile.errors) {
            return Trouble::None;
        }
        if ask.writes() && self.chance.permille(500) {
            Trouble::Unknown
        } else {
            Trouble::Failed
        }
    }

    /// `None`: ask again soon.
    #[expect(clippy::too_many_lines, reason = "one arm for each question")]
    fn effect(&mut self, run: usize, ask: &Ask) -> Option<Answer> {
        let place = self.runs[run].place;
        Some(match ask {
            Ask::Open => Answer::File(self.store.open()),
            Ask::TryLock(file) => Answer::Locked(self.try_lock(run, *file)),
            Ask::Inspect => Answer::Holder(self.holder_for_others()),
            Ask::Begin(file) => Answer::Begun((self.store.path == Some(*file)).then(|| {
                self.runs[run].watch.looked = self.now;
                (
                    self.store.files[*file].newest().cloned(),
                    self.store.tables.row.clone(),
                )
            })),
            Ask::Grant { over, file } => self.grant(run, over.as_ref(), file.as_ref()),
            Ask::GiveBack => {
                statement::give_back(&mut self.store.tables.row, &self.runs[run].owner);
                Answer::Done
            }
            Ask::Look(old) | Ask::Seen(old) => {
                if !self.profile.kind.is_lockfile() {
                    self.fold();
                }
                self.runs[run].watch.looked = self.now;
                Answer::Looked(Box::new(Looked {
                    row: self.store.tables.row.clone(),
                    known: self.store.tables.sightings.get(&place).copied(),
                    seen: self.unreleased(run, old),
                }))
            }
            Ask::Remember(sighting) => {
                self.store.tables.sightings.insert(place, *sighting);
                self.sighting_kept(run, sighting.mark);
                Answer::Done
            }
            Ask::Sweep(old) => return self.sweep(run, *old),
            Ask::Claim(token) => {
                let file = self.own_file(run)?;
                self.hides_a_claim(file, *token);
                self.store.files[file].write(blocks::claim(*token), Block::Token(*token), true);
                Answer::Done
            }
            Ask::Mark(old) => Answer::Mark(self.mark(run, old).0),
            Ask::WriteGrant(token) => {
                self.runs[run].token = Some(*token);
                self.write_slot(run, 1, true)
            }
            Ask::WriteSlot { seq, durable } => self.write_slot(run, *seq, *durable),
            Ask::ReadLock => {
                let granting = matches!(
                    self.runs[run].keeper,
                    Keeper::FileTaking(..) | Keeper::FileSpooled(_)
                );
                Answer::StillLocked(self.runs[run].lock.is_some_and(|lock| {
                    let newest = self.store.files[lock.file].newest();
                    let granted = self.store.path == Some(lock.file)
                        && newest.is_some_and(|slot| slot.run == run);
                    !lock.taken_away && (!granting || granted)
                }))
            }
            Ask::ReadFile => {
                let file = self.own_file(run)?;
                let token = self.runs[run].token?;
                Answer::FileRead(FileRead {
                    still_locked: self.runs[run].lock.is_some_and(|lock| !lock.taken_away),
                    wishes: self.store.files[file].wishes(token),
                    at_path: self.store.path == Some(file),
                })
            }
            Ask::RenewRow => {
                let (owner, token) = (self.runs[run].owner.clone(), self.runs[run].token?);
                let ours = statement::renew(&mut self.store.tables.row, &owner, token);
                if ours {
                    self.runs[run].watch.row_renewed = self.now;
                }
                Answer::Ours(ours)
            }
            Ask::ReadWishes => {
                let token = self.runs[run].token?;
                let file = self.store.path.map(|file| &self.store.files[file]);
                Answer::Wishes(file.map(|file| file.wishes(token)).unwrap_or_default())
            }
            Ask::Begun(..) if !may_begin(self.store.tables.row.as_ref(), self.runs[run].seen) => {
                Answer::Ours(false)
            }
            Ask::Begun(token, old) => {
                if let Some(old) = old {
                    self.store.tables.abandon(*old);
                }
                let file = self.own_file(run)?;
                let r = &self.runs[run];
                statement::grant(
                    &mut self.store.tables.row,
                    *token,
                    r.owner.clone(),
                    r.plan.ttl,
                    Store::file_id(file),
                    run,
                );
                self.store.tables.sightings.clear();
                self.kept.clear();
                self.store.tables.upsert(run, Outcome::Running);
                Answer::Done
            }
            Ask::Finish(outcome) => {
                self.released(run);
                let (owner, token) = (self.runs[run].owner.clone(), self.runs[run].token);
                self.store.tables.finish(run, &owner, token, *outcome);
                if self.profile.kind.is_lockfile() {
                    self.release_in_file(run);
                }
                self.fold();
                Answer::Done
            }
            Ask::Attempted(outcome) => {
                self.refused(run);
                self.store.tables.upsert(run, *outcome);
                self.fold();
                Answer::Done
            }
            Ask::EndTree => {
                for member in 0..self.runs[run].tree.len() {
                    self.kill_member(run, member);
                }
                if self.runs[run].tree_lives() {
                    return None;
                }
                Answer::Alive(false)
            }
        })
    }

    fn own_file(&self, run: usize) -> Option<usize> {
        self.runs[run].lock.map(|lock| lock.file)
    }

    fn fold(&mut self) {
        for (run, token, outcome) in std::mem::take(&mut self.store.spool) {
            let owner = self.runs[run].owner.clone();
            self.store.tables.finish(
                run,
                &owner,
                token.filter(|_| outcome != Outcome::Running),
                outcome,
            );
        }
    }

    fn holder_for_others(&self) -> Option<Who> {
        let row = self.store.tables.row.as_ref();
        if !self.profile.kind.is_lockfile() {
            return row.filter(|row| !row.released).map(|row| row.holder);
        }
        let slot = self
            .store
            .path
            .and_then(|file| self.store.files[file].newest());
        match crate::lease::file_taker::later(row, slot.map(|slot| slot.token)) {
            Some(row) => (!row.released).then_some(row.holder),
            None => slot.filter(|slot| !slot.released).map(|slot| slot.run),
        }
    }

    pub fn found(&self, run: usize, slot: &Slot) -> Found<Who> {
        Found {
            token: slot.token,
            owner: slot.owner.clone(),
            released: slot.released,
            seq: slot.seq,
            ttl: slot.ttl,
            proven: self.runs[slot.run].place == self.runs[run].place,
            holder: slot.run,
        }
    }

    /// And how long it must not change.
    fn mark(&self, run: usize, old: &Row<Who>) -> (Mark, Duration) {
        let file = self.runs[run].lock.map_or(0, |lock| lock.file);
        let slot = self.store.files[file].newest();
        if self.profile.kind.is_lockfile() {
            let found = slot.map(|slot| self.found(run, slot));
            return watch(old, found.as_ref(), Store::file_id(file));
        }
        let slot = slot.map(|slot| (slot.token, &slot.owner, slot.seq));
        (old.mark(slot, Store::file_id(file)), old.ttl)
    }

    fn unreleased(&self, run: usize, old: &Row<Who>) -> Unreleased {
        let local = self.profile.kind == Kind::Local;
        let (mark, ttl) = self.mark(run, old);
        Unreleased {
            mark,
            granted_on: old.granted_on,
            same_boot: Some(self.runs[old.holder].place.same_boot(self.runs[run].place)),
            local_file: local,
            local_store: local,
            ttl,
        }
    }

    fn grant(&mut self, run: usize, over: Option<&Row<Who>>, file: Option<&Row<Who>>) -> Answer {
        let token = match row::may_grant(self.store.tables.row.as_ref(), file, over) {
            Ok(token) => token,
            Err(other) => return Answer::Written(Written::Held(other.clone())),
        };
        if let Some(old) = over {
            self.store.tables.abandon(old.holder);
            let row = self.store.tables.row.as_ref();
            if row
                .is_none_or(|row| row.token < old.token || row.owner == old.owner && !row.released)
            {
                self.taken_over(run, old.holder);
            }
        }
        let Some(file) = self.own_file(run) else {
            return Answer::Failed;
        };
        let r = &self.runs[run];
        statement::grant(
            &mut self.store.tables.row,
            token,
            r.owner.clone(),
            r.plan.ttl,
            Store::file_id(file),
            run,
        );
        self.store.tables.sightings.clear();
        self.kept.clear();
        self.store.tables.upsert(run, Outcome::Running);
        self.granted(run, token);
        Answer::Written(Written::Granted(token))
    }

    /// A local store's first slot, which nobody waits for.
    pub fn write_first_slot(&mut self, run: usize) {
        self.write_slot(run, 0, false);
    }

    fn write_slot(&mut self, run: usize, seq: u64, durable: bool) -> Answer {
        let (Some(file), Some(token)) = (self.own_file(run), self.runs[run].token) else {
            return Answer::Failed;
        };
        let r = &mut self.runs[run];
        if let Keeper::Holding(holding) = &mut r.keeper {
            holding.slot_taken = self.now;
        }
        let slot = Slot {
            token,
            owner: r.owner.clone(),
            run,
            seq,
            released: false,
            ttl: r.plan.ttl,
        };
        // over a network, what the server has taken is as good as on its disk
        let durable = durable || self.profile.kind != Kind::Local;
        let block = blocks::slot(token, seq);
        self.hides(file, block, token);
        self.store.files[file].write(block, Block::Slot(slot), durable);
        Answer::Done
    }

    fn release_in_file(&mut self, run: usize) {
        let Some(file) = self.own_file(run) else {
            return;
        };
        // whoever records in the keeper's place finds the file locked by the guard
        if !self.runs[run].alive(Role::Keeper) || self.runs[run].lost_file {
            return;
        }
        let newest = self.store.files[file].newest().cloned();
        if let Some(slot) = newest.filter(|slot| slot.run == run) {
            let released = Slot {
                released: true,
                seq: slot.seq + 1,
                ..slot
            };
            let block = blocks::slot(released.token, released.seq);
            self.store.files[file].write(block, Block::Slot(released), true);
        }
    }
}
