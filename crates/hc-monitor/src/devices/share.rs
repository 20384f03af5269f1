// SPDX-License-Identifier: Apache-2.0
//! A folder of the host (virtio 1.2, 5.11): FUSE requests to whoever serves it, answers back.
//!
//! The server is another process at the end of a stream socket, which never sees the guest's
//! memory. A request begins with its own length, as FUSE has it, and so does an answer; the device
//! knows no more of FUSE than that and the number that ties the two together.
//!
//! # Invariants
//!
//! - An answer goes to the request with its number, or nowhere.
//! - As many requests are under way as a queue has room for; more are not taken.

use std::collections::HashMap;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::net::UnixStream;

use virtio_bindings::virtio_ids::VIRTIO_ID_FS;

use super::set_nonblocking;
use crate::error::{Error, Result};
use crate::virtio::{Chain, Device, Queues, Wake};

/// Requests that cannot wait, such as to forget; then all others.
const URGENT: usize = 0;
const REQUESTS: usize = 1;
const QUEUES: [usize; 2] = [URGENT, REQUESTS];
const TAG_LEN: usize = 36;
/// `struct fuse_in_header`: length, operation, number, ...
const REQUEST_HEADER_LEN: usize = 40;
/// `struct fuse_out_header`: length, error, number.
const ANSWER_HEADER_LEN: usize = 16;
/// The largest write or read of Linux's driver, 256 pages, with all that goes around it.
const MAX_MESSAGE: usize = (1 << 20) + 4096;
/// Requests without an answer. A guest could put the same buffers into the queue again and again.
const MAX_WAITING: usize = 256;
/// `FUSE_FORGET` and `FUSE_BATCH_FORGET`, which have no answer.
const UNANSWERED: [u32; 2] = [2, 42];

/// A shared folder.
#[derive(Debug)]
pub(crate) struct Share {
    tag: String,
    server: UnixStream,
    /// Requests without an answer yet, by number.
    waiting: HashMap<u64, Chain>,
    unsent: Vec<u8>,
    sent: usize,
    received: Vec<u8>,
    ended: bool,
}

impl Share {
    /// Connects a server to a device of this tag.
    pub(crate) fn new(tag: &str, server: UnixStream) -> Result<Share> {
        set_nonblocking(server.as_fd()).map_err(Error::host("use a shared folder"))?;
        Ok(Share {
            tag: tag.to_owned(),
            server,
            waiting: HashMap::new(),
            unsent: Vec::new(),
            sent: 0,
            received: Vec::new(),
            ended: false,
        })
    }

    /// Passes requests on, as far as the socket takes them.
    fn ask(&mut self, queues: &mut Queues) {
        for index in QUEUES {
            let mut served = false;
            while self.flush()
                && self.waiting.len() < MAX_WAITING
                && let Some(chain) = queues.pop(index)
            {
                if let Some(chain) = self.take(queues, chain) {
                    queues.done(chain, 0);
                    served = true;
                }
            }
            if served {
                queues.signal(index);
            }
        }
    }

    /// Takes a request in; gives it back if there will be no answer.
    fn take(&mut self, queues: &Queues, chain: Chain) -> Option<Chain> {
        let mut header = [0; REQUEST_HEADER_LEN];
        let whole = chain.readable.read(queues.memory(), 0, &mut header) == REQUEST_HEADER_LEN;
        let len = chain.readable.len();
        let (said, rest) = header.split_first_chunk().expect("a header is longer");
        let (operation, rest) = rest.split_first_chunk().expect("a header is longer");
        let number = u64::from_le_bytes(*rest.first_chunk().expect("a header is longer"));
        let honest = usize::try_from(u32::from_le_bytes(*said)) == Ok(len) && len <= MAX_MESSAGE;
        if self.ended || !whole || !honest || self.waiting.contains_key(&number) {
            return Some(chain);
        }
        self.sent = 0;
        self.unsent.resize(len, 0);
        chain.readable.read(queues.memory(), 0, &mut self.unsent);
        // The guest may have changed it since.
        self.unsent[..REQUEST_HEADER_LEN].copy_from_slice(&header);
        if UNANSWERED.contains(&u32::from_le_bytes(*operation)) {
            return Some(chain);
        }
        self.waiting.insert(number, chain);
        None
    }

    /// Sends what is left of the last request; says whether all of it is through.
    fn flush(&mut self) -> bool {
        while self.sent < self.unsent.len() {
            match self.server.write(&self.unsent[self.sent..]) {
                Ok(len) => self.sent += len,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                Err(_) => {
                    self.ended = true;
                    self.sent = self.unsent.len();
                }
            }
        }
        true
    }

    fn answer_all(&mut self, queues: &mut Queues) {
        let mut served = false;
        while self.read() {
            let Some((len, number)) = self.answer() else { continue };
            let answer = self.received.drain(..len);
            if let Some(chain) = self.waiting.remove(&number) {
                let len = chain.writable.write(queues.memory(), 0, answer.as_slice());
                queues.done(chain, len);
                served = true;
            }
        }
        if self.ended {
            // Nobody is going to answer these. Without an answer, the guest takes it for an error.
            for (_, chain) in self.waiting.drain() {
                queues.done(chain, 0);
                served = true;
            }
        }
        if served {
            queues.signal(REQUESTS);
        }
    }

    /// Reads up to the end of one answer; says whether there was something.
    fn read(&mut self) -> bool {
        let have = self.received.len();
        let wanted = match self.received.first_chunk() {
            None => ANSWER_HEADER_LEN,
            Some(len) => usize::try_from(u32::from_le_bytes(*len)).unwrap_or(usize::MAX),
        };
        if self.ended {
            return false;
        }
        self.received.resize(wanted.max(have), 0);
        let read = self.server.read(&mut self.received[have..]);
        self.received.truncate(have + read.as_ref().map_or(0, |len| *len));
        self.ended = match &read {
            Ok(len) => *len == 0 || !self.is_honest(),
            Err(error) => error.kind() != io::ErrorKind::WouldBlock,
        };
        !self.ended && read.is_ok()
    }

    /// Whether the answer, as far as it has come, has a length that an answer can have.
    fn is_honest(&self) -> bool {
        self.received.first_chunk().is_none_or(|len| {
            let len = usize::try_from(u32::from_le_bytes(*len)).unwrap_or(usize::MAX);
            (ANSWER_HEADER_LEN..=MAX_MESSAGE).contains(&len)
        })
    }

    /// Length and number of the answer, if it is whole.
    fn answer(&self) -> Option<(usize, u64)> {
        let len = usize::try_from(u32::from_le_bytes(*self.received.first_chunk()?)).ok()?;
        let number = self.received.get(8..)?.first_chunk()?;
        (self.received.len() >= len).then_some((len, u64::from_le_bytes(*number)))
    }
}

impl Device for Share {
    fn kind(&self) -> u32 {
        VIRTIO_ID_FS
    }

    fn features(&self) -> u64 {
        0
    }

    fn queues(&self) -> usize {
        QUEUES.len()
    }

    fn config(&self) -> Vec<u8> {
        let mut config = self.tag.clone().into_bytes();
        config.resize(TAG_LEN, 0);
        config.extend(1_u32.to_le_bytes()); // queues besides the urgent one
        config
    }

    fn reset(&mut self) {
        self.waiting.clear();
    }

    fn serve(&mut self, wake: Wake, queues: &mut Queues) {
        if wake == Wake::Host {
            self.answer_all(queues);
        }
        self.ask(queues);
    }

    fn host(&self) -> Option<BorrowedFd<'_>> {
        Some(self.server.as_fd())
    }
}

#[cfg(test)]
mod tests;
