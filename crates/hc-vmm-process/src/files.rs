// SPDX-License-Identifier: Apache-2.0
//! Files opened here so that a hypervisor, who may open none, can be handed them.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use hc_vmm::{Access, Confinement, Error, Result};
use rustix::fs::{MemfdFlags, OFlags};

/// Opens a file that the hypervisor will read, or open again by its descriptor's number.
///
/// Opening it again asks for the right to read, but not for the right to walk its path. A file that
/// the hypervisor's user may not read, such as one that root keeps for itself, is copied to memory.
pub fn open_readable(
    what: &'static str,
    path: &Path,
    confine: Option<Confinement>,
) -> Result<File> {
    let failed = |source| Error::File { what, path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(failed(io::Error::new(io::ErrorKind::InvalidInput, "not a file")));
    }
    match confine {
        Some(user) if !may_read(&metadata, user) => copy_to_memory(what, file).map_err(failed),
        Some(_) | None => Ok(file),
    }
}

fn may_read(file: &Metadata, user: Confinement) -> bool {
    let digit = if file.uid() == user.uid {
        6
    } else if file.gid() == user.gid {
        3
    } else {
        0
    };
    file.mode() >> digit & 0o4 != 0
}

fn copy_to_memory(what: &'static str, mut file: File) -> io::Result<File> {
    let mut copy = File::from(rustix::fs::memfd_create(what, MemfdFlags::CLOEXEC)?);
    io::copy(&mut file, &mut copy)?;
    Ok(copy)
}

/// The same file, opened again to be read from its start.
pub fn reopen(file: &File) -> io::Result<File> {
    File::open(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// A handle of the disk with no more rights than the guest is to have.
///
/// A hypervisor could not break the promise with this one even if the guest took it over.
pub fn narrow(file: &File, access: Access) -> io::Result<File> {
    let mode = rustix::fs::fcntl_getfl(file)? & OFlags::ACCMODE;
    let wanted = if access == Access::ReadOnly { OFlags::RDONLY } else { OFlags::RDWR };
    if mode == wanted {
        return file.try_clone();
    }
    OpenOptions::new()
        .read(true)
        .write(access != Access::ReadOnly)
        .open(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// The groups that somebody needs who is to open `/dev/kvm`.
pub fn kvm_groups() -> Result<Vec<u32>> {
    const DEVICE: &str = "/dev/kvm";
    const READ_WRITE: u32 = 0o6;
    let failed = |source| Error::File { what: "device", path: DEVICE.into(), source };
    let device = fs::metadata(DEVICE).map_err(failed)?;
    if device.mode() & READ_WRITE == READ_WRITE {
        return Ok(Vec::new());
    }
    if device.mode() >> 3 & READ_WRITE == READ_WRITE && device.gid() != 0 {
        return Ok(vec![device.gid()]);
    }
    let reason = "only root may open it, and the hypervisor does not run as root";
    Err(failed(io::Error::new(io::ErrorKind::PermissionDenied, reason)))
}
