// SPDX-License-Identifier: Apache-2.0
//! What a VM is made of, as plain data that no hypervisor has left its words in.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use crate::driver::{Ability, Driver};
use crate::error::{Error, Result};

/// The name of the channel: where it is a virtio port, the guest finds it by this at
/// `/sys/class/virtio-ports/*/name`.
pub const CHANNEL_NAME: &str = "org.hyper.channel.0";

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
    /// Folders of the host that the guest can mount.
    pub shares: Vec<Share>,
    /// The copy of a guest that this one goes on from, instead of booting.
    ///
    /// All else is as it was for the guest that was copied: kernel, transport, processors, memory,
    /// the card's presence, and the number, order and access of the disks. Free to choose are the
    /// name, the card's link, whom to run as, and the files behind the disks and their ids. Hardware
    /// address and kernel parameters are the copied guest's, whatever is said here.
    pub saved: Option<Saved>,
    /// Whom the hypervisor runs as; `None` leaves it the caller's own user.
    pub confine: Option<Confinement>,
}

impl VmSpec {
    /// Refuses what makes no sense for any hypervisor, and what `driver` is not able to do.
    ///
    /// Every driver's `create` begins with this.
    pub fn check(&self, driver: &dyn Driver) -> Result<()> {
        self.sense().map_err(|reason| Error::Spec { vm: self.name.clone(), reason })?;
        let needed = [
            Some(Ability::Transport(self.transport)),
            self.nic.as_ref().map(|nic| nic.link.ability()),
            (!self.shares.is_empty()).then_some(Ability::Share),
            self.saved.as_ref().map(|_| Ability::Snapshot),
            self.confine.map(|_| Ability::Confine),
        ];
        for ability in needed.into_iter().flatten() {
            if !driver.abilities().contains(&ability) {
                return Err(Error::Unsupported { driver: driver.name(), ability });
            }
        }
        Ok(())
    }

    fn sense(&self) -> Result<(), String> {
        if self.name.is_empty() || self.name.contains(|c: char| c.is_control()) {
            return Err("its name is empty or not printable".to_owned());
        }
        if self.vcpus == 0 {
            return Err("it has no processor".to_owned());
        }
        if self.memory_mib == 0 {
            return Err("it has no memory".to_owned());
        }
        if self.kernel_parameters.contains(|c: char| c.is_control()) {
            return Err("its kernel parameters hold a control character".to_owned());
        }
        if self.confine.is_some_and(|Confinement { uid, gid }| uid == 0 || gid == 0) {
            return Err("root is no confinement".to_owned());
        }
        let mut ids = BTreeSet::new();
        for Disk { id, .. } in &self.disks {
            let printable = id.bytes().all(|b| b.is_ascii_graphic());
            if id.is_empty() || id.len() > Disk::MAX_ID_LEN || !printable {
                return Err(format!("{id:?} cannot be the id of a disk"));
            }
            if !ids.insert(id) {
                return Err(format!("two disks have the id {id}"));
            }
        }
        let mut tags = BTreeSet::new();
        for Share { tag, .. } in &self.shares {
            let printable = tag.bytes().all(|b| b.is_ascii_graphic());
            if tag.is_empty() || tag.len() > Share::MAX_TAG_LEN || !printable {
                return Err(format!("{tag:?} cannot be the tag of a shared folder"));
            }
            if !tags.insert(tag) {
                return Err(format!("two shared folders have the tag {tag}"));
            }
        }
        Ok(())
    }
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

/// A network card.
#[derive(Debug)]
pub struct Nic {
    /// The card's hardware address.
    pub mac: [u8; 6],
    /// What its frames go through.
    pub link: Link,
}

/// What the frames of a card go through. Whichever it is, the largest has 65,534 bytes.
#[derive(Debug)]
pub enum Link {
    /// The stream that [`Vm::network`](crate::Vm::network) gives to the VM's owner.
    Owner,
    /// A stream socket to somebody else, such as `passt`, framed as the owner's is.
    Socket(UnixStream),
    /// A tap device: `/dev/net/tun`, attached with `IFF_TAP`, `IFF_NO_PI` and `IFF_VNET_HDR`.
    Tap(File),
}

impl Link {
    /// What a driver needs for it.
    #[must_use]
    pub fn ability(&self) -> Ability {
        match self {
            Link::Owner => Ability::Network,
            Link::Socket(_) => Ability::Socket,
            Link::Tap(_) => Ability::Tap,
        }
    }
}

/// A folder of the host, which the guest mounts as `virtiofs`.
#[derive(Debug)]
pub struct Share {
    /// The name that the guest mounts it by; at most [`MAX_TAG_LEN`](Share::MAX_TAG_LEN) printable
    /// ASCII characters.
    pub tag: String,
    /// Whoever serves it: FUSE requests come out of this stream socket, and answers go in. What a
    /// guest may see and do is the server's to decide.
    pub server: UnixStream,
}

impl Share {
    /// What a virtio file system device has room for.
    pub const MAX_TAG_LEN: usize = 36;
}

/// A guest as [`Snapshot::take`](crate::Snapshot::take) left it.
#[derive(Debug)]
pub struct Saved {
    /// Its memory. Each VM that goes on from it changes a copy of its own, page by page, and maps the
    /// rest; whoever can change this file changes all of them, so it is best a sealed one. The
    /// hypervisor's process opens it again, to read and write: as its own user, if it is confined.
    pub memory: File,
    /// All else.
    pub state: File,
}

/// An unprivileged identity for the hypervisor's process. Only root can ask for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Confinement {
    /// The user; not root.
    pub uid: u32,
    /// The group; not root's.
    pub gid: u32,
}
