// SPDX-License-Identifier: Apache-2.0
//! What devices and their queues have to remember when a guest is saved.

use serde::{Deserialize, Serialize};
use virtio_queue::{Queue, QueueState, QueueT as _};

use crate::error::{Error, Result};
use crate::memory::Memory;
use crate::saved::plain;

/// One device with its registers and queues.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SavedSlot {
    /// The number of the device's kind.
    pub(super) kind: u32,
    pub(super) status: u32,
    pub(super) features_page: u32,
    pub(super) driver_features_page: u32,
    pub(super) driver_features: u64,
    pub(super) queue: u32,
    /// Reasons for an interrupt that the guest has not acknowledged.
    pub(super) reasons: u32,
    /// Whether the driver is at work.
    pub(super) active: bool,
    pub(super) queues: Vec<SavedQueue>,
    pub(super) device: SavedDevice,
}

/// Where a queue is, and how far the device is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SavedQueue {
    size: u16,
    ready: bool,
    event_idx: bool,
    descriptors: u64,
    available: u64,
    used: u64,
    next_available: u16,
    next_used: u16,
}

/// What a device remembers besides its queues.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum SavedDevice {
    /// Nothing.
    Plain,
    /// The guest knows the card by this address.
    Card {
        /// The address.
        mac: [u8; 6],
    },
    /// The byte stream to the guest's init.
    Channel {
        /// Whether a program of the guest has the port open.
        listening: bool,
        /// What the guest has yet to be told.
        unread: Vec<Unread>,
        /// How much of the guest's next buffer is through.
        sent: usize,
    },
}

/// One message to the guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Unread(#[serde(with = "plain::raw")] pub(crate) Vec<u8>);

impl SavedQueue {
    pub(super) fn of(queue: &Queue) -> SavedQueue {
        let state = queue.state();
        SavedQueue {
            size: state.size,
            ready: state.ready,
            event_idx: state.event_idx_enabled,
            descriptors: state.desc_table,
            available: state.avail_ring,
            used: state.used_ring,
            next_available: state.next_avail,
            next_used: state.next_used,
        }
    }

    /// As if the request that was taken last had not been.
    pub(crate) fn undo(&mut self) {
        self.next_available = self.next_available.wrapping_sub(1);
    }

    /// The queue as it was. One at work has to be where there is memory.
    pub(super) fn restore(self, max_size: u16, at_work: Option<&Memory>) -> Result<Queue> {
        let state = QueueState {
            max_size,
            next_avail: self.next_available,
            next_used: self.next_used,
            event_idx_enabled: self.event_idx,
            size: self.size,
            ready: self.ready,
            desc_table: self.descriptors,
            avail_ring: self.available,
            used_ring: self.used,
        };
        let nonsense = |what: String| Error::Saved(format!("a queue of it makes no sense: {what}"));
        let queue = Queue::try_from(state).map_err(|error| nonsense(error.to_string()))?;
        match at_work {
            Some(memory) if queue.ready() && !queue.is_valid(memory) => {
                Err(nonsense("it is outside of memory".to_owned()))
            }
            _ => Ok(queue),
        }
    }
}
