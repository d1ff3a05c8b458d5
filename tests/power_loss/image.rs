//! What may stand on the disk after the power was lost: all that was synced, and of the rest any part.
//!
//! As strict as POSIX is, and stricter than any one file system: data reaches the disk in any order, in sectors, a file's
//! length apart from its data; a name, a removal and a renaming is durable only once its folder was synced. A sync of a file
//! says nothing of its name.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;

use crate::log::{Inode, Op, ROOT};
use crate::random::Random;

/// Which part of what was not synced survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Survives {
    Nothing,
    Everything,
    /// Only the last operation.
    Newest,
    /// All but the last operation.
    AllButNewest,
    /// Names, but no data.
    Names,
    /// Data, but no names.
    Data,
    /// Half of everything, by this seed; the size of a sector.
    Some(u64, u64),
}

/// A folder in memory.
#[derive(Default)]
struct Folder(BTreeMap<String, Inode>);

/// The files of the disk, by their path below the store's folder; `None` for a folder.
pub struct Image(pub BTreeMap<String, Option<Vec<u8>>>);

/// The folder or file that an operation belongs to, in which it is durable.
fn inode_of(op: &Op) -> Option<Inode> {
    match op {
        Op::Make { folder, .. } | Op::Rename { folder, .. } | Op::Remove { folder, .. } => {
            Some(*folder)
        }
        Op::Write { inode, .. }
        | Op::Length { inode, .. }
        | Op::AtLeast { inode, .. }
        | Op::Sync { inode } => Some(*inode),
        Op::Began(_) | Op::Reported(..) => None,
    }
}

fn is_of_names(op: &Op) -> bool {
    matches!(op, Op::Make { .. } | Op::Rename { .. } | Op::Remove { .. })
}

/// Which of the operations are durable for sure.
fn durable(log: &[Op]) -> Vec<bool> {
    let mut synced: HashMap<Inode, usize> = HashMap::new();
    for (at, op) in log.iter().enumerate() {
        if let Op::Sync { inode } = op {
            synced.insert(*inode, at);
        }
    }
    let is = |(at, op)| {
        inode_of(op)
            .and_then(|inode| synced.get(&inode))
            .is_some_and(|&until| at < until)
    };
    log.iter().enumerate().map(is).collect()
}

/// Which operations reach the disk.
struct Chance<'a> {
    log: &'a [Op],
    durable: Vec<bool>,
    survives: Survives,
    newest: Option<usize>,
    random: Random,
    /// Of ten.
    share: u64,
}

impl Chance<'_> {
    /// Whether an operation, or this part of a write, reaches it.
    fn reaches(&mut self, at: usize) -> bool {
        if self.durable[at] {
            return true;
        }
        match self.survives {
            Survives::Nothing => false,
            Survives::Everything => true,
            Survives::Newest => Some(at) == self.newest,
            Survives::AllButNewest => Some(at) != self.newest,
            Survives::Names => is_of_names(&self.log[at]),
            Survives::Data => !is_of_names(&self.log[at]),
            Survives::Some(..) => self.random.below(10) < self.share,
        }
    }

    /// How much of a write may reach it without the rest.
    fn sector(&self) -> u64 {
        if let Survives::Some(_, sector) = self.survives {
            sector
        } else {
            1 << 30
        }
    }
}

#[derive(Default)]
struct Disk {
    folders: HashMap<Inode, Folder>,
    files: HashMap<Inode, Vec<u8>>,
    /// The names as the running system sees them: a renaming that survives takes the file along, whether or not its making did.
    names: HashMap<(Inode, String), Inode>,
}

fn size(n: u64) -> usize {
    usize::try_from(n).expect("a file of the store fits into memory")
}

impl Disk {
    fn entry(&mut self, folder: Inode) -> &mut BTreeMap<String, Inode> {
        &mut self.folders.entry(folder).or_default().0
    }

    fn apply(&mut self, at: usize, op: &Op, chance: &mut Chance<'_>) {
        match op {
            Op::Make {
                folder,
                name,
                inode,
                is_folder,
            } => {
                self.names.insert((*folder, name.clone()), *inode);
                if *is_folder {
                    self.folders.entry(*inode).or_default();
                } else {
                    self.files.entry(*inode).or_default();
                }
                if chance.reaches(at) {
                    self.entry(*folder).insert(name.clone(), *inode);
                }
            }
            Op::Rename { folder, from, to } => {
                let Some(inode) = self.names.remove(&(*folder, from.clone())) else {
                    return;
                };
                self.names.insert((*folder, to.clone()), inode);
                if chance.reaches(at) {
                    self.entry(*folder).remove(from);
                    self.entry(*folder).insert(to.clone(), inode);
                }
            }
            Op::Remove { folder, name } => {
                self.names.remove(&(*folder, name.clone()));
                if chance.reaches(at) {
                    self.entry(*folder).remove(name);
                }
            }
            Op::Length { inode, length } => {
                if chance.reaches(at) {
                    self.files
                        .entry(*inode)
                        .or_default()
                        .resize(size(*length), 0);
                }
            }
            Op::AtLeast { inode, length } => {
                let file = self.files.entry(*inode).or_default();
                if file.len() < size(*length) && chance.reaches(at) {
                    file.resize(size(*length), 0);
                }
            }
            Op::Write {
                inode,
                offset,
                data,
            } => self.write(at, *inode, *offset, data, chance),
            Op::Sync { .. } | Op::Began(_) | Op::Reported(..) => {}
        }
    }

    fn write(
        &mut self,
        at: usize,
        inode: Inode,
        offset: u64,
        data: &[u8],
        chance: &mut Chance<'_>,
    ) {
        let file = self.files.entry(inode).or_default();
        let sector = chance.sector();
        let mut begin = 0;
        while begin < data.len() {
            let position = offset + begin as u64;
            let end = size((position / sector + 1) * sector - offset).min(data.len());
            if chance.reaches(at) {
                let (from, to) = (size(position), size(offset) + end);
                if file.len() < to {
                    file.resize(to, 0);
                }
                file[from..to].copy_from_slice(&data[begin..end]);
            }
            begin = end;
        }
    }
}

/// The disk after a crash at the end of `log`. `syncs_lie`: nothing was made durable by a sync.
pub fn build(log: &[Op], survives: Survives, syncs_lie: bool) -> Image {
    let durable = if syncs_lie {
        vec![false; log.len()]
    } else {
        durable(log)
    };
    let changes = |op: &Op| !matches!(op, Op::Sync { .. } | Op::Began(_) | Op::Reported(..));
    let mut random = match survives {
        Survives::Some(seed, _) => Random(seed),
        _ => Random(0),
    };
    let mut chance = Chance {
        newest: (0..log.len()).rfind(|&at| !durable[at] && changes(&log[at])),
        share: random.below(9) + 1,
        log,
        durable,
        survives,
        random,
    };
    let mut disk = Disk::default();
    disk.folders.insert(ROOT, Folder::default());
    for (at, op) in log.iter().enumerate() {
        disk.apply(at, op, &mut chance);
    }
    let mut image = BTreeMap::new();
    gather(ROOT, "", &disk.folders, &disk.files, &mut image);
    Image(image)
}

fn gather(
    folder: Inode,
    path: &str,
    folders: &HashMap<Inode, Folder>,
    files: &HashMap<Inode, Vec<u8>>,
    image: &mut BTreeMap<String, Option<Vec<u8>>>,
) {
    for (name, inode) in &folders[&folder].0 {
        let path = format!("{path}/{name}");
        if let Some(file) = files.get(inode) {
            image.insert(path, Some(file.clone()));
        } else {
            image.insert(path.clone(), None);
            gather(*inode, &path, folders, files, image);
        }
    }
}

impl Image {
    /// Equal for images that are.
    pub fn sum(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.0.hash(&mut hasher);
        hasher.finish()
    }

    /// Writes it into an empty folder.
    pub fn write(&self, to: &Path) {
        for (path, content) in &self.0 {
            let path = to.join(path.trim_start_matches('/'));
            match content {
                Some(bytes) => fs::write(path, bytes).expect("a file of the image"),
                None => fs::create_dir(path).expect("a folder of the image"),
            }
        }
    }
}
