// SPDX-License-Identifier: Apache-2.0
//! Memory that the guest does not use, given back to the host (virtio 1.2, 5.5).
//!
//! The guest reports pages that are free, by itself; it takes them again by touching them. The
//! balloon proper, which takes pages away by the host's wish, stays empty: nobody here wishes.

use virtio_bindings::virtio_ids::VIRTIO_ID_BALLOON;
use vm_memory::GuestAddress;

use crate::memory::{self, PAGE};
use crate::virtio::{Device, Queues, Wake};

/// `VIRTIO_BALLOON_F_DEFLATE_ON_OOM` and `VIRTIO_BALLOON_F_REPORTING` (5.5.3).
const DEFLATE_ON_OOM: u64 = 1 << 2;
const REPORTING: u64 = 1 << 5;
const INFLATE: usize = 0;
const DEFLATE: usize = 1;
/// The queues for statistics and hints have no number where they are not offered.
const REPORT: usize = 2;
/// Page numbers that Linux sends at once (`VIRTIO_BALLOON_ARRAY_PFNS_MAX`).
const MAX_NUMBERS: usize = 256;

/// The device.
#[derive(Debug)]
pub(crate) struct Balloon;

impl Device for Balloon {
    fn kind(&self) -> u32 {
        VIRTIO_ID_BALLOON
    }

    fn features(&self) -> u64 {
        DEFLATE_ON_OOM | REPORTING
    }

    fn queues(&self) -> usize {
        3
    }

    fn config(&self) -> Vec<u8> {
        // How many pages the balloon is to have, and what the guest says it has.
        vec![0; 8]
    }

    fn serve(&mut self, wake: Wake, queues: &mut Queues) {
        let Wake::Guest(index @ (INFLATE | DEFLATE | REPORT)) = wake else { return };
        let mut served = false;
        while let Some(chain) = queues.pop(index) {
            let memory = queues.memory();
            match index {
                INFLATE => {
                    let mut numbers = [0; 4 * MAX_NUMBERS];
                    let len = chain.readable.read(memory, 0, &mut numbers);
                    let (numbers, _) = numbers[..len].as_chunks::<4>();
                    for number in numbers {
                        let address = u64::from(u32::from_le_bytes(*number)) * PAGE;
                        memory::release(memory, GuestAddress(address), PAGE);
                    }
                }
                REPORT => {
                    for &(address, len) in chain.writable.pieces() {
                        memory::release(memory, address, len as u64);
                    }
                }
                _ => {}
            }
            queues.done(chain, 0);
            served = true;
        }
        if served {
            queues.signal(index);
        }
    }
}
