// SPDX-License-Identifier: Apache-2.0
//! A device's place on the bus: the registers of virtio-mmio (virtio 1.2, 4.2.2) around a device.
//!
//! ```text
//!  vCPU --- registers ---> [ Slot: registers, queues, device ] <--- wakes --- reactor
//!                              one lock; the interrupt's reasons are outside of it
//! ```

#![expect(unsafe_code, reason = "an event that does not say it is a descriptor")]

use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kvm_ioctls::{IoEventAddress, VmFd};
use virtio_bindings::virtio_config::{
    VIRTIO_CONFIG_S_DRIVER_OK, VIRTIO_CONFIG_S_FEATURES_OK, VIRTIO_F_VERSION_1,
};
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};
use virtio_queue::{Queue, QueueT as _};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::{Device, Queues, SavedQueue, SavedSlot, Wake, not_this_device};
use crate::devices::Block;
use crate::error::{Error, Result};
use crate::interrupt::Interrupt;
use crate::memory::Memory;

/// Addresses that one device takes.
pub(crate) const WINDOW: u64 = 0x1000;

/// `virt`, read as a number.
const MAGIC: u32 = 0x7472_6976;
/// Version 2 of the registers: that of virtio 1.
const VERSION: u32 = 2;
/// Nobody asks for the vendor.
const VENDOR: u32 = 0;
const QUEUE_SIZE: u16 = 256;
const CONFIG: u64 = 0x100;
const NOTIFY: u64 = 0x50;

/// One device on the bus.
pub(crate) struct Slot {
    inner: Mutex<Inner>,
    interrupt: Arc<Interrupt>,
    kicks: Vec<EventFd>,
}

struct Inner {
    device: Box<dyn Device>,
    memory: Arc<Memory>,
    interrupt: Arc<Interrupt>,
    registers: Registers,
    /// What the guest is setting up.
    queues: Vec<Queue>,
    /// What it has set up: there while the driver is at work.
    active: Option<Queues>,
}

#[derive(Debug, Default)]
struct Registers {
    status: u32,
    features_page: u32,
    driver_features_page: u32,
    driver_features: u64,
    queue: u32,
}

impl Slot {
    /// Puts a device on the bus at `base`.
    pub(crate) fn new(
        vm: &VmFd,
        base: u64,
        line: u32,
        memory: Arc<Memory>,
        device: Box<dyn Device>,
    ) -> Result<Slot> {
        let slot = Slot::unplugged(memory, device, Interrupt::connect(vm, line)?)?;
        for (index, kick) in (0..).zip(&slot.kicks) {
            let index: u32 = index;
            vm.register_ioevent(kick, &IoEventAddress::Mmio(base + NOTIFY), index)
                .map_err(Error::kvm("connect a queue"))?;
        }
        Ok(slot)
    }

    /// A device that no VM has on its bus yet.
    pub(super) fn unplugged(
        memory: Arc<Memory>,
        device: Box<dyn Device>,
        interrupt: Interrupt,
    ) -> Result<Slot> {
        let interrupt = Arc::new(interrupt);
        let kick = |_| EventFd::new(EFD_NONBLOCK).map_err(Error::host("make an event"));
        let kicks = (0..device.queues()).map(kick).collect::<Result<_>>()?;
        let queues = fresh_queues(&*device);
        let inner = Inner {
            device,
            memory,
            interrupt: Arc::clone(&interrupt),
            registers: Registers::default(),
            queues,
            active: None,
        };
        Ok(Slot { inner: Mutex::new(inner), interrupt, kicks })
    }

    /// Wakes the device, if its driver is at work.
    pub(crate) fn wake(&self, wake: Wake) {
        if let Wake::Guest(index) = wake
            && let Some(kick) = self.kicks.get(index)
        {
            // Empty if another wake has seen to it.
            let _ = kick.read();
        }
        let mut inner = self.lock();
        let Inner { device, active, .. } = &mut *inner;
        if let Some(queues) = active {
            device.serve(wake, queues);
        }
    }

    /// Writes it down, while nobody works for it.
    pub(crate) fn save(&self) -> SavedSlot {
        let inner = self.lock();
        let Inner { device, registers, .. } = &*inner;
        let mut queues = match &inner.active {
            Some(active) => active.save(),
            None => inner.queues.iter().map(SavedQueue::of).collect(),
        };
        let saved_device = device.save(&mut queues);
        SavedSlot {
            kind: device.kind(),
            status: registers.status,
            features_page: registers.features_page,
            driver_features_page: registers.driver_features_page,
            driver_features: registers.driver_features,
            queue: registers.queue,
            reasons: self.interrupt.reasons(),
            active: inner.active.is_some(),
            queues,
            device: saved_device,
        }
    }

    /// Makes a new device what the saved one was. Nobody works for it yet; [`Slot::rouse`] changes
    /// that.
    pub(crate) fn restore(&self, saved: SavedSlot) -> Result<()> {
        self.interrupt.restore(saved.reasons);
        self.lock().restore(saved)
    }

    /// Has the device, and the guest, look at all they may have missed: wakes and interrupts that
    /// were on their way when the guest was saved.
    pub(crate) fn rouse(&self) {
        self.interrupt.remind();
        for kick in &self.kicks {
            // Fails only if the counter is full, and then there is a wake already.
            let _ = kick.write(1);
        }
    }

    /// Calls with the disk, if it is one, between two requests.
    pub(crate) fn with_disk<T>(&self, call: impl FnOnce(&mut Block) -> T) -> Option<T> {
        self.lock().device.disk().map(call)
    }

    /// The events of its queues, in order.
    pub(crate) fn kicks(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        // SAFETY: the event is open for as long as the slot, from which this borrows.
        self.kicks.iter().map(|kick| unsafe { BorrowedFd::borrow_raw(kick.as_raw_fd()) })
    }

    /// Calls with what the device watches on the host's side, if there is anything.
    pub(crate) fn with_host<T>(&self, call: impl FnOnce(BorrowedFd<'_>) -> T) -> Option<T> {
        self.lock().device.host().map(call)
    }

    /// Answers a read of a vCPU.
    pub(crate) fn read(&self, offset: u64, bytes: &mut [u8]) {
        if let Some(offset) = offset.checked_sub(CONFIG) {
            bytes.fill(0);
            let config = self.lock().device.config();
            let from = usize::try_from(offset).map_or(config.len(), |at| at.min(config.len()));
            for (byte, value) in bytes.iter_mut().zip(&config[from..]) {
                *byte = *value;
            }
            return;
        }
        let value = match offset {
            0x60 => self.interrupt.reasons(),
            _ => self.lock().register(offset),
        };
        // Registers are read whole; whoever does not finds nothing there.
        if let Ok(bytes) = <&mut [u8; 4]>::try_from(bytes) {
            *bytes = value.to_le_bytes();
        }
    }

    /// Takes a write of a vCPU.
    pub(crate) fn write(&self, offset: u64, bytes: &[u8]) {
        if let Some(offset) = offset.checked_sub(CONFIG) {
            let offset = usize::try_from(offset).unwrap_or(usize::MAX);
            self.lock().device.configure(offset, bytes);
            return;
        }
        let Ok(value) = <[u8; 4]>::try_from(bytes).map(u32::from_le_bytes) else { return };
        match offset {
            NOTIFY => self.wake(Wake::Guest(usize::try_from(value).unwrap_or(usize::MAX))),
            0x64 => self.interrupt.acknowledge(value),
            0x70 => self.set_status(value),
            _ => self.lock().set_register(offset, value),
        }
    }

    fn set_status(&self, status: u32) {
        let mut inner = self.lock();
        if status == 0 {
            return inner.reset();
        }
        if inner.set_status(status) {
            drop(inner);
            // What the host has had to say until now, nobody was there to hear.
            self.wake(Wake::Host);
            for index in 0..self.kicks.len() {
                self.wake(Wake::Guest(index));
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn features(&self) -> u64 {
        self.device.features()
            | 1 << VIRTIO_F_VERSION_1
            | 1 << VIRTIO_RING_F_EVENT_IDX
            | 1 << VIRTIO_RING_F_INDIRECT_DESC
    }

    fn register(&self, offset: u64) -> u32 {
        let registers = &self.registers;
        match offset {
            0x00 => MAGIC,
            0x04 => VERSION,
            0x08 => self.device.kind(),
            0x0c => VENDOR,
            0x10 => page(self.features(), registers.features_page),
            0x34 => self.selected().map_or(0, |_| u32::from(QUEUE_SIZE)),
            0x44 => self.selected().is_some_and(Queue::ready).into(),
            0x70 => registers.status,
            // No shared memory: its length is minus one.
            0xb0 | 0xb4 => u32::MAX,
            _ => 0,
        }
    }

    fn set_register(&mut self, offset: u64, value: u32) {
        match offset {
            0x14 => self.registers.features_page = value,
            0x20 => {
                let page = self.registers.driver_features_page;
                set_page(&mut self.registers.driver_features, page, value);
            }
            0x24 => self.registers.driver_features_page = value,
            0x30 => self.registers.queue = value,
            _ => self.set_queue_register(offset, value),
        }
    }

    /// The registers of the selected queue. A queue at work can no longer be changed.
    fn set_queue_register(&mut self, offset: u64, value: u32) {
        if self.active.is_some() {
            return;
        }
        let index = usize::try_from(self.registers.queue).unwrap_or(usize::MAX);
        let Some(queue) = self.queues.get_mut(index) else { return };
        match offset {
            0x38 => queue.set_size(u16::try_from(value).unwrap_or(0)),
            0x44 => queue.set_ready(value == 1),
            0x80 => queue.set_desc_table_address(Some(value), None),
            0x84 => queue.set_desc_table_address(None, Some(value)),
            0x90 => queue.set_avail_ring_address(Some(value), None),
            0x94 => queue.set_avail_ring_address(None, Some(value)),
            0xa0 => queue.set_used_ring_address(Some(value), None),
            0xa4 => queue.set_used_ring_address(None, Some(value)),
            _ => {}
        }
    }

    fn selected(&self) -> Option<&Queue> {
        self.queues.get(usize::try_from(self.registers.queue).ok()?)
    }

    /// Takes a new status; says whether the driver has just gone to work.
    fn set_status(&mut self, mut status: u32) -> bool {
        let features = self.registers.driver_features;
        let acceptable =
            features & !self.features() == 0 && features & 1 << VIRTIO_F_VERSION_1 != 0;
        if !acceptable {
            // The driver reads it back, and sees that it asked for too much.
            status &= !VIRTIO_CONFIG_S_FEATURES_OK;
        }
        self.registers.status = status;
        let both = VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_DRIVER_OK;
        if status & both != both || self.active.is_some() {
            return false;
        }
        let mut queues = std::mem::take(&mut self.queues);
        for queue in &mut queues {
            queue.set_event_idx(features & 1 << VIRTIO_RING_F_EVENT_IDX != 0);
            // A queue outside of memory is one that the guest does without.
            let valid = queue.is_valid(&*self.memory);
            queue.set_ready(valid);
        }
        let (memory, interrupt) = (Arc::clone(&self.memory), Arc::clone(&self.interrupt));
        self.active = Some(Queues::new(memory, queues, interrupt));
        self.device.activate(features);
        true
    }

    fn restore(&mut self, saved: SavedSlot) -> Result<()> {
        let features = saved.driver_features;
        let acceptable = !saved.active || features & !self.features() == 0;
        if saved.kind != self.device.kind()
            || saved.queues.len() != self.device.queues()
            || !acceptable
        {
            return Err(not_this_device());
        }
        let memory = Arc::clone(&self.memory);
        let at_work = saved.active.then_some(&*memory);
        let queues = saved.queues.into_iter().map(|queue| queue.restore(QUEUE_SIZE, at_work));
        self.queues = queues.collect::<Result<_>>()?;
        self.registers = Registers {
            status: saved.status,
            features_page: saved.features_page,
            driver_features_page: saved.driver_features_page,
            driver_features: features,
            queue: saved.queue,
        };
        self.device.restore(saved.device)?;
        if saved.active {
            let queues = std::mem::take(&mut self.queues);
            self.active = Some(Queues::new(memory, queues, Arc::clone(&self.interrupt)));
            self.device.activate(features);
        }
        Ok(())
    }

    fn reset(&mut self) {
        self.active = None;
        self.queues = fresh_queues(&*self.device);
        self.registers = Registers::default();
        self.interrupt.acknowledge(u32::MAX);
        self.device.reset();
    }
}

fn fresh_queues(device: &dyn Device) -> Vec<Queue> {
    let queue = || Queue::new(QUEUE_SIZE).expect("the size is a power of two");
    (0..device.queues()).map(|_| queue()).collect()
}

/// The half of a 64-bit word that a page selects.
fn page(word: u64, page: u32) -> u32 {
    let half = match page {
        0 => word & u64::from(u32::MAX),
        1 => word >> 32,
        _ => 0,
    };
    u32::try_from(half).expect("it has 32 bits")
}

fn set_page(word: &mut u64, page: u32, value: u32) {
    let value = u64::from(value);
    match page {
        0 => *word = *word >> 32 << 32 | value,
        1 => *word = *word & u64::from(u32::MAX) | value << 32,
        _ => {}
    }
}

#[cfg(test)]
mod tests;
