//! What goes wrong: to processes, machines, the way to the store, and the store.

use crate::lease::blocks;
use crate::name::Token;

use super::excuses::Excuse;
use super::machine::{MS, SECOND, Time};
use super::run::{Keeper, ROLES, Role};
use super::store::{Block, Kind};
use super::world::{Event, World, say};

const KINDS: u64 = 20;

impl World {
    /// How long a disturbance lasts: around a lease, shorter or longer.
    fn a_while(&mut self) -> Time {
        let ttl = self.profile.base_ttl * SECOND;
        match self.chance.below(4) {
            0 => self.chance.below(ttl / 10),
            1 => self.chance.below(ttl / 2),
            2 => self.chance.below(2 * ttl),
            _ => self.chance.below(5 * ttl),
        }
    }

    /// Mostly the run that has the lock, if one has.
    fn a_victim(&mut self) -> Option<usize> {
        if !self.living.is_empty() && self.chance.permille(600) {
            let at = self.chance.index(self.living.len());
            return Some(self.living[at]);
        }
        if self.active.is_empty() {
            return None;
        }
        let at = self.chance.index(self.active.len());
        Some(self.active[at])
    }

    fn a_role(&mut self) -> Role {
        ROLES[self.chance.index(3)]
    }

    pub fn fault(&mut self) {
        let kind = self.chance.below(KINDS);
        if self.profile.faults & (1 << kind) == 0 {
            return;
        }
        self.tallies.faults += 1;
        let victim = self.a_victim();
        match (kind, victim) {
            (0, Some(run)) => self.kill(run, Role::Front),
            (1, Some(run)) => self.kill(run, Role::Keeper),
            (2, Some(run)) => self.kill(run, Role::Guard),
            (3, Some(run)) => {
                for role in &ROLES[..3] {
                    if self.chance.permille(600) {
                        self.kill(run, *role);
                    }
                }
            }
            (4, Some(run)) => {
                let (role, lasts) = (self.a_role(), self.a_while());
                self.stop(run, role, lasts);
            }
            (5, Some(run)) => {
                let lasts = self.a_while();
                for role in &ROLES[..3] {
                    if self.chance.permille(700) {
                        self.stop(run, *role, lasts);
                    }
                }
            }
            (17, Some(run)) => {
                let members = self.runs[run].tree.len();
                if members > 0 {
                    let member = self.chance.index(members);
                    self.kill_member(run, member);
                }
            }
            (6 | 7 | 8 | 11 | 16 | 19, victim) => self.fault_of_a_machine(kind, victim),
            (9 | 10 | 12..=15, _) => self.fault_of_the_store(kind),
            _ => {}
        }
    }

    fn fault_of_a_machine(&mut self, kind: u64, victim: Option<usize>) {
        let host = match victim {
            Some(run) => self.runs[run].place.host,
            None => self.chance.index(self.hosts.len()),
        };
        if !self.hosts[host].up {
            return;
        }
        let (now, lasts) = (self.now, self.a_while());
        match kind {
            6 | 11 if self.hosts[host].frozen.is_none() => {
                say!(
                    self,
                    usize::MAX,
                    "host",
                    "{host} is frozen{}",
                    if kind == 11 {
                        ", and its clock with it"
                    } else {
                        ""
                    }
                );
                self.hosts[host].freeze(now, now + lasts, kind == 11);
                self.at(lasts, Event::Thaw(host, now + lasts));
            }
            7 if self.hosts[host].frozen.is_none()
                && (self.profile.kind != Kind::Local || self.database_is_current()) =>
            {
                self.power_cut(host, lasts);
            }
            8 => self.cut(host, lasts),
            19 => {
                for host in 0..self.hosts.len() {
                    if self.chance.permille(500) {
                        self.cut(host, lasts);
                    }
                }
            }
            16 => {
                let hours = i64::try_from(self.chance.below(11)).expect("small") - 5;
                self.hosts[host].wall += hours * 3_600_000_000_000;
                let shows = self.hosts[host].wall_clock(now);
                say!(
                    self,
                    usize::MAX,
                    "host",
                    "{host}: its wall clock shows {} s",
                    shows.0 / SECOND
                );
            }
            _ => {}
        }
    }

    fn cut(&mut self, host: usize, lasts: Time) {
        if self.profile.kind != Kind::Local && self.now >= self.hosts[host].cut_until {
            say!(self, usize::MAX, "host", "{host} is cut off from the store");
            self.hosts[host].cut_since = self.now;
            self.hosts[host].cut_until = self.now + lasts;
        }
    }

    fn power_cut(&mut self, host: usize, lasts: Time) {
        say!(self, usize::MAX, "host", "{host} loses its power");
        self.hosts[host].up = false;
        self.hosts[host].down_since = self.now;
        for run in self.active.clone() {
            if self.runs[run].place.host == host {
                for process in &mut self.runs[run].processes {
                    process.alive = false;
                }
                for member in &mut self.runs[run].tree {
                    member.alive = false;
                }
                self.living.retain(|r| *r != run);
            }
        }
        if self.profile.kind == Kind::Local {
            for file in &mut self.store.files {
                file.power_cut();
            }
        }
        self.at(lasts + SECOND, Event::Reboot(host));
    }

    fn fault_of_the_store(&mut self, kind: u64) {
        let lasts = self.a_while();
        match kind {
            9 if self.profile.kind == Kind::FileForGood && self.chance.permille(500) => {
                say!(self, usize::MAX, "server", "forgets all locks");
                self.server_forgets();
            }
            9 => self.store.slow_until = self.now + lasts,
            10 => self.lock_file_is_deleted(),
            12 | 13 => {
                let (Some(file), Some(token)) = (self.store.path, self.newest) else {
                    return;
                };
                say!(
                    self,
                    usize::MAX,
                    "operator",
                    "{} {token}",
                    if kind == 12 { "unlock" } else { "stop" }
                );
                let block = if kind == 12 {
                    blocks::REVOKE
                } else {
                    blocks::STOP
                };
                self.store.files[file].write(block, Block::Token(token), true);
            }
            14 => self.store.full_until = self.now + lasts,
            15 if self.chance.permille(500) => self.store.backup = self.store.tables.clone(),
            15 => self.database_is_put_back(),
            _ => {}
        }
    }

    /// The database knows the newest token. While it does not, the lock file is all that does.
    fn database_is_current(&self) -> bool {
        self.store.tables.row.as_ref().map(|row| row.token) == self.newest
    }

    fn lock_file_is_deleted(&mut self) {
        if !self.database_is_current() || self.store.path.is_none() {
            return;
        }
        say!(self, usize::MAX, "outsider", "deletes the lock file");
        self.store.path = None;
        for run in self.active.clone() {
            // whoever has not locked it yet finds the one that is put in its place
            if self.runs[run].lock.is_some() {
                self.runs[run].watch.replaced.get_or_insert(self.now);
            }
            let known = self.store.tables.row.as_ref();
            let unknown = known.is_none_or(|row| row.holder != run);
            let spooled = matches!(self.runs[run].keeper, Keeper::FileSpooled(_));
            if self.profile.kind.is_lockfile()
                && unknown
                && (spooled || self.runs[run].watch.granted_at.is_some())
            {
                // its grant did not come into the history either
                self.runs[run].watch.excused = Some(Excuse::GrantUnknown);
                self.tokens_unknown = true;
            }
        }
    }

    /// A grant of a lockfile store goes into the spool. Whoever was at it on a lock file that was deleted is known to neither file
    /// nor history then.
    pub fn unknown_to_the_history(&mut self, run: usize) {
        let file = self.runs[run].lock.map(|lock| lock.file);
        for other in self.active.clone() {
            let theirs = self.runs[other].lock.map(|lock| lock.file);
            if theirs.is_some() && theirs != file {
                self.runs[other].watch.excused = Some(Excuse::GrantUnknown);
                self.tokens_unknown = true;
            }
        }
    }

    /// A stopped process writes late, over a slot of the next holder but one. That costs something only while the database, which
    /// was put back from a backup, does not know that one.
    pub fn hides(&mut self, file: usize, block: u64, token: Token) {
        if self.database_is_current() {
            return;
        }
        let at = usize::try_from(block).expect("a block");
        if let Block::Slot(hidden) = &self.store.files[file].blocks[at]
            && hidden.token > token
        {
            self.runs[hidden.run].watch.excused = Some(Excuse::TokenHidden);
            self.tokens_unknown = true;
        }
    }

    /// A stopped taker's claim lands on that on a later grant, whose holder does not hear of it then.
    pub fn hides_a_claim(&mut self, file: usize, token: Token) {
        let at = usize::try_from(blocks::claim(token)).expect("a block");
        if let Block::Token(hidden) = self.store.files[file].blocks[at]
            && hidden > token
        {
            for other in self.active.clone() {
                self.runs[other].watch.claim_hidden |= self.runs[other].token == Some(hidden);
            }
        }
    }

    /// Promised is only that tokens go on growing, as far as the lock file knows them, and what the kernel's locks give.
    fn database_is_put_back(&mut self) {
        let file = self
            .store
            .path
            .and_then(|file| self.store.files[file].newest());
        if file.map(|slot| slot.token) < self.newest {
            return;
        }
        say!(
            self,
            usize::MAX,
            "outsider",
            "puts the database back from a backup"
        );
        self.store.tables = self.store.backup.clone();
        self.store.generation += 1;
        self.rows = self.store.tables.history.len();
        self.kept.clear();
        for run in &mut self.runs {
            run.watch.history_lost = true;
        }
        for run in self.active.clone() {
            let r = &mut self.runs[run];
            if r.watch.replaced.is_some() {
                r.watch.excused = Some(Excuse::PutBackWithoutLockFile);
            }
        }
    }

    /// Somebody takes the lock over: now and then those who were silent for so long are back just then.
    pub fn others_are_back(&mut self, run: usize) {
        if self.quiet.is_some() || !self.chance.permille(400) {
            return;
        }
        for other in self.active.clone() {
            if other == run {
                continue;
            }
            let soon = self.chance.below(40 * MS);
            let host = self.runs[other].place.host;
            if self.runs[other].processes[Role::Keeper as usize].stopped {
                self.at(soon, Event::Continue(other, Role::Keeper));
            }
            if let Some(frozen) = self.hosts[host].frozen {
                self.at(soon, Event::Thaw(host, frozen));
            }
            if self.is_cut(host) {
                self.hosts[host].cut_until = self.now + soon;
            }
        }
    }

    /// Now and then a machine is frozen just when it was given a lock that the server takes away again, and is back
    /// when the next one is given it.
    pub fn locked_on_a_server(&mut self, run: usize) {
        if self.profile.faults & (1 << 18) == 0 || self.quiet.is_some() {
            return;
        }
        self.others_are_back(run);
        let (now, host) = (self.now, self.runs[run].place.host);
        if self.hosts[host].frozen.is_none() && self.chance.permille(50) {
            let lasts = self.a_while();
            say!(self, usize::MAX, "host", "{host} is frozen with a lock");
            self.hosts[host].freeze(now, now + lasts, false);
            self.at(lasts, Event::Thaw(host, now + lasts));
        }
    }

    /// Now and then a process is struck just while it is at the store.
    pub fn harm_at_the_store(&mut self, run: usize, role: Role, lasts: Time) {
        if role != Role::Keeper || self.profile.faults & (1 << 18) == 0 || self.quiet.is_some() {
            return;
        }
        let has_it = matches!(
            self.runs[run].keeper,
            Keeper::Taking(_) | Keeper::FileTaking(..)
        );
        if !self.chance.permille(if has_it { 30 } else { 4 }) {
            return;
        }
        if lasts > 0 && self.chance.permille(700) {
            let pause = self.a_while();
            self.stop(run, Role::Keeper, pause);
        } else {
            self.kill(run, Role::Keeper);
        }
    }
}
