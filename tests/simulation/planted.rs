//! Bugs to be planted in a copy of the lease's code, or of the simulated processes where the bug lies there, one at a time. The
//! simulator must find each.
//!
//! Not planted, since something else covers them, so that no rule is broken: BOOTTIME compared across boots of one machine (it begins at
//! zero again, so less time shows than has passed); the look that ends a wait stamped after it instead of before (what the holder did
//! in between shows in the look after the claim); a guard whose polite grace is longer than its deadline (its own timer ends it); a renewal of the row that
//! compares no token (a run whose grant got no clear answer gives it back and ends, so the row never has two grants of one run, and its id says as much). And too
//! rare to be found here: neighbouring grants that write the same blocks of the lock file, a heartbeat's number that is used again after an
//! error, and a takeover in a lockfile store without its claim. `lease::blocks`, `lease::fence`, `lease::holder` and `lease::file_taker` have
//! tables for these.
//!
//! The history's statements are none of the lease's: they are played by the simulator, as are those who write by them. So what doubles a row, or loses one,
//! is planted there; in the database the UNIQUE of the run's id makes it one row.

/// A bug: in these files these texts are replaced.
pub struct Bug {
    pub name: &'static str,
    pub changes: &'static [Change],
}

/// A text that stands exactly once in a file, and another.
pub struct Change {
    pub file: &'static str,
    pub from: &'static str,
    pub to: &'static str,
}

macro_rules! bug {
    ($name:literal, $($file:literal: $from:literal => $to:literal),+ $(,)?) => {
        Bug { name: $name, changes: &[$(Change { file: $file, from: $from, to: $to }),+] }
    };
}

pub const BUGS: &[Bug] = &[
    bug!("the grace is counted from the answer, not from before the question",
        "tests/simulation/holding.rs": ".map(|sent| Deadline::of(holding.lease.timing(), sent));"
            => ".map(|_| Deadline::of(holding.lease.timing(), now));"),
    bug!("takers count a lease on the wall clock",
        "tests/simulation/keeper.rs": "let before = self.clock(run);"
            => "let before = self.hosts[self.runs[run].place.host].wall_clock(self.now);",
        "tests/simulation/keeper.rs": "    fn taking(&mut self, run: usize, mut taker: Box<Taker<Who>>, answer: Answer) {\n        let now = self.clock(run);"
            => "    fn taking(&mut self, run: usize, mut taker: Box<Taker<Who>>, answer: Answer) {\n        let now = self.hosts[self.runs[run].place.host].wall_clock(self.now);"),
    bug!("BOOTTIME is compared across time namespaces",
        "tests/simulation/effects.rs": ".sightings.get(&place).copied()" => ".sightings.get(&super::machine::Place { container: 0, ..place }).copied()",
        "tests/simulation/effects.rs": ".sightings.insert(place, *sighting);" => ".sightings.insert(super::machine::Place { container: 0, ..place }, *sighting);"),
    bug!("BOOTTIME is compared across machines",
        "tests/simulation/effects.rs": ".sightings.get(&place).copied()" => ".sightings.get(&super::machine::Place { host: 0, boot: 0, container: 0 }).copied()",
        "tests/simulation/effects.rs": ".sightings.insert(place, *sighting);" => ".sightings.insert(super::machine::Place { host: 0, boot: 0, container: 0 }, *sighting);"),
    bug!("a lease that lapsed is revived by a late heartbeat",
        "src/lease/heartbeat.rs": "    now < timing.term_at(sent)\n" => "    now >= sent || timing.ttl() > std::time::Duration::ZERO\n"),
    bug!("renewals go on until the kill",
        "src/lease/heartbeat.rs": "    now < timing.term_at(sent)\n" => "    now < timing.kill_at(sent)\n"),
    bug!("no sweep",
        "src/lease/taker.rs": "Decision::TakeAtOnce | Decision::TakeLapsed => Step::Clear(old.clone())," => "Decision::TakeAtOnce | Decision::TakeLapsed => self.cleared(false, after),"),
    bug!("the lock is released when the first process has ended, before the rest is reaped",
        "tests/simulation/guard.rs": "        if !r.tree_lives() {\n            return self.report(run);" => "        if !r.tree[0].alive {\n            return self.report(run);"),
    bug!("no owner is compared at the release",
        "tests/simulation/statement.rs": "pub fn release<H>(row: &mut Option<Row<H>>, owner: &RunId, token: Token) -> bool {\n    match row {\n        Some(row) if row.owner == *owner && row.token == token && !row.released => {"
            => "pub fn release<H>(row: &mut Option<Row<H>>, owner: &RunId, token: Token) -> bool {\n    match row {\n        Some(row) if (row.owner == *owner || row.token >= token) && !row.released => {"),
    bug!("unlock deletes what stands about the lock, its token too",
        "tests/simulation/faults.rs": "                self.store.files[file].write(block, Block::Token(token), true);"
            => "                self.store.files[file].write(block, Block::Token(token), true);\n                if kind == 12 {\n                    self.store.tables.row = None;\n                    self.store.files[file] = super::store::LockFile::default();\n                }"),
    bug!("a row is renewed whoever has it",
        "tests/simulation/statement.rs": "pub fn renew<H>(row: &mut Option<Row<H>>, owner: &RunId, token: Token) -> bool {\n    match row {\n        Some(row) if row.owner == *owner && row.token == token && !row.released => {"
            => "pub fn renew<H>(row: &mut Option<Row<H>>, owner: &RunId, token: Token) -> bool {\n    match row {\n        Some(row) if row.owner == *owner || row.token >= token => {"),
    bug!("the lock is taken without the kernel lock",
        "tests/simulation/kernel.rs": "        if !taken {\n            self.runs[run].lock = Some(KernelLock {" => "        let taken = taken && file > 1_000;\n        if !taken {\n            self.runs[run].lock = Some(KernelLock {"),
    bug!("the TTL is shorter than F+G+K",
        "src/lease/timing.rs": "            ninth: ttl / 9," => "            ninth: ttl / 6,"),
    bug!("a lock file that was replaced proves as much as the one that was granted on",
        "src/lease/takeover.rs": "Some(true) => seen.mark.file == seen.granted_on," => "Some(true) => true,"),
    bug!("over a network a kernel lock counts as proof",
        "src/lease/takeover.rs": "    if proven && seen.local_file {" => "    if proven || seen.same_boot == Some(false) {"),
    bug!("no second look before the start",
        "src/lease/fence.rs": "let late = self.deadline.is_some_and(|d| now >= d.term);" => "let late = self.deadline.is_some_and(|d| now > d.term + self.kill_after && now < self.began);"),
    bug!("a commit whose answer was an error counts as none",
        "src/lease/taker.rs": "Written::Unknown => Step::GiveBack," => "Written::Unknown => Step::Over(Over::Again),"),
    bug!("a taker takes its claim back",
        "tests/simulation/keeper.rs": "            Over::Until(until) => {\n"
            => "            Over::Until(until) => {\n                if let (Some(lock), Some(row)) = (self.runs[run].lock, self.store.tables.row.clone()) {\n                    let claim = crate::lease::blocks::claim(row.token);\n                    self.store.files[lock.file].write(claim, super::store::Block::Empty, true);\n                }\n"),
    bug!("a heartbeat reads before it writes",
        "src/lease/holder.rs": "By::Kernel | By::Slot => self.write_slot()," => "By::Kernel | By::Slot => Step::ReadFile,",
        "src/lease/holder.rs": "    pub fn slot_written(&self) -> Step {\n        Step::ReadFile" => "    pub fn slot_written(&mut self) -> Step {\n        if self.by != By::Slot {\n            return Step::ReadFile;\n        }\n        self.sent = self.sending;\n        Step::Over(Beat::Renewed)",
        "src/lease/holder.rs": "        if matches!(beat, Beat::Renewed | Beat::Stop) {\n            self.sent" => "        if self.by == By::Slot && beat == Beat::Renewed {\n            return self.write_slot();\n        }\n        if matches!(beat, Beat::Renewed | Beat::Stop) {\n            self.sent"),
    bug!("a sighting is stamped before the look",
        "src/lease/takeover.rs": "                first: after,\n            },\n            until: after + seen.ttl,\n        },\n    }\n}\n" => "                first: before,\n            },\n            until: before + seen.ttl,\n        },\n    }\n}\n",
        "src/lease/takeover.rs": "before: Boot, after: Boot) -> Decision {" => "before: Boot, _after: Boot) -> Decision {"),
    bug!("a sighting counts although the holder has renewed since",
        "src/lease/takeover.rs": "sighting.mark == seen.mark && sighting.first <= before" => "sighting.mark.token == seen.mark.token && sighting.first <= before"),
    bug!("the guard keeps its first deadline",
        "src/lease/fence.rs": "    pub fn renewed(&mut self, deadline: Option<Deadline>) {\n        self.deadline = deadline;" => "    pub fn renewed(&mut self, deadline: Option<Deadline>) {\n        self.deadline = self.deadline.or(deadline);"),
    bug!("the guard forgets its deadline at the first renewal",
        "src/lease/fence.rs": "    pub fn renewed(&mut self, deadline: Option<Deadline>) {\n        self.deadline = deadline;" => "    pub fn renewed(&mut self, deadline: Option<Deadline>) {\n        self.deadline = deadline.filter(|_| self.deadline.is_none());"),
    bug!("the guard has no timer of its own",
        "src/lease/fence.rs": "        self.deadline.map(|d| d.suicide)" => "        self.deadline.map(|d| d.suicide).filter(|_| self.began > Boot(u64::MAX - 1))"),
    bug!("a stop releases the lock at once",
        "tests/simulation/holding.rs": "        if matches!(beat, Beat::Renewed | Beat::Stop) {\n            self.renewed" => "        if beat == Beat::Stop {\n            return self.finish(run);\n        }\n        if matches!(beat, Beat::Renewed | Beat::Stop) {\n            self.renewed"),
    bug!("a grant that only the lock file knows is not looked at",
        "src/lease/row.rs": "(Some(row), Some(file)) if row.token < file.token => Some(file)," => "(Some(row), Some(file)) if row.token.max(file.token) == Token(0) => Some(file),"),
    bug!("no second look after the claim",
        "src/lease/taker.rs": "Some((old, _)) => Step::LookAgain(old.clone())," => "Some((old, _)) => Step::Grant {\n                over: Some(old.clone()),\n                file: self.file.clone(),\n            },"),
    bug!("a claim is not heeded",
        "src/lease/heartbeat.rs": "claimed >= own" => "claimed > own"),
    bug!("renewals in the row are overlooked at the grant",
        "src/lease/row.rs": "(now.token, &now.owner, now.seq) == (self.token, &self.owner, self.seq)" => "(now.token, &now.owner) == (self.token, &self.owner)"),
    bug!("lockfile: who was frozen between lock and grant is granted it all the same",
        "src/lease/file_taker.rs": "    pub fn written(&self) -> Step<H> {\n        Step::ReadLock" => "    pub fn written(&self) -> Step<H> {\n        Step::Over(Over::Granted {\n            token: self.token,\n            sent: self.sent,\n        })",
        "tests/simulation/effects.rs": "!lock.taken_away && (!granting || granted)" => "granting || granted || !lock.taken_away"),
    bug!("lockfile: the history takes a grant that is not the newest",
        "src/lease/file_taker.rs": "row.map(|row| row.token) <= seen" => "row.map(|row| row.token) <= seen || row.is_some()"),
    bug!("lockfile: a later grant on another file is not looked at",
        "src/lease/file_taker.rs": "return (taker, Step::Look(row.clone()));" => "let step = taker.clear_or_write(before);\n            return (taker, step);"),
    bug!("lockfile: whoever is given a lock that its server forgot takes it at once",
        "src/lease/file_taker.rs": "!found.released && !found.proven && later.is_none()" => "found.released && !found.proven && later.is_none()"),
    bug!("a lapsed lease is taken over only 30 s after its TTL",
        "src/lease/takeover.rs": "if before.since(sighting.first) >= seen.ttl => Decision::TakeLapsed" => "if before.since(sighting.first) >= seen.ttl + Duration::from_secs(30) => Decision::TakeLapsed"),
    bug!("an end that comes twice, from the keeper and from the spool, is another row",
        "tests/simulation/store.rs": "match self.row_of(run) {" => "match self.row_of(run).filter(|row| **row != Outcome::Ended) {"),
    bug!("a refused attempt that the database does not take is not kept in the spool",
        "tests/simulation/keeper.rs": "                self.spool_or_tell(run, Outcome::NotStarted);\n                self.keeper_is_through(run);" => "                self.keeper_is_through(run);"),
];
