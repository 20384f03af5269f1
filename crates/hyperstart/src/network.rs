// SPDX-License-Identifier: Apache-2.0
//! The pod's network, set up from what the host says: no DHCP, no waiting.
//!
//! It outlives pods. Copies of a guest mostly get the addresses that it had, each on a network of its
//! own, and then only the Ethernet address differs.

use core::net::IpAddr;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use hc_spec::NetworkSpec;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use crate::error::{Attempt as _, Result};
use crate::{devices, netlink};

/// Switches loopback on.
pub(crate) fn loopback_up() -> Result<()> {
    Link::open()?
        .ask(|sequence| netlink::link_up(sequence, netlink::LOOPBACK, None, None))
        .attempt(|| "switch loopback on".into())
}

/// Makes of the network that there is `now` the one that is `wanted`.
pub(crate) fn change(now: &mut Option<NetworkSpec>, wanted: Option<&NetworkSpec>) -> Result<()> {
    match (now.take(), wanted) {
        (Some(now), Some(wanted)) if differ_in_mac_only(&now, wanted) => change_mac(wanted.mac)?,
        (now, wanted) => {
            if let Some(now) = now {
                take_down(&now)?;
            }
            if let Some(wanted) = wanted {
                set_up(wanted)?;
            }
        }
    }
    *now = wanted.cloned();
    Ok(())
}

fn differ_in_mac_only(now: &NetworkSpec, wanted: &NetworkSpec) -> bool {
    NetworkSpec { mac: wanted.mac, ..now.clone() } == *wanted
}

/// Gives the interface another Ethernet address while it is on.
///
/// The link-local address that the kernel has made of the one before stays: guests that have the same
/// addresses are never on one link.
fn change_mac(mac: [u8; 6]) -> Result<()> {
    let found = devices::interface(mac)?;
    if found.has_address {
        return Ok(());
    }
    Link::open()?
        .ask(|sequence| netlink::link_up(sequence, found.number, Some(mac), None))
        .attempt(|| "change the Ethernet address".into())
}

/// Gives the interface that the host means its addresses and routes.
fn set_up(network: &NetworkSpec) -> Result<()> {
    let found = devices::interface(network.mac)?;
    let interface = found.number;
    // Only where it differs: not every card takes another address.
    let mac = (!found.has_address).then_some(network.mac);
    let mut link = Link::open()?;
    link.ask(|sequence| netlink::link_up(sequence, interface, mac, Some(network.mtu)))
        .attempt(|| "switch the interface on".into())?;
    for &(address, prefix) in network.addresses.iter().filter(|(address, _)| is_usable(*address)) {
        link.ask(|sequence| netlink::add_address(sequence, interface, address, prefix))
            .attempt(|| format!("add address {address}/{prefix}"))?;
    }
    for &gateway in network.gateways.iter().filter(|gateway| is_usable(**gateway)) {
        link.ask(|sequence| netlink::add_default_route(sequence, interface, gateway))
            .attempt(|| format!("route through {gateway}"))?;
    }
    Ok(())
}

/// Takes back what [`set_up`] did. With the interface go its routes and its neighbours.
fn take_down(network: &NetworkSpec) -> Result<()> {
    let interface = devices::interface(network.mac)?.number;
    let mut link = Link::open()?;
    link.ask(|sequence| netlink::link_down(sequence, interface))
        .attempt(|| "switch the interface off".into())?;
    for &(address, prefix) in network.addresses.iter().filter(|(address, _)| is_usable(*address)) {
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
