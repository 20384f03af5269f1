// SPDX-License-Identifier: Apache-2.0
//! What a network is asked to be, and what the guest has to know of it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The largest packet, link header not counted, that the guest is told to send.
///
/// No wire lies between the guest and us, so the only cost of a large packet is its buffer, while
/// each packet costs an exit from the VM and a system call. It is the largest multiple of eight
/// that an IPv4 datagram, a virtio-net receive buffer and our frame limit hold.
pub const DEFAULT_MTU: u16 = 65_520;

/// What a [`Network`](crate::Network) is asked to be.
///
/// [`Config::default`] is the network that a pod has when nothing is asked for: out to the world,
/// nothing published, the host itself out of reach.
#[derive(Clone, Debug)]
pub struct Config {
    /// The guest's hardware address; frames to any other are never sent.
    pub guest_mac: [u8; 6],
    /// The largest packet in either direction, 1280 (the least that IPv6 allows) to 65520.
    pub mtu: u16,
    /// The addresses used within the VM's own IPv4 network.
    pub ipv4: Ipv4Plan,
    /// The same for IPv6; `None` leaves the guest without IPv6.
    pub ipv6: Option<Ipv6Plan>,
    /// Who answers the guest's DNS queries.
    pub dns: Dns,
    /// Host ports that lead to ports of the guest.
    pub publish: Vec<Publish>,
    /// Whether the gateway address stands for the host's loopback, so that the guest may use
    /// services that listen there. Off by default: those services trust whoever can reach them.
    pub allow_host: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            // Locally administered, unicast; the rest spells "hyper".
            guest_mac: [0x02, b'h', b'y', b'p', b'e', b'r'],
            mtu: DEFAULT_MTU,
            ipv4: Ipv4Plan::default(),
            ipv6: Some(Ipv6Plan::default()),
            dns: Dns::System,
            publish: Vec::new(),
            allow_host: false,
        }
    }
}

/// The three IPv4 addresses of a network, all within one prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv4Plan {
    /// The guest's own address.
    pub guest: Ipv4Addr,
    /// The router of the guest's default route.
    pub gateway: Ipv4Addr,
    /// The only name server that the guest needs.
    pub dns: Ipv4Addr,
    /// Bits that the three have in common.
    pub prefix_len: u8,
}

impl Default for Ipv4Plan {
    /// The addresses that QEMU's own user network made familiar.
    fn default() -> Self {
        Self {
            guest: Ipv4Addr::new(10, 0, 2, 15),
            gateway: Ipv4Addr::new(10, 0, 2, 2),
            dns: Ipv4Addr::new(10, 0, 2, 3),
            prefix_len: 24,
        }
    }
}

/// The three IPv6 addresses of a network, all within one prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv6Plan {
    /// The guest's own address.
    pub guest: Ipv6Addr,
    /// The router of the guest's default route.
    pub gateway: Ipv6Addr,
    /// A name server that answers as the IPv4 one does.
    pub dns: Ipv6Addr,
    /// Bits that the three have in common.
    pub prefix_len: u8,
}

impl Default for Ipv6Plan {
    /// A unique local prefix ("hyper" after the `fd`) that never leaves the VM. Resolvers prefer
    /// IPv4 over such a source (RFC 6724), which is right where the host has no IPv6.
    fn default() -> Self {
        let host = |last| Ipv6Addr::new(0xfd68, 0x7970, 0x6572, 0, 0, 0, 0, last);
        Self { guest: host(0x15), gateway: host(2), dns: host(3), prefix_len: 64 }
    }
}

/// Who answers the guest's DNS queries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Dns {
    /// The name servers of the host's `/etc/resolv.conf`, read anew when it changes. One on
    /// loopback works: it is the host that asks it.
    #[default]
    System,
    /// These, in order of preference; usually port 53.
    Servers(Vec<SocketAddr>),
}

/// The transport of a published port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl std::fmt::Display for Protocol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// A host port that leads to a port of the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Publish {
    /// Which transport.
    pub protocol: Protocol,
    /// The host address to listen on; unspecified means all of its family.
    pub host_ip: IpAddr,
    /// The host port to listen on; 0 lets the kernel pick one, which [`Bound`] then tells.
    pub host_port: u16,
    /// The guest's port.
    pub guest_port: u16,
}

/// A published port that listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    /// Which transport.
    pub protocol: Protocol,
    /// Where the host listens, with the true port.
    pub host: SocketAddr,
    /// The guest's port.
    pub guest_port: u16,
}

/// What the guest needs to set up its network card, all static.
///
/// Duplicate address detection and router solicitation only cost time there: nobody else is on
/// the link, and both routers are named here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestNetwork {
    /// The hardware address that the VM's network card must have.
    pub mac: [u8; 6],
    /// The MTU to set on it.
    pub mtu: u16,
    /// Its IPv4 side.
    pub ipv4: GuestIpv4,
    /// Its IPv6 side, if it has one.
    pub ipv6: Option<GuestIpv6>,
    /// Domains to search, from the host's `/etc/resolv.conf`.
    pub search: Vec<String>,
}

/// The guest's IPv4 set-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuestIpv4 {
    /// Its own address.
    pub address: Ipv4Addr,
    /// The length of the on-link prefix.
    pub prefix_len: u8,
    /// Its default router.
    pub gateway: Ipv4Addr,
    /// Its name server.
    pub dns: Ipv4Addr,
}

/// The guest's IPv6 set-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuestIpv6 {
    /// Its own address.
    pub address: Ipv6Addr,
    /// The length of the on-link prefix.
    pub prefix_len: u8,
    /// Its default router.
    pub gateway: Ipv6Addr,
    /// A name server.
    pub dns: Ipv6Addr,
}
