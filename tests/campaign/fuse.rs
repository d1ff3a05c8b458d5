//! A mount whose flock(2) ends at it: a FUSE file system that passes everything on to a folder, but asks the kernel for
//! POSIX locks only, so that flock(2) stays the mount's own. Two of them on one folder are two hosts on one file server whose kernel
//! locks don't reach each other, while the locks that SQLite uses, and the data, do.
//!
//! Nothing is cached: what one mount writes the other one reads. It can be made to hang, or to fail.
#![expect(
    clippy::redundant_closure_call,
    reason = "the macro's closure is what `?` returns from"
)]

use std::collections::HashMap;
use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use fuser::{
    BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, InitFlags, KernelConfig, LockOwner, MountOption, OpenFlags, RenameFlags,
    ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyLock,
    ReplyOpen, ReplyStatfs, ReplyWrite, Request, Session, TimeOrNow, WriteFlags,
};
use rustix::fs::{AtFlags, Dir, FallocateFlags, Mode, OFlags, Stat};

/// Nothing is remembered by the kernel.
const NO_TIME: Duration = Duration::ZERO;

/// Whether this machine has FUSE; says it loudly if not.
pub fn is_there() -> bool {
    let is = Path::new("/dev/fuse").exists();
    if !is {
        println!("NOT RUN: there is no /dev/fuse here (modprobe fuse), so there are no far stores");
    }
    is
}

/// What a mount does to those who use it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    /// It works.
    Well,
    /// Nothing is answered, as when the server is gone.
    Hangs,
    /// Whatever writes fails with this error; reading works, unless it is `EIO`.
    Fails(i32),
}

/// How to change a mount's mood.
#[derive(Clone)]
pub struct Moods(Arc<(Mutex<Mood>, Condvar)>);

fn hold<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Moods {
    /// In good mood.
    pub fn new() -> Moods {
        Moods(Arc::new((Mutex::new(Mood::Well), Condvar::new())))
    }

    /// From now on.
    pub fn set(&self, mood: Mood) {
        *hold(&self.0.0) = mood;
        self.0.1.notify_all();
    }

    /// Waits while the mount hangs; an error if it is to fail.
    fn ask(&self, writes: bool) -> Result<(), Errno> {
        let mut mood = hold(&self.0.0);
        while *mood == Mood::Hangs {
            mood = self.0.1.wait(mood).unwrap_or_else(PoisonError::into_inner);
        }
        match *mood {
            Mood::Fails(errno) if writes || errno == libc::EIO => Err(Errno::from_i32(errno)),
            _ => Ok(()),
        }
    }
}

struct Node {
    /// `O_PATH`: the file itself, whatever it is called by now.
    fd: Arc<OwnedFd>,
    lookups: u64,
}

/// The file system.
struct Passthrough {
    nodes: Mutex<HashMap<u64, Node>>,
    files: Mutex<HashMap<u64, Arc<File>>>,
    next: AtomicU64,
    /// Whoever locks has an open file description of their own for it, by owner and inode.
    locks: Mutex<HashMap<(u64, u64), Arc<File>>>,
    moods: Moods,
}

/// Serves a mount until nobody can see it any more.
pub type Server = Box<dyn FnOnce() + Send>;

/// A mount at `point` of `folder`, which is made in the mount namespace of the calling thread and served by whoever calls the answer.
pub fn mount(folder: &Path, point: &Path, moods: Moods) -> io::Result<Server> {
    let root = rustix::fs::open(folder, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let root = Node {
        fd: Arc::new(root),
        lookups: 1,
    };
    let file_system = Passthrough {
        nodes: Mutex::new(HashMap::from([(INodeNo::ROOT.0, root)])),
        files: Mutex::default(),
        next: AtomicU64::new(1),
        locks: Mutex::default(),
        moods,
    };
    let mut config = Config::default();
    config.mount_options = vec![
        MountOption::FSName("campaign".into()),
        MountOption::DefaultPermissions,
    ];
    config.n_threads = Some(3);
    let session = Session::new(file_system, point, &config)?;
    Ok(Box::new(move || {
        let _ = session.run();
    }))
}

type Answer<T> = Result<T, Errno>;

fn errno(error: rustix::io::Errno) -> Errno {
    Errno::from_i32(error.raw_os_error())
}

fn time(seconds: i64, nanoseconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH
        + Duration::new(
            u64::try_from(seconds).unwrap_or(0),
            u32::try_from(nanoseconds).unwrap_or(0),
        )
}

fn attributes(stat: &Stat, ino: u64) -> FileAttr {
    let kind = match stat.st_mode & libc::S_IFMT {
        libc::S_IFDIR => FileType::Directory,
        libc::S_IFLNK => FileType::Symlink,
        _ => FileType::RegularFile,
    };
    FileAttr {
        ino: INodeNo(ino),
        size: stat.st_size.cast_unsigned(),
        blocks: stat.st_blocks.cast_unsigned(),
        atime: time(stat.st_atime, stat.st_atime_nsec),
        mtime: time(stat.st_mtime, stat.st_mtime_nsec),
        ctime: time(stat.st_ctime, stat.st_ctime_nsec),
        crtime: SystemTime::UNIX_EPOCH,
        kind,
        perm: u16::try_from(stat.st_mode & 0o7777).unwrap_or(0),
        nlink: u32::try_from(stat.st_nlink).unwrap_or(1),
        uid: stat.st_uid,
        gid: stat.st_gid,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

impl Passthrough {
    fn node(&self, ino: INodeNo) -> Answer<Arc<OwnedFd>> {
        let nodes = hold(&self.nodes);
        nodes
            .get(&ino.0)
            .map(|node| Arc::clone(&node.fd))
            .ok_or(Errno::ESTALE)
    }

    fn file(&self, handle: FileHandle) -> Answer<Arc<File>> {
        hold(&self.files)
            .get(&handle.0)
            .cloned()
            .ok_or(Errno::EBADF)
    }

    fn keep(&self, file: File) -> FileHandle {
        let handle = self.next.fetch_add(1, Ordering::Relaxed);
        hold(&self.files).insert(handle, Arc::new(file));
        FileHandle(handle)
    }

    /// Opens the file itself, past its name.
    fn reopen(&self, ino: INodeNo, flags: OFlags) -> Answer<File> {
        let node = self.node(ino)?;
        let path = format!("/proc/self/fd/{}", node.as_raw_fd());
        rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty())
            .map(File::from)
            .map_err(errno)
    }

    fn stat(&self, ino: INodeNo) -> Answer<FileAttr> {
        let stat = rustix::fs::fstat(&*self.node(ino)?).map_err(errno)?;
        Ok(attributes(&stat, ino.0))
    }

    /// The entry of a name; the kernel knows it once more from now on.
    fn entry(&self, parent: INodeNo, name: &OsStr) -> Answer<FileAttr> {
        let parent = self.node(parent)?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&*parent, name, flags, Mode::empty()).map_err(errno)?;
        let stat = rustix::fs::fstat(&fd).map_err(errno)?;
        let mut nodes = hold(&self.nodes);
        nodes
            .entry(stat.st_ino)
            .or_insert(Node {
                fd: Arc::new(fd),
                lookups: 0,
            })
            .lookups += 1;
        Ok(attributes(&stat, stat.st_ino))
    }

    fn made(
        &self,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        flags: i32,
    ) -> Answer<(FileAttr, FileHandle)> {
        self.moods.ask(true)?;
        let folder = self.node(parent)?;
        let flags = passed_on(flags) | OFlags::CREATE | OFlags::CLOEXEC;
        let file =
            rustix::fs::openat(&*folder, name, flags, Mode::from_raw_mode(mode)).map_err(errno)?;
        let attributes = self.entry(parent, name)?;
        Ok((attributes, self.keep(file.into())))
    }

    fn change(&self, ino: INodeNo, changes: &Changes) -> Answer<FileAttr> {
        self.moods.ask(true)?;
        if let Some(mode) = changes.mode {
            let path = format!("/proc/self/fd/{}", self.node(ino)?.as_raw_fd());
            rustix::fs::chmod(path, Mode::from_raw_mode(mode)).map_err(errno)?;
        }
        if changes.uid.is_some() || changes.gid.is_some() {
            let node = self.node(ino)?;
            let uid = changes.uid.map(rustix::fs::Uid::from_raw);
            let gid = changes.gid.map(rustix::fs::Gid::from_raw);
            rustix::fs::chownat(&*node, "", uid, gid, AtFlags::EMPTY_PATH).map_err(errno)?;
        }
        if let Some(size) = changes.size {
            self.reopen(ino, OFlags::WRONLY)?.set_len(size)?;
        }
        self.stat(ino)
    }

    fn list(&self, ino: INodeNo, offset: u64, reply: &mut ReplyDirectory) -> Answer<()> {
        self.moods.ask(false)?;
        let folder = self.reopen(ino, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let entries = Dir::read_from(folder.as_fd()).map_err(errno)?;
        for (place, entry) in (1..).zip(entries).filter(|(place, _)| *place > offset) {
            let entry = entry.map_err(errno)?;
            let kind = match entry.file_type() {
                rustix::fs::FileType::Directory => FileType::Directory,
                _ => FileType::RegularFile,
            };
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if reply.add(INodeNo(entry.ino()), place, kind, name) {
                break;
            }
        }
        Ok(())
    }

    /// fcntl(2) with an open file description lock: its owner here is the owner there.
    fn lock(
        &self,
        ino: INodeNo,
        owner: LockOwner,
        command: i32,
        lock: &mut libc::flock,
    ) -> Answer<()> {
        self.moods.ask(false)?;
        let key = (owner.0, ino.0);
        let known = hold(&self.locks).get(&key).cloned();
        let file = match known {
            Some(file) => file,
            None if i32::from(lock.l_type) == libc::F_UNLCK => return Ok(()),
            None => {
                let file = Arc::new(self.reopen(ino, OFlags::RDWR)?);
                hold(&self.locks).insert(key, Arc::clone(&file));
                file
            }
        };
        // SAFETY: fcntl(2) on a descriptor that we have open, with a flock that we own.
        let done = unsafe { libc::fcntl(file.as_raw_fd(), command, std::ptr::from_mut(lock)) };
        if done == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error().into())
        }
    }
}

/// The flags of an open(2) as it is passed on: what is written goes to memory, and whence, is the kernel's here.
fn passed_on(flags: i32) -> OFlags {
    let flags = OFlags::from_bits_retain(flags.cast_unsigned());
    flags - OFlags::CREATE - OFlags::DIRECT - OFlags::APPEND - OFlags::NOFOLLOW
}

struct Changes {
    mode: Option<u32>,
    uid: Option<u32>,
    gid: Option<u32>,
    size: Option<u64>,
}

fn range(start: u64, end: u64, kind: i32) -> libc::flock {
    let length = if end >= i64::MAX.cast_unsigned() {
        0
    } else {
        end - start + 1
    };
    libc::flock {
        l_type: i16::try_from(kind).unwrap_or(0),
        l_whence: 0,
        l_start: start.cast_signed(),
        l_len: length.cast_signed(),
        l_pid: 0,
    }
}

/// Answers `reply` with what `$answer` comes to.
macro_rules! answer {
    ($reply:ident, $answer:expr, $ok:expr) => {
        match (|| -> Answer<_> { $answer })() {
            Ok(value) => $ok($reply, value),
            Err(error) => $reply.error(error),
        }
    };
}

impl Filesystem for Passthrough {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // and not FUSE_FLOCK_LOCKS: that is the point
        config
            .add_capabilities(InitFlags::FUSE_POSIX_LOCKS)
            .map_err(|_| io::Error::other("this kernel's FUSE has no POSIX locks"))
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        answer!(
            reply,
            self.moods
                .ask(false)
                .and_then(|()| self.entry(parent, name)),
            |reply: ReplyEntry, attr: FileAttr| reply.entry(&NO_TIME, &attr, Generation(0))
        );
    }

    fn forget(&self, _: &Request, ino: INodeNo, times: u64) {
        let mut nodes = hold(&self.nodes);
        if let Some(node) = nodes.get_mut(&ino.0) {
            node.lookups = node.lookups.saturating_sub(times);
            if node.lookups == 0 && ino != INodeNo::ROOT {
                nodes.remove(&ino.0);
            }
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        answer!(
            reply,
            self.moods.ask(false).and_then(|()| self.stat(ino)),
            |reply: ReplyAttr, attr| reply.attr(&NO_TIME, &attr)
        );
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let changes = Changes {
            mode,
            uid,
            gid,
            size,
        };
        answer!(
            reply,
            self.change(ino, &changes),
            |reply: ReplyAttr, attr| reply.attr(&NO_TIME, &attr)
        );
    }

    fn mkdir(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        reply: ReplyEntry,
    ) {
        answer!(
            reply,
            {
                self.moods.ask(true)?;
                rustix::fs::mkdirat(&*self.node(parent)?, name, Mode::from_raw_mode(mode))
                    .map_err(errno)?;
                self.entry(parent, name)
            },
            |reply: ReplyEntry, attr: FileAttr| reply.entry(&NO_TIME, &attr, Generation(0))
        );
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer!(
            reply,
            {
                self.moods.ask(true)?;
                rustix::fs::unlinkat(&*self.node(parent)?, name, AtFlags::empty()).map_err(errno)
            },
            |reply: ReplyEmpty, ()| reply.ok()
        );
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer!(
            reply,
            {
                self.moods.ask(true)?;
                rustix::fs::unlinkat(&*self.node(parent)?, name, AtFlags::REMOVEDIR).map_err(errno)
            },
            |reply: ReplyEmpty, ()| reply.ok()
        );
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        answer!(
            reply,
            {
                self.moods.ask(true)?;
                let (from, to) = (self.node(parent)?, self.node(new_parent)?);
                let flags = rustix::fs::RenameFlags::from_bits_retain(flags.bits());
                rustix::fs::renameat_with(&*from, name, &*to, new_name, flags).map_err(errno)
            },
            |reply: ReplyEmpty, ()| reply.ok()
        );
    }

    fn link(
        &self,
        _: &Request,
        ino: INodeNo,
        new_parent: INodeNo,
        new_name: &OsStr,
        reply: ReplyEntry,
    ) {
        answer!(
            reply,
            {
                self.moods.ask(true)?;
                let path = format!("/proc/self/fd/{}", self.node(ino)?.as_raw_fd());
                let path = CString::new(path).map_err(|_| Errno::EINVAL)?;
                let to = self.node(new_parent)?;
                let from = rustix::fs::CWD;
                rustix::fs::linkat(from, &path, &*to, new_name, AtFlags::SYMLINK_FOLLOW)
                    .map_err(errno)?;
                self.entry(new_parent, new_name)
            },
            |reply: ReplyEntry, attr: FileAttr| reply.entry(&NO_TIME, &attr, Generation(0))
        );
    }

    fn open(&self, _: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let flags = passed_on(flags.0);
        let writes = flags.intersects(OFlags::WRONLY | OFlags::RDWR | OFlags::TRUNC);
        answer!(
            reply,
            {
                // on a read-only file system this fails; on a full one it does not
                if let Err(error) = self.moods.ask(writes)
                    && error != Errno::ENOSPC
                {
                    return Err(error);
                }
                self.reopen(ino, flags)
            },
            |reply: ReplyOpen, file| reply.opened(self.keep(file), FopenFlags::FOPEN_DIRECT_IO)
        );
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        answer!(
            reply,
            self.made(parent, name, mode, flags),
            |reply: ReplyCreate, (attr, handle)| {
                reply.created(
                    &NO_TIME,
                    &attr,
                    Generation(0),
                    handle,
                    FopenFlags::FOPEN_DIRECT_IO,
                );
            }
        );
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        answer!(
            reply,
            {
                self.moods.ask(false)?;
                let mut bytes = vec![0; usize::try_from(size).unwrap_or(0)];
                let got = self.file(handle)?.read_at(&mut bytes, offset)?;
                bytes.truncate(got);
                Ok(bytes)
            },
            |reply: ReplyData, bytes: Vec<u8>| reply.data(&bytes)
        );
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        answer!(
            reply,
            {
                self.moods.ask(true)?;
                Ok(self.file(handle)?.write_at(data, offset)?)
            },
            |reply: ReplyWrite, size: usize| reply.written(u32::try_from(size).unwrap_or(0))
        );
    }

    /// Somebody closed a descriptor: the locks of that owner on that file end (fcntl_locking(2)).
    fn flush(&self, _: &Request, ino: INodeNo, _: FileHandle, owner: LockOwner, reply: ReplyEmpty) {
        let _ = self.moods.ask(false);
        if let Some(file) = hold(&self.locks).remove(&(owner.0, ino.0)) {
            // not by closing it: what this program is just starting has it open too, until its exec
            let mut all = range(0, u64::MAX, libc::F_UNLCK);
            // SAFETY: fcntl(2) on a descriptor that we have open, with a flock that we own.
            unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw mut all) };
        }
        reply.ok();
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        hold(&self.files).remove(&handle.0);
        reply.ok();
    }

    fn fsync(&self, _: &Request, _: INodeNo, handle: FileHandle, _: bool, reply: ReplyEmpty) {
        answer!(
            reply,
            {
                self.moods.ask(true)?;
                Ok(self.file(handle)?.sync_all()?)
            },
            |reply: ReplyEmpty, ()| reply.ok()
        );
    }

    fn fsyncdir(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        answer!(reply, self.moods.ask(true), |reply: ReplyEmpty, ()| reply
            .ok());
    }

    fn readdir(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        match self.list(ino, offset, &mut reply) {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(error),
        }
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        answer!(reply, self.moods.ask(false), |reply: ReplyStatfs, ()| reply
            .statfs(
                1 << 30,
                1 << 30,
                1 << 30,
                1 << 30,
                1 << 30,
                4096,
                255,
                4096
            ));
    }

    fn fallocate(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        answer!(
            reply,
            {
                self.moods.ask(true)?;
                let mode = FallocateFlags::from_bits_retain(mode.cast_unsigned());
                rustix::fs::fallocate(&*self.file(handle)?, mode, offset, length).map_err(errno)
            },
            |reply: ReplyEmpty, ()| reply.ok()
        );
    }

    fn getlk(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        owner: LockOwner,
        start: u64,
        end: u64,
        kind: i32,
        _: u32,
        reply: ReplyLock,
    ) {
        let mut lock = range(start, end, kind);
        answer!(
            reply,
            self.lock(ino, owner, libc::F_OFD_GETLK, &mut lock),
            |reply: ReplyLock, ()| reply.locked(start, end, i32::from(lock.l_type), 0)
        );
    }

    fn setlk(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        owner: LockOwner,
        start: u64,
        end: u64,
        kind: i32,
        _: u32,
        sleep: bool,
        reply: ReplyEmpty,
    ) {
        if sleep {
            // nobody here waits for one: SQLite asks again
            return reply.error(Errno::EDEADLK);
        }
        let mut lock = range(start, end, kind);
        answer!(
            reply,
            self.lock(ino, owner, libc::F_OFD_SETLK, &mut lock),
            |reply: ReplyEmpty, ()| reply.ok()
        );
    }
}
