// SPDX-License-Identifier: Apache-2.0
//! Where vCPUs read and write that is not memory: the devices' registers, and a PC's ports.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::devices::{SavedSerial, Serial};
use crate::memory::HOLE_START;
use crate::virtio::{Slot, WINDOW};

const SERIAL: u16 = 0x3f8;
const SERIAL_END: u16 = SERIAL + 8;
/// The keyboard controller's status and command: kernels ask it for a reset.
const KEYBOARD: u16 = 0x64;
const RESET: u8 = 0xfe;
/// The clock's data: nothing there, rather than a clock that never stops changing.
const CLOCK: u16 = 0x71;

/// All that a vCPU can reach.
pub(crate) struct Bus {
    slots: Vec<Arc<Slot>>,
    serial: Mutex<Serial>,
}

/// What a write has led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Nothing that a vCPU has to know.
    None,
    /// The guest wants a reset.
    Reset,
}

impl Bus {
    pub(crate) fn new(slots: Vec<Arc<Slot>>, serial: Serial) -> Bus {
        Bus { slots, serial: Mutex::new(serial) }
    }

    /// Where the device of this number has its registers.
    pub(crate) fn address(number: usize) -> u64 {
        HOLE_START + number as u64 * WINDOW
    }

    pub(crate) fn read_memory(&self, address: u64, bytes: &mut [u8]) {
        match self.slot(address) {
            Some((slot, offset)) => slot.read(offset, bytes),
            None => bytes.fill(0xff),
        }
    }

    pub(crate) fn write_memory(&self, address: u64, bytes: &[u8]) {
        if let Some((slot, offset)) = self.slot(address) {
            slot.write(offset, bytes);
        }
    }

    pub(crate) fn read_port(&self, port: u16, bytes: &mut [u8]) {
        match (port, bytes) {
            (SERIAL..SERIAL_END, [byte]) => {
                *byte = self.serial().read(u8::try_from(port - SERIAL).expect("one of eight"));
            }
            (KEYBOARD | CLOCK, bytes) => bytes.fill(0),
            (_, bytes) => bytes.fill(0xff),
        }
    }

    pub(crate) fn write_port(&self, port: u16, bytes: &[u8]) -> Effect {
        match (port, bytes) {
            (SERIAL..SERIAL_END, &[byte]) => {
                self.serial().write(u8::try_from(port - SERIAL).expect("one of eight"), byte);
                Effect::None
            }
            (KEYBOARD, [RESET]) => Effect::Reset,
            _ => Effect::None,
        }
    }

    /// Writes the serial port down.
    pub(crate) fn save_serial(&self) -> SavedSerial {
        self.serial().save()
    }

    /// Has devices and guest look at all that they may have missed while the guest was saved.
    pub(crate) fn rouse(&self) {
        self.serial().rouse();
        for slot in &self.slots {
            slot.rouse();
        }
    }

    /// All devices but the serial port.
    pub(crate) fn slots(&self) -> &[Arc<Slot>] {
        &self.slots
    }

    /// Sends on what the guest has written and not finished.
    pub(crate) fn finish(&self) {
        self.serial().finish();
    }

    fn serial(&self) -> MutexGuard<'_, Serial> {
        self.serial.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn slot(&self, address: u64) -> Option<(&Slot, u64)> {
        let offset = address.checked_sub(HOLE_START)?;
        let slot = self.slots.get(usize::try_from(offset / WINDOW).ok()?)?;
        Some((slot, offset % WINDOW))
    }
}
