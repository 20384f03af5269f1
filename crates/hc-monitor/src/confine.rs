// SPDX-License-Identifier: Apache-2.0
//! How the monitor gives up what it does not need, before it looks at anything of the guest's.
//!
//! Its parent has already taken from it what it could: descriptors, environment, terminal, core
//! dumps, and the way to new privileges.
//!
//! | step | as root | as anybody else |
//! | --- | --- | --- |
//! | no file of the host | mount namespace with an empty root | the same, where the host lets users make namespaces |
//! | no identity | user, group and no groups of its own | the caller's |
//! | no capability | none | none |
//! | no system call but those it needs | seccomp | seccomp |

use std::io;

use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use rustix::process::Signal;
use rustix::thread::{CapabilitySet, CapabilitySets, Gid, Uid, UnshareFlags};

use crate::config::User;
use crate::error::{Error, Result};

/// A folder that every host has, and under which the empty root is put.
const ANY_FOLDER: &str = "/dev";

/// Leaves the host's files, identity and capabilities behind. The process has one thread.
pub(crate) fn leave(user: Option<User>) -> Result<()> {
    match user {
        Some(user) => {
            unshare(UnshareFlags::NEWNS)
                .and_then(|()| empty_root())
                .map_err(Error::host("leave the host's files"))?;
            become_user(user).map_err(Error::host("become another user"))?;
        }
        // Many hosts let nobody but root make name spaces; then these files stay in sight, and the
        // filter keeps them out of reach.
        None => {
            let _ =
                unshare(UnshareFlags::NEWUSER | UnshareFlags::NEWNS).and_then(|()| empty_root());
        }
    }
    drop_capabilities().map_err(Error::host("give up capabilities"))?;
    // The kernel forgets this wish with a change of user.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(Error::host("tie its life to its parent's"))
}

#[expect(unsafe_code, reason = "a call that rustix leaves to the caller")]
fn unshare(flags: UnshareFlags) -> io::Result<()> {
    // SAFETY: without `FILES`, no descriptor changes its meaning for anybody.
    unsafe { rustix::thread::unshare_unsafe(flags) }?;
    Ok(())
}

/// Puts an empty folder where the root was. Only this process sees it so.
fn empty_root() -> io::Result<()> {
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private)?;
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    rustix::mount::mount("none", ANY_FOLDER, "tmpfs", flags, c"size=4k,nr_inodes=1,mode=555")?;
    rustix::process::chdir(ANY_FOLDER)?;
    // The old root goes on top of the new one, and from there away.
    rustix::process::pivot_root(".", ".")?;
    rustix::mount::unmount(".", UnmountFlags::DETACH)?;
    Ok(())
}

fn become_user(User { uid, gid }: User) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    rustix::thread::set_thread_groups(&[])?;
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid)?;
    Ok(())
}

/// Calls while no capability is in effect, and puts them back.
pub(crate) fn without_capabilities<T>(call: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let had = rustix::thread::capabilities(None)?;
    let none = CapabilitySets { effective: CapabilitySet::empty(), ..had };
    rustix::thread::set_capabilities(None, none)?;
    let result = call();
    rustix::thread::set_capabilities(None, had)?;
    result
}

fn drop_capabilities() -> io::Result<()> {
    let none = CapabilitySet::empty();
    let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
    rustix::thread::set_capabilities(None, sets)?;
    Ok(())
}
