// SPDX-License-Identifier: Apache-2.0
//! The guest's side of one device, for tests: a driver that can be honest, and need not be.
//!
//! It works through the registers and the memory that a real one has, so transport and queues are
//! tested along with the device. There is no KVM in it.

use std::sync::Arc;

use virtio_bindings::virtio_ring::{VRING_DESC_F_NEXT, VRING_DESC_F_WRITE};
use vm_memory::{Bytes as _, GuestAddress};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::{Device, Slot, Wake};
use crate::interrupt::Interrupt;
use crate::memory::{self, Memory};

/// What the guest has, and what lies where in it.
const MEMORY_MIB: u32 = 1;
const QUEUE_SPAN: u64 = 0x4000;
const AVAILABLE: u64 = 0x1000;
const USED: u64 = 0x2000;
const QUEUES_LEN: usize = 0x2_0000;
const DATA: u64 = QUEUES_LEN as u64;
pub(crate) const MEMORY_LEN: u64 = (MEMORY_MIB as u64) << 20;
const SIZE: u16 = 256;

/// Registers (virtio 1.2, 4.2.2).
const FEATURES: u64 = 0x10;
const FEATURES_PAGE: u64 = 0x14;
const DRIVER_FEATURES: u64 = 0x20;
const DRIVER_FEATURES_PAGE: u64 = 0x24;
const QUEUE: u64 = 0x30;
const NOTIFY: u64 = 0x50;
const STATUS: u64 = 0x70;
const ADDRESSES: [(u64, u64); 3] = [(0x80, 0), (0x90, AVAILABLE), (0xa0, USED)];

/// A driver and the device it drives.
pub(crate) struct Guest {
    slot: Slot,
    pub(crate) memory: Arc<Memory>,
    rings: Vec<Ring>,
    /// Where the next request goes.
    free: u64,
}

/// How far the driver is in a queue.
#[derive(Clone, Copy, Default)]
struct Ring {
    descriptor: u16,
    available: u16,
    used: u16,
}

/// A descriptor: address, length, and whether the device is to write there.
pub(crate) type Piece = (u64, u32, bool);

impl Guest {
    /// Drives a device, which is at work when this returns.
    pub(crate) fn new(device: impl Device + 'static) -> Guest {
        let memory = Arc::new(memory::map(MEMORY_MIB).expect("there is room"));
        let line = EventFd::new(EFD_NONBLOCK).expect("there is room");
        let rings = vec![Ring::default(); device.queues()];
        let interrupt = Interrupt::raising(line);
        let slot = Slot::unplugged(Arc::clone(&memory), Box::new(device), interrupt);
        let slot = slot.expect("there is room");
        let mut guest = Guest { slot, memory, rings, free: DATA };
        guest.start();
        guest
    }

    /// Resets the device and sets it up, as Linux does.
    pub(crate) fn start(&mut self) {
        const STEPS: [u32; 3] = [0, 1, 3];
        for status in STEPS {
            self.write(STATUS, status);
        }
        for page in 0..2 {
            self.write(FEATURES_PAGE, page);
            self.write(DRIVER_FEATURES_PAGE, page);
            let offered = self.read(FEATURES);
            self.write(DRIVER_FEATURES, offered);
        }
        self.write(STATUS, 0xb);
        let zeros = vec![0; QUEUES_LEN];
        self.memory.write_slice(&zeros, GuestAddress(0)).expect("there is memory");
        for index in 0..self.rings.len() {
            let base = span(index);
            self.rings[index] = Ring::default();
            self.write(QUEUE, u32::try_from(index).expect("there are few"));
            self.write(0x38, SIZE.into());
            for (register, offset) in ADDRESSES {
                self.write(register, u32::try_from(base + offset).expect("it is low"));
                self.write(register + 4, 0);
            }
            self.write(0x44, 1);
        }
        self.write(STATUS, 0xf);
    }

    /// Saves the device, and drives a new one that goes on where it was.
    #[cfg(test)]
    pub(crate) fn go_on(self, device: impl Device + 'static) -> Guest {
        let text = serde_json::to_string(&self.slot.save()).expect("it is plain data");
        let saved = serde_json::from_str(&text).expect("it was written a moment ago");
        let line = EventFd::new(EFD_NONBLOCK).expect("there is room");
        let memory = Arc::clone(&self.memory);
        let slot = Slot::unplugged(memory, Box::new(device), Interrupt::raising(line));
        let slot = slot.expect("there is room");
        slot.restore(saved).expect("it is of the same kind");
        slot.rouse();
        slot.wake(Wake::Host);
        for index in 0..self.rings.len() {
            slot.wake(Wake::Guest(index));
        }
        Guest { slot, ..self }
    }

    pub(crate) fn read(&self, register: u64) -> u32 {
        let mut bytes = [0; 4];
        self.slot.read(register, &mut bytes);
        u32::from_le_bytes(bytes)
    }

    pub(crate) fn write(&self, register: u64, value: u32) {
        self.slot.write(register, &value.to_le_bytes());
    }

    /// Any access of a vCPU to the device's registers.
    pub(crate) fn slot(&self) -> &Slot {
        &self.slot
    }

    /// Tells the device that there is something on the host's side.
    pub(crate) fn wake_host(&self) {
        self.slot.wake(Wake::Host);
    }

    /// Tells the device of new buffers.
    pub(crate) fn kick(&self, queue: usize) {
        self.write(NOTIFY, u32::try_from(queue).unwrap_or(u32::MAX));
    }

    /// Puts a chain of these descriptors into a queue, wherever they point. The device is not told.
    pub(crate) fn put(&mut self, queue: usize, pieces: &[Piece]) {
        let (Some(ring), base) = (self.rings.get_mut(queue), span(queue)) else { return };
        let head = ring.descriptor % SIZE;
        for (number, &(address, len, write)) in (1..).zip(pieces) {
            let more = if number < pieces.len() { VRING_DESC_F_NEXT } else { 0 };
            let flags = more | if write { VRING_DESC_F_WRITE } else { 0 };
            let place = base + u64::from(ring.descriptor % SIZE) * 16;
            ring.descriptor = ring.descriptor.wrapping_add(1);
            let next = ring.descriptor % SIZE;
            let flags = u16::try_from(flags).expect("the flags are small");
            let rest = u64::from(len) | u64::from(flags) << 32 | u64::from(next) << 48;
            for (place, word) in [(place, address), (place + 8, rest)] {
                self.memory.write_obj(word.to_le(), GuestAddress(place)).expect("there is memory");
            }
        }
        self.offer(queue, head);
    }

    /// Makes a descriptor, whichever it is, the head of the queue's next request.
    pub(crate) fn offer(&mut self, queue: usize, head: u16) {
        let (Some(ring), base) = (self.rings.get_mut(queue), span(queue) + AVAILABLE) else {
            return;
        };
        let entry = base + 4 + u64::from(ring.available % SIZE) * 2;
        ring.available = ring.available.wrapping_add(1);
        for (place, word) in [(entry, head), (base + 2, ring.available)] {
            self.memory.write_obj(word.to_le(), GuestAddress(place)).expect("there is memory");
        }
    }

    /// Puts an honest request into a queue and tells the device; gives where the answer will be.
    pub(crate) fn send(&mut self, queue: usize, request: &[u8], room: usize) -> u64 {
        let whole = (request.len() + room) as u64;
        if self.free + whole > MEMORY_LEN {
            self.free = DATA;
        }
        let (at, answer) = (self.free, self.free + request.len() as u64);
        self.free += whole;
        self.memory.write_slice(request, GuestAddress(at)).expect("there is memory");
        let len = |len: usize| u32::try_from(len).expect("it is less than the memory");
        let both = [(at, len(request.len()), false), (answer, len(room), true)];
        let pieces: Vec<Piece> = both.into_iter().filter(|&(_, len, _)| len > 0).collect();
        self.put(queue, &pieces);
        self.kick(queue);
        answer
    }

    /// The length of the next answer in a queue, if one has come.
    pub(crate) fn answered(&mut self, queue: usize) -> Option<usize> {
        let (ring, base) = (self.rings.get_mut(queue)?, span(queue) + USED);
        let read =
            |place| self.memory.read_obj::<u32>(GuestAddress(place)).expect("there is memory");
        let used = read(base) >> 16;
        if used == u32::from(ring.used) {
            return None;
        }
        let entry = base + 4 + u64::from(ring.used % SIZE) * 8;
        ring.used = ring.used.wrapping_add(1);
        usize::try_from(read(entry + 4)).ok()
    }

    /// Sends an honest request and gives the answer, if it comes at once.
    #[cfg(test)]
    pub(crate) fn ask(&mut self, queue: usize, request: &[u8], room: usize) -> Option<Vec<u8>> {
        let at = self.send(queue, request, room);
        let len = self.answered(queue)?;
        Some(self.memory_at(at, len))
    }

    /// What is in the guest's memory.
    #[cfg(test)]
    pub(crate) fn memory_at(&self, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.memory.read_slice(&mut bytes, GuestAddress(at)).expect("there is memory");
        bytes
    }
}

/// Where a queue is.
fn span(queue: usize) -> u64 {
    (queue as u64 + 1) * QUEUE_SPAN
}

/// Where the device gives requests of a queue back.
#[cfg(test)]
pub(crate) fn used(queue: usize) -> u64 {
    span(queue) + USED
}
