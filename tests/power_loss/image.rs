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

/// The disk after a crash at the end of `log`. `syncs_lie`: nothing was made durable by a sync.
pub fn build(log: &[Op], survives: Survives, syncs_lie: bool) -> Image {
    let durable = if syncs_lie {
        vec![false; log.len()]
    } else {
        durable(log)
    };
    let newest = (0..log.len()).rfind(|&at| {
        !durable[at] && !matches!(log[at], Op::Sync { .. } | Op::Began(_) | Op::Reported(..))
    });
    let mut random = match survives {
        Survives::Some(seed, _) => Random(seed),
        _ => Random(0),
    };
    // of ten
    let chance = random.below(9) + 1;
    let mut folders: HashMap<Inode, Folder> = HashMap::from([(ROOT, Folder::default())]);
    let mut files: HashMap<Inode, Vec<u8>> = HashMap::new();
    // a renaming that survives takes the file along, whether or not its making did
    let mut names: HashMap<(Inode, String), Inode> = HashMap::new();
    for (at, op) in log.iter().enumerate() {
        let mut lasts = |part: bool| match survives {
            _ if durable[at] => true,
            Survives::Nothing => false,
            Survives::Everything => true,
            Survives::Newest => Some(at) == newest,
            Survives::AllButNewest => Some(at) != newest,
            Survives::Names => is_of_names(op),
            Survives::Data => !is_of_names(op),
            // a write of data is asked about sector by sector
            Survives::Some(..) => part && random.below(10) < chance,
        };
        match op {
            Op::Make {
                folder,
                name,
                inode,
                is_folder,
            } => {
                names.insert((*folder, name.clone()), *inode);
                if *is_folder {
                    folders.entry(*inode).or_default();
                } else {
                    files.entry(*inode).or_default();
                }
                if lasts(true) {
                    folders
                        .entry(*folder)
                        .or_default()
                        .0
                        .insert(name.clone(), *inode);
                }
            }
            Op::Rename { folder, from, to } => {
                let inode = names.remove(&(*folder, from.clone()));
                if let Some(inode) = inode {
                    names.insert((*folder, to.clone()), inode);
                    if lasts(true) {
                        let folder = folders.entry(*folder).or_default();
                        folder.0.remove(from);
                        folder.0.insert(to.clone(), inode);
                    }
                }
            }
            Op::Remove { folder, name } => {
                names.remove(&(*folder, name.clone()));
                if lasts(true) {
                    folders.entry(*folder).or_default().0.remove(name);
                }
            }
            Op::Length { inode, length } => {
                if lasts(true) {
                    files
                        .entry(*inode)
                        .or_default()
                        .resize(usize::try_from(*length).expect("a length"), 0);
                }
            }
            Op::AtLeast { inode, length } => {
                let file = files.entry(*inode).or_default();
                let length = usize::try_from(*length).expect("a length");
                if file.len() < length && lasts(true) {
                    file.resize(length, 0);
                }
            }
            Op::Write {
                inode,
                offset,
                data,
            } => {
                let sector = if let Survives::Some(_, sector) = survives {
                    sector
                } else {
                    1 << 30
                };
                let file = files.entry(*inode).or_default();
                let mut begin = 0;
                while begin < data.len() {
                    let at = offset + begin as u64;
                    let end = usize::try_from((at / sector + 1) * sector - offset)
                        .expect("a length")
                        .min(data.len());
                    if lasts(true) {
                        let to = usize::try_from(at).expect("a length");
                        let until = to + end - begin;
                        if file.len() < until {
                            file.resize(until, 0);
                        }
                        file[to..until].copy_from_slice(&data[begin..end]);
                    }
                    begin = end;
                }
            }
            Op::Sync { .. } | Op::Began(_) | Op::Reported(..) => {}
        }
    }
    let mut image = BTreeMap::new();
    gather(ROOT, "", &folders, &files, &mut image);
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
