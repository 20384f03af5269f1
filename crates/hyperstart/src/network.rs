// SPDX-License-Identifier: Apache-2.0
//! The pod's network, set up once from what the host says: no DHCP, no waiting.

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
    Link::open()?.ask("switch loopback on", |sequence| {
        netlink::link_up(sequence, netlink::LOOPBACK, None, None)
    })
}

/// Gives the interface that the host means its addresses and routes.
pub(crate) fn set_up(network: &NetworkSpec) -> Result<()> {
    let found = devices::interface(network.mac)?;
    let interface = found.number;
    // Only where it differs: not every card takes another address.
    let mac = (!found.has_address).then_some(network.mac);
    let mut link = Link::open()?;
    link.ask("switch the interface on", |sequence| {
        netlink::link_up(sequence, interface, mac, Some(network.mtu))
    })?;
    for &(address, prefix) in &network.addresses {
        if address.is_ipv6() && !Path::new("/proc/net/if_inet6").exists() {
            continue; // A kernel without IPv6 still has its IPv4.
        }
        link.ask(&format!("add address {address}/{prefix}"), |sequence| {
            netlink::add_address(sequence, interface, address, prefix)
        })?;
    }
    for &gateway in &network.gateways {
        if gateway.is_ipv6() && !Path::new("/proc/net/if_inet6").exists() {
            continue;
        }
        link.ask(&format!("route through {gateway}"), |sequence| {
            netlink::add_default_route(sequence, interface, gateway)
        })?;
    }
    Ok(())
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
    fn ask(&mut self, what: &str, message: impl FnOnce(u32) -> Vec<u8>) -> Result<()> {
        self.sequence += 1;
        let bytes = message(self.sequence);
        rustix::net::sendto(
            &self.socket,
            &bytes,
            SendFlags::empty(),
            &SocketAddrNetlink::new(0, 0),
        )
        .attempt(|| what.into())?;
        let mut buffer = [0_u8; 8192];
        loop {
            let (length, _) = rustix::net::recv(&self.socket, &mut buffer, RecvFlags::empty())
                .attempt(|| what.into())?;
            let acks = netlink::acknowledgements(&buffer[..length]);
            match acks.into_iter().find(|(sequence, _)| *sequence == self.sequence) {
                Some((_, 0)) => return Ok(()),
                Some((_, error)) => {
                    return Err(io::Error::from_raw_os_error(error)).attempt(|| what.into());
                }
                None => {}
            }
        }
    }
}
