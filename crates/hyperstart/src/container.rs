// SPDX-License-Identifier: Apache-2.0
//! One container as PID 1 knows it: its control group, its mount namespace, and how far it is.
//!
//! ```text
//! create() --> created --main process runs--> running --main process ends--> ending --> (gone)
//!                 ^                              |        its tree is killed   no process is left
//!                 +--its program cannot be run---+
//! ```

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use hc_proto::message::{Failure, FailureKind, ProcessId};
use hc_spec::{ContainerSpec, Exit, Id};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{MountFlags, mount};
use rustix::process::{Pid, WaitOptions};

use crate::boot::RUN;
use crate::cgroup::Cgroup;
use crate::error::{Attempt as _, Error, Result};
use crate::sys::{self, Forked};
use crate::{devices, rootfs};

/// The longest serial of a disk (`VIRTIO_BLK_ID_BYTES`).
const SERIAL_MAX: usize = 20;

/// A container that exists.
pub(crate) struct Container {
    /// Which one.
    pub(crate) id: Id,
    /// Its processes and what they may use.
    pub(crate) cgroup: Cgroup,
    /// How far it is.
    pub(crate) phase: Phase,
    namespace: OwnedFd,
    /// The file in its `/dev/pts` that makes new terminals, when opened.
    terminals: OwnedFd,
}

/// How far a container is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Nothing runs; its main process may be spawned.
    Created,
    /// Its main process runs, or is about to.
    Running(ProcessId),
    /// Its main process has ended like this; the rest is being killed.
    Ending(ProcessId, Exit),
}

impl Container {
    /// Makes the container's root and limits its control group, for which the stage may be set
    /// already. Removes the group when it fails.
    pub(crate) fn create(
        spec: &ContainerSpec,
        cgroup: Cgroup,
        is_staged: bool,
    ) -> Result<Container> {
        match make(spec, &cgroup, is_staged) {
            Ok((namespace, terminals)) => {
                let phase = Phase::Created;
                Ok(Container { id: spec.id.clone(), cgroup, phase, namespace, terminals })
            }
            Err(error) => {
                cgroup.remove();
                Err(error)
            }
        }
    }

    /// Its mount namespace.
    pub(crate) fn namespace(&self) -> BorrowedFd<'_> {
        self.namespace.as_fd()
    }

    /// Opens a new terminal in it: our side, which does not block, and the processes' side.
    pub(crate) fn open_terminal(&self) -> std::io::Result<(OwnedFd, OwnedFd)> {
        use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};
        // Opening the file anew makes a new terminal; no path of the container's is involved.
        let ours = rustix::fs::openat(
            CWD,
            crate::root::path_of(self.terminals.as_fd()),
            OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        unlockpt(&ours)?;
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let theirs = ioctl_tiocgptpeer(&ours, flags)?;
        Ok((ours, theirs))
    }
}

fn make(spec: &ContainerSpec, cgroup: &Cgroup, is_staged: bool) -> Result<(OwnedFd, OwnedFd)> {
    cgroup.limit(&spec.limits)?;
    let image = mount_image(&spec.rootfs)?;
    let scratch = writable_layer(&spec.id)?;
    let cgroup = cgroup.path();
    make_root(spec, &rootfs::Parts { image: &image, scratch: &scratch, cgroup, is_staged })
}

/// Mounts the image on the disk with this serial, once for all containers that use it.
fn mount_image(serial: &str) -> Result<PathBuf> {
    let path = PathBuf::from(format!("{RUN}/images/{}", checked_serial(serial)?));
    if path.exists() {
        return Ok(path);
    }
    let device = devices::disk(serial)?;
    fs::create_dir(&path).attempt(|| format!("make {}", path.display()))?;
    let mounted = mount(&device, &path, "erofs", MountFlags::RDONLY | MountFlags::NOATIME, None)
        .attempt(|| format!("mount the image on disk {serial}"));
    if mounted.is_err() {
        // So that the next attempt does not take the empty directory for the image.
        let _ = fs::remove_dir(&path);
    }
    mounted.map(|()| path)
}

/// A serial that can stand in a path and in mount options.
pub(crate) fn checked_serial(serial: &str) -> Result<&str> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    if (1..=SERIAL_MAX).contains(&serial.len()) && serial.bytes().all(plain) {
        Ok(serial)
    } else {
        Err(Error::invalid(format!(
            "disk serial {serial:?}: use 1 to {SERIAL_MAX} letters, digits, '-' and '_'"
        )))
    }
}

/// The directories of the container's writable layer, which may be there from an earlier run.
fn writable_layer(id: &Id) -> Result<PathBuf> {
    let path = PathBuf::from(format!("{RUN}/scratch/{id}"));
    for directory in ["upper", "work"] {
        let path = path.join(directory);
        fs::create_dir_all(&path).attempt(|| format!("make {}", path.display()))?;
    }
    Ok(path)
}

/// Makes the root in a child and keeps what the child made: the namespace, and the file in it that
/// opens terminals.
fn make_root(spec: &ContainerSpec, parts: &rootfs::Parts<'_>) -> Result<(OwnedFd, OwnedFd)> {
    let (ours, theirs) = UnixStream::pair().attempt(|| "make a socket pair".into())?;
    match sys::fork(None).attempt(|| "fork".into())? {
        Forked::Child => {
            drop(ours);
            make_root_in_child(spec, parts, theirs)
        }
        Forked::Parent(child) => {
            drop(theirs);
            let kept = keep_root(child, &ours);
            drop(ours); // Lets the child go.
            let ended = rustix::process::waitpid(Some(child), WaitOptions::empty());
            let kept = kept?;
            ended.attempt(|| "wait for the child that made the root".into())?;
            Ok(kept)
        }
    }
}

/// Makes the root, tells how it went and waits until the parent has what it needs.
fn make_root_in_child(
    spec: &ContainerSpec,
    parts: &rootfs::Parts<'_>,
    mut parent: UnixStream,
) -> ! {
    let result: core::result::Result<(), Failure> = rootfs::enter(spec, parts).map_err(Into::into);
    if let Ok(json) = serde_json::to_vec(&result)
        && parent.write_all(&json).is_ok()
        && parent.shutdown(std::net::Shutdown::Write).is_ok()
    {
        let _ = parent.read(&mut [0]); // Whatever comes of it, this process is done.
    }
    sys::exit_now(0)
}

fn keep_root(child: Pid, socket: &UnixStream) -> Result<(OwnedFd, OwnedFd)> {
    let mut answer = Vec::new();
    (&*socket).read_to_end(&mut answer).attempt(|| "hear from the child".into())?;
    let result: core::result::Result<(), Failure> = serde_json::from_slice(&answer)
        .map_err(|_| Error::system("the child that makes the root died"))?;
    result.map_err(|failure| Error::new(failure.kind, failure.message))?;
    let pid = child.as_raw_nonzero();
    let namespace =
        File::open(format!("/proc/{pid}/ns/mnt")).attempt(|| "open the mount namespace".into())?;
    let terminals = rustix::fs::openat(
        CWD,
        format!("/proc/{pid}/root/dev/pts/ptmx"),
        OFlags::PATH | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .attempt(|| "open /dev/pts/ptmx".into())?;
    Ok((namespace.into(), terminals))
}

/// What to say about a container that is not there.
pub(crate) fn no_container(id: &Id) -> Error {
    Error::new(FailureKind::NotFound, format!("no container {} is running", id.short()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_serials_become_paths() {
        for good in ["root", "rootfs-0", "A_1", &"x".repeat(SERIAL_MAX)] {
            assert_eq!(checked_serial(good).unwrap(), good);
        }
        for bad in ["", "..", "a/b", "a,b", "a:b", "a b", "ä", &"x".repeat(SERIAL_MAX + 1)] {
            assert!(checked_serial(bad).is_err(), "{bad}");
        }
    }
}
