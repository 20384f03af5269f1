// SPDX-License-Identifier: Apache-2.0
//! A container's root: the image below, a writable layer above, and the file systems that every
//! container finds in it.
//!
//! [`enter`] runs in a forked child, which it leaves in a mount namespace of the container's own
//! with nothing of ours in it. The caller keeps that namespace alive by a descriptor.
//!
//! # Invariants
//!
//! - Every mount point is opened below the new root first and then mounted on by its descriptor:
//!   links in the image lead nowhere else.
//! - What an unprivileged container must not touch is what Docker hides or makes read-only.

use std::ffi::CString;
use std::fs;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use hc_spec::{ContainerSpec, Tmpfs};
use rustix::fs::{FileType, Mode, OFlags, makedev};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind, mount_remount, unmount};

use crate::boot::RUN;
use crate::error::{Attempt as _, Error, Result};
use crate::root::{Root, path_of};
use crate::sys;

/// Nothing on it may act as a program with rights, a device or a program at all.
const INERT: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV).union(MountFlags::NOEXEC);
/// Files shared by the containers of a pod, bind-mounted from `/run/hyper/etc`.
const SHARED_FILES: [&str; 3] = ["hosts", "hostname", "resolv.conf"];
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
/// Directories that an unprivileged container does not see, by the file system they are in.
const MASKED_DIRECTORIES: [(&str, &str); 4] =
    [("/proc", "acpi"), ("/proc", "asound"), ("/proc", "scsi"), ("/sys", "firmware")];
/// What an unprivileged container cannot write to, below `/proc`.
const READ_ONLY: [&str; 5] = ["bus", "fs", "irq", "sys", "sysrq-trigger"];
/// Directories below `/dev` that a privileged container's devices are looked for in.
const DEVICE_DEPTH_MAX: usize = 3;

/// Where the parts of a container's root lie before it is made.
pub(crate) struct Parts<'a> {
    /// The mounted image.
    pub(crate) image: &'a Path,
    /// The writable layer: holds `upper` and `work`.
    pub(crate) scratch: &'a Path,
    /// The control group.
    pub(crate) cgroup: &'a Path,
}

/// Leaves this process in a new mount namespace with the container's root.
pub(crate) fn enter(spec: &ContainerSpec, parts: &Parts<'_>) -> Result<()> {
    sys::unshare_mounts().attempt(|| "make a mount namespace".into())?;
    rustix::process::umask(Mode::empty());
    let place = format!("{RUN}/root");
    mount_layers(&place, parts)?;
    let builder =
        Builder { root: Root::open(&place).attempt(|| "open the new root".into())?, spec };
    builder.kernel_file_systems(parts)?;
    builder.devices()?;
    builder.shared_files()?;
    for tmpfs in &spec.tmpfs {
        builder.tmpfs(tmpfs)?;
    }
    if !spec.privileged {
        builder.hide()?;
    }
    if spec.read_only {
        make_read_only(&place, MountFlags::empty()).attempt(|| "make the root read-only".into())?;
    }
    change_root(&place)
}

/// Mounts image and writable layer over each other.
fn mount_layers(place: &str, parts: &Parts<'_>) -> Result<()> {
    let options = format!(
        "lowerdir={},upperdir={scratch}/upper,workdir={scratch}/work",
        parts.image.display(),
        scratch = parts.scratch.display(),
    );
    mount("overlay", place, "overlay", MountFlags::empty(), &*text(options)?)
        .attempt(|| "mount the root".into())
}

/// Goes into the new root and lets go of the old one with everything in it.
fn change_root(place: &str) -> Result<()> {
    let what = || "change the root".into();
    rustix::process::chdir(place).attempt(what)?;
    // The old root lands on top of the new one, from where it is unmounted.
    rustix::process::pivot_root(".", ".").attempt(what)?;
    unmount(".", UnmountFlags::DETACH).attempt(what)?;
    rustix::process::chdir("/").attempt(what)
}

/// A root under construction, seen from outside of it.
struct Builder<'a> {
    root: Root,
    spec: &'a ContainerSpec,
}

impl Builder<'_> {
    fn kernel_file_systems(&self, parts: &Parts<'_>) -> Result<()> {
        let guarded = if self.spec.privileged { MountFlags::empty() } else { MountFlags::RDONLY };
        self.mount("/proc", "proc", INERT, "")?;
        self.mount("/sys", "sysfs", INERT | guarded, "")?;
        let groups = self.directory("/sys/fs/cgroup")?;
        let place = path_of(groups.as_fd());
        mount_bind(parts.cgroup, &place).attempt(|| "mount /sys/fs/cgroup".into())?;
        if self.spec.privileged {
            return Ok(());
        }
        let groups = self.mounted("/sys/fs/cgroup")?;
        make_read_only(&path_of(groups.as_fd()), INERT)
            .attempt(|| "make /sys/fs/cgroup read-only".into())
    }

    fn devices(&self) -> Result<()> {
        self.mount("/dev", "tmpfs", MountFlags::NOSUID, "mode=755,size=65536k")?;
        let dev = self.directory("/dev")?;
        for (name, major, minor) in DEVICES {
            let mode = Mode::from_raw_mode(0o666);
            rustix::fs::mknodat(&dev, name, FileType::CharacterDevice, mode, makedev(major, minor))
                .attempt(|| format!("make /dev/{name}"))?;
        }
        for (name, target) in LINKS {
            rustix::fs::symlinkat(target, &dev, name).attempt(|| format!("make /dev/{name}"))?;
        }
        if self.spec.privileged {
            copy_devices(Path::new("/dev"), &dev, DEVICE_DEPTH_MAX)?;
        }
        let inert = MountFlags::NOSUID | MountFlags::NOEXEC;
        self.mount("/dev/pts", "devpts", inert, "newinstance,ptmxmode=0666,mode=0620,gid=5")?;
        let size = format!("mode=1777,size={}", self.spec.shm_bytes);
        self.mount("/dev/shm", "tmpfs", INERT, &size)?;
        self.mount("/dev/mqueue", "mqueue", INERT, "")
    }

    fn shared_files(&self) -> Result<()> {
        for name in SHARED_FILES {
            let path = format!("/etc/{name}");
            let file =
                self.root.ensure_file(Path::new(&path)).attempt(|| format!("make {path}"))?;
            mount_bind(format!("{RUN}/etc/{name}"), path_of(file.as_fd()))
                .attempt(|| format!("mount {path}"))?;
        }
        Ok(())
    }

    fn tmpfs(&self, tmpfs: &Tmpfs) -> Result<()> {
        let (flags, data) = tmpfs_options(&tmpfs.options);
        self.mount(&tmpfs.path, "tmpfs", flags, &data)
    }

    /// Hides what Docker hides and write-protects what Docker does. A kernel that lacks one of
    /// these files is no worse for it.
    fn hide(&self) -> Result<()> {
        // Below these two everything is the kernel's, so names in them need no distrust.
        let (proc, sys) = (self.mounted("/proc")?, self.mounted("/sys")?);
        let null = format!("{RUN}/root/dev/null");
        for name in MASKED_FILES {
            let hidden = mount_bind(&null, format!("{}/{name}", path_of(proc.as_fd())));
            if_there(hidden).attempt(|| format!("hide /proc/{name}"))?;
        }
        for (top, name) in MASKED_DIRECTORIES {
            let top_fd = if top == "/sys" { &sys } else { &proc };
            let place = format!("{}/{name}", path_of(top_fd.as_fd()));
            let flags = INERT | MountFlags::RDONLY;
            let hidden = mount("tmpfs", place, "tmpfs", flags, c"size=0,mode=755");
            if_there(hidden).attempt(|| format!("hide {top}/{name}"))?;
        }
        for name in READ_ONLY {
            let place = format!("{}/{name}", path_of(proc.as_fd()));
            let protected = mount_bind(&place, &place).and_then(|()| make_read_only(&place, INERT));
            if_there(protected).attempt(|| format!("protect /proc/{name}"))?;
        }
        Ok(())
    }

    /// Mounts a file system, making its mount point where the image lacks it.
    fn mount(&self, path: &str, kind: &str, flags: MountFlags, options: &str) -> Result<()> {
        let place = self.directory(path)?;
        mount(kind, path_of(place.as_fd()), kind, flags, &*text(options)?)
            .attempt(|| format!("mount {path}"))
    }

    /// Opens what is mounted at `path`.
    fn mounted(&self, path: &str) -> Result<OwnedFd> {
        self.root.open_at(Path::new(path), OFlags::PATH).attempt(|| format!("open {path}"))
    }

    fn directory(&self, path: &str) -> Result<OwnedFd> {
        self.root.ensure_directory(Path::new(path)).attempt(|| format!("make directory {path}"))
    }
}

/// Takes a place that is not there for one that needs nothing done to it.
fn if_there(done: rustix::io::Result<()>) -> rustix::io::Result<()> {
    match done {
        Err(Errno::NOENT) => Ok(()),
        done => done,
    }
}

/// Makes one mount read-only without touching the file system, which others may have mounted too.
fn make_read_only(place: &str, flags: MountFlags) -> rustix::io::Result<()> {
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

/// Splits the options of a memory file system into mount flags and what it reads itself. Unless
/// told otherwise nothing on it has rights, is a device or runs, as in Docker.
fn tmpfs_options(options: &str) -> (MountFlags, String) {
    let mut flags = INERT;
    let mut data = Vec::new();
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option {
            "ro" => flags |= MountFlags::RDONLY,
            "rw" => flags -= MountFlags::RDONLY,
            "nosuid" => flags |= MountFlags::NOSUID,
            "suid" => flags -= MountFlags::NOSUID,
            "nodev" => flags |= MountFlags::NODEV,
            "dev" => flags -= MountFlags::NODEV,
            "noexec" => flags |= MountFlags::NOEXEC,
            "exec" => flags -= MountFlags::NOEXEC,
            "sync" => flags |= MountFlags::SYNCHRONOUS,
            "noatime" => flags |= MountFlags::NOATIME,
            "defaults" => {}
            own => data.push(own),
        }
    }
    (flags, data.join(","))
}

/// A C string of mount options.
fn text(options: impl Into<Vec<u8>>) -> Result<CString> {
    CString::new(options).map_err(|_| Error::invalid("mount options contain a zero byte"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tmpfs_options_are_split_as_mount_does() {
        assert_eq!(tmpfs_options(""), (INERT, String::new()));
        assert_eq!(
            tmpfs_options("size=64m,exec,mode=1777,ro,"),
            (
                MountFlags::NOSUID | MountFlags::NODEV | MountFlags::RDONLY,
                "size=64m,mode=1777".to_owned()
            )
        );
    }
}
