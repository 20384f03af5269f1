// SPDX-License-Identifier: Apache-2.0
//! The traits a hypervisor is driven through.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::File;
use std::os::unix::net::UnixStream;
use std::time::Instant;

use async_trait::async_trait;

use crate::error::Result;
use crate::spec::{Disk, Transport, VmSpec};

/// A hypervisor.
#[async_trait]
pub trait Driver: Send + Sync {
    /// The name in configuration and logs, such as `qemu`.
    fn name(&self) -> &'static str;

    /// What this hypervisor, in the version found on this host, can do.
    ///
    /// Callers ask here before they plan, so that a missing ability is a refused request and never
    /// a half-made VM.
    fn abilities(&self) -> &BTreeSet<Ability>;

    /// Prepares a VM and leaves it stopped before its first instruction.
    ///
    /// When this fails, nothing of the VM is left: no process, no socket, no file.
    async fn create(&self, spec: VmSpec) -> Result<Box<dyn Vm>>;
}

/// One virtual machine. Dropping it kills it.
///
/// Its methods want a tokio runtime with I/O and time, entered on a thread that lives as long as
/// the VM: an operating system may tie a child process to the thread that made it.
#[async_trait]
pub trait Vm: Send {
    /// Lets the guest boot. Returns once it is under way, not once the guest answers.
    async fn start(&mut self) -> Result<()>;

    /// Ends the VM now, without asking the guest. Does nothing to a VM that has ended.
    async fn kill(&mut self) -> Result<()>;

    /// Waits for the end and says how it came. Safe to cancel, and to call again.
    ///
    /// On a VM that was never started this waits for the kill.
    async fn wait(&mut self) -> Result<Exit>;

    /// The byte stream to the guest's init, non-blocking; once, then `None`.
    ///
    /// What is written before the guest listens waits for it, as far as the stream's buffer goes.
    fn channel(&mut self) -> Option<UnixStream>;

    /// The Ethernet frames of the guest's card, non-blocking; once, then `None`. `None` as well if
    /// the guest has no card, or one with another [`Link`](crate::Link) than to its owner.
    ///
    /// Either way a frame is preceded by its length as four big-endian bytes. Frames of up to 65,534
    /// bytes pass, which is an MTU of 65,520.
    fn network(&mut self) -> Option<UnixStream>;

    /// What the guest writes on its console, non-blocking; once, then `None`.
    ///
    /// A reader who falls behind loses bytes; the guest is never held up by one.
    fn console(&mut self) -> Option<UnixStream>;

    /// The hypervisor's process, while there is one of its own.
    fn process_id(&self) -> Option<u32>;

    /// The handle for pausing; there exactly if the driver lists [`Ability::Pause`].
    fn pause(&mut self) -> Option<&mut dyn Pause> {
        None
    }

    /// The handle for taking snapshots; there exactly if the driver lists [`Ability::Snapshot`].
    fn snapshot(&mut self) -> Option<&mut dyn Snapshot> {
        None
    }

    /// The handle for changing disks; there exactly if the driver lists [`Ability::Replace`].
    fn replace(&mut self) -> Option<&mut dyn Replace> {
        None
    }
}

/// A VM whose processors can be held.
#[async_trait]
pub trait Pause: Send {
    /// Holds every processor of the running guest; its disks are quiet when this returns.
    async fn hold(&mut self) -> Result<()>;

    /// Lets them run again.
    async fn release(&mut self) -> Result<()>;
}

/// A VM that can be copied while it runs.
#[async_trait]
pub trait Snapshot: Send {
    /// Copies the guest to two empty files, of which any number of VMs can be made
    /// ([`Saved`](crate::Saved)): `memory`, which gets as long as the guest's memory and is sparse
    /// where that is empty, and `state`, which gets all else.
    ///
    /// The guest runs on meanwhile, as far as the hypervisor can, and is held when this returns, so
    /// that the caller can copy its disks at the same instant; [`Pause::release`] lets it go on, also
    /// when this has failed. A guest that was held before is copied as well.
    ///
    /// Gives the moment from which on the guest stood still.
    async fn take(&mut self, memory: &File, state: &File) -> Result<Instant>;
}

/// A VM whose disks can be given other files.
#[async_trait]
pub trait Replace: Send {
    /// Puts another file behind the disk of this id, which was made with the same access.
    ///
    /// The guest has no request to the disk under way; it learns of the new size when its driver
    /// binds to the device again.
    async fn replace(&mut self, disk: Disk) -> Result<()>;
}

/// What a hypervisor may or may not be able to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Ability {
    /// Hold the processors of a running guest, and let them go on.
    Pause,
    /// Copy a running guest, and make any number of VMs that go on from the copy.
    Snapshot,
    /// Put another file behind a disk of a running guest.
    Replace,
    /// Give the guest a network card whose frames go to the VM's owner.
    Network,
    /// Give it one whose frames go to a stream socket.
    Socket,
    /// Give it one whose frames go to a tap device.
    Tap,
    /// Let the guest mount folders of the host.
    Share,
    /// Run as another user than the caller.
    Confine,
    /// Boot a kernel that finds its devices this way.
    Transport(Transport),
}

/// Says what a driver without the ability cannot do.
impl fmt::Display for Ability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Ability::Pause => "pause a guest",
            Ability::Snapshot => "take snapshots of a guest",
            Ability::Replace => "change a guest's disks",
            Ability::Network => "give a guest a network card",
            Ability::Socket => "connect a guest's network card to a socket",
            Ability::Tap => "connect a guest's network card to a tap device",
            Ability::Share => "share a folder with a guest",
            Ability::Confine => "run as another user",
            Ability::Transport(Transport::Mmio) => "boot a kernel by virtio-mmio",
            Ability::Transport(Transport::Pci) => "boot a kernel by virtio-pci",
        })
    }
}

/// How a VM ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    /// The guest powered itself off, or reset, which ends a VM as well.
    Stopped,
    /// [`Vm::kill`] ended it.
    Killed,
    /// The guest's kernel panicked, or the hypervisor ended without being asked to.
    Crashed {
        /// What ended, and how, such as `guest kernel panicked`.
        status: String,
        /// The end of what the guest and the hypervisor wrote: bounded, valid UTF-8 without control
        /// characters other than newlines, and perhaps empty.
        last_words: String,
    },
}
