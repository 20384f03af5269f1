// SPDX-License-Identifier: Apache-2.0
//! Interrupt lines: which device has which, and how one is raised.

use std::sync::atomic::{AtomicU32, Ordering};

use kvm_ioctls::VmFd;
use virtio_bindings::virtio_mmio::VIRTIO_MMIO_INT_VRING;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::error::{Error, Result};

/// Lines of the I/O APIC.
pub(crate) const LINES: u8 = 24;
/// The first serial port's, by convention of the PC.
pub(crate) const SERIAL_LINE: u32 = 4;
/// Those that virtio devices may have: above what a PC gives to others.
pub(crate) const FIRST_VIRTIO_LINE: u32 = 5;

/// The interrupt of one virtio device, with its reasons (virtio 1.2, 4.2.2: `InterruptStatus`).
///
/// It is apart from the device's other state, so that a vCPU that asks for the reason does not wait
/// for a device at work.
#[derive(Debug)]
pub(crate) struct Interrupt {
    line: EventFd,
    reasons: AtomicU32,
}

impl Interrupt {
    /// Connects a device to a line.
    pub(crate) fn connect(vm: &VmFd, number: u32) -> Result<Interrupt> {
        Ok(Interrupt::raising(line(vm, number)?))
    }

    /// An interrupt that raises whatever listens to this event.
    pub(crate) fn raising(line: EventFd) -> Interrupt {
        Interrupt { line, reasons: AtomicU32::new(0) }
    }

    /// Tells the guest that buffers have been used.
    pub(crate) fn buffers_used(&self) {
        self.reasons.fetch_or(VIRTIO_MMIO_INT_VRING, Ordering::SeqCst);
        // Fails only if the counter is full, and then the line is raised already.
        let _ = self.line.write(1);
    }

    /// Knows what a saved guest had not acknowledged.
    pub(crate) fn restore(&self, reasons: u32) {
        self.reasons.store(reasons, Ordering::SeqCst);
    }

    /// Raises the line again, if the guest has not acknowledged all there is. KVM passes interrupts on
    /// by and by, and what was on its way when the guest was saved is lost.
    pub(crate) fn remind(&self) {
        if self.reasons() != 0 {
            let _ = self.line.write(1);
        }
    }

    /// What the guest has not acknowledged.
    pub(crate) fn reasons(&self) -> u32 {
        self.reasons.load(Ordering::SeqCst)
    }

    /// Forgets what the guest has seen.
    pub(crate) fn acknowledge(&self, reasons: u32) {
        self.reasons.fetch_and(!reasons, Ordering::SeqCst);
    }
}

/// An event that raises a line.
pub(crate) fn line(vm: &VmFd, number: u32) -> Result<EventFd> {
    let event = EventFd::new(EFD_NONBLOCK).map_err(Error::host("make an event"))?;
    vm.register_irqfd(&event, number).map_err(Error::kvm("connect an interrupt"))?;
    Ok(event)
}
