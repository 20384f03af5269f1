// SPDX-License-Identifier: Apache-2.0
//! What the host's kernel would do with a destination, asked over netlink.
//!
//! One question per new flow instead of a list of the host's addresses: the answer is never stale,
//! and covers what no list of interfaces shows, such as whole prefixes that are local and the
//! broadcast addresses of every network.

use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use crate::policy::HostRoute;

/// A socket to ask on.
#[derive(Debug)]
pub(crate) struct RouteTable {
    socket: OwnedFd,
    sequence: u32,
    /// Whether a failure was told already: flows that fail are as many as the guest likes.
    warned: bool,
}

const NLMSG_ERROR: u16 = 2;
const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;
const NLM_F_REQUEST: u16 = 1;
const RTA_DST: u16 = 1;
const RTN_UNICAST: u8 = 1;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// The headers `nlmsghdr` and `rtmsg`.
const NLMSG_LEN: usize = 16;
const RTMSG_LEN: usize = 12;

impl RouteTable {
    pub(crate) fn open() -> io::Result<Self> {
        let socket = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            // Protocol 0 is `NETLINK_ROUTE`.
            None,
        )?;
        rustix::net::connect(&socket, &SocketAddrNetlink::new(0, 0))?;
        Ok(Self { socket, sequence: 0, warned: false })
    }

    /// How the host would route to `destination`. What cannot be found out counts as the host's own,
    /// so that failing means denying.
    pub(crate) fn look_up(&mut self, destination: IpAddr) -> HostRoute {
        match self.ask(destination) {
            Ok(route) => route,
            Err(error) => {
                if !self.warned {
                    tracing::warn!(%destination, %error, "cannot look up routes, flows are denied");
                    self.warned = true;
                }
                HostRoute::Local
            }
        }
    }

    fn ask(&mut self, destination: IpAddr) -> io::Result<HostRoute> {
        self.sequence = self.sequence.wrapping_add(1);
        let request = request(destination, self.sequence);
        rustix::net::send(&self.socket, &request, SendFlags::empty())?;
        // The kernel has put the answer into our queue by the time `send` returns. Leftovers of
        // an earlier question can only be there if reading its answer failed.
        let mut answer = [0; 1024];
        loop {
            let (len, _) = rustix::net::recv(&self.socket, &mut answer, RecvFlags::empty())?;
            if let Some(route) = read_answer(&answer[..len], self.sequence)? {
                return Ok(route);
            }
        }
    }
}

/// `RTM_GETROUTE` for one destination; netlink numbers are in the host's byte order.
fn request(destination: IpAddr, sequence: u32) -> Vec<u8> {
    let (family, address) = match &destination {
        IpAddr::V4(v4) => (AF_INET, v4.octets().to_vec()),
        IpAddr::V6(v6) => (AF_INET6, v6.octets().to_vec()),
    };
    let attribute_len = u16::try_from(4 + address.len()).unwrap_or(u16::MAX);
    let bits = u8::try_from(address.len() * 8).unwrap_or(u8::MAX);
    let len = NLMSG_LEN + RTMSG_LEN + usize::from(attribute_len);
    let mut message = Vec::with_capacity(len);
    message.extend(u32::try_from(len).unwrap_or(u32::MAX).to_ne_bytes());
    message.extend(RTM_GETROUTE.to_ne_bytes());
    message.extend(NLM_F_REQUEST.to_ne_bytes());
    message.extend(sequence.to_ne_bytes());
    message.extend([0; 4]); // The kernel fills in our port number.
    message.extend([family, bits, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    message.extend(attribute_len.to_ne_bytes());
    message.extend(RTA_DST.to_ne_bytes());
    message.extend(address);
    message
}

/// What `message` answers to question `sequence`, or `None` if it answers another one.
fn read_answer(message: &[u8], sequence: u32) -> io::Result<Option<HostRoute>> {
    let Some((header, body)) = message.split_first_chunk::<NLMSG_LEN>() else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    let [_, _, _, _, k0, k1, _, _, s0, s1, s2, s3, ..] = *header;
    if u32::from_ne_bytes([s0, s1, s2, s3]) != sequence {
        return Ok(None);
    }
    match u16::from_ne_bytes([k0, k1]) {
        RTM_NEWROUTE => match body.get(7) {
            Some(&RTN_UNICAST) => Ok(Some(HostRoute::Away)),
            Some(_) => Ok(Some(HostRoute::Local)),
            None => Err(io::ErrorKind::InvalidData.into()),
        },
        NLMSG_ERROR => {
            let number = body.first_chunk().map_or(0, |number| i32::from_ne_bytes(*number));
            let error = io::Error::from_raw_os_error(number.saturating_neg());
            match error.kind() {
                // Unreachable and prohibited routes are answered with the error they stand for.
                io::ErrorKind::NetworkUnreachable
                | io::ErrorKind::HostUnreachable
                | io::ErrorKind::PermissionDenied => Ok(Some(HostRoute::None)),
                _ => Err(error),
            }
        }
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_local() {
        let mut routes = RouteTable::open().unwrap();
        assert_eq!(routes.look_up("127.0.0.1".parse().unwrap()), HostRoute::Local);
        assert_eq!(routes.look_up("127.255.255.255".parse().unwrap()), HostRoute::Local);
    }

    #[test]
    fn an_error_number_becomes_its_meaning() {
        let mut message = vec![0; NLMSG_LEN];
        message[4..6].copy_from_slice(&NLMSG_ERROR.to_ne_bytes());
        message[8..12].copy_from_slice(&9_u32.to_ne_bytes());
        message.extend((-101_i32).to_ne_bytes());
        assert_eq!(read_answer(&message, 9).unwrap(), Some(HostRoute::None));
        assert_eq!(read_answer(&message, 8).unwrap(), None);
        assert!(read_answer(&message[..12], 9).is_err());
    }
}
