//! Kernel locks, who gives them away, and what a sweep finds.

use super::machine::SECOND;
use super::run::{Answer, KernelLock, Run};
use super::store::Kind;
use super::world::World;

impl World {
    pub fn try_lock(&mut self, run: usize, file: usize) -> bool {
        self.server_looks();
        let scope = self.profile.kind.scope(self.runs[run].place.host);
        let taken = self.active.iter().any(|&other| {
            other != run
                && self.runs[other].holds_lock()
                && self.runs[other]
                    .lock
                    .is_some_and(|lock| (lock.file, lock.scope) == (file, scope))
        });
        if !taken {
            self.runs[run].lock = Some(KernelLock {
                file,
                scope,
                keeper: true,
                guard: false,
                taken_away: false,
                forgotten: None,
            });
            if self.profile.kind == Kind::FileLease {
                self.locked_on_a_server(run);
            }
        }
        !taken
    }

    /// What `supervise::tree` finds and ends on the machine of `run`, in its pid namespace.
    pub fn sweep(&mut self, run: usize, old: usize) -> Option<Answer> {
        let visible = self.runs[old].place == self.runs[run].place;
        if !visible {
            return Some(Answer::Alive(false));
        }
        if self.runs[old].any_of_three() {
            return Some(Answer::Alive(true));
        }
        for member in 0..self.runs[old].tree.len() {
            self.kill_member(old, member);
        }
        (!self.runs[old].tree_lives()).then_some(Answer::Alive(false))
    }

    /// The server gives up the locks of a machine that was started anew, or was silent for its lease.
    pub fn locks_of_a_machine_that_is_back(&mut self, host: usize) {
        for run in self.active.clone() {
            let r: &mut Run = &mut self.runs[run];
            if r.place.host == host
                && r.place.boot != self.hosts[host].boot
                && let Some(lock) = &mut r.lock
            {
                lock.taken_away = true;
            }
        }
    }

    /// The server starts anew, and nobody is told to ask for their locks again.
    pub fn server_forgets(&mut self) {
        for run in self.active.clone() {
            if let Some(lock) = &mut self.runs[run].lock {
                lock.forgotten.get_or_insert(self.now);
            }
        }
    }

    /// A server with a lease: who was silent for as long has its locks no more, from then on.
    fn server_looks(&mut self) {
        if self.profile.kind != Kind::FileLease {
            return;
        }
        let lease = self.profile.base_ttl * SECOND;
        for run in self.active.clone() {
            let host = &self.hosts[self.runs[run].place.host];
            let silent = match (self.is_cut(self.runs[run].place.host), host.frozen) {
                (true, _) => host.cut_since,
                (_, Some(_)) => host.frozen_since,
                _ if !host.up => host.down_since,
                _ => continue,
            };
            // the machine's kernel renews by itself, two thirds of a lease apart
            let contact = host.contact.max(silent.saturating_sub(lease * 2 / 3));
            let silent = self.now.saturating_sub(contact);
            if silent >= lease
                && let Some(lock) = &mut self.runs[run].lock
            {
                lock.taken_away = true;
            }
        }
    }
}
