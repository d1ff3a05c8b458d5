//! Whether anybody but root can change what root would read: the file, and every folder on the way
//! to it, since whoever may write a folder may put another file in its place.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The first of the file and its folders that others can write, and who they are.
pub fn reach_of_others(path: &Path, file: &File) -> io::Result<Option<(PathBuf, String)>> {
    if let Some(who) = writers(&file.metadata()?, false) {
        return Ok(Some((path.to_owned(), who)));
    }
    // The folder that the path names, and the one that a symbolic link leads to.
    let named = path
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    for start in [
        named.canonicalize()?,
        path.canonicalize()?
            .parent()
            .unwrap_or(Path::new("/"))
            .to_owned(),
    ] {
        for (height, folder) in start.ancestors().enumerate() {
            // In a sticky folder such as /tmp nobody can rename what is root's (inode(7)).
            if let Some(who) = writers(&folder.metadata()?, height > 0) {
                return Ok(Some((folder.to_owned(), who)));
            }
        }
    }
    Ok(None)
}

fn writers(meta: &Metadata, sticky_is_enough: bool) -> Option<String> {
    const STICKY: u32 = 0o1000;
    const GROUP: u32 = 0o020;
    const OTHERS: u32 = 0o002;
    if meta.uid() != 0 {
        return Some(format!("it belongs to user id {}", meta.uid()));
    }
    if sticky_is_enough && meta.mode() & STICKY != 0 {
        return None;
    }
    match (meta.mode() & OTHERS != 0, meta.mode() & GROUP != 0) {
        (true, _) => Some("everybody can write it".to_owned()),
        (false, true) => Some(format!("the group with id {} can write it", meta.gid())),
        (false, false) => None,
    }
}
