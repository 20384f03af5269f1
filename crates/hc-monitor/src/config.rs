// SPDX-License-Identifier: Apache-2.0
//! The machine as its owner describes it: plain data, with all files as the numbers of descriptors
//! that the monitor inherited.
//!
//! The owner is trusted; the guest never sees any of this.

use std::os::fd::RawFd;

use serde::{Deserialize, Serialize};

/// One machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// `/dev/kvm`, open.
    pub kvm: RawFd,
    /// The control protocol's socket.
    pub control: RawFd,
    /// Where the guest's console output goes.
    pub console: RawFd,
    /// Processors of the guest.
    pub vcpus: u32,
    /// Memory of the guest.
    pub memory_mib: u32,
    /// How the guest begins.
    pub start: Start,
    /// The byte stream to the guest's init.
    pub channel: Channel,
    /// Block devices.
    pub disks: Vec<Disk>,
    /// The network card, if there is one.
    pub card: Option<Card>,
    /// Host folders, by the socket of whoever serves them.
    pub shares: Vec<Share>,
    /// Whom the monitor becomes, if it is started as root.
    pub user: Option<User>,
}

/// How a guest begins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Start {
    /// At a kernel's entry.
    Boot(Boot),
    /// Where another one was saved, of a machine of the same shape.
    Saved(Saved),
}

/// What a guest boots.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Boot {
    /// The kernel.
    pub kernel: Kernel,
    /// The archive that the kernel unpacks as its first root.
    pub initramfs: RawFd,
    /// The kernel's parameters, without those that name devices.
    pub kernel_parameters: String,
}

/// A guest that was saved. Neither file is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Saved {
    /// Its memory.
    pub memory: RawFd,
    /// All else.
    pub state: RawFd,
}

/// An ELF kernel with a PVH entry, as far as a loader has to know it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kernel {
    /// The file.
    pub file: RawFd,
    /// The physical address of the 32-bit entry point.
    pub entry: u32,
    /// What goes where.
    pub segments: Vec<Segment>,
}

/// A piece of the kernel's file, and where it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Segment {
    /// Where it starts in the file.
    pub offset: u64,
    /// Its physical address.
    pub address: u64,
    /// Its length in the file.
    pub file_len: u64,
    /// Its length in memory; what the file does not have is zeros.
    pub memory_len: u64,
}

/// The byte stream to the guest's init.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Channel {
    /// The socket.
    pub stream: RawFd,
    /// The name under which the guest finds its end.
    pub name: String,
}

/// A block device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Disk {
    /// A file of raw sectors.
    pub file: RawFd,
    /// The serial number that the guest reads.
    pub id: String,
    /// Whether the guest may not write.
    pub read_only: bool,
    /// Whether what the guest flushes has to reach the host's disk.
    pub durable: bool,
}

/// A network card.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Card {
    /// The hardware address.
    pub mac: [u8; 6],
    /// What its frames go through.
    pub link: Link,
}

/// What a card's frames go through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Link {
    /// A stream socket; each frame follows its length in four big-endian bytes.
    Stream(RawFd),
    /// A tap device, opened with `IFF_NO_PI` and `IFF_VNET_HDR`.
    Tap(RawFd),
}

/// A folder of the host, served over FUSE by somebody else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Share {
    /// The name that the guest mounts it by.
    pub tag: String,
    /// A stream socket to the server.
    pub stream: RawFd,
}

/// A user without privileges.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
}
