// SPDX-License-Identifier: Apache-2.0
//! Where a guest may send, as a pure function of the destination.
//!
//! The rule is that a guest reaches what lies beyond the host, and not the host. What the host's
//! own addresses are is the kernel's to say: the caller passes in how the kernel would route a
//! destination ([`HostRoute`]), asked anew for each flow, so no list of addresses can be stale.
//! Addresses that are special by themselves are judged first and without asking.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::config::{Config, Prefix};

/// What becomes of a new flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It goes to this host-side address.
    Forward(IpAddr),
    /// It goes to a DNS server of the host's choice, if it is a DNS query.
    Resolver,
    /// It is allowed, but the host has no way there.
    Unreachable,
    /// It may not be.
    Deny(Reason),
}

/// Why a flow may not be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// The gateway stands for the host only where that was asked for.
    HostNotAllowed,
    /// Loopback, which is the host's own.
    Loopback,
    /// An address that the host itself answers to.
    HostAddress,
    /// The link between the VM and us, where nobody else lives.
    VmLink,
    /// Link-local addresses: the host's neighbours and cloud metadata services.
    LinkLocal,
    /// A cloud metadata service at an address that is not link-local.
    Metadata,
    /// Multicast or broadcast.
    NotUnicast,
    /// "This network", unspecified and reserved addresses.
    Reserved,
    /// The configuration names it.
    Configured,
}

/// What the host's kernel makes of a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HostRoute {
    /// It is forwarded to somebody else.
    Away,
    /// It stays on the host, or goes to many.
    Local,
    /// There is no way there.
    None,
}

/// The rules for one guest.
#[derive(Clone, Debug)]
pub(crate) struct Policy {
    gateways: Vec<IpAddr>,
    resolvers: Vec<IpAddr>,
    links: Vec<Prefix>,
    denied: Vec<Prefix>,
    allow_host: bool,
}

/// Metadata services that hand out credentials to whoever asks, and are not link-local: Azure,
/// Alibaba, Oracle (IPv4); AWS, Google (IPv6).
const METADATA: [IpAddr; 5] = [
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
];

impl Policy {
    pub(crate) fn new(config: &Config) -> Self {
        let (v4, v6) = (&config.ipv4, config.ipv6.as_ref());
        Self {
            gateways: [v4.gateway.into()]
                .into_iter()
                .chain(v6.map(|v6| v6.gateway.into()))
                .collect(),
            resolvers: [v4.dns.into()].into_iter().chain(v6.map(|v6| v6.dns.into())).collect(),
            links: [Prefix::new(v4.guest.into(), v4.prefix_len)]
                .into_iter()
                .chain(v6.map(|v6| Prefix::new(v6.guest.into(), v6.prefix_len)))
                .collect(),
            denied: config.deny.clone(),
            allow_host: config.allow_host,
        }
    }

    /// Judges a new flow to `destination`; asks for its `host_route` only if that decides.
    pub(crate) fn verdict(
        &self,
        destination: IpAddr,
        host_route: impl FnOnce(IpAddr) -> HostRoute,
    ) -> Verdict {
        if self.gateways.contains(&destination) {
            return match destination {
                _ if !self.allow_host => Verdict::Deny(Reason::HostNotAllowed),
                IpAddr::V4(_) => Verdict::Forward(Ipv4Addr::LOCALHOST.into()),
                IpAddr::V6(_) => Verdict::Forward(Ipv6Addr::LOCALHOST.into()),
            };
        }
        if self.resolvers.contains(&destination) {
            return Verdict::Resolver;
        }
        if let Some(reason) = self.reserved(destination) {
            return Verdict::Deny(reason);
        }
        match host_route(destination) {
            HostRoute::Away => Verdict::Forward(destination),
            HostRoute::Local => Verdict::Deny(Reason::HostAddress),
            HostRoute::None => Verdict::Unreachable,
        }
    }

    /// Why `destination` is denied by its value alone, if it is.
    fn reserved(&self, destination: IpAddr) -> Option<Reason> {
        if let IpAddr::V6(v6) = destination
            && let Some(embedded) = embedded_ipv4(v6)
        {
            // What a translator on the way would make of it must be allowed as well.
            return match embedded {
                Embedded::Mapped => Some(Reason::Reserved),
                Embedded::Translated(v4) => self.reserved(v4.into()),
            };
        }
        if self.links.iter().any(|link| link.contains(destination)) {
            return Some(Reason::VmLink);
        }
        if METADATA.contains(&destination) {
            return Some(Reason::Metadata);
        }
        if self.denied.iter().any(|prefix| prefix.contains(destination)) {
            return Some(Reason::Configured);
        }
        match destination {
            IpAddr::V4(v4) => reserved_ipv4(v4),
            IpAddr::V6(v6) => reserved_ipv6(v6),
        }
    }
}

fn reserved_ipv4(address: Ipv4Addr) -> Option<Reason> {
    match address.octets() {
        [127, ..] => Some(Reason::Loopback),
        [169, 254, ..] => Some(Reason::LinkLocal),
        [224..=239, ..] | [255, 255, 255, 255] => Some(Reason::NotUnicast),
        [0 | 240..=255, ..] => Some(Reason::Reserved),
        _ => None,
    }
}

fn reserved_ipv6(address: Ipv6Addr) -> Option<Reason> {
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 1] => Some(Reason::Loopback),
        // Unspecified, and the IPv4-compatible addresses that nobody uses any more.
        [0, 0, 0, 0, 0, 0, ..] => Some(Reason::Reserved),
        [0xfe80..=0xfeff, ..] => Some(Reason::LinkLocal),
        [0xff00..=0xffff, ..] => Some(Reason::NotUnicast),
        _ => None,
    }
}

/// An IPv6 address that stands for an IPv4 one.
enum Embedded {
    /// For the host's own sockets; never valid on a wire.
    Mapped,
    /// For a translator or tunnel (NAT64, 6to4) that may sit behind the host.
    Translated(Ipv4Addr),
}

fn embedded_ipv4(address: Ipv6Addr) -> Option<Embedded> {
    let join = |high: u16, low: u16| Ipv4Addr::from(u32::from(high) << 16 | u32::from(low));
    match address.segments() {
        [0, 0, 0, 0, 0, 0xffff, ..] => Some(Embedded::Mapped),
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => {
            Some(Embedded::Translated(join(high, low)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Judges `destination` on a host that answers to 192.0.2.7 and has no way to 198.51.100.0/24.
    #[track_caller]
    fn check(config: Config, destination: &str, expected: Verdict) {
        let host_route = |address: IpAddr| match address.to_string().as_str() {
            "192.0.2.7" | "2001:db8::7" => HostRoute::Local,
            other if other.starts_with("198.51.100.") => HostRoute::None,
            _ => HostRoute::Away,
        };
        let verdict = Policy::new(&config).verdict(destination.parse().unwrap(), host_route);
        assert_eq!(verdict, expected, "{destination}");
    }

    fn forward(address: &str) -> Verdict {
        Verdict::Forward(address.parse().unwrap())
    }

    #[test]
    fn the_world_is_allowed() {
        for address in
            ["1.1.1.1", "192.168.1.1", "10.0.3.1", "172.17.0.5", "2001:db8::1", "fd00::1"]
        {
            check(Config::default(), address, forward(address));
        }
    }

    #[test]
    fn the_host_and_special_addresses_are_denied() {
        use Reason::{
            HostAddress, HostNotAllowed, LinkLocal, Loopback, Metadata, NotUnicast, Reserved,
            VmLink,
        };
        for (address, reason) in [
            ("10.0.2.2", HostNotAllowed),
            ("fd68:7970:6572::2", HostNotAllowed),
            ("127.0.0.1", Loopback),
            ("127.255.255.254", Loopback),
            ("::1", Loopback),
            ("192.0.2.7", HostAddress),
            ("2001:db8::7", HostAddress),
            ("10.0.2.15", VmLink),
            ("10.0.2.77", VmLink),
            ("10.0.2.255", VmLink),
            ("fd68:7970:6572::15", VmLink),
            ("169.254.169.254", LinkLocal),
            ("169.254.0.1", LinkLocal),
            ("fe80::1", LinkLocal),
            ("fec0::1", LinkLocal),
            ("fd00:ec2::254", Metadata),
            ("fd20:ce::254", Metadata),
            ("168.63.129.16", Metadata),
            ("100.100.100.200", Metadata),
            ("192.0.0.192", Metadata),
            ("224.0.0.251", NotUnicast),
            ("255.255.255.255", NotUnicast),
            ("ff02::1", NotUnicast),
            ("0.0.0.0", Reserved),
            ("0.1.2.3", Reserved),
            ("240.0.0.1", Reserved),
            ("::", Reserved),
            ("::7f00:1", Reserved),
            ("::ffff:127.0.0.1", Reserved),
            ("::ffff:1.1.1.1", Reserved),
            ("64:ff9b::7f00:1", Loopback),
            ("64:ff9b::169.254.169.254", LinkLocal),
            ("2002:7f00:1::", Loopback),
        ] {
            check(Config::default(), address, Verdict::Deny(reason));
        }
    }

    #[test]
    fn a_destination_without_route_is_unreachable() {
        check(Config::default(), "198.51.100.1", Verdict::Unreachable);
    }

    #[test]
    fn the_gateway_is_loopback_where_the_host_is_allowed() {
        let config = || Config { allow_host: true, ..Config::default() };
        check(config(), "10.0.2.2", forward("127.0.0.1"));
        check(config(), "fd68:7970:6572::2", forward("::1"));
        check(config(), "127.0.0.1", Verdict::Deny(Reason::Loopback));
        check(config(), "192.0.2.7", Verdict::Deny(Reason::HostAddress));
    }

    #[test]
    fn dns_goes_to_the_resolver() {
        check(Config::default(), "10.0.2.3", Verdict::Resolver);
        check(Config::default(), "fd68:7970:6572::3", Verdict::Resolver);
    }

    #[test]
    fn configured_prefixes_are_denied_also_behind_a_translator() {
        let config = || Config {
            deny: vec![Prefix::new("192.168.0.0".parse().unwrap(), 16)],
            ..Config::default()
        };
        check(config(), "192.168.1.1", Verdict::Deny(Reason::Configured));
        check(config(), "64:ff9b::192.168.1.1", Verdict::Deny(Reason::Configured));
        check(config(), "192.169.0.1", forward("192.169.0.1"));
    }
}
