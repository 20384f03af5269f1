// SPDX-License-Identifier: Apache-2.0
//! From the kernel's hand-over to an open channel: what every guest needs before the host is asked
//! anything.
//!
//! The kernel has unpacked the initramfs, which holds this program as `/init` and, for kernels that
//! need them, modules below `/modules` with their order in `/modules.list`.
//!
//! # Invariants
//!
//! - Only what something later needs is mounted: each mount costs boot time. Terminals, shared
//!   memory and message queues are mounted where they are used, in the containers.
//! - `/` is not the initramfs itself but a bind mount of it, because the kernel refuses
//!   `pivot_root(2)` away from the very first root.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use rustix::fs::Mode;
use rustix::mount::{MountFlags, mount, mount_bind, mount_move};

use crate::error::{Attempt as _, Error, Result};
use crate::{kmsg, stage, sys};

/// Where every path of our own lies.
pub(crate) const RUN: &str = "/run/hyper";
/// The control group file system.
pub(crate) const CGROUPS: &str = "/sys/fs/cgroup";
/// What may be open in one process; Docker's own limit.
const OPEN_FILES_MAX: u64 = 1 << 20;
/// The kernel's number of `RLIMIT_NOFILE`, `RLIMIT_NPROC` and `RLIMIT_MEMLOCK`.
const RAISED_LIMITS: [(u32, u64); 2] = [(7, OPEN_FILES_MAX), (6, u64::MAX)];
/// Controllers that containers are limited and measured by.
const CONTROLLERS: [&str; 5] = ["cpu", "memory", "io", "pids", "cpuset"];
/// Asks `finit_module(2)` to unpack the file.
const MODULE_INIT_COMPRESSED_FILE: i32 = 4;

/// Kernel settings that images count on, as Docker's hosts have them.
const SETTINGS: [(&str, &str); 5] = [
    // Links in shared directories are no trap for those with more rights.
    ("fs/protected_hardlinks", "1"),
    ("fs/protected_symlinks", "1"),
    // Any group may send ICMP echo by datagram sockets, so that `ping` needs no capability.
    ("net/ipv4/ping_group_range", "0 2147483647"),
    // Ports below 1024 are open to all users of a container.
    ("net/ipv4/ip_unprivileged_port_start", "0"),
    // Elasticsearch and its kind refuse to start with less.
    ("vm/max_map_count", "262144"),
];

/// Mounts, limits and settings. What fails here ends the VM, but for settings, which old or small
/// kernels may lack.
pub(crate) fn prepare() -> Result<()> {
    leave_first_root()?;
    mount_basics()?;
    load_modules()?;
    enable_controllers();
    for (name, value) in SETTINGS {
        if let Err(error) = fs::write(format!("/proc/sys/{name}"), value) {
            kmsg::warn(&format!("cannot set {name}: {error}"));
        }
    }
    for (resource, limit) in RAISED_LIMITS {
        sys::set_rlimit(resource, limit, limit).attempt(|| format!("raise limit {resource}"))?;
    }
    Ok(())
}

/// Puts a bind mount of the root over the root and goes there.
fn leave_first_root() -> Result<()> {
    rustix::fs::mkdir("/newroot", Mode::RWXU).attempt(|| "make /newroot".into())?;
    mount_bind("/", "/newroot").attempt(|| "bind the root".into())?;
    rustix::process::chdir("/newroot").attempt(|| "enter the new root".into())?;
    mount_move(".", "/").attempt(|| "move the new root".into())?;
    rustix::process::chroot(".").attempt(|| "change the root".into())
}

/// Mounts the kernel's file systems.
fn mount_basics() -> Result<()> {
    let plain = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let table = [
        ("/proc", "proc", plain, None),
        ("/sys", "sysfs", plain, None),
        ("/dev", "devtmpfs", MountFlags::NOSUID, Some(c"mode=0755")),
        (CGROUPS, "cgroup2", plain, Some(c"nsdelegate")),
        ("/run", "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, Some(c"mode=0755,size=16m")),
    ];
    for (target, kind, flags, options) in table {
        if target != CGROUPS {
            match rustix::fs::mkdir(target, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                Err(error) => return Err(error).attempt(|| format!("make {target}")),
            }
        }
        mount(kind, target, kind, flags, options).attempt(|| format!("mount {target}"))?;
    }
    let stage = stage::NAMES.map(stage::path);
    let own = ["", "/disks", "/etc", "/images", "/root", "/scratch", "/stage"];
    for path in own.map(|directory| format!("{RUN}{directory}")).into_iter().chain(stage) {
        rustix::fs::mkdir(&path, Mode::from_raw_mode(0o755)).attempt(|| format!("make {path}"))?;
    }
    Ok(())
}

/// Loads the modules that the initramfs lists, in its order; most kernels need none.
fn load_modules() -> Result<()> {
    let list = match fs::read_to_string("/modules.list") {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        list => list.attempt(|| "read /modules.list".into())?,
    };
    for name in list.lines().map(str::trim).filter(|name| !name.is_empty()) {
        let path = format!("/modules/{name}");
        let file = File::open(&path).attempt(|| format!("open {path}"))?;
        match rustix::system::finit_module(file, c"", module_flags(name)) {
            // Built in, or loaded already.
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(error).attempt(|| format!("load {path}")),
        }
    }
    // They are in the kernel now; the files would only take up memory.
    let _ = fs::remove_dir_all("/modules");
    Ok(())
}

/// The flags for loading the module of this file name.
fn module_flags(name: &str) -> i32 {
    let compressed = ["xz", "zst", "gz"];
    let extension = Path::new(name).extension().and_then(|e| e.to_str());
    if extension.is_some_and(|e| compressed.contains(&e)) { MODULE_INIT_COMPRESSED_FILE } else { 0 }
}

/// Gives containers' control groups their controllers: all at once, or those that the kernel has.
fn enable_controllers() {
    let file = format!("{CGROUPS}/cgroup.subtree_control");
    let all: Vec<String> = CONTROLLERS.iter().map(|name| format!("+{name}")).collect();
    if fs::write(&file, all.join(" ")).is_ok() {
        return;
    }
    for controller in all {
        if let Err(error) = fs::write(&file, &controller) {
            kmsg::warn(&format!("control groups lack {controller}: {error}"));
        }
    }
}

/// The value of `key` on a kernel command line.
pub(crate) fn parameter<'a>(command_line: &'a str, key: &str) -> Option<&'a str> {
    command_line.split_ascii_whitespace().find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
}

/// The kernel command line.
pub(crate) fn command_line() -> Result<String> {
    let bytes = fs::read("/proc/cmdline").attempt(|| "read /proc/cmdline".into())?;
    String::from_utf8(bytes).map_err(|_| Error::system("the kernel command line is not text"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_is_found_by_its_whole_name() {
        let line = "console=ttyS0 xhyper.channel=no hyper.channel=/dev/ttyS1 hyper.channel=late\n";
        assert_eq!(parameter(line, "hyper.channel"), Some("/dev/ttyS1"));
        assert_eq!(parameter(line, "hyper"), None);
        assert_eq!(parameter("", "hyper.channel"), None);
    }

    #[test]
    fn compressed_modules_are_told_by_their_names() {
        assert_eq!(module_flags("virtio.ko"), 0);
        assert_eq!(module_flags("virtio.ko.xz"), MODULE_INIT_COMPRESSED_FILE);
        assert_eq!(module_flags("virtio.ko.zst"), MODULE_INIT_COMPRESSED_FILE);
    }
}
