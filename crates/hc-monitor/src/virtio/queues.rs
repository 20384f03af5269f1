// SPDX-License-Identifier: Apache-2.0
//! The queues of one device that is at work.

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use virtio_queue::{DescriptorChain, Queue, QueueOwnedT as _, QueueT as _};
use vm_memory::{Bytes as _, GuestAddress};

use super::buffers::NotMemory;
use super::{Buffers, SavedQueue};
use crate::interrupt::Interrupt;
use crate::memory::Memory;

/// Before the entries of either ring there are flags and an index (virtio 1.2, 2.7.6 and 2.7.8).
const AVAILABLE_HEADER: u64 = 4;
const USED_HEADER: u64 = 4;
/// A head and a length.
const USED_ENTRY: u64 = 8;

/// A request of the guest: what it says, and where the answer goes.
#[derive(Debug)]
pub(crate) struct Chain {
    queue: usize,
    head: u16,
    /// What the device may read.
    pub(crate) readable: Buffers,
    /// What it may write.
    pub(crate) writable: Buffers,
}

/// Queues, the memory they are in, and the interrupt that belongs to them.
pub(crate) struct Queues {
    memory: Arc<Memory>,
    all: Vec<Queue>,
    /// Up to where the guest has been told of each queue's answers, or did not want to be.
    told: Vec<u16>,
    interrupt: Arc<Interrupt>,
}

impl Queues {
    pub(crate) fn new(
        memory: Arc<Memory>,
        queues: Vec<Queue>,
        interrupt: Arc<Interrupt>,
    ) -> Queues {
        let told = queues.iter().map(Queue::next_used).collect();
        Queues { memory, all: queues, told, interrupt }
    }

    /// Where each queue is, and how far.
    pub(super) fn save(&self) -> Vec<SavedQueue> {
        self.all.iter().map(SavedQueue::of).collect()
    }

    /// The guest's memory.
    pub(crate) fn memory(&self) -> &Memory {
        &self.memory
    }

    /// The next request in a queue. What makes no sense is given back unread.
    ///
    /// With `None`, the guest is asked to tell when there is more.
    pub(crate) fn pop(&mut self, index: usize) -> Option<Chain> {
        let memory = Arc::clone(&self.memory);
        let queue = self.all.get_mut(index).filter(|queue| queue.ready())?;
        loop {
            while let Some(chain) = queue.pop_descriptor_chain(&*memory) {
                let head = chain.head_index();
                match buffers(&memory, chain) {
                    Ok((readable, writable)) => {
                        return Some(Chain { queue: index, head, readable, writable });
                    }
                    Err(NotMemory) => {
                        let _ = queue.add_used(&*memory, head, 0);
                    }
                }
            }
            // The guest may have added one in the meantime, and told nobody. One that claims more
            // than the queue has room for has added none.
            let more = queue.enable_notification(&*memory).unwrap_or(false);
            if !more || queue.iter(&*memory).is_err() {
                return None;
            }
        }
    }

    /// Whether the guest uses a queue at all.
    pub(crate) fn is_ready(&self, index: usize) -> bool {
        self.all.get(index).is_some_and(Queue::ready)
    }

    /// Puts a request back, as if it had not been taken. Only the one taken last can be.
    pub(crate) fn undo(&mut self, chain: Chain) {
        if let Some(queue) = self.all.get_mut(chain.queue) {
            queue.set_next_avail(queue.next_avail().wrapping_sub(1));
        }
    }

    /// Gives a request back, with `written` bytes of answer. The guest is told by [`Queues::signal`].
    pub(crate) fn done(&mut self, chain: Chain, written: usize) {
        let Some(queue) = self.all.get_mut(chain.queue) else { return };
        let written = u32::try_from(written).unwrap_or(u32::MAX);
        // Fails if the guest put the queue where it has no memory: then it will not hear of it.
        let _ = queue.add_used(&*self.memory, chain.head, written);
    }

    /// Gives requests of one queue back at once: the guest sees all of them or none.
    pub(crate) fn done_together(&mut self, chains: Vec<(Chain, usize)>) {
        let mut rest = chains;
        let Some((last, last_written)) = rest.pop() else { return };
        let Some(queue) = self.all.get_mut(last.queue) else { return };
        let first = queue.next_used();
        let mut next = first;
        for (chain, written) in rest {
            let entry =
                queue.used_ring() + USED_HEADER + USED_ENTRY * u64::from(next % queue.size());
            let written = u32::try_from(written).unwrap_or(u32::MAX);
            let words = [u32::from(chain.head), written].map(u32::to_le);
            // Fails if the guest put the queue where it has no memory: then it will not hear of it.
            let _ = self.memory.write_obj(words, GuestAddress(entry));
            next = next.wrapping_add(1);
        }
        // The last one publishes all before it.
        queue.set_next_used(next);
        self.done(last, last_written);
    }

    /// Tells the guest of all that was given back, if it wants to be told (virtio 1.2, 2.7.10).
    pub(crate) fn signal(&mut self, index: usize) {
        let Some(queue) = self.all.get(index) else { return };
        // What was given back is to be seen before it is asked what the guest waits for.
        fence(Ordering::SeqCst);
        let new = queue.next_used();
        let old = std::mem::replace(&mut self.told[index], new);
        let place = queue.avail_ring() + AVAILABLE_HEADER + 2 * u64::from(queue.size());
        let waits_for = self.memory.load::<u16>(GuestAddress(place), Ordering::Relaxed);
        let wanted = match waits_for.map(u16::from_le) {
            Ok(event) if queue.event_idx_enabled() => {
                new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
            }
            _ => true,
        };
        if wanted {
            self.interrupt.buffers_used();
        }
    }
}

/// Sorts the descriptors of a chain by what may be done with them.
fn buffers(
    memory: &Memory,
    chain: DescriptorChain<&Memory>,
) -> Result<(Buffers, Buffers), NotMemory> {
    let (mut readable, mut writable) = (Buffers::default(), Buffers::default());
    for descriptor in chain {
        let side = if descriptor.is_write_only() { &mut writable } else { &mut readable };
        let len = usize::try_from(descriptor.len()).map_err(|_| NotMemory)?;
        side.push(memory, GuestAddress(descriptor.addr().0), len)?;
    }
    Ok((readable, writable))
}
