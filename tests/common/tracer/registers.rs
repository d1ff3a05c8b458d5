//! The two things that need the registers of a stopped process: skipping a system call, and giving it another result.
//!
//! What a call is, its arguments and its result come from `PTRACE_GET_SYSCALL_INFO`, the same on every architecture.

use std::io;

fn checked(result: libc::c_long) -> io::Result<()> {
    if result == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

#[cfg(target_arch = "x86_64")]
mod machine {
    use super::{checked, io};

    fn get(pid: i32) -> io::Result<libc::user_regs_struct> {
        // SAFETY: plain data, for which zero is valid, and which ptrace(2) fills.
        unsafe {
            let mut all: libc::user_regs_struct = std::mem::zeroed();
            checked(libc::ptrace(libc::PTRACE_GETREGS, pid, 0, &raw mut all))?;
            Ok(all)
        }
    }

    fn set(pid: i32, all: &libc::user_regs_struct) -> io::Result<()> {
        // SAFETY: the registers of a tracee of ours that is stopped.
        unsafe { checked(libc::ptrace(libc::PTRACE_SETREGS, pid, 0, &raw const *all)) }
    }

    pub fn skip(pid: i32) -> io::Result<()> {
        let mut all = get(pid)?;
        all.orig_rax = u64::MAX;
        set(pid, &all)
    }

    pub fn set_result(pid: i32, result: i64) -> io::Result<()> {
        let mut all = get(pid)?;
        all.rax = result.cast_unsigned();
        set(pid, &all)
    }

    pub fn set_third(pid: i32, value: u64) -> io::Result<()> {
        let mut all = get(pid)?;
        all.rdx = value;
        set(pid, &all)
    }
}

#[cfg(target_arch = "aarch64")]
mod machine {
    use super::{checked, io};

    const NT_PRSTATUS: libc::c_int = 1;
    const NT_ARM_SYSTEM_CALL: libc::c_int = 0x404;

    fn regset<T>(
        request: libc::c_uint,
        pid: i32,
        set: libc::c_int,
        value: &mut T,
    ) -> io::Result<()> {
        let mut part = libc::iovec {
            iov_base: std::ptr::from_mut(value).cast(),
            iov_len: size_of::<T>(),
        };
        // SAFETY: the registers of a tracee of ours that is stopped, in a buffer of their size.
        unsafe { checked(libc::ptrace(request, pid, set, &raw mut part)) }
    }

    fn change(pid: i32, register: usize, value: u64) -> io::Result<()> {
        // SAFETY: plain data, for which zero is valid.
        let mut all: libc::user_regs_struct = unsafe { std::mem::zeroed() };
        regset(libc::PTRACE_GETREGSET, pid, NT_PRSTATUS, &mut all)?;
        all.regs[register] = value;
        regset(libc::PTRACE_SETREGSET, pid, NT_PRSTATUS, &mut all)
    }

    pub fn skip(pid: i32) -> io::Result<()> {
        regset(libc::PTRACE_SETREGSET, pid, NT_ARM_SYSTEM_CALL, &mut -1_i32)
    }

    pub fn set_result(pid: i32, result: i64) -> io::Result<()> {
        change(pid, 0, result.cast_unsigned())
    }

    pub fn set_third(pid: i32, value: u64) -> io::Result<()> {
        change(pid, 2, value)
    }
}

/// At the entry of a call: the kernel does nothing, and the exit follows.
pub fn skip(pid: i32) -> io::Result<()> {
    machine::skip(pid)
}

/// At the exit of a call: what the program gets.
pub fn set_result(pid: i32, result: i64) -> io::Result<()> {
    machine::set_result(pid, result)
}

/// The call's third argument: the length, for all that write. A program may rely on it after the call, so it is put back then.
pub fn set_third(pid: i32, value: u64) -> io::Result<()> {
    machine::set_third(pid, value)
}
