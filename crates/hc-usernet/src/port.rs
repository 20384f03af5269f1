// SPDX-License-Identifier: Apache-2.0
//! Published ports: host sockets that lead to ports of the guest.
//!
//! They are bound before the VM exists, so that "port in use" is the answer to the person who asked
//! and not a line in a log. What arrives before the guest is there waits in the kernel's queues.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::task::Waker;

use crate::config::{Bound, Protocol, Publish};
use crate::error::{Error, Result};
use crate::ready::{Ready, Token};

/// A published port that is bound but that nobody reads yet.
#[derive(Debug)]
pub(crate) struct BoundPort {
    bound: Bound,
    socket: HostSocket,
}

#[derive(Debug)]
enum HostSocket {
    Tcp(TcpListener),
    Udp(UdpSocket),
}

impl BoundPort {
    /// Binds the host side of `publish`.
    pub(crate) fn bind(publish: &Publish) -> Result<Self> {
        let host = SocketAddr::new(publish.host_ip, publish.host_port);
        let protocol = publish.protocol;
        let bind = || -> io::Result<(HostSocket, SocketAddr)> {
            Ok(match protocol {
                Protocol::Tcp => {
                    let listener = TcpListener::bind(host)?;
                    listener.set_nonblocking(true)?;
                    let host = listener.local_addr()?;
                    (HostSocket::Tcp(listener), host)
                }
                Protocol::Udp => {
                    let socket = UdpSocket::bind(host)?;
                    socket.set_nonblocking(true)?;
                    let host = socket.local_addr()?;
                    (HostSocket::Udp(socket), host)
                }
            })
        };
        let (socket, host) = bind().map_err(|source| Error::Publish { protocol, host, source })?;
        Ok(Self { bound: Bound { protocol, host, guest_port: publish.guest_port }, socket })
    }

    pub(crate) fn bound(&self) -> Bound {
        self.bound
    }

    /// Hands the socket to the runtime; `index` is the port's place in the list.
    pub(crate) fn listen(self, index: usize, ready: &Ready) -> Result<Port> {
        let socket = match self.socket {
            HostSocket::Tcp(listener) => {
                tokio::net::TcpListener::from_std(listener).map(PortSocket::Tcp)
            }
            HostSocket::Udp(socket) => tokio::net::UdpSocket::from_std(socket).map(PortSocket::Udp),
        };
        let socket = socket.map_err(|source| Error::Setup { what: "published port", source })?;
        let waker = ready.waker(Token::Port(index));
        Ok(Port { target: self.bound.guest_port, host: self.bound.host, socket, waker })
    }
}

/// A published port that is served.
#[derive(Debug)]
pub(crate) struct Port {
    /// The guest's port.
    pub(crate) target: u16,
    /// Where the host listens.
    pub(crate) host: SocketAddr,
    pub(crate) socket: PortSocket,
    pub(crate) waker: Waker,
}

/// The host side of a published port.
#[derive(Debug)]
pub(crate) enum PortSocket {
    Tcp(tokio::net::TcpListener),
    Udp(tokio::net::UdpSocket),
}
