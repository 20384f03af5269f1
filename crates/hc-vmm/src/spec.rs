// SPDX-License-Identifier: Apache-2.0
//! What a VM is made of, as plain data that no hypervisor has left its words in.

use std::fs::File;
use std::path::PathBuf;

/// Everything a driver needs to make one VM.
#[derive(Debug)]
pub struct VmSpec {
    /// Names the VM in logs and process lists.
    pub name: String,
    /// The only folder the driver may write to; it exists, and the caller removes it.
    pub run_dir: PathBuf,
    /// An uncompressed ELF kernel with a PVH entry, or whatever else the hypervisor boots directly.
    pub kernel: PathBuf,
    /// A cpio archive that the kernel unpacks as its first root.
    pub initramfs: PathBuf,
    /// The pod's own kernel parameters. A driver adds what its devices need, such as `console=`.
    pub kernel_parameters: String,
    /// How the kernel finds its devices.
    pub transport: Transport,
    /// Processors of the guest.
    pub vcpus: u32,
    /// Memory of the guest.
    pub memory_mib: u32,
    /// Block devices; the guest tells them apart by [`Disk::id`], never by their order.
    pub disks: Vec<Disk>,
    /// The network card, if the guest gets one.
    pub nic: Option<Nic>,
    /// Whom the hypervisor runs as; `None` leaves it the caller's own user.
    pub confine: Option<Confinement>,
}

/// How a kernel finds its virtio devices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Transport {
    /// By addresses on its command line: quickest to boot, but distribution kernels lack it.
    #[default]
    Mmio,
    /// On a PCI bus, which every distribution kernel knows.
    Pci,
}

/// One block device, backed by a file of raw sectors.
#[derive(Debug)]
pub struct Disk {
    /// The serial number that the guest finds at `/sys/block/*/serial`; at most
    /// [`MAX_ID_LEN`](Disk::MAX_ID_LEN) printable ASCII characters.
    pub id: String,
    /// The open file. The driver needs neither its path nor any right to it.
    pub file: File,
    /// What the guest may do with it.
    pub access: Access,
}

impl Disk {
    /// What a virtio block device has room for.
    pub const MAX_ID_LEN: usize = 20;
}

/// What a guest may do with a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read only, and the host enforces it: no request of the guest can change the file.
    ReadOnly,
    /// Read and write, and the content may be lost with the host: flushes cost nothing.
    Scratch,
    /// Read and write; what the guest has flushed is on the host's disk.
    Durable,
}

/// A network card, whose frames pass through [`Vm::network`](crate::Vm::network).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nic {
    /// The card's hardware address.
    pub mac: [u8; 6],
}

/// An unprivileged identity for the hypervisor's process. Only root can ask for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Confinement {
    /// The user; not root.
    pub uid: u32,
    /// The group; not root's.
    pub gid: u32,
}
