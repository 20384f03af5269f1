// SPDX-License-Identifier: Apache-2.0
//! The devices of a machine. Each knows its own requests, and nothing of the bus it is on.
//!
//! What a guest sends is bounded by its own memory (`virtio/buffers.rs`); a request that makes no
//! sense is answered with an error or with nothing, and never ends the machine.

mod balloon;
mod block;
mod channel;
mod entropy;
mod net;
mod serial;
mod share;

pub(crate) use balloon::Balloon;
pub(crate) use block::Block;
pub(crate) use channel::Channel;
pub(crate) use entropy::Entropy;
pub(crate) use net::{Net, Stream, Tap, Wire};
pub(crate) use serial::{SavedSerial, Serial};
pub(crate) use share::Share;

use std::io;
use std::os::fd::BorrowedFd;

/// Makes a descriptor non-blocking: devices are told when there is more.
fn set_nonblocking(descriptor: BorrowedFd<'_>) -> io::Result<()> {
    let flags = rustix::fs::fcntl_getfl(descriptor)?;
    rustix::fs::fcntl_setfl(descriptor, flags | rustix::fs::OFlags::NONBLOCK)?;
    Ok(())
}
