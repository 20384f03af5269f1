// SPDX-License-Identifier: Apache-2.0
//! The serial port that the kernel's messages go to: a 16550, write only.
//!
//! Bytes are sent on a line at a time, and when the machine ends. The owner reads all the time, so
//! a guest is held up by nobody.

use std::io::{self, Write};
use std::os::unix::net::UnixStream;

use vm_superio::Trigger;
use vmm_sys_util::eventfd::EventFd;

/// A line that does not end is sent on at this length.
const MAX_LINE: usize = 512;

/// The port.
pub(crate) struct Serial {
    port: vm_superio::Serial<Line, vm_superio::serial::NoEvents, Lines>,
}

impl Serial {
    /// A port that raises `interrupt` and writes to `console`.
    pub(crate) fn new(interrupt: EventFd, console: UnixStream) -> Serial {
        let lines = Lines { console, line: Vec::with_capacity(MAX_LINE) };
        Serial { port: vm_superio::Serial::new(Line(interrupt), lines) }
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
