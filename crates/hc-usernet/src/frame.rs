// SPDX-License-Identifier: Apache-2.0
//! What a frame from the guest is for, found without touching any state.
//!
//! Most frames are TCP segments of known flows and go to smoltcp untouched. [`classify`] picks out
//! those that it must not see (they would be answered wrongly for addresses that are not ours) and
//! those that we answer ourselves. It trusts no length: the views of smoltcp check them.
//!
//! # Limits
//!
//! IPv4 fragments and IPv6 packets with extension headers are dropped. With the default MTU a guest
//! has no reason to send either.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol,
    Icmpv4Message, Icmpv4Packet, Icmpv6Message, Icmpv6Packet, IpProtocol, Ipv4Packet, Ipv6Packet,
    TcpPacket, UdpPacket,
};

use crate::config::{Config, GATEWAY_MAC};

/// The addresses by which a guest and its surroundings are told apart.
#[derive(Clone, Debug)]
pub(crate) struct Addresses {
    guest: Vec<IpAddr>,
    ours: Vec<IpAddr>,
    dns: Vec<IpAddr>,
}

impl Addresses {
    pub(crate) fn new(config: &Config) -> Self {
        let mut addresses = Self {
            guest: vec![config.ipv4.guest.into()],
            ours: vec![config.ipv4.gateway.into(), config.ipv4.dns.into()],
            dns: vec![config.ipv4.dns.into()],
        };
        if let Some(ipv6) = config.ipv6 {
            addresses.guest.push(ipv6.guest.into());
            addresses.ours.extend([IpAddr::from(ipv6.gateway), ipv6.dns.into()]);
            addresses.dns.push(ipv6.dns.into());
        }
        addresses
    }

    /// Whether the gateway or the DNS server has `address`.
    pub(crate) fn is_ours(&self, address: impl Into<IpAddr>) -> bool {
        self.ours.contains(&address.into())
    }

    /// Whether `remote` is a port of the DNS server.
    pub(crate) fn is_dns(&self, remote: SocketAddr) -> bool {
        self.dns.contains(&remote.ip())
    }

    fn is_guest(&self, address: impl Into<IpAddr>) -> bool {
        self.guest.contains(&address.into())
    }
}

/// Who talks to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Flow {
    /// The guest's end.
    pub(crate) guest: SocketAddr,
    /// The other end as the guest knows it. For echo requests the ports are the identifier.
    pub(crate) remote: SocketAddr,
}

/// What a frame is for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Purpose<'a> {
    /// smoltcp knows what to do: TCP segments and neighbour discovery.
    Stack,
    /// The guest wants a new TCP flow.
    Syn(Flow),
    /// A UDP datagram.
    Datagram(Flow, &'a [u8]),
    /// An ICMP echo request, from its type field to its end.
    Echo(Flow, &'a [u8]),
    /// Nothing that is answered.
    Nothing,
}

/// Says what `frame` is for.
pub(crate) fn classify<'a>(frame: &'a [u8], addresses: &Addresses) -> Purpose<'a> {
    parse(frame, addresses).unwrap_or(Purpose::Nothing)
}

fn parse<'a>(frame: &'a [u8], addresses: &Addresses) -> Option<Purpose<'a>> {
    let frame = EthernetFrame::new_checked(frame).ok()?;
    let to = frame.dst_addr();
    match frame.ethertype() {
        EthernetProtocol::Arp => arp(frame.payload(), addresses),
        EthernetProtocol::Ipv4 if to == EthernetAddress(GATEWAY_MAC) => {
            ipv4(frame.payload(), addresses)
        }
        EthernetProtocol::Ipv6 if to == EthernetAddress(GATEWAY_MAC) || to.is_multicast() => {
            ipv6(frame.payload(), addresses)
        }
        _ => None,
    }
}

/// smoltcp would claim every address of the link; only the ones in use are ours to claim.
fn arp<'a>(packet: &[u8], addresses: &Addresses) -> Option<Purpose<'a>> {
    let packet = ArpPacket::new_checked(packet).ok()?;
    let ArpRepr::EthernetIpv4 { operation, source_protocol_addr, target_protocol_addr, .. } =
        ArpRepr::parse(&packet).ok()?
    else {
        return None;
    };
    let known = matches!(operation, ArpOperation::Request | ArpOperation::Reply);
    let ours = known && addresses.is_guest(source_protocol_addr);
    (ours && addresses.is_ours(target_protocol_addr)).then_some(Purpose::Stack)
}

fn ipv4<'a>(packet: &'a [u8], addresses: &Addresses) -> Option<Purpose<'a>> {
    let packet = Ipv4Packet::new_checked(packet).ok()?;
    let (guest, remote): (Ipv4Addr, Ipv4Addr) = (packet.src_addr(), packet.dst_addr());
    if packet.version() != 4 || packet.more_frags() || packet.frag_offset() != 0 {
        return None;
    }
    if !addresses.is_guest(guest) {
        return None;
    }
    let payload = packet.payload();
    match packet.next_header() {
        IpProtocol::Icmp => {
            let icmp = Icmpv4Packet::new_checked(payload).ok()?;
            (icmp.msg_type() == Icmpv4Message::EchoRequest)
                .then(|| echo(guest.into(), remote.into(), icmp.echo_ident(), payload))
        }
        protocol => transport(protocol, guest.into(), remote.into(), payload),
    }
}

fn ipv6<'a>(packet: &'a [u8], addresses: &Addresses) -> Option<Purpose<'a>> {
    let packet = Ipv6Packet::new_checked(packet).ok()?;
    let (guest, remote): (Ipv6Addr, Ipv6Addr) = (packet.src_addr(), packet.dst_addr());
    if packet.version() != 6 {
        return None;
    }
    let payload = packet.payload();
    if packet.next_header() == IpProtocol::Icmpv6 {
        let icmp = Icmpv6Packet::new_checked(payload).ok()?;
        return match icmp.msg_type() {
            // smoltcp answers only for addresses that it was given, so it may see them all.
            Icmpv6Message::NeighborSolicit => {
                addresses.is_ours(icmp.target_addr()).then_some(Purpose::Stack)
            }
            Icmpv6Message::NeighborAdvert => Some(Purpose::Stack),
            Icmpv6Message::EchoRequest if addresses.is_guest(guest) => {
                Some(echo(guest.into(), remote.into(), icmp.echo_ident(), payload))
            }
            _ => None,
        };
    }
    if !addresses.is_guest(guest) || remote.is_multicast() {
        return None;
    }
    transport(packet.next_header(), guest.into(), remote.into(), payload)
}

fn transport(
    protocol: IpProtocol,
    guest: IpAddr,
    remote: IpAddr,
    payload: &[u8],
) -> Option<Purpose<'_>> {
    let flow = |guest_port, remote_port| Flow {
        guest: SocketAddr::new(guest, guest_port),
        remote: SocketAddr::new(remote, remote_port),
    };
    match protocol {
        IpProtocol::Tcp => {
            let tcp = TcpPacket::new_checked(payload).ok()?;
            if tcp.src_port() == 0 || tcp.dst_port() == 0 {
                return None;
            }
            let opens = tcp.syn() && !tcp.ack() && !tcp.rst() && !tcp.fin();
            let flow = flow(tcp.src_port(), tcp.dst_port());
            Some(if opens { Purpose::Syn(flow) } else { Purpose::Stack })
        }
        IpProtocol::Udp => {
            let udp = UdpPacket::new_checked(payload).ok()?;
            if udp.src_port() == 0 || udp.dst_port() == 0 {
                return None;
            }
            let (flow, len) = (flow(udp.src_port(), udp.dst_port()), usize::from(udp.len()));
            Some(Purpose::Datagram(flow, payload.get(UDP_HEADER_LEN..len)?))
        }
        _ => None,
    }
}

/// A UDP header: two ports, length, checksum.
const UDP_HEADER_LEN: usize = 8;

fn echo(guest: IpAddr, remote: IpAddr, ident: u16, message: &[u8]) -> Purpose<'_> {
    let flow =
        Flow { guest: SocketAddr::new(guest, ident), remote: SocketAddr::new(remote, ident) };
    Purpose::Echo(flow, message)
}
