// SPDX-License-Identifier: Apache-2.0
//! Virtio as the devices see it: queues of buffers in the guest's memory (virtio 1.2).
//!
//! The guest writes the queues and everything in them. `virtio-queue` walks the descriptors and
//! keeps to their bounds; `buffers.rs` turns them into places that may be read and written, and
//! nothing else touches the guest's memory for a device.

mod buffers;
#[cfg(any(test, feature = "fuzz"))]
pub(crate) mod guest;
mod queues;
mod saved;
mod transport;

pub(crate) use buffers::Buffers;
pub(crate) use queues::{Chain, Queues};
pub(crate) use saved::{SavedDevice, SavedQueue, SavedSlot, Unread};
pub(crate) use transport::{Slot, WINDOW};

use std::os::fd::BorrowedFd;

use crate::devices::Block;
use crate::error::{Error, Result};

/// What there is to do for a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wake {
    /// The guest has put buffers into this queue.
    Guest(usize),
    /// The host's side has become readable or writable.
    Host,
}

/// One kind of device, without its queues and registers.
///
/// A device does all that can be done when it is woken, until buffers or bytes run out: it is told
/// of new ones, and not reminded of old ones.
pub(crate) trait Device: Send {
    /// The device's number (virtio 1.2, chapter 5).
    fn kind(&self) -> u32;

    /// The features it offers, besides those of the transport.
    fn features(&self) -> u64;

    /// How many queues it has.
    fn queues(&self) -> usize;

    /// Its configuration space, from offset 0.
    fn config(&self) -> Vec<u8> {
        Vec::new()
    }

    /// Takes what the guest writes into the configuration space.
    fn configure(&mut self, _offset: usize, _bytes: &[u8]) {}

    /// The guest's driver is ready, and has accepted these features.
    fn activate(&mut self, _features: u64) {}

    /// Forgets all that the guest's driver has told it.
    fn reset(&mut self) {}

    /// Does what there is to do.
    fn serve(&mut self, wake: Wake, queues: &mut Queues);

    /// What becomes readable or writable on the host's side.
    fn host(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// What it has to remember when the guest is saved. Requests that it has taken and not answered
    /// it undoes in `queues`.
    fn save(&self, _queues: &mut [SavedQueue]) -> SavedDevice {
        SavedDevice::Plain
    }

    /// Remembers it.
    fn restore(&mut self, saved: SavedDevice) -> Result<()> {
        match saved {
            SavedDevice::Plain => Ok(()),
            SavedDevice::Card { .. } | SavedDevice::Channel { .. } => Err(not_this_device()),
        }
    }

    /// The disk that it is, if it is one.
    fn disk(&mut self) -> Option<&mut Block> {
        None
    }
}

/// What a saved device says that was of another kind.
pub(crate) fn not_this_device() -> Error {
    Error::Saved("its devices are others".to_owned())
}
