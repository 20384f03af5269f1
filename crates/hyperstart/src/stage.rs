// SPDX-License-Identifier: Apache-2.0
//! What every container finds in its root, whatever the image: `/proc`, `/sys` and `/dev` with all that
//! is mounted below them.
//!
//! It is set up beside the roots, at `/run/hyper/stage`, and brought into one as a whole. So a parked guest
//! has it ready for the next container; any other sets it up in the container's own mount namespace.
//!
//! # Invariants
//!
//! - Nothing of an image is here yet, so no path here needs distrust.
//! - What an unprivileged container must not touch is what Docker hides or makes read-only.

use std::ffi::CString;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, OFlags, makedev};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount_bind, mount_remount, unmount};

use crate::boot::RUN;
use crate::error::{Attempt as _, Error, Result};

/// What is here, below the root.
pub(crate) const NAMES: [&str; 3] = ["proc", "sys", "dev"];
/// Nothing on it may act as a program with rights, a device or a program at all.
pub(crate) const INERT: MountFlags =
    MountFlags::NOSUID.union(MountFlags::NODEV).union(MountFlags::NOEXEC);
/// Bytes of shared memory unless a container asks for another number; Docker's own.
const SHM_BYTES: u64 = 64 << 20;
/// Devices of every container: name, major, minor.
const DEVICES: [(&str, u32, u32); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];
/// Links of every container's `/dev`.
const LINKS: [(&str, &str); 6] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
    ("core", "/proc/kcore"),
];
/// Files that an unprivileged container does not see, below `/proc`.
const MASKED_FILES: [&str; 7] =
    ["interrupts", "kcore", "keys", "latency_stats", "sched_debug", "timer_list", "timer_stats"];
/// Directories that an unprivileged container does not see.
const MASKED_DIRECTORIES: [&str; 4] = ["proc/acpi", "proc/asound", "proc/scsi", "sys/firmware"];
/// What an unprivileged container cannot write to, below `/proc`.
const READ_ONLY: [&str; 5] = ["bus", "fs", "irq", "sys", "sysrq-trigger"];
/// Directories below `/dev` that a privileged container's devices are looked for in.
const DEVICE_DEPTH_MAX: usize = 3;

/// Where the file system of this name is until it is in a root.
pub(crate) fn path(name: &str) -> String {
    format!("{RUN}/stage/{name}")
}

/// Sets everything up, for containers of this kind in this control group.
pub(crate) fn mount(privileged: bool, cgroup: &Path) -> Result<()> {
    let umask = rustix::process::umask(Mode::empty());
    let mounted = mount_all(privileged, cgroup);
    rustix::process::umask(umask);
    mounted
}

fn mount_all(privileged: bool, cgroup: &Path) -> Result<()> {
    let guarded = if privileged { MountFlags::empty() } else { MountFlags::RDONLY };
    mount_at("proc", "proc", INERT, "")?;
    mount_at("sys", "sysfs", INERT | guarded, "")?;
    let groups = path("sys/fs/cgroup");
    mount_bind(cgroup, &groups).attempt(|| "mount /sys/fs/cgroup".into())?;
    if !privileged {
        make_read_only(&groups, INERT).attempt(|| "make /sys/fs/cgroup read-only".into())?;
    }
    devices(privileged)?;
    if privileged { Ok(()) } else { hide() }
}

/// Takes it away again.
pub(crate) fn unmount_all() -> Result<()> {
    NAMES.into_iter().try_for_each(|name| {
        unmount(path(name), UnmountFlags::DETACH).attempt(|| format!("unmount the next /{name}"))
    })
}

/// Changes the size of shared memory where it is to be another.
pub(crate) fn resize_shm(bytes: u64) -> Result<()> {
    if bytes == SHM_BYTES {
        return Ok(());
    }
    mount_remount(path("dev/shm"), INERT, &*text(format!("size={bytes}"))?)
        .attempt(|| "set the size of /dev/shm".into())
}

fn devices(privileged: bool) -> Result<()> {
    mount_at("dev", "tmpfs", MountFlags::NOSUID, "mode=755,size=65536k")?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dev = rustix::fs::openat(CWD, path("dev"), flags, Mode::empty())
        .attempt(|| "open the new /dev".into())?;
    for (name, major, minor) in DEVICES {
        let mode = Mode::from_raw_mode(0o666);
        rustix::fs::mknodat(&dev, name, FileType::CharacterDevice, mode, makedev(major, minor))
            .attempt(|| format!("make /dev/{name}"))?;
    }
    for (name, target) in LINKS {
        rustix::fs::symlinkat(target, &dev, name).attempt(|| format!("make /dev/{name}"))?;
    }
    if privileged {
        copy_devices(Path::new("/dev"), &dev, DEVICE_DEPTH_MAX)?;
    }
    let shm = format!("mode=1777,size={SHM_BYTES}");
    let inert = MountFlags::NOSUID | MountFlags::NOEXEC;
    let pts = "newinstance,ptmxmode=0666,mode=0620,gid=5";
    for (name, kind, flags, options) in [
        ("pts", "devpts", inert, pts),
        ("shm", "tmpfs", INERT, &shm),
        ("mqueue", "mqueue", INERT, ""),
    ] {
        match rustix::fs::mkdirat(&dev, name, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error).attempt(|| format!("make /dev/{name}")),
        }
        mount_at(&format!("dev/{name}"), kind, flags, options)?;
    }
    Ok(())
}

/// Hides what Docker hides and write-protects what Docker does. A kernel that lacks one of these files
/// is no worse for it.
fn hide() -> Result<()> {
    for name in MASKED_FILES {
        let hidden = mount_bind(path("dev/null"), path(&format!("proc/{name}")));
        if_there(hidden).attempt(|| format!("hide /proc/{name}"))?;
    }
    for name in MASKED_DIRECTORIES {
        let flags = INERT | MountFlags::RDONLY;
        let hidden = rustix::mount::mount("tmpfs", path(name), "tmpfs", flags, c"size=0,mode=755");
        if_there(hidden).attempt(|| format!("hide /{name}"))?;
    }
    for name in READ_ONLY {
        let place = path(&format!("proc/{name}"));
        let protected = mount_bind(&place, &place).and_then(|()| make_read_only(&place, INERT));
        if_there(protected).attempt(|| format!("protect /proc/{name}"))?;
    }
    Ok(())
}

fn mount_at(name: &str, kind: &str, flags: MountFlags, options: &str) -> Result<()> {
    rustix::mount::mount(kind, path(name), kind, flags, &*text(options)?)
        .attempt(|| format!("mount /{name}"))
}

/// A C string of mount options.
pub(crate) fn text(options: impl Into<Vec<u8>>) -> Result<CString> {
    CString::new(options).map_err(|_| Error::invalid("mount options contain a zero byte"))
}

/// Takes a place that is not there for one that needs nothing done to it.
fn if_there(done: rustix::io::Result<()>) -> rustix::io::Result<()> {
    match done {
        Err(Errno::NOENT) => Ok(()),
        done => done,
    }
}

/// Makes one mount read-only without touching the file system, which others may have mounted too.
pub(crate) fn make_read_only(place: &str, flags: MountFlags) -> rustix::io::Result<()> {
    mount_remount(place, flags | MountFlags::BIND | MountFlags::RDONLY, c"")
}

/// Copies the device nodes below `from` into the directory `to`, which is on another file system.
///
/// The channel's port is left out: no program should open it by mistake.
fn copy_devices(from: &Path, to: &OwnedFd, depth: usize) -> Result<()> {
    let entries = fs::read_dir(from).attempt(|| format!("list {}", from.display()))?;
    for entry in entries.flatten() {
        let (name, path) = (entry.file_name(), entry.path());
        let Ok(found) = entry.metadata() else { continue };
        let what = || format!("make {}", path.display());
        let kind = found.file_type();
        if kind.is_dir() && depth > 0 {
            match rustix::fs::mkdirat(to, &name, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error).attempt(what),
            }
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let below = rustix::fs::openat(to, &name, flags, Mode::empty()).attempt(what)?;
            copy_devices(&path, &below, depth - 1)?;
        } else if kind.is_char_device() || kind.is_block_device() {
            if name.as_encoded_bytes().starts_with(b"vport") {
                continue;
            }
            let kind = FileType::from_raw_mode(found.mode());
            let mode = Mode::from_raw_mode(found.mode());
            match rustix::fs::mknodat(to, &name, kind, mode, found.rdev()) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error).attempt(what),
            }
        }
    }
    Ok(())
}
