// SPDX-License-Identifier: Apache-2.0
//! The process of a VM: what it inherits, whom it runs as, and that it dies with us.
#![expect(unsafe_code, reason = "code between fork and exec")]

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Stdio;

use hc_vmm::Confinement;
use rustix::io::FdFlags;
use rustix::process::{Pid, Resource, Rlimit, Signal};
use rustix::thread::{Gid, Uid};
use tokio::process::{Child, Command};

/// Descriptors that it may hold: a few for each device, plus what it inherits.
const MAX_DESCRIPTORS: u64 = 512;

/// All that a new process is given.
pub(crate) struct Launch<'a> {
    pub(crate) program: &'a Path,
    pub(crate) arguments: &'a [String],
    /// What it inherits, under the same numbers.
    pub(crate) inherited: Vec<OwnedFd>,
    pub(crate) stderr: OwnedFd,
    pub(crate) user: Option<User>,
}

/// An unprivileged user.
#[derive(Clone, Debug)]
pub struct User {
    /// User and group.
    pub identity: Confinement,
    /// Groups besides its own, such as that of `/dev/kvm`.
    pub groups: Vec<u32>,
}

impl Launch<'_> {
    /// Starts the process. It dies with the calling thread, and with the returned handle.
    pub(crate) fn spawn(self) -> io::Result<Child> {
        let mut command = Command::new(self.program);
        command
            .args(self.arguments)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(self.stderr)
            .kill_on_drop(true);
        let parent = rustix::process::getpid();
        let Launch { inherited, user, .. } = self;
        // SAFETY: between fork and exec, `prepare` makes system calls and no allocation; `inherited`
        // and `user` were moved in, so nothing it reads is shared with another thread.
        unsafe {
            command.pre_exec(move || prepare(parent, &inherited, user.as_ref()));
        }
        command.spawn()
    }
}

/// Turns the forked child into what the hypervisor is to be. Runs between fork and exec.
fn prepare(parent: Pid, inherited: &[OwnedFd], user: Option<&User>) -> io::Result<()> {
    // No terminal can reach it, nor it a terminal.
    rustix::process::setsid()?;
    close_all_on_exec();
    for descriptor in inherited {
        rustix::io::fcntl_setfd(descriptor, FdFlags::empty())?;
    }
    limit(Resource::Core, 0)?;
    limit(Resource::Nofile, MAX_DESCRIPTORS)?;
    if let Some(User { identity, groups }) = user {
        become_user(*identity, groups)?;
    }
    rustix::thread::set_no_new_privs(true)?;
    // Only now: the kernel forgets this wish when a process changes its user.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    if rustix::process::getppid() != Some(parent) {
        return Err(io::ErrorKind::BrokenPipe.into());
    }
    Ok(())
}

fn limit(resource: Resource, most: u64) -> rustix::io::Result<()> {
    let limit = Rlimit { current: Some(most), maximum: Some(most) };
    rustix::process::setrlimit(resource, limit)
}

fn become_user(identity: Confinement, groups: &[u32]) -> io::Result<()> {
    const MAX_GROUPS: usize = 4;
    let mut list = [Gid::ROOT; MAX_GROUPS];
    let list = list.get_mut(..groups.len()).ok_or(io::ErrorKind::InvalidInput)?;
    for (place, &group) in list.iter_mut().zip(groups) {
        *place = Gid::from_raw(group);
    }
    let Confinement { uid, gid } = identity;
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    rustix::thread::set_thread_groups(list)?;
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid)?;
    Ok(())
}

/// Marks every descriptor above the standard ones, also those that we inherited ourselves.
fn close_all_on_exec() {
    const FIRST: libc::c_uint = 3;
    const LAST: libc::c_int = 4096;
    let flags = libc::CLOSE_RANGE_CLOEXEC.cast_signed();
    // SAFETY: marks descriptors, closes none, touches no memory.
    let marked = unsafe { libc::close_range(FIRST, libc::c_uint::MAX, flags) };
    if marked == 0 {
        return;
    }
    // Linux before 5.11: one by one, as far as descriptors can be expected.
    for descriptor in FIRST.cast_signed()..LAST {
        // SAFETY: changes a flag of a descriptor, or fails because there is none.
        unsafe { libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
}
