// SPDX-License-Identifier: Apache-2.0
//! Frames that no stack would send, or that a test wants to see from outside.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol,
    Icmpv4Packet, Icmpv4Repr, Icmpv6Packet, Icmpv6Repr, IpProtocol, IpRepr, Ipv4Packet, Ipv6Packet,
    NdiscRepr, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber, UdpPacket, UdpRepr,
};

/// The guest's hardware address.
pub(crate) const GUEST_MAC: [u8; 6] = *b"\x02hyper";
/// Everybody else's.
pub(crate) const GATEWAY_MAC: [u8; 6] = *b"\x02host\0";

pub(crate) const GUEST: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 2, 15));
pub(crate) const GATEWAY: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 2, 2));
pub(crate) const DNS: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 2, 3));
pub(crate) const GUEST6: Ipv6Addr = Ipv6Addr::new(0xfd68, 0x7970, 0x6572, 0, 0, 0, 0, 0x15);
pub(crate) const GATEWAY6: Ipv6Addr = Ipv6Addr::new(0xfd68, 0x7970, 0x6572, 0, 0, 0, 0, 2);

fn ethernet(
    protocol: EthernetProtocol,
    to: [u8; 6],
    len: usize,
    fill: impl FnOnce(&mut [u8]),
) -> Vec<u8> {
    let mut bytes = vec![0; 14 + len];
    let mut frame = EthernetFrame::new_unchecked(&mut bytes[..]);
    frame.set_src_addr(EthernetAddress(GUEST_MAC));
    frame.set_dst_addr(EthernetAddress(to));
    frame.set_ethertype(protocol);
    fill(frame.payload_mut());
    bytes
}

fn ip(
    from: IpAddr,
    to: IpAddr,
    protocol: IpProtocol,
    len: usize,
    fill: impl FnOnce(&mut [u8]),
) -> Vec<u8> {
    let header = IpRepr::new(from.into(), to.into(), protocol, len, 64);
    let header_len = header.header_len();
    let kind = if from.is_ipv4() { EthernetProtocol::Ipv4 } else { EthernetProtocol::Ipv6 };
    ethernet(kind, GATEWAY_MAC, header_len + len, |packet| {
        header.emit(&mut packet[..header_len], &ChecksumCapabilities::default());
        fill(&mut packet[header_len..]);
    })
}

/// Asks who has `target`.
pub(crate) fn arp_request(target: IpAddr) -> Vec<u8> {
    let (IpAddr::V4(guest), IpAddr::V4(target)) = (GUEST, target) else {
        panic!("ARP is for IPv4");
    };
    let repr = ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Request,
        source_hardware_addr: EthernetAddress(GUEST_MAC),
        source_protocol_addr: guest,
        target_hardware_addr: EthernetAddress([0; 6]),
        target_protocol_addr: target,
    };
    ethernet(EthernetProtocol::Arp, [0xff; 6], repr.buffer_len(), |packet| {
        repr.emit(&mut ArpPacket::new_unchecked(packet));
    })
}

/// Which address `frame` says to have, if it answers an ARP request.
pub(crate) fn arp_answer(frame: &[u8]) -> Option<Ipv4Addr> {
    let frame = EthernetFrame::new_checked(frame).unwrap();
    if frame.ethertype() != EthernetProtocol::Arp {
        return None;
    }
    match ArpRepr::parse(&ArpPacket::new_checked(frame.payload()).unwrap()).unwrap() {
        ArpRepr::EthernetIpv4 { operation: ArpOperation::Reply, source_protocol_addr, .. } => {
            Some(source_protocol_addr)
        }
        _ => None,
    }
}

/// The same question for IPv6.
pub(crate) fn neighbor_solicitation(target: Ipv6Addr) -> Vec<u8> {
    let repr = Icmpv6Repr::Ndisc(NdiscRepr::NeighborSolicit {
        target_addr: target,
        lladdr: Some(EthernetAddress(GUEST_MAC).into()),
    });
    // To everybody who could have the address; the last three bytes of it tell them.
    let [.., a, b, c] = target.octets();
    let group =
        Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), u16::from_be_bytes([b, c]));
    let len = repr.buffer_len();
    let mut frame = ip(GUEST6.into(), group.into(), IpProtocol::Icmpv6, len, |packet| {
        repr.emit(
            &GUEST6,
            &group,
            &mut Icmpv6Packet::new_unchecked(packet),
            &ChecksumCapabilities::default(),
        );
    });
    frame[..6].copy_from_slice(&[0x33, 0x33, 0xff, a, b, c]);
    // Neighbour discovery takes nothing that may have come through a router.
    frame[14 + 7] = 255;
    frame
}

/// Which address `frame` says to have, if it answers a neighbour solicitation.
pub(crate) fn neighbor_answer(frame: &[u8]) -> Option<Ipv6Addr> {
    let frame = EthernetFrame::new_checked(frame).unwrap();
    if frame.ethertype() != EthernetProtocol::Ipv6 {
        return None;
    }
    let packet = Ipv6Packet::new_checked(frame.payload()).unwrap();
    if packet.next_header() != IpProtocol::Icmpv6 {
        return None;
    }
    let icmp = Icmpv6Packet::new_checked(packet.payload()).unwrap();
    let checks = ChecksumCapabilities::default();
    match Icmpv6Repr::parse(&packet.src_addr(), &packet.dst_addr(), &icmp, &checks).unwrap() {
        Icmpv6Repr::Ndisc(NdiscRepr::NeighborAdvert { target_addr, .. }) => Some(target_addr),
        _ => None,
    }
}

pub(crate) fn udp(from: SocketAddr, to: SocketAddr, payload: &[u8]) -> Vec<u8> {
    ip(from.ip(), to.ip(), IpProtocol::Udp, 8 + payload.len(), |packet| {
        UdpRepr { src_port: from.port(), dst_port: to.port() }.emit(
            &mut UdpPacket::new_unchecked(packet),
            &from.ip().into(),
            &to.ip().into(),
            payload.len(),
            |room| room.copy_from_slice(payload),
            &ChecksumCapabilities::default(),
        );
    })
}

pub(crate) fn syn(from: SocketAddr, to: SocketAddr) -> Vec<u8> {
    let repr = TcpRepr {
        src_port: from.port(),
        dst_port: to.port(),
        control: TcpControl::Syn,
        seq_number: TcpSeqNumber(1),
        ack_number: None,
        window_len: 1000,
        window_scale: Some(0),
        max_seg_size: Some(1460),
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None,
        payload: &[],
    };
    ip(from.ip(), to.ip(), IpProtocol::Tcp, repr.buffer_len(), |packet| {
        repr.emit(
            &mut TcpPacket::new_unchecked(packet),
            &from.ip().into(),
            &to.ip().into(),
            &ChecksumCapabilities::default(),
        );
    })
}

pub(crate) fn echo_request(to: IpAddr, ident: u16, data: &[u8]) -> Vec<u8> {
    match to {
        IpAddr::V4(_) => {
            let repr = Icmpv4Repr::EchoRequest { ident, seq_no: 7, data };
            ip(GUEST, to, IpProtocol::Icmp, repr.buffer_len(), |packet| {
                repr.emit(
                    &mut Icmpv4Packet::new_unchecked(packet),
                    &ChecksumCapabilities::default(),
                );
            })
        }
        IpAddr::V6(v6) => {
            let repr = Icmpv6Repr::EchoRequest { ident, seq_no: 7, data };
            ip(GUEST6.into(), to, IpProtocol::Icmpv6, repr.buffer_len(), |packet| {
                let mut packet = Icmpv6Packet::new_unchecked(packet);
                repr.emit(&GUEST6, &v6, &mut packet, &ChecksumCapabilities::default());
            })
        }
    }
}

/// What an ICMP message to the guest says; every checksum is verified on the way.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Icmp {
    /// An echo reply: from whom, with which identifier and data.
    Echo(IpAddr, u16, Vec<u8>),
    /// An error, by its code.
    Unreachable(u8),
}

pub(crate) fn icmp(frame: &[u8]) -> Option<Icmp> {
    let checks = ChecksumCapabilities::default();
    let frame = EthernetFrame::new_checked(frame).unwrap();
    match frame.ethertype() {
        EthernetProtocol::Ipv4 => {
            let packet = Ipv4Packet::new_checked(frame.payload()).unwrap();
            assert!(packet.verify_checksum());
            if packet.next_header() != IpProtocol::Icmp {
                return None;
            }
            let icmp = Icmpv4Packet::new_checked(packet.payload()).unwrap();
            match Icmpv4Repr::parse(&icmp, &checks).unwrap() {
                Icmpv4Repr::EchoReply { ident, data, .. } => {
                    Some(Icmp::Echo(packet.src_addr().into(), ident, data.to_vec()))
                }
                Icmpv4Repr::DstUnreachable { .. } => Some(Icmp::Unreachable(icmp.msg_code())),
                other => panic!("{other:?}"),
            }
        }
        EthernetProtocol::Ipv6 => {
            let packet = Ipv6Packet::new_checked(frame.payload()).unwrap();
            if packet.next_header() != IpProtocol::Icmpv6 {
                return None;
            }
            let icmp = Icmpv6Packet::new_checked(packet.payload()).unwrap();
            match Icmpv6Repr::parse(&packet.src_addr(), &packet.dst_addr(), &icmp, &checks).unwrap()
            {
                Icmpv6Repr::EchoReply { ident, data, .. } => {
                    Some(Icmp::Echo(packet.src_addr().into(), ident, data.to_vec()))
                }
                Icmpv6Repr::DstUnreachable { .. } => Some(Icmp::Unreachable(icmp.msg_code())),
                _ => None,
            }
        }
        _ => None,
    }
}

/// The window that `frame` offers, if it is a TCP segment.
pub(crate) fn tcp_window(frame: &[u8]) -> Option<u16> {
    let frame = EthernetFrame::new_checked(frame).unwrap();
    if frame.ethertype() != EthernetProtocol::Ipv4 {
        return None;
    }
    let packet = Ipv4Packet::new_checked(frame.payload()).unwrap();
    (packet.next_header() == IpProtocol::Tcp)
        .then(|| TcpPacket::new_checked(packet.payload()).unwrap().window_len())
}

/// The payload of `frame`, if it is a UDP datagram; its checksum is verified on the way.
pub(crate) fn udp_payload(frame: &[u8]) -> Option<Vec<u8>> {
    let frame = EthernetFrame::new_checked(frame).unwrap();
    let (protocol, from, to, payload) = match frame.ethertype() {
        EthernetProtocol::Ipv4 => {
            let packet = Ipv4Packet::new_checked(frame.payload()).unwrap();
            let (from, to) = (packet.src_addr().into(), packet.dst_addr().into());
            (packet.next_header(), from, to, packet.payload().to_vec())
        }
        EthernetProtocol::Ipv6 => {
            let packet = Ipv6Packet::new_checked(frame.payload()).unwrap();
            let (from, to) = (packet.src_addr().into(), packet.dst_addr().into());
            (packet.next_header(), from, to, packet.payload().to_vec())
        }
        _ => return None,
    };
    if protocol != IpProtocol::Udp {
        return None;
    }
    let udp = UdpPacket::new_checked(&payload[..]).unwrap();
    assert!(udp.verify_checksum(&from, &to));
    Some(udp.payload().to_vec())
}

/// A TCP segment with nothing checked; `flags` as in the header.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    pub(crate) flags: u8,
    pub(crate) sequence: u32,
    pub(crate) acknowledged: u32,
    pub(crate) window: u16,
    /// In whole words.
    pub(crate) options: Vec<[u8; 4]>,
    pub(crate) payload: Vec<u8>,
}

impl Segment {
    pub(crate) fn frame(&self, from: SocketAddr, to: SocketAddr) -> Vec<u8> {
        let options = self.options.concat();
        let words = u8::try_from(5 + self.options.len()).unwrap();
        let header = [
            &from.port().to_be_bytes()[..],
            &to.port().to_be_bytes(),
            &self.sequence.to_be_bytes(),
            &self.acknowledged.to_be_bytes(),
            &[words << 4, self.flags],
            &self.window.to_be_bytes(),
            &[0; 4],
        ]
        .concat();
        let segment = [&header[..], &options, &self.payload].concat();
        ip(from.ip(), to.ip(), IpProtocol::Tcp, segment.len(), |packet| {
            packet.copy_from_slice(&segment);
        })
    }
}

/// The sequence number of `frame`, if it is a SYN-ACK.
pub(crate) fn syn_ack(frame: &[u8]) -> Option<u32> {
    let frame = EthernetFrame::new_checked(frame).unwrap();
    if frame.ethertype() != EthernetProtocol::Ipv4 {
        return None;
    }
    let packet = Ipv4Packet::new_checked(frame.payload()).unwrap();
    if packet.next_header() != IpProtocol::Tcp {
        return None;
    }
    let tcp = TcpPacket::new_checked(packet.payload()).unwrap();
    (tcp.syn() && tcp.ack()).then(|| u32::from_ne_bytes(tcp.seq_number().0.to_ne_bytes()))
}
