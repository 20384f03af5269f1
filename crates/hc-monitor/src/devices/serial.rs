// SPDX-License-Identifier: Apache-2.0
//! The serial port that the kernel's messages go to: a 16550, write only.
//!
//! Bytes are sent on a line at a time, and when the machine ends. The owner reads all the time, so
//! a guest is held up by nobody.

use std::io::{self, Write};
use std::os::unix::net::UnixStream;

use serde::{Deserialize, Serialize};
use vm_superio::Trigger;
use vm_superio::serial::{NoEvents, SerialState};
use vmm_sys_util::eventfd::EventFd;

use crate::error::{Error, Result};
use crate::saved::plain;

/// A line that does not end is sent on at this length.
const MAX_LINE: usize = 512;

/// The port.
pub(crate) struct Serial {
    port: vm_superio::Serial<Line, NoEvents, Lines>,
}

/// The registers, in the order of `SerialState`, and the line under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SavedSerial {
    registers: [u8; 9],
    #[serde(with = "plain::raw")]
    line: Vec<u8>,
}

impl Serial {
    /// A port that raises `interrupt` and writes to `console`.
    pub(crate) fn new(interrupt: EventFd, console: UnixStream) -> Serial {
        let lines = Lines { console, line: Vec::with_capacity(MAX_LINE) };
        Serial { port: vm_superio::Serial::new(Line(interrupt), lines) }
    }

    /// A port that is what the saved one was. The interrupt's line leads to no vCPU that runs.
    pub(crate) fn restore(
        saved: SavedSerial,
        interrupt: EventFd,
        console: UnixStream,
    ) -> Result<Serial> {
        let [low, high, enable, identification, control, status, modem, modem_status, scratch] =
            saved.registers;
        let state = SerialState {
            baud_divisor_low: low,
            baud_divisor_high: high,
            interrupt_enable: enable,
            interrupt_identification: identification,
            line_control: control,
            line_status: status,
            modem_control: modem,
            modem_status,
            scratch,
            in_buffer: Vec::new(),
        };
        let mut line = saved.line;
        line.truncate(MAX_LINE - 1);
        let lines = Lines { console, line };
        let port = vm_superio::Serial::from_state(&state, Line(interrupt), NoEvents, lines);
        let failed = |error| Error::Saved(format!("its serial port: {error}"));
        Ok(Serial { port: port.map_err(failed)? })
    }

    /// Writes it down. Nothing is ever sent to the guest, so there is nothing that it has not read.
    pub(crate) fn save(&self) -> SavedSerial {
        let state = self.port.state();
        SavedSerial {
            registers: [
                state.baud_divisor_low,
                state.baud_divisor_high,
                state.interrupt_enable,
                state.interrupt_identification,
                state.line_control,
                state.line_status,
                state.modem_control,
                state.modem_status,
                state.scratch,
            ],
            line: self.port.writer().line.clone(),
        }
    }

    /// Raises the interrupt, if there may be one that a saved guest has not seen.
    pub(crate) fn rouse(&self) {
        if self.port.state().interrupt_enable != 0 {
            let _ = self.port.interrupt_evt().trigger();
        }
    }

    /// Answers a read of a register.
    pub(crate) fn read(&mut self, register: u8) -> u8 {
        self.port.read(register)
    }

    /// Takes a write to a register.
    pub(crate) fn write(&mut self, register: u8, value: u8) {
        // Fails if nobody listens any more, which is no concern of the guest's.
        let _ = self.port.write(register, value);
    }

    /// Sends on what is left.
    pub(crate) fn finish(&mut self) {
        self.port.writer_mut().send();
    }
}

struct Line(EventFd);

impl Trigger for Line {
    type E = io::Error;

    fn trigger(&self) -> io::Result<()> {
        self.0.write(1)
    }
}

struct Lines {
    console: UnixStream,
    line: Vec<u8>,
}

impl Lines {
    fn send(&mut self) {
        let _ = self.console.write_all(&self.line);
        self.line.clear();
    }
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for &byte in bytes {
            self.line.push(byte);
            if byte == b'\n' || self.line.len() == MAX_LINE {
                self.send();
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        // The port flushes after each byte.
        Ok(())
    }
}
