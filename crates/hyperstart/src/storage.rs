// SPDX-License-Identifier: Apache-2.0
//! The storage for containers' writable layers: memory, or a disk with an ext4 file system.
//!
//! ```text
//! nothing --mount--> memory, disk --park--> nothing, parked disk
//!    ^                  ^                              |
//!    |                  +---mount, the same content----+
//!    +----------------------mount, another disk--------+
//! ```
//!
//! Mounting is a sixth of what a guest has to do before its container runs. A parked guest has done it,
//! and goes on with a copy of the disk that it had.
//!
//! # Invariants
//!
//! - A parked disk is mounted read-only and has not been written to since, so that nothing is left to
//!   be written: the disk behind it may be another by then.

use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::{fs, mem};

use hc_proto::message::Scratch;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_remount, unmount};

use crate::boot::RUN;
use crate::container::checked_serial;
use crate::error::{Attempt as _, Error, Result};
use crate::{devices, kmsg, sys};

/// The unit of sizes in `/sys/class/block`, whatever the disk's own blocks are.
const SECTOR: u64 = 512;

/// What is mounted for writable layers.
#[derive(Default)]
pub(crate) enum Storage {
    /// Nothing.
    #[default]
    Nothing,
    /// The guest's memory.
    Memory,
    /// The disk of this device file.
    Disk(PathBuf),
    /// The same, parked.
    Parked(PathBuf),
}

impl Storage {
    /// Mounts what the host wants.
    pub(crate) fn mount(&mut self, wanted: &Scratch) -> Result<()> {
        match (mem::take(self), wanted) {
            (Storage::Parked(device), Scratch::Parked) => {
                mount_remount(place(), MountFlags::NOATIME, c"")
                    .attempt(|| "make the parked disk writable".into())?;
                *self = Storage::Disk(device);
                return Ok(());
            }
            (Storage::Parked(_), _) => unmount_now()?,
            _ => {}
        }
        match wanted {
            Scratch::Parked => return Err(Error::invalid("no disk is parked")),
            Scratch::Memory => {
                mount("scratch", place(), "tmpfs", MountFlags::NOATIME, c"mode=0755,size=90%")
                    .attempt(|| "mount scratch memory".into())?;
                *self = Storage::Memory;
            }
            Scratch::Disk(serial) => {
                let device = devices::disk(checked_serial(serial)?)?;
                mount_disk(&device, MountFlags::empty())?;
                grow(&device).attempt(|| format!("grow scratch disk {serial}"))?;
                *self = Storage::Disk(device);
            }
        }
        Ok(())
    }

    /// Forgets what containers wrote, and parks a disk. It is unmounted before it is mounted
    /// read-only, since only then the kernel has nothing more to write to it, not even late.
    pub(crate) fn park(&mut self) -> Result<()> {
        match mem::take(self) {
            Storage::Nothing => {}
            Storage::Memory => unmount_now()?,
            Storage::Disk(device) => {
                remove_layers().attempt(|| "clear the scratch disk".into())?;
                unmount_now()?;
                mount_disk(&device, MountFlags::RDONLY)?;
                *self = Storage::Parked(device);
            }
            parked @ Storage::Parked(_) => *self = parked,
        }
        Ok(())
    }

    /// Writes everything back and unmounts a disk, so that its file system is clean.
    pub(crate) fn close(&mut self) {
        if let Storage::Disk(_) = mem::take(self)
            && unmount_now().is_err()
        {
            // Something still holds it; then at least nothing is lost.
            kmsg::warn("scratch is busy at shutdown");
            rustix::fs::sync();
        }
    }
}

/// Where it is mounted.
fn place() -> String {
    format!("{RUN}/scratch")
}

fn mount_disk(device: &Path, flags: MountFlags) -> Result<()> {
    // Tables are made when they are needed: writing them ahead would fill a sparse disk.
    mount(device, place(), "ext4", flags | MountFlags::NOATIME, c"discard,noinit_itable")
        .attempt(|| format!("mount scratch disk {}", device.display()))
}

fn unmount_now() -> Result<()> {
    unmount(place(), UnmountFlags::empty()).attempt(|| "unmount scratch".into())
}

/// Removes the writable layers of all containers.
fn remove_layers() -> std::io::Result<()> {
    for entry in fs::read_dir(place())? {
        let entry = entry?;
        if entry.file_name() != "lost+found" {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

/// Grows the mounted file system to the size of its disk.
fn grow(device: &Path) -> std::io::Result<()> {
    let name = device.file_name().unwrap_or_default();
    let size = fs::read_to_string(Path::new("/sys/class/block").join(name).join("size"))?;
    let sectors: u64 = size.trim().parse().map_err(std::io::Error::other)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::openat(CWD, place(), flags, Mode::empty())?;
    let block = rustix::fs::fstatvfs(&directory)?.f_bsize.max(SECTOR);
    let wanted = sectors / (block / SECTOR);
    // Asked first, because the kernel refuses to look at file systems that it could not grow, also
    // where there is nothing to do.
    if ext4_blocks(device)? >= wanted { Ok(()) } else { sys::grow_ext4(&directory, wanted) }
}

/// How many blocks the ext4 file system on `device` has, as its superblock says.
fn ext4_blocks(device: &Path) -> std::io::Result<u64> {
    const SUPERBLOCK: u64 = 1024;
    const COUNT_LOW: usize = 0x04;
    const COUNT_HIGH: usize = 0x150;
    let mut superblock = [0; 1024];
    fs::File::open(device)?.read_exact_at(&mut superblock, SUPERBLOCK)?;
    let word = |at: usize| {
        let bytes = superblock[at..].first_chunk().copied().unwrap_or_default();
        u64::from(u32::from_le_bytes(bytes))
    };
    Ok(word(COUNT_HIGH) << 32 | word(COUNT_LOW))
}
