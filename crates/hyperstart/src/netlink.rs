// SPDX-License-Identifier: Apache-2.0
//! Messages of rtnetlink as bytes: the few that a static interface needs, and the kernel's
//! acknowledgements. Sockets are the caller's.

use core::net::IpAddr;

/// Bytes of `struct nlmsghdr`.
const HEADER_LEN: usize = 16;
/// Everything in a message starts at a multiple of this.
const ALIGN: usize = 4;

/// The message carries an error number, or 0 for success.
const NLMSG_ERROR: u16 = 2;
const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_NEWROUTE: u16 = 24;

const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_REPLACE: u16 = 0x100;
const NLM_F_CREATE: u16 = 0x400;

const IFF_UP: u32 = 1;
const IFLA_ADDRESS: u16 = 1;
const IFLA_MTU: u16 = 4;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
const IN6_ADDR_GEN_MODE_NONE: u8 = 1;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const IFA_F_NODAD: u8 = 2;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_STATIC: u8 = 4;
const RT_SCOPE_UNIVERSE: u8 = 0;
const RTN_UNICAST: u8 = 1;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// The index of the loopback interface in every network namespace.
pub(crate) const LOOPBACK: u32 = 1;

/// Switches an interface on, with an Ethernet address and a packet size if they are given, which
/// the kernel sets before it does so.
pub(crate) fn link_up(
    sequence: u32,
    interface: u32,
    mac: Option<[u8; 6]>,
    mtu: Option<u16>,
) -> Vec<u8> {
    let mut message = link(sequence, interface, IFF_UP, IFF_UP);
    if let Some(mac) = mac {
        message.attribute(IFLA_ADDRESS, &mac);
    }
    if let Some(mtu) = mtu {
        message.attribute(IFLA_MTU, &u32::from(mtu).to_ne_bytes());
    }
    message.finish()
}

/// Switches an interface off.
pub(crate) fn link_down(sequence: u32, interface: u32) -> Vec<u8> {
    link(sequence, interface, 0, IFF_UP).finish()
}

/// Gives an interface another Ethernet address, on or off as it is.
pub(crate) fn link_address(sequence: u32, interface: u32, mac: [u8; 6]) -> Vec<u8> {
    let mut message = link(sequence, interface, 0, 0);
    message.attribute(IFLA_ADDRESS, &mac);
    message.finish()
}

/// Keeps the kernel from giving an interface a link-local IPv6 address by itself.
pub(crate) fn no_link_local(sequence: u32, interface: u32) -> Vec<u8> {
    let mode = Message::nest(IFLA_INET6_ADDR_GEN_MODE, &[IN6_ADDR_GEN_MODE_NONE]);
    let family = Message::nest(AF_INET6.into(), &mode);
    let mut message = link(sequence, interface, 0, 0);
    message.attribute(IFLA_AF_SPEC, &family);
    message.finish()
}

/// A message about an interface, with its flags, and which of them to change.
fn link(sequence: u32, interface: u32, flags: u32, change: u32) -> Message {
    let mut message = Message::new(RTM_NEWLINK, 0, sequence);
    // struct ifinfomsg: family, padding, type, index, flags, which of them to change.
    message.bytes.extend([0, 0, 0, 0]);
    message.bytes.extend(interface.to_ne_bytes());
    message.bytes.extend(flags.to_ne_bytes());
    message.bytes.extend(change.to_ne_bytes());
    message
}

/// Gives an interface an address.
///
/// Duplicate address detection is left out: the host has chosen the address for this pod alone,
/// and the kernel would wait a second before it could be used.
pub(crate) fn add_address(sequence: u32, interface: u32, address: IpAddr, prefix: u8) -> Vec<u8> {
    let message = Message::new(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, sequence);
    let mut message = message.about_address(interface, address, prefix);
    if let IpAddr::V4(v4) = address
        && prefix < 31
    {
        let host_bits = u32::MAX.checked_shr(u32::from(prefix)).unwrap_or(0);
        message.attribute(IFA_BROADCAST, &(u32::from(v4) | host_bits).to_be_bytes());
    }
    message.finish()
}

/// Takes an address from an interface.
pub(crate) fn remove_address(
    sequence: u32,
    interface: u32,
    address: IpAddr,
    prefix: u8,
) -> Vec<u8> {
    Message::new(RTM_DELADDR, 0, sequence).about_address(interface, address, prefix).finish()
}

/// Sends everything that has no better route through `gateway`.
pub(crate) fn add_default_route(sequence: u32, interface: u32, gateway: IpAddr) -> Vec<u8> {
    let mut message = Message::new(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, sequence);
    // struct rtmsg: family, lengths of destination and source, type of service, table, protocol,
    // scope, type, flags.
    message.bytes.extend([family(gateway), 0, 0, 0, RT_TABLE_MAIN, RTPROT_STATIC]);
    message.bytes.extend([RT_SCOPE_UNIVERSE, RTN_UNICAST, 0, 0, 0, 0]);
    message.attribute(RTA_OIF, &interface.to_ne_bytes());
    message.attribute(RTA_GATEWAY, &octets(gateway));
    message.finish()
}

/// The acknowledgements in a datagram of the kernel: sequence number, and the error number or 0.
///
/// Ends at the first message that is cut short or claims a length that cannot be.
pub(crate) fn acknowledgements(mut datagram: &[u8]) -> Vec<(u32, i32)> {
    let mut found = Vec::new();
    while let Some((header, _)) = datagram.split_first_chunk::<HEADER_LEN>() {
        let [l0, l1, l2, l3, t0, t1, _, _, s0, s1, s2, s3, ..] = *header;
        let length = u32::from_ne_bytes([l0, l1, l2, l3]) as usize;
        let Some(message) = datagram.get(..length).filter(|_| length >= HEADER_LEN) else {
            break;
        };
        if u16::from_ne_bytes([t0, t1]) == NLMSG_ERROR
            && let Some((error, _)) = message[HEADER_LEN..].split_first_chunk::<4>()
        {
            let number = i32::from_ne_bytes(*error).checked_neg().unwrap_or(i32::MAX);
            found.push((u32::from_ne_bytes([s0, s1, s2, s3]), number));
        }
        datagram = datagram.get(length.next_multiple_of(ALIGN)..).unwrap_or_default();
    }
    found
}

/// A message under construction; its length is filled in at the end.
struct Message {
    bytes: Vec<u8>,
}

impl Message {
    fn new(kind: u16, flags: u16, sequence: u32) -> Message {
        let mut bytes = vec![0; 4];
        bytes.extend(kind.to_ne_bytes());
        bytes.extend((flags | NLM_F_REQUEST | NLM_F_ACK).to_ne_bytes());
        bytes.extend(sequence.to_ne_bytes());
        bytes.extend([0; 4]); // The port of the sender; the kernel knows it.
        Message { bytes }
    }

    /// Adds which address of which interface it is about.
    fn about_address(mut self, interface: u32, address: IpAddr, prefix: u8) -> Message {
        // struct ifaddrmsg: family, prefix length, flags, scope, index.
        self.bytes.extend([family(address), prefix, IFA_F_NODAD, RT_SCOPE_UNIVERSE]);
        self.bytes.extend(interface.to_ne_bytes());
        self.attribute(IFA_LOCAL, &octets(address));
        self.attribute(IFA_ADDRESS, &octets(address));
        self
    }

    /// An attribute by itself, to be the value of another.
    fn nest(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut attribute = Message { bytes: Vec::new() };
        attribute.attribute(kind, value);
        attribute.bytes
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) {
        let length = u16::try_from(4 + value.len()).expect("attributes are a few bytes");
        self.bytes.extend(length.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(value);
        self.bytes.resize(self.bytes.len().next_multiple_of(ALIGN), 0);
    }

    fn finish(mut self) -> Vec<u8> {
        let length = u32::try_from(self.bytes.len()).expect("messages are a few dozen bytes");
        self.bytes[..4].copy_from_slice(&length.to_ne_bytes());
        self.bytes
    }
}

fn family(address: IpAddr) -> u8 {
    if address.is_ipv4() { AF_INET } else { AF_INET6 }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Fields as text, so that a wrong byte shows where it is. Little-endian machines only.
    #[track_caller]
    fn check(message: Vec<u8>, expected: &str) {
        let byte = |byte: &u8| format!("{byte:02x}");
        let word = |word: &[u8]| word.iter().map(byte).collect::<Vec<_>>().concat();
        let words: Vec<String> = message.chunks(4).map(word).collect();
        assert_eq!(words.join(" "), expected.split_whitespace().collect::<Vec<_>>().join(" "));
    }

    #[test]
    fn messages_have_the_kernels_layout() {
        check(
            link_up(1, 7, None, Some(1500)),
            "28000000 10000500 01000000 00000000
             00000000 07000000 01000000 01000000
             08000400 dc050000",
        );
        check(
            link_up(1, 7, Some([2, 0, 0, 0, 0, 9]), None),
            "2c000000 10000500 01000000 00000000
             00000000 07000000 01000000 01000000
             0a000100 02000000 00090000",
        );
        check(
            link_address(6, 7, [2, 0, 0, 0, 0, 9]),
            "2c000000 10000500 06000000 00000000
             00000000 07000000 00000000 00000000
             0a000100 02000000 00090000",
        );
        check(
            no_link_local(8, 7),
            "30000000 10000500 08000000 00000000
             00000000 07000000 00000000 00000000
             10001a00 0c000a00 05000800 01000000",
        );
        check(
            add_address(2, 7, "10.0.2.15".parse().unwrap(), 24),
            "30000000 14000505 02000000 00000000
             02180200 07000000
             08000200 0a00020f 08000100 0a00020f 08000400 0a0002ff",
        );
        check(
            link_down(4, 7),
            "20000000 10000500 04000000 00000000
             00000000 07000000 00000000 01000000",
        );
        check(
            remove_address(5, 7, "10.0.2.15".parse().unwrap(), 24),
            "28000000 15000500 05000000 00000000
             02180200 07000000
             08000200 0a00020f 08000100 0a00020f",
        );
        check(
            add_default_route(3, 7, "fe80::2".parse().unwrap()),
            "38000000 18000505 03000000 00000000
             0a000000 fe040001 00000000
             08000400 07000000
             14000500 fe800000 00000000 00000000 00000002",
        );
    }

    #[test]
    fn a_point_to_point_address_has_no_broadcast() {
        let lengths =
            [31, 32].map(|prefix| add_address(1, 1, "10.0.0.1".parse().unwrap(), prefix).len());
        assert_eq!(lengths, [40, 40]);
    }

    #[test]
    fn acknowledgements_are_paired_by_sequence() {
        let mut datagram = Vec::new();
        for (sequence, error) in [(4_u32, 0_i32), (5, -17)] {
            let mut ack = Message::new(NLMSG_ERROR, 0, sequence);
            ack.bytes.extend(error.to_ne_bytes());
            datagram.extend(ack.finish());
        }
        assert_eq!(acknowledgements(&datagram), [(4, 0), (5, 17)]);
        datagram.pop();
        assert_eq!(acknowledgements(&datagram), [(4, 0)]);
    }

    proptest! {
        #[test]
        fn any_datagram_is_read_without_panic(bytes: Vec<u8>) {
            let acks = acknowledgements(&bytes);
            prop_assert!(acks.len() <= bytes.len() / HEADER_LEN);
        }

        #[test]
        fn every_address_is_encoded_in_whole_words(address: IpAddr, prefix in 0_u8..=32) {
            let message = add_address(9, 3, address, prefix);
            prop_assert_eq!(message.len() % ALIGN, 0);
            prop_assert_eq!(&message[..4], &u32::try_from(message.len()).unwrap().to_ne_bytes());
        }
    }
}
