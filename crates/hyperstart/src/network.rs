// SPDX-License-Identifier: Apache-2.0
//! The pod's network, set up from what the host says: no DHCP, no waiting.
//!
//! It outlives pods. Copies of a guest mostly get the addresses that it had, each on a network of its
//! own, and then only the Ethernet address differs.

use core::net::{IpAddr, Ipv6Addr};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use hc_spec::NetworkSpec;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use crate::error::{Attempt as _, Result};
use crate::{devices, netlink};

/// Bits of a link-local address that all have in common.
const LINK_LOCAL_PREFIX: u8 = 64;

/// Switches loopback on.
pub(crate) fn loopback_up() -> Result<()> {
    Link::open()?
        .ask(|sequence| netlink::link_up(sequence, netlink::LOOPBACK, None, None))
        .attempt(|| "switch loopback on".into())
}

/// An interface that is set up.
pub(crate) struct Network {
    spec: NetworkSpec,
    interface: u32,
}

/// Makes of the network that there is `now` the one that is `wanted`.
pub(crate) fn change(now: &mut Option<Network>, wanted: Option<&NetworkSpec>) -> Result<()> {
    let now_is = now.take();
    if let (Some(Network { spec, interface }), Some(wanted)) = (&now_is, wanted)
        && differ_in_mac_only(spec, wanted)
    {
        Link::open()?
            .ask(|sequence| netlink::link_address(sequence, *interface, wanted.mac))
            .attempt(|| "change the Ethernet address".into())?;
        // The link-local address stays: guests with the same addresses are never on one link.
        *now = Some(Network { spec: wanted.clone(), interface: *interface });
        return Ok(());
    }
    if let Some(network) = now_is {
        take_down(&network)?;
    }
    *now = wanted.map(set_up).transpose()?;
    Ok(())
}

fn differ_in_mac_only(now: &NetworkSpec, wanted: &NetworkSpec) -> bool {
    NetworkSpec { mac: wanted.mac, ..now.clone() } == *wanted
}

/// Gives the interface that the host means its addresses and routes.
fn set_up(network: &NetworkSpec) -> Result<Network> {
    let found = devices::interface(network.mac)?;
    let interface = found.number;
    // Only where it differs: not every card takes another address.
    let mac = (!found.has_address).then_some(network.mac);
    let mut addresses = network.addresses.clone();
    let mut link = Link::open()?;
    let own = IpAddr::V6(link_local(network.mac));
    if is_usable(own) {
        // Routers are not asked: the host has said everything. Nor are memberships told twice: there is
        // nobody else on the link.
        let accept = format!("conf/{}/accept_ra", found.name);
        for (name, value) in [(&*accept, "0"), ("mld_qrv", "1")] {
            std::fs::write(format!("/proc/sys/net/ipv6/{name}"), value)
                .attempt(|| format!("set {name}"))?;
        }
        // The kernel would make this address too, a second later, and ask for others with the same.
        link.ask(|sequence| netlink::no_link_local(sequence, interface))
            .attempt(|| "take link-local addresses over".into())?;
        addresses.push((own, LINK_LOCAL_PREFIX));
    }
    link.ask(|sequence| netlink::link_up(sequence, interface, mac, Some(network.mtu)))
        .attempt(|| "switch the interface on".into())?;
    for (address, prefix) in addresses.into_iter().filter(|(address, _)| is_usable(*address)) {
        link.ask(|sequence| netlink::add_address(sequence, interface, address, prefix))
            .attempt(|| format!("add address {address}/{prefix}"))?;
    }
    for &gateway in network.gateways.iter().filter(|gateway| is_usable(**gateway)) {
        link.ask(|sequence| netlink::add_default_route(sequence, interface, gateway))
            .attempt(|| format!("route through {gateway}"))?;
    }
    Ok(Network { spec: network.clone(), interface })
}

/// The link-local address that follows from an Ethernet address (RFC 4291, appendix A).
fn link_local(mac: [u8; 6]) -> Ipv6Addr {
    let [first, second, third, fourth, fifth, last] = mac;
    let universal = first ^ 2; // The bit that says so is turned round.
    let bytes = [universal, second, third, 0xff, 0xfe, fourth, fifth, last];
    Ipv6Addr::from_bits(0xfe80 << 112 | u128::from(u64::from_be_bytes(bytes)))
}

/// Takes back what [`set_up`] did. With the interface go its routes and its neighbours.
fn take_down(&Network { ref spec, interface }: &Network) -> Result<()> {
    let mut link = Link::open()?;
    link.ask(|sequence| netlink::link_down(sequence, interface))
        .attempt(|| "switch the interface off".into())?;
    for &(address, prefix) in spec.addresses.iter().filter(|(address, _)| is_usable(*address)) {
        match link.ask(|sequence| netlink::remove_address(sequence, interface, address, prefix)) {
            // Those of IPv6 went with the interface.
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {}
            done => done.attempt(|| format!("remove address {address}/{prefix}"))?,
        }
    }
    Ok(())
}

/// Whether the kernel knows such addresses: one without IPv6 still has its IPv4.
fn is_usable(address: IpAddr) -> bool {
    address.is_ipv4() || Path::new("/proc/net/if_inet6").exists()
}

/// A conversation with the kernel's network configuration.
struct Link {
    socket: OwnedFd,
    sequence: u32,
}

impl Link {
    fn open() -> Result<Link> {
        let socket = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            None, // rtnetlink is number 0, the default,
        )
        .attempt(|| "open a netlink socket".into())?;
        Ok(Link { socket, sequence: 0 })
    }

    /// Sends one message and waits for what the kernel says to it, which it does at once.
    fn ask(&mut self, message: impl FnOnce(u32) -> Vec<u8>) -> io::Result<()> {
        self.sequence += 1;
        let bytes = message(self.sequence);
        rustix::net::sendto(
            &self.socket,
            &bytes,
            SendFlags::empty(),
            &SocketAddrNetlink::new(0, 0),
        )?;
        let mut buffer = [0_u8; 8192];
        loop {
            let (length, _) = rustix::net::recv(&self.socket, &mut buffer, RecvFlags::empty())?;
            let acks = netlink::acknowledgements(&buffer[..length]);
            match acks.into_iter().find(|(sequence, _)| *sequence == self.sequence) {
                Some((_, 0)) => return Ok(()),
                Some((_, error)) => return Err(io::Error::from_raw_os_error(error)),
                None => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_local_addresses_are_those_that_the_kernel_makes() {
        let address = link_local([0x02, b'h', b'y', b'p', b'e', b'r']);
        assert_eq!(address.to_string(), "fe80::68:79ff:fe70:6572");
    }

    #[test]
    fn another_ethernet_address_is_no_other_network() {
        let network = |mac, address: &str| NetworkSpec {
            mac: [2, 0, 0, 0, 0, mac],
            addresses: vec![(address.parse().unwrap(), 24)],
            gateways: Vec::new(),
            mtu: 1500,
        };
        let now = network(1, "10.0.2.15");
        assert!(differ_in_mac_only(&now, &network(2, "10.0.2.15")));
        assert!(!differ_in_mac_only(&now, &network(1, "10.0.2.16")));
    }
}
