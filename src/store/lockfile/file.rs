//! Opening lock files: never through a symbolic link, never one that has another name, never another file
//! than the one that the path names at the moment when its lock was taken.
//!
//! A lock file is never deleted by joblock. One that somebody else deletes or renames protects no more than
//! those who have it open; what is done about that is said where the holder and the observer are.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, StatxFlags, statx};
use rustix::io::Errno;

use crate::clock::Boot;
use crate::lease::takeover::FileId;
use crate::store::{mount, trust};

/// The lowest number for a descriptor that jobs inherit: scripts use 3 to 9.
const HIGH: i32 = 100;

/// How long a client may take to give back what it was lent.
const CALLED_BACK: Duration = Duration::from_secs(5);
const AGAIN: Duration = Duration::from_millis(10);

/// Device and inode of what is open.
pub fn id_of(fd: impl AsFd) -> io::Result<FileId> {
    let stat = rustix::fs::fstat(fd)?;
    Ok(FileId {
        dev: stat.st_dev,
        ino: stat.st_ino,
    })
}

/// Device and inode of what the path names; `None` if it names nothing.
pub fn id_at(path: &Path) -> io::Result<Option<FileId>> {
    match fs::symlink_metadata(path) {
        Ok(meta) => Ok(Some(FileId {
            dev: meta.dev(),
            ino: meta.ino(),
        })),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Has the file server asked for all folders on the way to `path`, from the top: a client goes by what it knows of a folder for up to a
/// minute, and would not see that one of them, or the file, was renamed on another machine. What `path` names is true from then on.
///
/// Not guaranteed: that the folder which is mounted is still where it was; a mount stays with it.
pub fn look_anew(path: &Path) -> io::Result<()> {
    let folders: Vec<_> = path.ancestors().skip(1).collect();
    for folder in folders.into_iter().rev() {
        match statx(
            CWD,
            folder,
            AtFlags::STATX_FORCE_SYNC,
            StatxFlags::BASIC_STATS,
        ) {
            // what is not there, whoever looks next sees; an old kernel, or a container's filter
            Ok(_) | Err(Errno::NOENT | Errno::NOSYS | Errno::PERM) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Which file `path` names now; `far`: a file server has it, and is asked, see [`look_anew`].
pub fn named(path: &Path, far: bool) -> io::Result<Option<FileId>> {
    if far {
        look_anew(path)?;
    }
    id_at(path)
}

/// The mode of files made in `folder`: for its group too if the folder is meant to be shared by it (setgid and group-writable).
pub fn mode_in(folder: &Path) -> io::Result<u32> {
    let mode = fs::metadata(folder)?.permissions().mode();
    Ok(if mode & 0o2020 == 0o2020 {
        0o660
    } else {
        0o600
    })
}

fn folder_of(path: &Path) -> &Path {
    path.parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

/// Makes the empty file `path` with the folder's mode, whatever the umask; `false`: it is there already.
pub fn create(path: &Path) -> io::Result<bool> {
    let mode = mode_in(folder_of(path))?;
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    match open_no_links(path, flags, Mode::from_raw_mode(0o600)) {
        Ok(fd) => {
            // not by open's mode: the umask takes from that
            rustix::fs::fchmod(&fd, Mode::from_raw_mode(mode))?;
            Ok(true)
        }
        Err(Errno::EXIST) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Makes a folder for lock files or spool files in a store's folder, with that folder's habits.
pub fn create_folder(path: &Path) -> io::Result<()> {
    let shared = mode_in(folder_of(path))? == 0o660;
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => {
            // by descriptor: who else may write there may have put something else in its place
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let fd = open_no_links(path, flags, Mode::empty())?;
            let mode = Mode::from_raw_mode(if shared { 0o2770 } else { 0o700 });
            Ok(rustix::fs::fchmod(&fd, mode)?)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

/// Opens without following a link anywhere on the way: the store's path has none, unless somebody has just put one there.
fn open_no_links(path: &Path, flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
    match rustix::fs::openat2(CWD, path, flags, mode, ResolveFlags::NO_SYMLINKS) {
        // before Linux 5.6, and where a container's filter doesn't know the call
        Err(Errno::NOSYS | Errno::PERM) => rustix::fs::openat(CWD, path, flags, mode),
        other => other,
    }
}

/// On the file server itself a file may be lent to a client (an NFSv4 delegation, or a lease of fcntl(2)). To open it is to call it back, and
/// with `O_NONBLOCK`, which keeps FIFOs from blocking, not to wait for that.
fn open_unless_lent(path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    let until = Boot::now() + CALLED_BACK;
    loop {
        match open_no_links(path, flags, Mode::empty()) {
            Err(Errno::AGAIN) if Boot::now() < until => std::thread::sleep(AGAIN),
            other => return other,
        }
    }
}

/// Opens a regular file with one name for reading, and for writing too if `write`; no links, no devices.
pub fn open(path: &Path, write: bool, direct: bool) -> io::Result<File> {
    let access = if write { OFlags::RDWR } else { OFlags::RDONLY };
    let flags = access | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let wanted = if direct {
        flags | OFlags::DIRECT
    } else {
        flags
    };
    let opened = match open_unless_lent(path, wanted) {
        // not every FUSE file system has O_DIRECT
        Err(Errno::INVAL) if direct => open_unless_lent(path, flags),
        other => other,
    };
    let file = match opened {
        Ok(fd) => File::from(fd),
        Err(Errno::LOOP) => {
            return Err(io::Error::other(
                "it is a symbolic link, and lock files are never opened through one: remove it",
            ));
        }
        // what open(2) says of a socket
        Err(Errno::NXIO) => return Err(io::Error::other("it is not a regular file: remove it")),
        Err(error) => return Err(error.into()),
    };
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(io::Error::other("it is not a regular file: remove it"));
    }
    // To read it harms nobody, but what is written might go into another's file.
    if write && meta.nlink() > 1 {
        return Err(io::Error::other(
            "it has more than one name (hard links): remove the others",
        ));
    }
    if write && let Some(why) = trust::put_there_by_another(path, &meta) {
        return Err(io::Error::other(why));
    }
    Ok(file)
}

/// A lock file that is open, not yet locked.
#[derive(Debug)]
pub struct LockFile {
    /// Its path.
    pub path: PathBuf,
    /// Device and inode.
    pub id: FileId,
    /// Its file system is local.
    pub local: bool,
    file: File,
}

impl LockFile {
    /// Opens the lock file at `path`; makes it if it is missing.
    pub fn open_or_create(path: &Path) -> io::Result<Self> {
        loop {
            match open(path, true, false) {
                Ok(file) => {
                    let local = mount::is_local(&file)?;
                    let file = if local { file } else { open(path, true, true)? };
                    // dup before the lock is taken; the lock belongs to both, and the low number is closed at once
                    let file = File::from(rustix::io::fcntl_dupfd_cloexec(&file, HIGH)?);
                    return Ok(LockFile {
                        path: path.to_owned(),
                        id: id_of(&file)?,
                        local,
                        file,
                    });
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    create(path)?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Takes the kernel lock if it is free.
    pub fn try_lock(&self) -> io::Result<bool> {
        match fs2::FileExt::try_lock_exclusive(&self.file) {
            Ok(()) => Ok(true),
            Err(error) if error.raw_os_error() == fs2::lock_contended_error().raw_os_error() => {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Takes the kernel lock, waiting without a limit.
    pub fn lock(&self) -> io::Result<()> {
        loop {
            match fs2::FileExt::lock_exclusive(&self.file) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }

    /// Whether the path still names this file. That it may have more names by now (a backup by hard links) harms no holder.
    ///
    /// A file server is asked, see [`named`].
    pub fn is_at_path(&self) -> io::Result<bool> {
        Ok(named(&self.path, !self.local)? == Some(self.id)
            && rustix::fs::fstat(&self.file)?.st_nlink > 0)
    }

    /// A second descriptor on the same file for reading and writing blocks, which nobody inherits; `None` if the path
    /// names another file by now.
    pub fn second(&self) -> io::Result<Option<File>> {
        match open(&self.path, true, !self.local) {
            Ok(file) => Ok((id_of(&file)? == self.id).then_some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl AsFd for LockFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_lock_excludes_a_second_open_file_and_is_freed_by_closing() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("a.lock");
        let one = LockFile::open_or_create(&path).expect("open");
        let two = LockFile::open_or_create(&path).expect("open");
        assert!(one.as_fd().as_raw_fd() >= HIGH);
        assert_eq!(one.id, two.id);
        assert!(one.try_lock().expect("lock"));
        assert!(!two.try_lock().expect("lock"));
        drop(one);
        assert!(two.try_lock().expect("lock"));
    }

    #[test]
    fn links_folders_and_second_names_are_refused() {
        let dir = tempfile::tempdir().expect("a folder");
        let target = dir.path().join("target");
        fs::write(&target, "").expect("write");
        let link = dir.path().join("link.lock");
        symlink(&target, &link).expect("link");
        assert!(
            LockFile::open_or_create(&link)
                .expect_err("refused")
                .to_string()
                .contains("symbolic link")
        );
        let second = dir.path().join("second.lock");
        fs::hard_link(&target, &second).expect("link");
        assert!(
            LockFile::open_or_create(&second)
                .expect_err("refused")
                .to_string()
                .contains("more than one name")
        );
        assert!(LockFile::open_or_create(dir.path()).is_err());
    }

    #[test]
    fn what_is_there_is_not_made_and_stays_as_it_is() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("a.lock");
        assert!(create(&path).expect("made"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("chmod");
        assert!(!create(&path).expect("there"));
        let mode = fs::metadata(&path).expect("stat").permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
        let folder = dir.path().join("folder");
        create_folder(&folder).expect("made");
        create_folder(&folder).expect("there");
        // nobody can make anything there
        assert!(create_folder(Path::new("/proc/folder")).is_err());
        // and this is not the same as nothing
        assert!(id_at(&path.join("x")).is_err());
        assert_eq!(id_at(&dir.path().join("x")).expect("nothing"), None);
        assert!(look_anew(&path.join("a/b")).is_err());
    }

    #[test]
    fn a_file_that_was_replaced_is_noticed() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("a.lock");
        let one = LockFile::open_or_create(&path).expect("open");
        assert!(one.is_at_path().expect("stat") && one.second().expect("open").is_some());
        fs::remove_file(&path).expect("remove");
        assert!(!one.is_at_path().expect("stat") && one.second().expect("open").is_none());
        let two = LockFile::open_or_create(&path).expect("open");
        assert!(!one.is_at_path().expect("stat") && one.second().expect("open").is_none());
        // it has a name, and this is not it
        fs::rename(&path, dir.path().join("b.lock")).expect("rename");
        LockFile::open_or_create(&path).expect("open");
        assert!(!two.is_at_path().expect("stat") && two.second().expect("open").is_none());
        // what can't be looked at is not told from what is there
        let folder = dir.path().join("folder");
        fs::create_dir(&folder).expect("a folder");
        let three = LockFile::open_or_create(&folder.join("c.lock")).expect("open");
        fs::rename(&folder, dir.path().join("moved")).expect("rename");
        fs::write(&folder, "").expect("a file");
        assert!(three.second().is_err());
    }

    #[test]
    fn what_is_opened_is_a_file_that_nobody_inherits_and_that_holds_nobody_up() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("fifo");
        let mode = Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(CWD, &path, rustix::fs::FileType::Fifo, mode, 0).expect("a FIFO");
        assert!(open(&path, false, false).is_err() && open(&path, true, false).is_err());
        create(&dir.path().join("file")).expect("made");
        let file = open(&dir.path().join("file"), true, false).expect("open");
        let flags = rustix::io::fcntl_getfd(&file).expect("flags");
        assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
        // one that has no O_DIRECT
        let path = format!("/proc/{}/comm", std::process::id());
        assert!(open(Path::new(&path), false, true).is_ok());
    }

    #[test]
    fn a_folder_for_a_group_makes_files_for_the_group() {
        let dir = tempfile::tempdir().expect("a folder");
        let mode = |name: &str| {
            fs::metadata(dir.path().join(name))
                .expect("stat")
                .permissions()
                .mode()
                & 0o7777
        };
        create(&dir.path().join("private")).expect("create");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o2770)).expect("chmod");
        create(&dir.path().join("shared")).expect("create");
        create_folder(&dir.path().join("folder")).expect("create");
        assert_eq!(
            (mode("private"), mode("shared"), mode("folder")),
            (0o600, 0o660, 0o2770)
        );
    }

    #[test]
    fn a_file_that_is_lent_is_called_back() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("a.lock");
        let lent = File::create(&path).expect("create");
        drop(lent);
        let lent = File::open(&path).expect("open");
        // SAFETY: sets a signal's disposition to be ignored, and takes a lease on an open descriptor.
        let taken = unsafe {
            libc::signal(libc::SIGIO, libc::SIG_IGN);
            libc::fcntl(lent.as_raw_fd(), libc::F_SETLEASE, libc::F_RDLCK)
        };
        assert_eq!(taken, 0, "{}", io::Error::last_os_error());
        let later = std::thread::spawn(move || {
            // SAFETY: asks about an open descriptor; once it is to be given back, it is no read lease any more.
            while unsafe { libc::fcntl(lent.as_raw_fd(), libc::F_GETLEASE) } == libc::F_RDLCK {
                std::thread::yield_now();
            }
        });
        assert!(open(&path, true, false).is_ok());
        later.join().expect("no panic");
    }
}
