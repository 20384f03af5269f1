// SPDX-License-Identifier: Apache-2.0
//! A guest that does to a device whatever some bytes say, for fuzzers and property tests.
//!
//! The bytes are a device, and then a list of steps, each an operation with its arguments. A run ends
//! with the bytes. The device is set up before, so that nobody has to find out how.
//!
//! # Invariants
//!
//! What holds whatever the guest does: nothing panics, every step ends, a disk keeps its length and
//! what is beyond its last whole sector, and a read-only one keeps all it has.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::os::unix::net::UnixStream;

use vm_memory::{Bytes as _, GuestAddress};

use crate::devices::{Balloon, Block, Channel, Entropy, Net, Share, Stream, Tap, Wire};
use crate::saved::Access;
use crate::virtio::guest::{Guest, MEMORY_LEN, Piece};

/// How many devices there are to choose from.
pub const DEVICES: u8 = 8;

/// A disk, which ends within a sector.
static DISK: [u8; 64 * 512 + 100] = [0x5a; 64 * 512 + 100];
const READ_ONLY_DISK: u8 = 4;

/// Does to the device of this number what the bytes say.
pub fn hostile_guest(device: u8, steps: &[u8]) {
    let (mut guest, host) = make(device % DEVICES);
    let mut steps = Steps(steps);
    while let Some(operation) = steps.byte() {
        step(operation, &mut guest, &host, &mut steps);
    }
    if let Host::Disk(file) = host {
        let mut content = vec![0; DISK.len() + 1];
        let len = file.read_at(&mut content, 0).expect("a file can be read");
        let kept = if device % DEVICES == READ_ONLY_DISK { 0 } else { 64 * 512 };
        assert_eq!(len, DISK.len(), "a disk keeps its length");
        assert!(content[kept..len] == DISK[kept..], "this was not the guest's to write");
    }
}

/// The other side of a device.
enum Host {
    None,
    Socket(UnixStream),
    Disk(File),
}

fn make(device: u8) -> (Guest, Host) {
    const MADE: &str = "there is room for a device";
    let sockets = || {
        let (ours, theirs) = UnixStream::pair().expect(MADE);
        ours.set_nonblocking(true).expect(MADE);
        (Host::Socket(ours), theirs)
    };
    match device {
        0 => (Guest::new(Balloon), Host::None),
        1 => (Guest::new(Entropy), Host::None),
        2 => {
            let (ours, theirs) = sockets();
            (Guest::new(Channel::new(theirs.into(), "channel").expect(MADE)), ours)
        }
        3 | READ_ONLY_DISK => {
            let file = tempfile::tempfile().expect(MADE);
            file.write_all_at(&DISK, 0).expect(MADE);
            let ours = file.try_clone().expect(MADE);
            let access = Access { read_only: device == READ_ONLY_DISK, durable: false };
            let disk = Block::new(file, "disk", access).expect(MADE);
            (Guest::new(disk), Host::Disk(ours))
        }
        5 => {
            let (ours, theirs) = sockets();
            (Guest::new(Net::new([2; 6], Wire::Stream(Stream::new(theirs))).expect(MADE)), ours)
        }
        6 => {
            // To the card, a socket that keeps what is written apart is like a tap device.
            let (ours, theirs) = packets();
            (Guest::new(Net::new([2; 6], Wire::Tap(Tap::new(theirs))).expect(MADE)), ours)
        }
        _ => {
            let (ours, theirs) = sockets();
            (Guest::new(Share::new("share", theirs).expect(MADE)), ours)
        }
    }
}

fn packets() -> (Host, OwnedFd) {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
        .expect("there is room for sockets");
    (Host::Socket(ours.into()), theirs)
}

/// Does one thing. What the steps have no argument for is zero.
fn step(operation: u8, guest: &mut Guest, host: &Host, steps: &mut Steps<'_>) {
    match operation % 10 {
        // A chain that starts with bytes of the fuzzer's.
        0 => {
            let (queue, request) = (steps.queue(), steps.some_bytes());
            let room = usize::from(steps.short());
            guest.send(queue, request, room);
        }
        // A chain that leads anywhere.
        1 => {
            let (queue, count) = (steps.queue(), steps.or_zero() % 32);
            let pieces: Vec<Piece> = (0..count).map(|_| steps.piece()).collect();
            guest.put(queue, &pieces);
            guest.kick(queue);
        }
        2 => {
            let (queue, head) = (steps.queue(), steps.short());
            guest.offer(queue, head);
            guest.kick(queue);
        }
        // Memory, the queues among it.
        3 => {
            let (at, bytes) = (steps.address(), steps.some_bytes());
            // Where there is no memory, a guest cannot write.
            let _ = guest.memory.write_slice(bytes, GuestAddress(at));
        }
        // Registers, in any width.
        4 => {
            let offset = u64::from(steps.short()) % 0x1000;
            let width = usize::from(steps.or_zero() % 9);
            let bytes: Vec<u8> = (0..width).map(|_| steps.or_zero()).collect();
            guest.slot().write(offset, &bytes);
        }
        5 => {
            let offset = u64::from(steps.short()) % 0x1000;
            let mut bytes = vec![0; usize::from(steps.or_zero() % 9)];
            guest.slot().read(offset, &mut bytes);
        }
        6 => guest.start(),
        // What the host says, which is no more honest where it is somebody else's.
        7 => {
            let bytes = steps.some_bytes();
            if let Host::Socket(socket) = host {
                // Fails when the socket is full, or the device has hung up.
                let _ = (&*socket).write(bytes);
            }
            guest.wake_host();
        }
        8 => {
            let mut bytes = [0; 1 << 12];
            if let Host::Socket(socket) = host {
                let _ = (&*socket).read(&mut bytes);
            }
            guest.wake_host();
        }
        _ => {
            let queue = usize::from(steps.or_zero());
            guest.kick(queue);
            guest.answered(queue);
        }
    }
}

/// What is left of the bytes.
struct Steps<'a>(&'a [u8]);

impl<'a> Steps<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn or_zero(&mut self) -> u8 {
        self.byte().unwrap_or(0)
    }

    fn short(&mut self) -> u16 {
        u16::from_le_bytes([self.or_zero(), self.or_zero()])
    }

    /// One more queue than any device has.
    fn queue(&mut self) -> usize {
        usize::from(self.or_zero() % 5)
    }

    /// Bytes, after their number.
    fn some_bytes(&mut self) -> &'a [u8] {
        let len = usize::from(self.or_zero()).min(self.0.len());
        let (bytes, rest) = self.0.split_at(len);
        self.0 = rest;
        bytes
    }

    /// An address that is likely to be in memory, or at an edge.
    fn address(&mut self) -> u64 {
        let kind = self.or_zero();
        let low = u64::from(self.short());
        match kind % 8 {
            0 => MEMORY_LEN.wrapping_sub(low),
            1 => u64::MAX - low,
            _ => (u64::from(kind) << 12) + low,
        }
    }

    fn piece(&mut self) -> Piece {
        let address = self.address();
        let kind = self.or_zero();
        let len = match kind % 4 {
            0 => u32::from(self.or_zero()),
            1 => u32::from(self.short()),
            2 => u32::from(self.short()) << 16,
            _ => 0x1000,
        };
        (address, len, kind & 0x80 != 0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn devices_bear_any_guest(
            device in 0..DEVICES, steps in proptest::collection::vec(any::<u8>(), 0..2048),
        ) {
            hostile_guest(device, &steps);
        }
    }
}
