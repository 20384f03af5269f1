// SPDX-License-Identifier: Apache-2.0
//! What a pod is: the record that the daemon writes and the pod process reads, once.
//!
//! Everything in it is resolved; a pod process takes no decision that this record could have taken.
//! It holds no secrets.

use std::net::IpAddr;
use std::path::PathBuf;

use hc_api::Port;
use hc_spec::{ContainerSpec, HostEntry, Id, Name};
use serde::{Deserialize, Serialize};

/// The version that this build writes and the only one it reads.
///
/// A pod is started by the daemon that wrote its record moments before, so old records need no
/// reading: a stopped pod's record is written anew when it is started.
pub const CONFIG_VERSION: u32 = 1;

/// The serial of the disk with the container's root file system, in every pod.
pub const ROOTFS_DISK: &str = "rootfs";

/// The bytes of a root file system that pods of templates can have, far more than any image holds:
/// what the guest of a template takes for that disk's size. Nothing is read behind the end of a file
/// system, wherever the disk ends.
pub const ROOTFS_MAX: u64 = 1 << 40;

/// A pod with its one container.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PodConfig {
    /// [`CONFIG_VERSION`].
    pub version: u32,
    /// The pod's id.
    pub id: Id,
    /// The pod's name, for logs and error messages.
    pub name: Name,
    /// The virtual machine.
    pub vm: VmConfig,
    /// The network, or `None` for loopback alone.
    pub network: Option<NetworkConfig>,
    /// The host name that the guest gets.
    pub hostname: String,
    /// Lines for `/etc/hosts`.
    pub hosts: Vec<HostEntry>,
    /// Name servers that the user gave; none leaves them to the network.
    pub dns_servers: Vec<IpAddr>,
    /// DNS search domains.
    pub dns_search: Vec<String>,
    /// Options for `resolv.conf`.
    pub dns_options: Vec<String>,
    /// The read-only file system image of the container's root.
    pub rootfs: PathBuf,
    /// The container. Its id is the guest's name for it: that of the container that was copied, where
    /// this one goes on from a copy.
    pub container: ContainerSpec,
    /// What this pod goes on from, where it does not begin anew.
    #[serde(default)]
    pub copied: Option<Copied>,
    /// Whether clients may write to the main process's standard input.
    pub open_stdin: bool,
    /// Whether nobody will look at the container's files once it has ended, so that they need not be
    /// written back.
    #[serde(default)]
    pub disposable: bool,
    /// How long a stop waits before it kills, in seconds.
    pub stop_timeout_seconds: u32,
    /// The process id of the daemon that is going to order the start. A pod whose daemon is gone
    /// before it did ends.
    pub daemon: u32,
}

/// What is known of a running pod that was copied, to go on in its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Copied {
    /// The session of its host with its guest, as 32 hex digits.
    pub session: String,
    /// The last process that the host numbered.
    pub last_process: u32,
    /// The main process.
    pub main: u32,
    /// The streams that the main process had, by their numbers.
    pub stdin: Option<u32>,
    /// See `stdin`.
    pub stdout: Option<u32>,
    /// See `stdin`.
    pub stderr: Option<u32>,
    /// Bytes of standard output that the host had read.
    pub stdout_read: u64,
    /// Bytes of standard error that it had read.
    pub stderr_read: u64,
}

impl Copied {
    /// What the guest's next host has to know.
    pub(crate) fn of(guest: &hc_guest::Guest, main: hc_guest::ProcessIds) -> Copied {
        Copied {
            session: format!("{:032x}", guest.session().0),
            last_process: guest.last_process(),
            main: main.process,
            stdin: main.stdin,
            stdout: main.stdout,
            stderr: main.stderr,
            stdout_read: main.stdout.and_then(|id| guest.position(id)).unwrap_or_default(),
            stderr_read: main.stderr.and_then(|id| guest.position(id)).unwrap_or_default(),
        }
    }

    /// The same as numbers; `None` if it was not written by us.
    pub(crate) fn predecessor(&self) -> Option<hc_guest::Predecessor> {
        let session = u128::from_str_radix(&self.session, 16).ok()?;
        Some(hc_guest::Predecessor {
            session: hc_proto::SessionId(session),
            last_process: self.last_process,
            process: hc_guest::ProcessIds {
                process: self.main,
                stdin: self.stdin,
                stdout: self.stdout,
                stderr: self.stderr,
            },
            stdout_read: self.stdout_read,
            stderr_read: self.stderr_read,
        })
    }
}

/// What a pod tells of itself when it was copied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taken {
    /// What its copies go on from.
    pub copied: Copied,
    /// How long it stood still, in microseconds.
    pub held_micros: u64,
}

/// The virtual machine of a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VmConfig {
    /// The driver.
    pub driver: DriverConfig,
    /// The kernel file.
    pub kernel: PathBuf,
    /// The initramfs with the guest's init.
    pub initramfs: PathBuf,
    /// Parameters for the kernel besides those that drivers add.
    pub kernel_parameters: String,
    /// How the kernel finds its devices.
    pub transport: TransportConfig,
    /// Whole CPUs.
    pub vcpus: u32,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// The file that a fresh scratch disk is made from.
    pub scratch_template: PathBuf,
    /// How long the guest may take from power-on to its first word, in seconds.
    pub boot_timeout_seconds: u32,
    /// The user and group that the hypervisor runs as, where we are root.
    pub confine: Option<(u32, u32)>,
}

/// Which driver, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DriverConfig {
    /// The one that is built in, with the host's virtualisation.
    Kvm,
    /// QEMU with the host's virtualisation.
    QemuKvm,
    /// QEMU with its own translator.
    QemuTcg,
}

impl DriverConfig {
    /// All of them, best first.
    pub const ALL: [DriverConfig; 3] =
        [DriverConfig::Kvm, DriverConfig::QemuKvm, DriverConfig::QemuTcg];

    /// The name that people ask for it by, and see.
    pub fn name(self) -> &'static str {
        match self {
            DriverConfig::Kvm => "kvm",
            DriverConfig::QemuKvm => "qemu-kvm",
            DriverConfig::QemuTcg => "qemu-tcg",
        }
    }
}

/// How a guest kernel finds its devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TransportConfig {
    /// Named on its command line.
    Mmio,
    /// On a PCI bus.
    Pci,
}

/// How a pod is connected.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkConfig {
    /// Host ports that lead into the pod.
    pub publish: Vec<Port>,
    /// Whether the gateway's address leads to the host's loopback.
    pub allow_host: bool,
}
