// SPDX-License-Identifier: Apache-2.0
//! What a kernel must have to run a pod.
//!
//! Pure data: options, the modules that provide them where they are not built in, and what each is
//! for. Which of them a kernel has is decided in `kernel.rs`.

use std::fmt;

/// One option and, where it may be one, the module that provides it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Requirement {
    /// The option's name, without `CONFIG_`.
    pub option: &'static str,
    /// What it is for, to complete "needed for …".
    pub purpose: &'static str,
    /// The module that provides it, if it works as one.
    pub module: Option<&'static str>,
}

/// How the guest finds its virtio devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Memory-mapped, named on the kernel command line.
    MmioCommandLine,
    /// Memory-mapped, described in ACPI tables.
    MmioAcpi,
    /// On a PCI bus.
    Pci,
}

/// A set of requirements: the base of every pod and what one hypervisor adds to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirements {
    list: Vec<Requirement>,
    optional_modules: Vec<&'static str>,
    pvh: bool,
}

impl Requirements {
    /// What every pod needs, whatever it runs on.
    #[must_use]
    pub fn pod() -> Self {
        let list = BASE.iter().chain(LOADABLE).copied().collect();
        Self { list, optional_modules: OPTIONAL_MODULES.to_vec(), pvh: false }
    }

    /// Adds the way to the virtio devices.
    #[must_use]
    pub fn with_transport(mut self, transport: Transport) -> Self {
        // First, so that its module is loaded before the devices' drivers.
        self.list.splice(0..0, requirements_of(transport));
        self
    }

    /// Adds the PVH entry point, without which an ELF image cannot be started.
    #[must_use]
    pub fn with_pvh(mut self) -> Self {
        self.pvh = true;
        self
    }

    /// Adds one more option.
    #[must_use]
    pub fn with(mut self, requirement: Requirement) -> Self {
        self.list.push(requirement);
        self
    }

    /// Everything asked for, in the order in which modules should be loaded.
    #[must_use]
    pub fn list(&self) -> &[Requirement] {
        &self.list
    }

    /// Modules that are loaded where the kernel has them, and not missed where it has not.
    pub(crate) fn optional_modules(&self) -> &[&'static str] {
        &self.optional_modules
    }

    pub(crate) fn needs_pvh(&self) -> bool {
        self.pvh
    }
}

/// The options of one transport.
fn requirements_of(transport: Transport) -> Vec<Requirement> {
    match transport {
        // As a module, virtio_mmio does not read the kernel command line: a loader would have to
        // pass it on, and the guest's init is none.
        Transport::MmioCommandLine => vec![
            built_in("VIRTIO_MMIO", "finding virtio devices"),
            built_in("VIRTIO_MMIO_CMDLINE_DEVICES", "finding virtio devices"),
        ],
        Transport::MmioAcpi => vec![
            built_in("ACPI", "finding virtio devices"),
            loadable("VIRTIO_MMIO", "virtio_mmio", "finding virtio devices"),
        ],
        Transport::Pci => vec![
            built_in("PCI", "finding virtio devices"),
            loadable("VIRTIO_PCI", "virtio_pci", "finding virtio devices"),
        ],
    }
}

/// What cannot be a module.
const BASE: &[Requirement] = &[
    built_in("64BIT", "64-bit programs"),
    built_in("BLK_DEV_INITRD", "starting from an initramfs"),
    built_in("BINFMT_ELF", "programs"),
    built_in("MULTIUSER", "users and capabilities"),
    built_in("FUTEX", "threads"),
    built_in("EPOLL", "the guest's init"),
    built_in("SIGNALFD", "the guest's init"),
    built_in("TIMERFD", "the guest's init"),
    built_in("EVENTFD", "the guest's init"),
    built_in("DEVTMPFS", "/dev"),
    built_in("PROC_FS", "/proc"),
    built_in("SYSFS", "/sys"),
    built_in("SHMEM", "shared memory"),
    built_in("TMPFS", "/tmp, /run and /dev/shm"),
    built_in("TMPFS_XATTR", "extended attributes of files in memory"),
    built_in("UNIX98_PTYS", "terminals"),
    built_in("POSIX_MQUEUE", "/dev/mqueue"),
    built_in("NET", "networks"),
    built_in("INET", "networks"),
    built_in("CGROUPS", "limits of containers"),
    built_in("MEMCG", "memory limits"),
    built_in("BLK_CGROUP", "disk limits"),
    built_in("CGROUP_SCHED", "processor limits"),
    built_in("CFS_BANDWIDTH", "processor limits"),
    built_in("CPUSETS", "processor limits"),
    built_in("CGROUP_PIDS", "process limits"),
    built_in("BPF_SYSCALL", "rules for devices"),
    built_in("CGROUP_BPF", "rules for devices"),
    built_in("SECCOMP_FILTER", "system call filters"),
    built_in("EROFS_FS_XATTR", "file capabilities"),
    built_in("EROFS_FS_SECURITY", "file capabilities"),
];

/// What may be a module, in the order of loading.
const LOADABLE: &[Requirement] = &[
    loadable("VIRTIO_CONSOLE", "virtio_console", "the channel to the host"),
    loadable("VIRTIO_BLK", "virtio_blk", "disks"),
    loadable("VIRTIO_NET", "virtio_net", "networks"),
    loadable("UNIX", "unix", "local sockets"),
    loadable("EROFS_FS", "erofs", "image file systems"),
    loadable("OVERLAY_FS", "overlay", "writable containers"),
    loadable("EXT4_FS", "ext4", "scratch disks"),
];

/// ext4 and erofs ask the kernel for a checksum by name, and no index of dependencies says so.
const OPTIONAL_MODULES: &[&str] =
    &["crc32c_generic", "virtio_rng", "virtio_balloon", "af_packet", "ipv6"];

const fn built_in(option: &'static str, purpose: &'static str) -> Requirement {
    Requirement { option, purpose, module: None }
}

const fn loadable(
    option: &'static str,
    module: &'static str,
    purpose: &'static str,
) -> Requirement {
    Requirement { option, purpose, module: Some(module) }
}

/// An option that a kernel should have and has not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingOption {
    /// The option's name, without `CONFIG_`.
    pub option: &'static str,
    /// What it is for, to complete "needed for …".
    pub purpose: &'static str,
    /// Why what is there does not do.
    pub reason: Reason,
}

/// Why a kernel fails a requirement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The option is not set.
    Unset,
    /// It is a module, and must be built in.
    NotBuiltIn,
    /// It is a module, and the module was not found beside the kernel.
    ModuleNotFound,
}

impl fmt::Display for MissingOption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CONFIG_{}", self.option)?;
        match self.reason {
            Reason::Unset => Ok(()),
            Reason::NotBuiltIn => f.write_str(" (must be built in)"),
            Reason::ModuleNotFound => f.write_str(" (its module is not there)"),
        }
    }
}
