// SPDX-License-Identifier: Apache-2.0
//! The byte stream to the guest's init: a virtio console with one named port (virtio 1.2, 5.3).
//!
//! The host's end is a stream socket. Nothing is kept in between: bytes move when both sides have
//! room, so each side holds the other up.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use virtio_bindings::virtio_ids::VIRTIO_ID_CONSOLE;

use super::set_nonblocking;
use crate::error::{Error, Result};
use crate::virtio::{
    Chain, Device, Queues, SavedDevice, SavedQueue, Unread, Wake, not_this_device,
};

/// Queues (5.3.2): of the first port, then of the talk about ports.
const FROM_HOST: usize = 0;
const TO_HOST: usize = 1;
const TALK_FROM_HOST: usize = 2;
const TALK_TO_HOST: usize = 3;

/// `VIRTIO_CONSOLE_F_MULTIPORT`.
const MULTIPORT: u64 = 1 << 1;

/// What is said about ports (5.3.6.2).
const DEVICE_READY: u16 = 0;
const PORT_ADD: u16 = 1;
const PORT_READY: u16 = 3;
const PORT_OPEN: u16 = 6;
const PORT_NAME: u16 = 7;
/// Port, event and value.
const MESSAGE_LEN: usize = 8;
/// The only port.
const PORT: u32 = 0;
/// The guest can ask for the port's name again and again, and not read the answers.
const MAX_UNREAD: usize = 16;

/// The channel.
#[derive(Debug)]
pub(crate) struct Channel {
    stream: OwnedFd,
    name: String,
    /// What the guest has yet to be told about ports.
    unread: Vec<Vec<u8>>,
    /// What the socket had no room for, and how much of it is through.
    unsent: Option<(Chain, usize)>,
    /// How much of the guest's next buffer was through when the guest was saved.
    sent_before: usize,
    /// Whether the host's end still takes and gives bytes.
    open: bool,
    /// Whether a program of the guest has the port open. Linux drops what comes while none has.
    listening: bool,
}

impl Channel {
    /// Connects a stream to a port of this name.
    pub(crate) fn new(stream: OwnedFd, name: &str) -> Result<Channel> {
        set_nonblocking(stream.as_fd()).map_err(Error::host("use the channel"))?;
        Ok(Channel {
            stream,
            name: name.to_owned(),
            unread: Vec::new(),
            unsent: None,
            sent_before: 0,
            open: true,
            listening: false,
        })
    }

    fn receive_all(&mut self, queues: &mut Queues) {
        let mut served = false;
        while self.open
            && self.listening
            && let Some(chain) = queues.pop(FROM_HOST)
        {
            match chain.writable.fill(queues.memory(), 0, self.stream.as_fd()) {
                Ok(len @ 1..) => {
                    queues.done(chain, len);
                    served = true;
                }
                Ok(0) if chain.writable.len() > 0 => {
                    self.open = false;
                    queues.undo(chain);
                }
                Ok(_) => queues.done(chain, 0),
                Err(error) => {
                    self.open = error.kind() == std::io::ErrorKind::WouldBlock;
                    queues.undo(chain);
                    break;
                }
            }
        }
        if served {
            queues.signal(FROM_HOST);
        }
    }

    fn send_all(&mut self, queues: &mut Queues) {
        let mut served = false;
        while let Some((chain, sent)) = self.unsent.take().or_else(|| {
            let chain = queues.pop(TO_HOST)?;
            let sent = std::mem::take(&mut self.sent_before).min(chain.readable.len());
            Some((chain, sent))
        }) {
            let left = chain.readable.len() - sent;
            match chain.readable.drain(queues.memory(), sent, self.stream.as_fd()) {
                Ok(len) if len < left => self.unsent = Some((chain, sent + len)),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    self.unsent = Some((chain, sent));
                    break;
                }
                // With nobody at the other end, the bytes go nowhere, and the guest goes on.
                Ok(_) | Err(_) => {
                    queues.done(chain, 0);
                    served = true;
                }
            }
        }
        if served {
            queues.signal(TO_HOST);
        }
    }

    fn hear(&mut self, queues: &mut Queues) {
        let mut served = false;
        while let Some(chain) = queues.pop(TALK_TO_HOST) {
            let mut message = [0; MESSAGE_LEN];
            if chain.readable.read(queues.memory(), 0, &mut message) == MESSAGE_LEN {
                let [_, _, _, _, event @ .., low, high] = message;
                self.answer(u16::from_le_bytes(event), u16::from_le_bytes([low, high]));
            }
            queues.done(chain, 0);
            served = true;
        }
        if served {
            queues.signal(TALK_TO_HOST);
        }
        self.speak(queues);
    }

    fn answer(&mut self, event: u16, value: u16) {
        let messages = match event {
            DEVICE_READY => vec![message(PORT_ADD, 1, &[])],
            PORT_READY => {
                let name = [self.name.as_bytes(), &[0]].concat();
                vec![message(PORT_NAME, 1, &name), message(PORT_OPEN, 1, &[])]
            }
            PORT_OPEN => {
                self.listening = value == 1;
                Vec::new()
            }
            _ => Vec::new(),
        };
        if self.unread.len() < MAX_UNREAD {
            self.unread.extend(messages);
        }
    }

    fn speak(&mut self, queues: &mut Queues) {
        let mut told = 0;
        while let Some(message) = self.unread.get(told)
            && let Some(chain) = queues.pop(TALK_FROM_HOST)
        {
            let len = chain.writable.write(queues.memory(), 0, message);
            queues.done(chain, len);
            told += 1;
        }
        self.unread.drain(..told);
        if told > 0 {
            queues.signal(TALK_FROM_HOST);
        }
    }
}

fn message(event: u16, value: u16, rest: &[u8]) -> Vec<u8> {
    [&PORT.to_le_bytes()[..], &event.to_le_bytes(), &value.to_le_bytes(), rest].concat()
}

impl Device for Channel {
    fn kind(&self) -> u32 {
        VIRTIO_ID_CONSOLE
    }

    fn features(&self) -> u64 {
        MULTIPORT
    }

    fn queues(&self) -> usize {
        4
    }

    fn config(&self) -> Vec<u8> {
        // Columns and rows, which no feature announces; one port; and the register for early
        // messages, which none announces either.
        [&[0; 4][..], &1_u32.to_le_bytes(), &[0; 4]].concat()
    }

    fn reset(&mut self) {
        self.unread.clear();
        self.unsent = None;
        self.sent_before = 0;
        self.listening = false;
    }

    fn serve(&mut self, wake: Wake, queues: &mut Queues) {
        match wake {
            Wake::Guest(FROM_HOST) => self.receive_all(queues),
            Wake::Guest(TO_HOST) => self.send_all(queues),
            Wake::Guest(TALK_FROM_HOST) => self.speak(queues),
            Wake::Guest(_) => {
                self.hear(queues);
                self.receive_all(queues);
            }
            Wake::Host => {
                self.receive_all(queues);
                if self.unsent.is_some() {
                    self.send_all(queues);
                }
            }
        }
    }

    fn host(&self) -> Option<BorrowedFd<'_>> {
        Some(self.stream.as_fd())
    }

    fn save(&self, queues: &mut [SavedQueue]) -> SavedDevice {
        let mut sent = self.sent_before;
        if let (Some((_, through)), Some(queue)) = (&self.unsent, queues.get_mut(TO_HOST)) {
            queue.undo();
            sent = *through;
        }
        let unread = self.unread.iter().cloned().map(Unread).collect();
        SavedDevice::Channel { listening: self.listening, unread, sent }
    }

    fn restore(&mut self, saved: SavedDevice) -> Result<()> {
        let SavedDevice::Channel { listening, unread, sent } = saved else {
            return Err(not_this_device());
        };
        self.unread = unread.into_iter().take(MAX_UNREAD).map(|Unread(message)| message).collect();
        (self.listening, self.sent_before) = (listening, sent);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
