// SPDX-License-Identifier: Apache-2.0
//! A container's root: the image below, a writable layer above, and in it what the container asked for
//! and what every container finds (`stage`).
//!
//! [`enter`] runs in a forked child, which it leaves in a mount namespace of the container's own
//! with nothing of ours in it. The caller keeps that namespace alive by a descriptor.
//!
//! # Invariants
//!
//! - Every mount point is opened below the new root first and then mounted on by its descriptor:
//!   links in the image lead nowhere else.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use hc_spec::{ContainerSpec, Tmpfs};
use rustix::fs::Mode;
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind, mount_bind_recursive, unmount};

use crate::boot::RUN;
use crate::error::{Attempt as _, Result};
use crate::root::{Root, path_of};
use crate::stage::{INERT, make_read_only, text};
use crate::{stage, sys};

/// Files shared by the containers of a pod, bind-mounted from `/run/hyper/etc`.
const SHARED_FILES: [&str; 3] = ["hosts", "hostname", "resolv.conf"];

/// Where the parts of a container's root lie before it is made.
pub(crate) struct Parts<'a> {
    /// The mounted image.
    pub(crate) image: &'a Path,
    /// The writable layer: holds `upper` and `work`.
    pub(crate) scratch: &'a Path,
    /// The control group.
    pub(crate) cgroup: &'a Path,
    /// Whether the stage is set, with that group.
    pub(crate) is_staged: bool,
}

/// Leaves this process in a new mount namespace with the container's root.
pub(crate) fn enter(spec: &ContainerSpec, parts: &Parts<'_>) -> Result<()> {
    sys::unshare_mounts().attempt(|| "make a mount namespace".into())?;
    rustix::process::umask(Mode::empty());
    let place = format!("{RUN}/root");
    if !parts.is_staged {
        stage::mount(spec.privileged, parts.cgroup)?;
    }
    stage::resize_shm(spec.shm_bytes)?;
    mount_layers(&place, parts)?;
    let builder = Builder { root: Root::open(&place).attempt(|| "open the new root".into())? };
    builder.stage()?;
    builder.shared_files()?;
    for tmpfs in &spec.tmpfs {
        builder.tmpfs(tmpfs)?;
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
struct Builder {
    root: Root,
}

impl Builder {
    fn stage(&self) -> Result<()> {
        for name in stage::NAMES {
            let place = self.directory(&format!("/{name}"))?;
            // Not moved: the root is to be the first in `/proc/mounts`, as people expect.
            mount_bind_recursive(stage::path(name), path_of(place.as_fd()))
                .attempt(|| format!("bring /{name} into the root"))?;
        }
        Ok(())
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

    /// Mounts a file system, making its mount point where the image lacks it.
    fn mount(&self, path: &str, kind: &str, flags: MountFlags, options: &str) -> Result<()> {
        let place = self.directory(path)?;
        mount(kind, path_of(place.as_fd()), kind, flags, &*text(options)?)
            .attempt(|| format!("mount {path}"))
    }

    fn directory(&self, path: &str) -> Result<OwnedFd> {
        self.root.ensure_directory(Path::new(path)).attempt(|| format!("make directory {path}"))
    }
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
