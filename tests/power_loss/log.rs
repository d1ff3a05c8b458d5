//! What all processes of several consecutive commands do to the store's files, in one order, with the data.
//!
//! At most one process at a time is inside a call that changes or syncs a file of the store, so that the order of the log is
//! the order in which things happened. Beside them the log has what the world outside saw: a job was started, a command
//! said how it ended.

use crate::tracer::older::{LINK, MKDIR, OPEN, RENAME, RMDIR, UNLINK};
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::tracer::{Act, Call, Event, Role, Tracees, Watch, memory, open_on, opening, string};

/// A file or folder of the store.
pub type Inode = usize;

/// The store's own folder.
pub const ROOT: Inode = 0;

/// One operation.
#[derive(Debug, Clone)]
pub enum Op {
    /// A new file, or a new folder, under a name.
    Make {
        folder: Inode,
        name: String,
        inode: Inode,
        is_folder: bool,
    },
    Write {
        inode: Inode,
        offset: u64,
        data: Vec<u8>,
    },
    /// Cut off, or grown with zeros.
    Length {
        inode: Inode,
        length: u64,
    },
    /// Grown with zeros, if it is shorter.
    AtLeast {
        inode: Inode,
        length: u64,
    },
    Sync {
        inode: Inode,
    },
    Rename {
        folder: Inode,
        from: String,
        to: String,
    },
    Remove {
        folder: Inode,
        name: String,
    },
    /// A job's program is started, with its token.
    Began(String),
    /// A command ends by itself, with this exit code.
    Reported(String, i32),
}

/// Makes the log.
pub struct Recorder {
    store: PathBuf,
    pub log: Vec<Op>,
    names: HashMap<PathBuf, Inode>,
    inodes: usize,
    /// Who is inside a call that counts, and what is known of it at its entry.
    inside: Option<(i32, Before)>,
    /// The names of the commands, by their numbers.
    pub commands: HashMap<usize, String>,
    /// Calls that would change files in a way that this program does not know.
    pub unknown: Vec<String>,
}

#[derive(Debug, Clone)]
enum Before {
    Open {
        path: PathBuf,
        there: bool,
        cuts: bool,
    },
    Write {
        path: PathBuf,
        at: Option<u64>,
    },
    Length {
        path: PathBuf,
    },
    AtLeast {
        path: PathBuf,
    },
    Sync {
        path: PathBuf,
    },
    Rename {
        from: PathBuf,
        to: PathBuf,
    },
    Remove {
        path: PathBuf,
    },
    Folder {
        path: PathBuf,
    },
}

fn flag(flags: u64, flag: i32) -> bool {
    flags & u64::from(flag.cast_unsigned()) != 0
}

impl Recorder {
    /// For the store in the empty folder `store`.
    pub fn new(store: &Path) -> Recorder {
        Recorder {
            store: store.to_owned(),
            log: Vec::new(),
            names: HashMap::from([(store.to_owned(), ROOT)]),
            inodes: 1,
            inside: None,
            commands: HashMap::new(),
            unknown: Vec::new(),
        }
    }

    /// A file of the store that a crash leaves: not what only the living share.
    fn is_kept(&self, path: &Path) -> bool {
        path.starts_with(&self.store) && !path.to_string_lossy().ends_with("-shm")
    }

    fn by_fd(&self, call: &Call, fd: u64) -> Option<PathBuf> {
        open_on(call.pid, fd).filter(|path| self.is_kept(path))
    }

    fn by_path(&self, call: &Call, address: u64) -> Option<PathBuf> {
        let path = PathBuf::from(String::from_utf8_lossy(&string(call.pid, address)).into_owned());
        Some(path).filter(|path| self.is_kept(path))
    }

    /// What a call that is about to be made would do to the store; `None`: nothing.
    fn before(&mut self, call: &Call) -> Option<Before> {
        let [first, second, third, fourth, fifth, _] = call.arguments;
        Some(match call.number {
            libc::SYS_openat | libc::SYS_openat2 | OPEN => {
                let (path, flags) = opening(call)?;
                if !flag(flags, libc::O_CREAT) && !flag(flags, libc::O_TRUNC) {
                    return None;
                }
                let path = self.by_path(call, path)?;
                if flag(flags, libc::O_DSYNC) {
                    self.unknown.push(format!(
                        "{} is opened for synchronous writes",
                        path.display()
                    ));
                }
                let there = path.exists();
                Before::Open {
                    path,
                    there,
                    cuts: flag(flags, libc::O_TRUNC),
                }
            }
            libc::SYS_pwrite64 => Before::Write {
                path: self.by_fd(call, first)?,
                at: Some(fourth),
            },
            libc::SYS_write => {
                let path = self.by_fd(call, first)?;
                let info = fs::read_to_string(format!("/proc/{}/fdinfo/{first}", call.pid))
                    .unwrap_or_default();
                let at = info
                    .lines()
                    .find_map(|l| l.strip_prefix("pos:"))
                    .and_then(|n| n.trim().parse().ok());
                Before::Write { path, at }
            }
            libc::SYS_ftruncate => Before::Length {
                path: self.by_fd(call, first)?,
            },
            libc::SYS_fallocate => {
                let path = self.by_fd(call, first)?;
                if second != 0 {
                    self.unknown.push(format!("fallocate with mode {second}"));
                }
                Before::AtLeast { path }
            }
            libc::SYS_fsync | libc::SYS_fdatasync => Before::Sync {
                path: self.by_fd(call, first)?,
            },
            RENAME => Before::Rename {
                from: self.by_path(call, first)?,
                to: self.by_path(call, second)?,
            },
            libc::SYS_renameat | libc::SYS_renameat2 => Before::Rename {
                from: self.by_path(call, second)?,
                to: self.by_path(call, fourth)?,
            },
            UNLINK | RMDIR => Before::Remove {
                path: self.by_path(call, first)?,
            },
            libc::SYS_unlinkat => Before::Remove {
                path: self.by_path(call, second)?,
            },
            MKDIR => Before::Folder {
                path: self.by_path(call, first)?,
            },
            libc::SYS_mkdirat => Before::Folder {
                path: self.by_path(call, second)?,
            },
            libc::SYS_writev
            | libc::SYS_pwritev
            | libc::SYS_pwritev2
            | libc::SYS_sync_file_range => {
                let path = self.by_fd(call, first)?;
                self.unknown
                    .push(format!("call {} on {}", call.number, path.display()));
                return None;
            }
            LINK | libc::SYS_truncate => {
                let path = self.by_path(call, first)?;
                self.unknown
                    .push(format!("call {} on {}", call.number, path.display()));
                return None;
            }
            // what is written through a shared mapping would be seen by nobody here
            libc::SYS_mmap
                if third & 2 != 0
                    && fourth & 1 != 0
                    && i32::try_from(fifth.cast_signed()).is_ok_and(|fd| fd >= 0) =>
            {
                let path = self.by_fd(call, fifth)?;
                self.unknown
                    .push(format!("{} is mapped for writing", path.display()));
                return None;
            }
            _ => return None,
        })
    }

    fn place(&self, path: &Path) -> (Inode, String) {
        let folder = path
            .parent()
            .and_then(|folder| self.names.get(folder))
            .copied();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        (
            folder.unwrap_or_else(|| panic!("{} is in no known folder", path.display())),
            name,
        )
    }

    fn make(&mut self, path: &Path, is_folder: bool) {
        let (folder, name) = self.place(path);
        let inode = self.inodes;
        self.inodes += 1;
        self.names.insert(path.to_owned(), inode);
        self.log.push(Op::Make {
            folder,
            name,
            inode,
            is_folder,
        });
    }

    fn after(&mut self, call: &Call, before: Before, result: i64) {
        let known = |path: &Path| self.names.get(path).copied();
        match before {
            Before::Open { path, there, cuts } => {
                if !there {
                    self.make(&path, false);
                } else if cuts && let Some(inode) = known(&path) {
                    self.log.push(Op::Length { inode, length: 0 });
                }
            }
            Before::Write { path, at } => {
                let (Some(inode), Some(offset)) = (known(&path), at) else {
                    return;
                };
                let length = usize::try_from(result).unwrap_or(0);
                let data = memory(call.pid, call.arguments[1], length);
                assert_eq!(data.len(), length, "the memory of {}", call.pid);
                self.log.push(Op::Write {
                    inode,
                    offset,
                    data,
                });
            }
            Before::Length { path } => {
                if let Some(inode) = known(&path) {
                    self.log.push(Op::Length {
                        inode,
                        length: call.arguments[1],
                    });
                }
            }
            Before::AtLeast { path } => {
                if let Some(inode) = known(&path) {
                    let length = call.arguments[2] + call.arguments[3];
                    self.log.push(Op::AtLeast { inode, length });
                }
            }
            Before::Sync { path } => {
                if let Some(inode) = known(&path) {
                    self.log.push(Op::Sync { inode });
                }
            }
            Before::Rename { from, to } => {
                let ((folder, old), (other, new)) = (self.place(&from), self.place(&to));
                assert_eq!(
                    folder,
                    other,
                    "renamed into another folder: {}",
                    to.display()
                );
                if let Some(inode) = self.names.remove(&from) {
                    self.names.insert(to, inode);
                }
                self.log.push(Op::Rename {
                    folder,
                    from: old,
                    to: new,
                });
            }
            Before::Remove { path } => {
                let (folder, name) = self.place(&path);
                self.names.remove(&path);
                self.log.push(Op::Remove { folder, name });
            }
            Before::Folder { path } => self.make(&path, true),
        }
    }

    fn name_of(&self, call: &Call) -> String {
        self.commands
            .get(&call.command)
            .cloned()
            .unwrap_or_default()
    }
}

impl Watch for Recorder {
    fn enter(&mut self, call: &Call) -> Act {
        // the first try of the job's program; at the entry, before it could do anything
        if call.role == Role::Starting && call.number == libc::SYS_execve && call.nth == 1 {
            self.log.push(Op::Began(self.name_of(call)));
        }
        if call.role == Role::Front && call.number == libc::SYS_exit_group {
            let code = i32::try_from(call.arguments[0]).unwrap_or(-1);
            self.log.push(Op::Reported(self.name_of(call), code));
        }
        if self
            .inside
            .as_ref()
            .is_some_and(|(pid, _)| *pid != call.pid)
        {
            return if self.before(call).is_some() {
                Act::Hold
            } else {
                Act::Go
            };
        }
        self.inside = self.before(call).map(|before| (call.pid, before));
        Act::Go
    }

    fn leave(&mut self, call: &Call, result: i64) -> Act {
        if let Some((_, before)) = self.inside.take_if(|(pid, _)| *pid == call.pid)
            && result >= 0
        {
            self.after(call, before, result);
        }
        Act::Go
    }

    fn event(&mut self, pid: i32, _: usize, _: Role, event: Event, _: &Tracees) {
        if let Event::Ended(_) = event {
            self.inside.take_if(|(inside, _)| *inside == pid);
        }
    }
}
