// SPDX-License-Identifier: Apache-2.0
//! System calls that `rustix` does not offer as safe functions, each with a safe face.
//!
//! # Invariants
//!
//! - PID 1 has one thread. So a forked child may allocate and do whatever its parent may, and
//!   changing the process's own namespaces or signal mask surprises nobody else.
#![expect(unsafe_code, reason = "raw system calls have no safe form")]

use core::ffi::{c_int, c_long, c_ulong};
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

use hc_spec::Signal;
use rustix::process::Pid;
use rustix::thread::UnshareFlags;

/// Which of the two processes a fork returned to.
pub(crate) enum Forked {
    /// The new process.
    Child,
    /// The old one, with the new one's number.
    Parent(Pid),
}

/// The arguments of `clone3(2)` as of Linux 5.7.
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// Makes the child a member of the cgroup from its first instruction.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Forks; with a `cgroup` the child is born into it.
///
/// Moving a process later would wait for a grace period of the whole machine, which costs more
/// than everything else in a spawn.
pub(crate) fn fork(cgroup: Option<BorrowedFd<'_>>) -> io::Result<Forked> {
    let mut args = CloneArgs { exit_signal: libc::SIGCHLD as u64, ..CloneArgs::default() };
    if let Some(cgroup) = cgroup {
        args.flags = CLONE_INTO_CGROUP;
        args.cgroup = u64::from(cgroup.as_raw_fd().unsigned_abs());
    }
    // SAFETY: `args` is a valid `clone_args` of the size given and asks for no shared memory and
    // no new stack, so the child goes on in its own copy. There is one thread, so no lock can be
    // held by a thread that the child lacks.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<CloneArgs>()) };
    match check(pid)? {
        0 => Ok(Forked::Child),
        pid => {
            let raw = i32::try_from(pid).map_err(|_| io::Error::from_raw_os_error(libc::ERANGE))?;
            let pid = Pid::from_raw(raw).ok_or_else(|| io::Error::from_raw_os_error(libc::ESRCH));
            pid.map(Forked::Parent)
        }
    }
}

/// Sends a signal; any number, where `rustix` knows only those with names.
pub(crate) fn kill(pid: Pid, signal: Signal) -> io::Result<()> {
    // SAFETY: a pid above 0 names one process, and signalling it touches no memory of ours.
    let done = unsafe { libc::kill(pid.as_raw_nonzero().get(), c_int::from(signal.number())) };
    check(c_long::from(done)).map(drop)
}

/// Ends this process at once: no destructors, no buffers, which belong to the parent of a fork.
pub(crate) fn exit_now(status: u8) -> ! {
    // SAFETY: `_exit` has no preconditions.
    unsafe { libc::_exit(c_int::from(status)) }
}

/// Gives this process a mount namespace of its own.
pub(crate) fn unshare_mounts() -> io::Result<()> {
    // SAFETY: file descriptors stay shared with nobody new; only mounts part.
    Ok(unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }?)
}

/// Blocks SIGCHLD and every signal that would end PID 1, and gives the descriptor that reports
/// SIGCHLD.
pub(crate) fn child_signals() -> io::Result<OwnedFd> {
    // SAFETY: the set is initialised by sigemptyset before its use, and the descriptor that
    // signalfd returns is ours alone.
    unsafe {
        let mut set: libc::sigset_t = core::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGCHLD);
        check(c_long::from(libc::sigprocmask(
            libc::SIG_BLOCK,
            &raw const set,
            core::ptr::null_mut(),
        )))?;
        let fd = libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
        check(c_long::from(fd))?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// Makes writing to a pipe that nobody reads an error and not the end of PID 1.
pub(crate) fn ignore_broken_pipes() {
    // SAFETY: ignoring a signal runs no code of ours.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
}

/// Undoes in a child what PID 1 did to itself: nothing blocked, nothing ignored.
pub(crate) fn reset_signals() {
    // SAFETY: the set is initialised by sigemptyset; both calls only change this process.
    unsafe {
        let mut set: libc::sigset_t = core::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const set, core::ptr::null_mut());
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
    }
}

/// Makes `fd` the standard stream `number`, which stays open from now on.
pub(crate) fn place_stream(fd: OwnedFd, number: c_int) -> io::Result<()> {
    debug_assert!((0..=2).contains(&number) && fd.as_raw_fd() > 2);
    // SAFETY: standard streams have no owner here that could be surprised.
    check(c_long::from(unsafe { libc::dup3(fd.as_raw_fd(), number, 0) })).map(drop)
}

/// Closes every descriptor but the standard streams and `kept`. For children only.
pub(crate) fn close_all_but(kept: &OwnedFd) -> io::Result<()> {
    let kept = c_ulong::from(kept.as_raw_fd().unsigned_abs());
    for (first, last) in [(3, kept - 1), (kept + 1, c_ulong::from(u32::MAX))] {
        if first <= last {
            // SAFETY: a child that calls this runs a program or exits; it drops no owner of a
            // descriptor that is closed here, since `Child` only borrows.
            check(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0 as c_ulong) })?;
        }
    }
    Ok(())
}

/// Marks every descriptor above standard error to be closed by exec.
pub(crate) fn close_rest_on_exec() -> io::Result<()> {
    const CLOSE_RANGE_CLOEXEC: c_ulong = 4;
    // SAFETY: descriptors are only marked, none is closed under its owner.
    let done = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            3 as c_ulong,
            c_ulong::from(u32::MAX),
            CLOSE_RANGE_CLOEXEC,
        )
    };
    check(done).map(drop)
}

/// Replaces this process by `program`; returns only the reason why it could not.
pub(crate) fn exec(program: &CString, args: &[CString], env: &[CString]) -> io::Error {
    let pointers = |strings: &[CString]| {
        let mut list: Vec<_> = strings.iter().map(|s| s.as_ptr()).collect();
        list.push(core::ptr::null());
        list
    };
    let (args, env) = (pointers(args), pointers(env));
    // SAFETY: both arrays end with a null pointer and the strings they point to outlive the call.
    unsafe { libc::execve(program.as_ptr(), args.as_ptr(), env.as_ptr()) };
    io::Error::last_os_error()
}

/// Puts `bytes` into the kernel's entropy pool, credits them and has the generator use them.
///
/// Without the last a copy of a guest would go on with the numbers of the other copies for up to a
/// minute: a generator that is seeded already takes new entropy only now and then.
pub(crate) fn add_entropy(device: impl AsFd, bytes: &[u8]) -> io::Result<()> {
    const RNDADDENTROPY: c_ulong = 0x4008_5203;
    const RNDRESEEDCRNG: c_ulong = 0x5207;
    /// More than the generator's state is of no use.
    const MAX: usize = 512;
    #[repr(C)]
    struct RandPoolInfo {
        entropy_count: c_int,
        buf_size: c_int,
        buf: [u8; MAX],
    }
    let bytes = &bytes[..bytes.len().min(MAX)];
    let size = c_int::try_from(bytes.len()).unwrap_or(0);
    let mut pool = RandPoolInfo { entropy_count: size * 8, buf_size: size, buf: [0; MAX] };
    pool.buf[..bytes.len()].copy_from_slice(bytes);
    let fd = device.as_fd().as_raw_fd();
    // SAFETY: the structure has the layout of `rand_pool_info` and holds `buf_size` bytes.
    check(c_long::from(unsafe { libc::ioctl(fd, RNDADDENTROPY, &raw const pool) }))?;
    // SAFETY: this request takes no argument.
    match check(c_long::from(unsafe { libc::ioctl(fd, RNDRESEEDCRNG) })) {
        // Not seeded yet, so it has handed out nothing that could be repeated.
        Err(error) if error.raw_os_error() == Some(libc::ENODATA) => Ok(()),
        done => done.map(drop),
    }
}

/// Grows the ext4 file system that `directory` is on to `blocks` of its blocks.
pub(crate) fn grow_ext4(directory: impl AsFd, blocks: u64) -> io::Result<()> {
    const EXT4_IOC_RESIZE_FS: c_ulong = 0x4008_6610;
    let fd = directory.as_fd().as_raw_fd();
    // SAFETY: the request reads one u64 through the pointer.
    check(c_long::from(unsafe { libc::ioctl(fd, EXT4_IOC_RESIZE_FS, &raw const blocks) })).map(drop)
}

/// Sets a resource limit by the kernel's number; `u64::MAX` is no limit.
pub(crate) fn set_rlimit(resource: u32, soft: u64, hard: u64) -> io::Result<()> {
    let limit = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
    // SAFETY: `limit` is valid for the call; no old value is asked for.
    let done = unsafe { libc::prlimit64(0, resource, &raw const limit, core::ptr::null_mut()) };
    check(c_long::from(done)).map(drop)
}

/// Turns the C convention of -1 and `errno` into a result.
fn check(result: c_long) -> io::Result<c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
