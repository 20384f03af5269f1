// SPDX-License-Identifier: Apache-2.0
//! Frames to the guest that smoltcp does not make: datagrams, ping answers, ICMP errors.

use std::net::IpAddr;

use smoltcp::wire::{
    EthernetAddress, EthernetFrame, EthernetProtocol, Icmpv4Message, Icmpv4Packet, Icmpv6Message,
    Icmpv6Packet, IpProtocol, IpRepr, UdpPacket, UdpRepr,
};

use crate::config::{Config, GATEWAY_MAC};
use crate::frame::Flow;
use crate::link::Output;
use crate::stack::{ETHERNET_HEADER_LEN, send_checksums};

/// What a frame to the guest needs besides its content.
#[derive(Clone, Debug)]
pub(crate) struct Replies {
    guest_mac: [u8; 6],
    mtu: usize,
    gateways: Vec<IpAddr>,
}

/// Why a packet of the guest goes nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unreachable {
    /// The policy denies it.
    Prohibited,
    /// There is no way to the destination.
    Host,
    /// Nobody listens at the destination.
    Port,
}

/// A UDP header: two ports, length, checksum.
const UDP_HEADER_LEN: usize = 8;

/// An ICMP header with its second word: identifier and sequence number, or unused.
const ICMP_HEADER_LEN: usize = 8;

/// How much of a packet an error quotes: all headers, and far less than any MTU.
const QUOTE_MAX: usize = 128;

/// Hop limit of our packets; they make one hop.
const HOP_LIMIT: u8 = 64;

impl Replies {
    pub(crate) fn new(config: &Config) -> Self {
        let gateway_ipv6 = config.ipv6.map(|ipv6| IpAddr::from(ipv6.gateway));
        Self {
            guest_mac: config.guest_mac,
            mtu: config.mtu.into(),
            gateways: [config.ipv4.gateway.into()].into_iter().chain(gateway_ipv6).collect(),
        }
    }

    /// A datagram of `flow` from its remote end. One that does not fit a packet is dropped.
    pub(crate) fn datagram(&self, flow: &Flow, payload: &[u8], output: &mut Output) {
        let (from, to) = (flow.remote, flow.guest);
        let len = UDP_HEADER_LEN + payload.len();
        self.packet(from.ip(), to.ip(), IpProtocol::Udp, len, output, |packet| {
            UdpRepr { src_port: from.port(), dst_port: to.port() }.emit(
                &mut UdpPacket::new_unchecked(packet),
                &from.ip().into(),
                &to.ip().into(),
                payload.len(),
                |room| room.copy_from_slice(payload),
                &send_checksums(),
            );
        });
    }

    /// An echo reply of `flow` made of `message`, which is the request or an answer to it, from its
    /// type field on. Whatever its identifier, the guest gets its own one back.
    pub(crate) fn echo(&self, flow: &Flow, message: &[u8], output: &mut Output) {
        if message.len() < ICMP_HEADER_LEN {
            return;
        }
        let (from, to, ident) = (flow.remote.ip(), flow.guest.ip(), flow.guest.port());
        match (from, to) {
            (IpAddr::V4(_), IpAddr::V4(_)) => {
                self.packet(from, to, IpProtocol::Icmp, message.len(), output, |packet| {
                    packet.copy_from_slice(message);
                    let mut icmp = Icmpv4Packet::new_unchecked(packet);
                    icmp.set_msg_type(Icmpv4Message::EchoReply);
                    icmp.set_echo_ident(ident);
                    icmp.fill_checksum();
                });
            }
            (IpAddr::V6(from6), IpAddr::V6(to6)) => {
                self.packet(from, to, IpProtocol::Icmpv6, message.len(), output, |packet| {
                    packet.copy_from_slice(message);
                    let mut icmp = Icmpv6Packet::new_unchecked(packet);
                    icmp.set_msg_type(Icmpv6Message::EchoReply);
                    icmp.set_echo_ident(ident);
                    icmp.fill_checksum(&from6, &to6);
                });
            }
            _ => {}
        }
    }

    /// Tells the guest that the packet in `frame` goes nowhere.
    pub(crate) fn unreachable(&self, frame: &[u8], why: Unreachable, output: &mut Output) {
        let Ok(frame) = EthernetFrame::new_checked(frame) else {
            return;
        };
        let packet = frame.payload();
        let guest = match frame.ethertype() {
            EthernetProtocol::Ipv4 => {
                packet.get(12..16).and_then(|b| b.first_chunk::<4>()).map(|b| IpAddr::from(*b))
            }
            EthernetProtocol::Ipv6 => {
                packet.get(8..24).and_then(|b| b.first_chunk::<16>()).map(|b| IpAddr::from(*b))
            }
            _ => None,
        };
        if let Some(guest) = guest {
            self.icmp_error(guest, &packet[..packet.len().min(QUOTE_MAX)], why, output);
        }
    }

    /// Tells the guest that nobody listens at the remote end of UDP `flow`, whose datagram is gone.
    pub(crate) fn refused(&self, flow: &Flow, output: &mut Output) {
        // The guest's kernel finds the socket by the addresses and ports in the quoted headers.
        let (from, to) = (flow.guest, flow.remote);
        let headers = ip_header(from.ip(), to.ip(), IpProtocol::Udp, UDP_HEADER_LEN);
        let mut quote = [0; QUOTE_MAX];
        let header_len = headers.header_len();
        headers.emit(&mut quote[..header_len], &send_checksums());
        let mut udp = UdpPacket::new_unchecked(&mut quote[header_len..]);
        udp.set_src_port(from.port());
        udp.set_dst_port(to.port());
        udp.set_len(8);
        let quote = &quote[..header_len + UDP_HEADER_LEN];
        self.icmp_error(from.ip(), quote, Unreachable::Port, output);
    }

    /// The gateway's address of the family of `guest`.
    pub(crate) fn gateway(&self, guest: IpAddr) -> Option<IpAddr> {
        self.gateways.iter().copied().find(|gateway| gateway.is_ipv4() == guest.is_ipv4())
    }

    fn icmp_error(&self, guest: IpAddr, quote: &[u8], why: Unreachable, output: &mut Output) {
        let Some(gateway) = self.gateway(guest) else {
            return;
        };
        let len = ICMP_HEADER_LEN + quote.len();
        match (gateway, guest) {
            (IpAddr::V4(_), IpAddr::V4(_)) => {
                self.packet(gateway, guest, IpProtocol::Icmp, len, output, |packet| {
                    packet[ICMP_HEADER_LEN..].copy_from_slice(quote);
                    let mut icmp = Icmpv4Packet::new_unchecked(packet);
                    icmp.set_msg_type(Icmpv4Message::DstUnreachable);
                    icmp.set_msg_code(why.icmpv4_code());
                    icmp.fill_checksum();
                });
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                self.packet(gateway, guest, IpProtocol::Icmpv6, len, output, |packet| {
                    packet[ICMP_HEADER_LEN..].copy_from_slice(quote);
                    let mut icmp = Icmpv6Packet::new_unchecked(packet);
                    icmp.set_msg_type(Icmpv6Message::DstUnreachable);
                    icmp.set_msg_code(why.icmpv6_code());
                    icmp.fill_checksum(&from, &to);
                });
            }
            _ => {}
        }
    }

    /// A frame with an IP packet whose payload of `len` bytes `fill` writes, into zeroed bytes.
    fn packet(
        &self,
        from: IpAddr,
        to: IpAddr,
        protocol: IpProtocol,
        len: usize,
        output: &mut Output,
        fill: impl FnOnce(&mut [u8]),
    ) {
        let header = ip_header(from, to, protocol, len);
        let header_len = header.header_len();
        if header_len + len > self.mtu {
            tracing::debug!(%from, len, "datagram is larger than the mtu");
            return;
        }
        output.push(ETHERNET_HEADER_LEN + header_len + len, |bytes| {
            let mut frame = EthernetFrame::new_unchecked(bytes);
            frame.set_src_addr(EthernetAddress(GATEWAY_MAC));
            frame.set_dst_addr(EthernetAddress(self.guest_mac));
            frame.set_ethertype(match from {
                IpAddr::V4(_) => EthernetProtocol::Ipv4,
                IpAddr::V6(_) => EthernetProtocol::Ipv6,
            });
            header.emit(&mut frame.payload_mut()[..header_len], &send_checksums());
            fill(&mut frame.payload_mut()[header_len..]);
        });
    }
}

fn ip_header(from: IpAddr, to: IpAddr, protocol: IpProtocol, len: usize) -> IpRepr {
    IpRepr::new(from.into(), to.into(), protocol, len, HOP_LIMIT)
}

impl Unreachable {
    /// RFC 792 and RFC 1812, section 5.2.7.1.
    fn icmpv4_code(self) -> u8 {
        match self {
            Self::Prohibited => 13,
            Self::Host => 1,
            Self::Port => 3,
        }
    }

    /// RFC 4443, section 3.1.
    fn icmpv6_code(self) -> u8 {
        match self {
            Self::Prohibited => 1,
            Self::Host => 3,
            Self::Port => 4,
        }
    }
}
