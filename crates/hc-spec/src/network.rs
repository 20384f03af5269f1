// SPDX-License-Identifier: Apache-2.0
//! How a pod is reached and what it can reach.

use core::net::IpAddr;

use serde::{Deserialize, Serialize};

/// The static network of a guest: everything DHCP would have said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkSpec {
    /// The Ethernet address of the interface to set up.
    pub mac: [u8; 6],
    /// Addresses of the interface with their prefix lengths.
    pub addresses: Vec<(IpAddr, u8)>,
    /// Default routes, at most one for each address family.
    pub gateways: Vec<IpAddr>,
    /// The largest packet in bytes.
    pub mtu: u16,
}

/// A line of `/etc/hosts`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostEntry {
    /// Where the name leads.
    pub address: IpAddr,
    /// The name.
    pub name: String,
}
