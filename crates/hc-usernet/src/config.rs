// SPDX-License-Identifier: Apache-2.0
//! What a network is asked to be, and what the guest has to know of it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::error::{Error, Result};

/// The largest packet, link header not counted, that the guest is told to send.
///
/// No wire lies between the guest and us, so the only cost of a large packet is its buffer, while
/// each packet costs an exit from the VM and a system call. It is the largest multiple of eight
/// that an IPv4 datagram, a virtio-net receive buffer and our frame limit hold.
pub const DEFAULT_MTU: u16 = 65_520;

/// The hardware address of everybody but the guest.
pub(crate) const GATEWAY_MAC: [u8; 6] = [0x02, b'h', b'o', b's', b't', 0];

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
    /// Destinations that are denied on top of the host's own addresses and those that are special
    /// everywhere, such as the networks that tenants must not see.
    pub deny: Vec<Prefix>,
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
            deny: Vec::new(),
            allow_host: false,
        }
    }
}

/// All addresses that start with the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    address: IpAddr,
    len: u8,
}

impl Prefix {
    /// The addresses that share the first `len` bits of `address`; all bits if it has fewer.
    pub const fn new(address: IpAddr, len: u8) -> Self {
        Self { address, len }
    }

    /// Whether `address` is one of them; never across families.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(ours), IpAddr::V4(theirs)) => {
                (ours.to_bits() ^ theirs.to_bits()) & self.mask_ipv4() == 0
            }
            (IpAddr::V6(ours), IpAddr::V6(theirs)) => {
                (ours.to_bits() ^ theirs.to_bits()) & self.mask_ipv6() == 0
            }
            _ => false,
        }
    }

    /// The lowest of them, which names the network and no host.
    fn first(&self) -> IpAddr {
        match self.address {
            IpAddr::V4(v4) => Ipv4Addr::from_bits(v4.to_bits() & self.mask_ipv4()).into(),
            IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & self.mask_ipv6()).into(),
        }
    }

    /// The highest of them, which is an IPv4 network's broadcast address.
    fn last_ipv4(&self) -> Option<Ipv4Addr> {
        match self.address {
            IpAddr::V4(v4) => Some(Ipv4Addr::from_bits(v4.to_bits() | !self.mask_ipv4())),
            IpAddr::V6(_) => None,
        }
    }

    fn mask_ipv4(&self) -> u32 {
        !u32::MAX.checked_shr(self.len.into()).unwrap_or(0)
    }

    fn mask_ipv6(&self) -> u128 {
        !u128::MAX.checked_shr(self.len.into()).unwrap_or(0)
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
    /// Its addresses, each with the length of its on-link prefix; IPv4 first.
    pub addresses: Vec<(IpAddr, u8)>,
    /// Its default routers, one for each address.
    pub gateways: Vec<IpAddr>,
    /// Its name servers, any of which will do.
    pub dns_servers: Vec<IpAddr>,
    /// Domains to search, from the host's `/etc/resolv.conf`.
    pub dns_search: Vec<String>,
}

impl Config {
    /// Refuses what the rest of the crate relies on not to happen.
    pub(crate) fn check(&self) -> Result<()> {
        let fail = |reason| Err(Error::Config { reason });
        let Ipv4Plan { guest, gateway, dns, prefix_len } = self.ipv4;
        if !(1280..=DEFAULT_MTU).contains(&self.mtu) {
            return fail("mtu is not between 1280 and 65520");
        }
        if self.guest_mac[0] & 1 == 1 || self.guest_mac == GATEWAY_MAC {
            return fail("the guest's hardware address is multicast or the gateway's");
        }
        if !(8..=29).contains(&prefix_len) {
            return fail("ipv4 prefix length is not between 8 and 29");
        }
        if !one_link([guest.into(), gateway.into(), dns.into()], prefix_len) {
            return fail("guest, gateway and dns are not three ipv4 addresses of one prefix");
        }
        if let Some(Ipv6Plan { guest, gateway, dns, prefix_len }) = self.ipv6 {
            if !(16..=120).contains(&prefix_len) {
                return fail("ipv6 prefix length is not between 16 and 120");
            }
            if !one_link([guest.into(), gateway.into(), dns.into()], prefix_len) {
                return fail("guest, gateway and dns are not three ipv6 addresses of one prefix");
            }
        }
        if self.publish.iter().any(|publish| publish.guest_port == 0) {
            return fail("the guest port of a published port is 0");
        }
        if matches!(&self.dns, Dns::Servers(servers) if servers.is_empty()) {
            return fail("no dns server is named");
        }
        Ok(())
    }

    /// What the guest has to be told, with the host's search domains.
    pub(crate) fn guest(&self, dns_search: Vec<String>) -> GuestNetwork {
        let mut guest = GuestNetwork {
            mac: self.guest_mac,
            mtu: self.mtu,
            addresses: vec![(self.ipv4.guest.into(), self.ipv4.prefix_len)],
            gateways: vec![self.ipv4.gateway.into()],
            dns_servers: vec![self.ipv4.dns.into()],
            dns_search,
        };
        // One name server is enough and keeps resolvers from doubling their time-outs.
        if let Some(ipv6) = self.ipv6 {
            guest.addresses.push((ipv6.guest.into(), ipv6.prefix_len));
            guest.gateways.push(ipv6.gateway.into());
        }
        guest
    }
}

/// Whether the three differ, share `prefix_len` bits and are ordinary unicast addresses there.
fn one_link(addresses: [IpAddr; 3], prefix_len: u8) -> bool {
    let [guest, gateway, dns] = addresses;
    let link = Prefix::new(guest, prefix_len);
    guest != gateway
        && guest != dns
        && gateway != dns
        && addresses.iter().all(|&address| {
            let first = link.first();
            link.contains(address)
                && address != first
                && !address.is_multicast()
                && !address.is_loopback()
                && !matches!(address, IpAddr::V4(v4) if link.last_ipv4() == Some(v4))
        })
}
