//! System calls that newer architectures have only in their newer form.
#![allow(dead_code, reason = "each test program uses its own part of it")]

#[cfg(target_arch = "x86_64")]
mod numbers {
    pub const OPEN: i64 = libc::SYS_open;
    pub const MKDIR: i64 = libc::SYS_mkdir;
    pub const RENAME: i64 = libc::SYS_rename;
    pub const UNLINK: i64 = libc::SYS_unlink;
    pub const RMDIR: i64 = libc::SYS_rmdir;
    pub const LINK: i64 = libc::SYS_link;
    pub const CHMOD: i64 = libc::SYS_chmod;
    pub const STAT: i64 = libc::SYS_stat;
    pub const LSTAT: i64 = libc::SYS_lstat;
    pub const READLINK: i64 = libc::SYS_readlink;
    pub const ACCESS: i64 = libc::SYS_access;
}

/// No such numbers.
#[cfg(not(target_arch = "x86_64"))]
mod numbers {
    pub const OPEN: i64 = -1;
    pub const MKDIR: i64 = -2;
    pub const RENAME: i64 = -3;
    pub const UNLINK: i64 = -4;
    pub const RMDIR: i64 = -5;
    pub const LINK: i64 = -6;
    pub const CHMOD: i64 = -7;
    pub const STAT: i64 = -8;
    pub const LSTAT: i64 = -9;
    pub const READLINK: i64 = -10;
    pub const ACCESS: i64 = -11;
}

pub use numbers::*;
