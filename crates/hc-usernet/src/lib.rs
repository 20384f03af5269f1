// SPDX-License-Identifier: Apache-2.0
//! A user-mode network for one VM: Ethernet frames in, host sockets out.
//!
//! A [`Network`] is the whole world that one guest sees on its network card: a gateway, a DNS
//! server, and behind them whatever the host can reach. It speaks Ethernet frames over a byte
//! stream to the virtual machine monitor, and ordinary unprivileged sockets to the host. It needs
//! no root, no tap device, no name space and no other program, and it knows nothing about pods,
//! images or hypervisors.
//!
//! ```text
//!              frames                      +- TCP: tcp.rs      -> host TCP sockets
//! VM <------ byte stream ------> link.rs --+- UDP, ping: datagram.rs -> host UDP, ping sockets
//!                                          +- ARP, NDP, TCP segments: stack.rs (smoltcp)
//!                       new flows ask policy.rs first
//! ```
//!
//! # Invariants
//!
//! - The guest is hostile. Whatever bytes it sends, the process goes on; what it can make us hold
//!   is bounded by the constants in `limits.rs`.
//! - The guest opens no host socket to an address that `policy.rs` denies. By default that rules out
//!   the host itself, by whatever address it is named.
//! - No buffer grows with the speed difference of two peers: whoever is slow slows the other down.
//! - All host sockets live in the [`Network`], so dropping it closes every flow and published port.
//! - An idle network arms no timer.
//!
//! # Where to start
//!
//! [`Network::run`] is the loop; `docs/network.md` tells what a guest can and cannot do.

mod config;
mod datagram;
mod dns;
mod error;
mod frame;
mod limits;
mod link;
mod network;
mod policy;
mod port;
mod ready;
mod reply;
mod route;
mod stack;
mod stats;
mod switch;
mod tcp;

pub use config::{
    Bound, Config, DEFAULT_MTU, Dns, GuestNetwork, Ipv4Plan, Ipv6Plan, Prefix, Protocol, Publish,
};
pub use error::{Error, Kind, Result};
pub use network::Network;
pub use stats::{Counts, Stats};
