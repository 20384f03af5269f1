// SPDX-License-Identifier: Apache-2.0
//! A network card (virtio 1.2, 5.1), whose frames go through a stream socket or a tap device.
//!
//! A stream carries each frame after its length in four big-endian bytes, as QEMU's `stream` and
//! `passt` do. A tap device has the card's own header in front of each.
//!
//! # Invariants
//!
//! - No header of the guest's leaves the machine: the card offers to take over no work, so each
//!   frame is complete, and its header is ours to write.

use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use virtio_bindings::virtio_ids::VIRTIO_ID_NET;
use virtio_bindings::virtio_net::{VIRTIO_NET_F_MAC, VIRTIO_NET_F_MRG_RXBUF};

use super::set_nonblocking;
use crate::error::{Error, Result};
use crate::virtio::{Chain, Device, Queues, SavedDevice, SavedQueue, Wake, not_this_device};

const FROM_HOST: usize = 0;
const TO_HOST: usize = 1;

/// `struct virtio_net_hdr_v1`.
const HEADER_LEN: usize = 12;
/// A header that leaves nothing to do.
const PLAIN_HEADER: [u8; HEADER_LEN] = [0; HEADER_LEN];
/// The largest frame: an MTU of 65,520 and the Ethernet header.
const MAX_FRAME: usize = 65_534;
const LENGTH_LEN: usize = 4;
/// Buffers that one frame may take: all of a queue. Linux's have room for 1,500 bytes and more.
const MAX_BUFFERS: usize = 256;

/// A network card.
#[derive(Debug)]
pub(crate) struct Net {
    mac: [u8; 6],
    wire: Wire,
}

/// What frames go through.
#[derive(Debug)]
pub(crate) enum Wire {
    /// A stream socket.
    Stream(Stream),
    /// A tap device, one frame a call, the card's header in front.
    Tap(Tap),
}

/// A tap device, and the frame that has found no buffer yet.
#[derive(Debug)]
pub(crate) struct Tap {
    device: OwnedFd,
    /// With the tap device's header in front.
    frame: Vec<u8>,
}

/// A stream socket, with what is under way in it.
#[derive(Debug)]
pub(crate) struct Stream {
    socket: UnixStream,
    /// Bytes that came and are not yet a whole frame, or have found no buffer.
    received: Received,
    /// The rest of a frame that the socket had no room for.
    unsent: Vec<u8>,
    sent: usize,
}

impl Net {
    /// Makes a card.
    pub(crate) fn new(mac: [u8; 6], wire: Wire) -> Result<Net> {
        let net = Net { mac, wire };
        let what = "use the network's stream";
        net.host()
            .map_or(Ok(()), |host| set_nonblocking(host.as_fd()))
            .map_err(Error::host(what))?;
        Ok(net)
    }

    fn receive_all(&mut self, queues: &mut Queues) {
        let mut served = false;
        while queues.is_ready(FROM_HOST)
            && let Some(frame) = self.wire.receive()
        {
            if !deliver(queues, frame) {
                break;
            }
            self.wire.consume();
            served = true;
        }
        if served {
            queues.signal(FROM_HOST);
        }
    }

    fn send_all(&mut self, queues: &mut Queues) {
        let mut served = false;
        loop {
            if let Wire::Stream(stream) = &mut self.wire
                && !stream.flush()
            {
                break;
            }
            let Some(chain) = queues.pop(TO_HOST) else { break };
            let (frame, memory) = (&chain.readable, queues.memory());
            let len = frame.len().saturating_sub(HEADER_LEN);
            match &mut self.wire {
                _ if !(1..=MAX_FRAME).contains(&len) => {}
                Wire::Stream(stream) => {
                    frame.read(memory, HEADER_LEN, stream.next_frame(len));
                }
                // A card may lose frames, and does where a tap takes no more.
                Wire::Tap(tap) => {
                    let device = tap.device.as_fd();
                    drop(frame.drain_after(&PLAIN_HEADER, memory, HEADER_LEN, device));
                }
            }
            queues.done(chain, 0);
            served = true;
        }
        if served {
            queues.signal(TO_HOST);
        }
    }
}

/// Puts a frame into as many buffers as it takes; says whether there were as many.
///
/// A guest that looks while we work must not see some of them: it would take the frame for a broken
/// one and lose it.
fn deliver(queues: &mut Queues, frame: &[u8]) -> bool {
    let mut header = PLAIN_HEADER;
    let mut chains = Vec::new();
    let mut room = 0;
    while room < HEADER_LEN + frame.len() {
        if chains.len() == MAX_BUFFERS {
            // A guest with so little room in its buffers does without this frame.
            for chain in chains {
                queues.done(chain, 0);
            }
            return true;
        }
        let Some(chain) = queues.pop(FROM_HOST) else {
            for chain in chains.into_iter().rev() {
                queues.undo(chain);
            }
            return false;
        };
        room += chain.writable.len();
        chains.push(chain);
    }
    // A queue is not as long as this number is large.
    let count = u16::try_from(chains.len()).unwrap_or(u16::MAX);
    header[HEADER_LEN - 2..].copy_from_slice(&count.to_le_bytes());
    let (mut rest, memory) = (frame, queues.memory());
    let mut fill = |(number, chain): (usize, Chain)| {
        let start = if number == 0 { chain.writable.write(memory, 0, &header) } else { 0 };
        let len = chain.writable.write(memory, start, rest);
        rest = &rest[len..];
        (chain, start + len)
    };
    let filled = chains.into_iter().enumerate().map(&mut fill).collect();
    queues.done_together(filled);
    true
}

impl Wire {
    /// The next frame, if all of it is there. It stays until it is consumed.
    fn receive(&mut self) -> Option<&[u8]> {
        match self {
            Wire::Stream(stream) => stream.receive(),
            Wire::Tap(tap) => tap.receive(),
        }
    }

    fn consume(&mut self) {
        match self {
            Wire::Stream(stream) => stream.received.consume(),
            Wire::Tap(tap) => tap.frame.clear(),
        }
    }
}

impl Tap {
    /// A tap device from which nothing has come yet.
    pub(crate) fn new(device: OwnedFd) -> Tap {
        Tap { device, frame: Vec::new() }
    }

    fn receive(&mut self) -> Option<&[u8]> {
        while self.frame.len() <= HEADER_LEN {
            self.frame.resize(HEADER_LEN + MAX_FRAME, 0);
            let len = rustix::io::read(&self.device, &mut self.frame[..]).unwrap_or(0);
            self.frame.truncate(len);
            if len == 0 {
                return None;
            }
        }
        self.frame.get(HEADER_LEN..)
    }
}

impl Stream {
    /// A stream on which nothing is under way.
    pub(crate) fn new(socket: UnixStream) -> Stream {
        Stream { socket, received: Received::default(), unsent: Vec::new(), sent: 0 }
    }

    /// The next frame, if all of it is there. It stays until it is consumed.
    fn receive(&mut self) -> Option<&[u8]> {
        while self.received.frame().is_none() {
            if !self.received.read(&mut self.socket) {
                return None;
            }
        }
        self.received.frame()
    }

    /// Room for a frame, which is sent by the next flush.
    fn next_frame(&mut self, len: usize) -> &mut [u8] {
        let prefix = u32::try_from(len).expect("a frame is short");
        self.sent = 0;
        self.unsent.clear();
        self.unsent.extend(prefix.to_be_bytes());
        self.unsent.resize(LENGTH_LEN + len, 0);
        &mut self.unsent[LENGTH_LEN..]
    }

    /// Sends what is left of the last frame; says whether all of it is through.
    fn flush(&mut self) -> bool {
        while self.sent < self.unsent.len() {
            match self.socket.write(&self.unsent[self.sent..]) {
                Ok(len) => self.sent += len,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                // With nobody at the other end, frames go nowhere.
                Err(_) => self.sent = self.unsent.len(),
            }
        }
        true
    }
}

/// Bytes on their way to become frames.
#[derive(Debug, Default)]
struct Received {
    bytes: Vec<u8>,
    /// Where the first frame's length is.
    start: usize,
    /// The other end has gone, or has said something that is no frame.
    ended: bool,
}

impl Received {
    /// The first frame, if it is whole.
    fn frame(&self) -> Option<&[u8]> {
        let rest = self.bytes.get(self.start..)?;
        let (len, rest) = rest.split_first_chunk::<LENGTH_LEN>()?;
        rest.get(..usize::try_from(u32::from_be_bytes(*len)).ok()?)
    }

    /// Lets go of the first frame.
    fn consume(&mut self) {
        if let Some(len) = self.frame().map(<[u8]>::len) {
            self.start += LENGTH_LEN + len;
        }
    }

    /// Reads once; says whether there was something.
    fn read(&mut self, socket: &mut UnixStream) -> bool {
        self.bytes.drain(..self.start);
        self.start = 0;
        let too_long = self.bytes.first_chunk::<LENGTH_LEN>().is_some_and(|len| {
            usize::try_from(u32::from_be_bytes(*len)).map_or(true, |len| len > MAX_FRAME)
        });
        if self.ended || too_long {
            self.ended = true;
            return false;
        }
        let have = self.bytes.len();
        self.bytes.resize(LENGTH_LEN + MAX_FRAME, 0);
        let read = socket.read(&mut self.bytes[have..]);
        self.bytes.truncate(have + read.as_ref().map_or(0, |len| *len));
        self.ended = match &read {
            Ok(len) => *len == 0,
            Err(error) => error.kind() != io::ErrorKind::WouldBlock,
        };
        read.is_ok_and(|len| len > 0)
    }
}

impl Device for Net {
    fn kind(&self) -> u32 {
        VIRTIO_ID_NET
    }

    fn features(&self) -> u64 {
        1 << VIRTIO_NET_F_MAC | 1 << VIRTIO_NET_F_MRG_RXBUF
    }

    fn queues(&self) -> usize {
        2
    }

    fn config(&self) -> Vec<u8> {
        self.mac.to_vec()
    }

    fn serve(&mut self, wake: Wake, queues: &mut Queues) {
        match wake {
            Wake::Guest(FROM_HOST) => self.receive_all(queues),
            Wake::Guest(_) => self.send_all(queues),
            Wake::Host => {
                self.receive_all(queues);
                self.send_all(queues);
            }
        }
    }

    fn host(&self) -> Option<BorrowedFd<'_>> {
        Some(match &self.wire {
            Wire::Stream(stream) => stream.socket.as_fd(),
            Wire::Tap(tap) => tap.device.as_fd(),
        })
    }

    /// Frames that are on their way are lost with the link, as they are on a cable that is unplugged.
    fn save(&self, _queues: &mut [SavedQueue]) -> SavedDevice {
        SavedDevice::Card { mac: self.mac }
    }

    fn restore(&mut self, saved: SavedDevice) -> Result<()> {
        let SavedDevice::Card { mac } = saved else { return Err(not_this_device()) };
        self.mac = mac;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
