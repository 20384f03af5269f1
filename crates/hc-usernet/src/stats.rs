// SPDX-License-Identifier: Apache-2.0
//! Counters of a network, readable while it runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What a network did so far and holds now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Frames that the guest sent.
    pub frames_from_guest: u64,
    /// Bytes of those.
    pub bytes_from_guest: u64,
    /// Frames that the guest was sent.
    pub frames_to_guest: u64,
    /// Bytes of those.
    pub bytes_to_guest: u64,
    /// TCP flows that are open now, or being opened.
    pub tcp_flows: u64,
    /// UDP and ping flows that are open now.
    pub datagram_flows: u64,
    /// New flows that the policy denied.
    pub denied: u64,
}

/// A handle on the counters of one network; stays valid after its end.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    cells: Arc<Cells>,
}

#[derive(Debug, Default)]
struct Cells {
    frames_from_guest: AtomicU64,
    bytes_from_guest: AtomicU64,
    frames_to_guest: AtomicU64,
    bytes_to_guest: AtomicU64,
    tcp_flows: AtomicU64,
    datagram_flows: AtomicU64,
    denied: AtomicU64,
}

impl Stats {
    /// The counters as they are now; each for itself, not all at the same instant.
    pub fn read(&self) -> Counts {
        let Cells {
            frames_from_guest,
            bytes_from_guest,
            frames_to_guest,
            bytes_to_guest,
            tcp_flows,
            datagram_flows,
            denied,
        } = &*self.cells;
        let get = |cell: &AtomicU64| cell.load(Ordering::Relaxed);
        Counts {
            frames_from_guest: get(frames_from_guest),
            bytes_from_guest: get(bytes_from_guest),
            frames_to_guest: get(frames_to_guest),
            bytes_to_guest: get(bytes_to_guest),
            tcp_flows: get(tcp_flows),
            datagram_flows: get(datagram_flows),
            denied: get(denied),
        }
    }

    pub(crate) fn publish(&self, counts: &Counts) {
        let set = |cell: &AtomicU64, value| cell.store(value, Ordering::Relaxed);
        set(&self.cells.frames_from_guest, counts.frames_from_guest);
        set(&self.cells.bytes_from_guest, counts.bytes_from_guest);
        set(&self.cells.frames_to_guest, counts.frames_to_guest);
        set(&self.cells.bytes_to_guest, counts.bytes_to_guest);
        set(&self.cells.tcp_flows, counts.tcp_flows);
        set(&self.cells.datagram_flows, counts.datagram_flows);
        set(&self.cells.denied, counts.denied);
    }
}
