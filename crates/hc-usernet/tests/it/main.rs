// SPDX-License-Identifier: Apache-2.0
//! The network as a guest sees it: a guest with a stack of its own at one end of a socket pair, the
//! network at the other, and servers on the host's loopback behind it.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod clock;
mod datagram;
mod guest;
mod hostile;
mod link;
mod linux;
mod namespace;
mod packet;
mod tcp;
