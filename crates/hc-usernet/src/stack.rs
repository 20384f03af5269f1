// SPDX-License-Identifier: Apache-2.0
//! The TCP/IP stack that faces the guest, by smoltcp.
//!
//! It answers for *every* destination: a TCP socket of ours may have any address of the world as
//! its local one. A segment that belongs to no socket gets a reset, which is also how a flow is
//! refused: its SYN is shown to the stack while no socket listens.
//!
//! Checksums of frames from the VM are not verified. They crossed no wire, and a guest that lies
//! about them fools only itself.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use smoltcp::iface::{Config as InterfaceConfig, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{
    Checksum, ChecksumCapabilities, Device, DeviceCapabilities, Medium, RxToken, TxToken,
};
use smoltcp::socket::tcp;
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpCidr};
use tokio::time::Instant as TokioInstant;

use crate::config::{Config, GATEWAY_MAC};
use crate::frame::Flow;
use crate::link::Output;

/// smoltcp's interface and sockets, with a clock.
pub(crate) struct Stack {
    interface: Interface,
    sockets: SocketSet<'static>,
    started: TokioInstant,
    mtu: usize,
}

impl std::fmt::Debug for Stack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stack").finish_non_exhaustive()
    }
}

impl Stack {
    pub(crate) fn new(config: &Config) -> Self {
        let mut settings =
            InterfaceConfig::new(HardwareAddress::Ethernet(EthernetAddress(GATEWAY_MAC)));
        // Sequence numbers must not be guessable for containers in the guest without raw sockets.
        settings.random_seed = RandomState::new().hash_one(GATEWAY_MAC);
        let mtu = usize::from(config.mtu);
        let mut nowhere = Output::default();
        let mut port = Port { frame: None, output: &mut nowhere, mtu };
        let mut interface = Interface::new(settings, &mut port, Instant::ZERO);
        interface.set_any_ip(true);
        let mut addresses = vec![
            IpCidr::new(config.ipv4.gateway.into(), config.ipv4.prefix_len),
            IpCidr::new(config.ipv4.dns.into(), config.ipv4.prefix_len),
        ];
        if let Some(ipv6) = config.ipv6 {
            addresses.push(IpCidr::new(ipv6.gateway.into(), ipv6.prefix_len));
            addresses.push(IpCidr::new(ipv6.dns.into(), ipv6.prefix_len));
        }
        interface.update_ip_addrs(|list| {
            for address in addresses {
                list.push(address)
                    .expect("the feature iface-max-addr-count-8 leaves room for four");
            }
        });
        let sockets = SocketSet::new(Vec::new());
        Self { interface, sockets, started: TokioInstant::now(), mtu }
    }

    /// Shows one frame to the stack, whose answer goes to `output`.
    pub(crate) fn ingress(&mut self, frame: &[u8], output: &mut Output) {
        let now = self.now();
        let mut port = Port { frame: Some(frame), output, mtu: self.mtu };
        self.interface.poll_ingress_single(now, &mut port, &mut self.sockets);
    }

    /// Sends what the sockets have to send, until `output` is full.
    pub(crate) fn egress(&mut self, output: &mut Output) {
        let now = self.now();
        let mut port = Port { frame: None, output, mtu: self.mtu };
        self.interface.poll_maintenance(now);
        self.interface.poll_egress(now, &mut port, &mut self.sockets);
    }

    /// When [`egress`](Self::egress) has work again without anything else happening.
    pub(crate) fn next_egress(&mut self) -> Option<TokioInstant> {
        let now = self.now();
        let delay = self.interface.poll_delay(now, &self.sockets)?;
        Some(TokioInstant::now() + Duration::from_micros(delay.total_micros()))
    }

    /// Adds a TCP socket with buffers of `buffer_len` for each direction.
    pub(crate) fn add(&mut self, buffer_len: usize) -> SocketHandle {
        let buffer = || tcp::SocketBuffer::new(vec![0; buffer_len]);
        let mut socket = tcp::Socket::new(buffer(), buffer());
        // We see whole batches of segments at a time, so neither delay saves a frame.
        socket.set_ack_delay(None);
        socket.set_nagle_enabled(false);
        self.sockets.add(socket)
    }

    /// Starts to open `flow` towards the guest.
    pub(crate) fn connect(&mut self, handle: SocketHandle, flow: Flow) -> bool {
        let socket = self.sockets.get_mut::<tcp::Socket<'_>>(handle);
        socket.connect(self.interface.context(), flow.guest, flow.remote).is_ok()
    }

    pub(crate) fn socket(&mut self, handle: SocketHandle) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(handle)
    }

    /// Forgets a socket, with whatever it still holds.
    pub(crate) fn remove(&mut self, handle: SocketHandle) {
        self.sockets.remove(handle);
    }

    fn now(&self) -> Instant {
        let elapsed = self.started.elapsed();
        Instant::from_micros(i64::try_from(elapsed.as_micros()).unwrap_or(i64::MAX))
    }
}

/// smoltcp's view of the cable, for the length of one call.
struct Port<'a> {
    frame: Option<&'a [u8]>,
    output: &'a mut Output,
    mtu: usize,
}

impl Device for Port<'_> {
    type RxToken<'b>
        = Received<'b>
    where
        Self: 'b;
    type TxToken<'b>
        = Slot<'b>
    where
        Self: 'b;

    fn receive(&mut self, _: Instant) -> Option<(Self::RxToken<'_>, Self::TxToken<'_>)> {
        // The answer to a frame may go over the soft limit; the next frame then has to wait.
        Some((Received(self.frame.take()?), Slot(self.output)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Self::TxToken<'_>> {
        (!self.output.is_full()).then_some(Slot(self.output))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = self.mtu + ETHERNET_HEADER_LEN;
        capabilities.checksum = send_checksums();
        capabilities
    }
}

/// Two addresses and the type.
pub(crate) const ETHERNET_HEADER_LEN: usize = 14;

/// Checksums are computed for the guest, which verifies them, and not verified from it.
pub(crate) fn send_checksums() -> ChecksumCapabilities {
    let mut checksums = ChecksumCapabilities::default();
    checksums.ipv4 = Checksum::Tx;
    checksums.udp = Checksum::Tx;
    checksums.tcp = Checksum::Tx;
    checksums.icmpv4 = Checksum::Tx;
    checksums.icmpv6 = Checksum::Tx;
    checksums
}

struct Received<'a>(&'a [u8]);

impl RxToken for Received<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

struct Slot<'a>(&'a mut Output);

impl TxToken for Slot<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        self.0.push(len, f)
    }
}

/// How many bytes each direction of a new flow may buffer while the others hold `held` bytes.
pub(crate) fn buffer_len(held: usize) -> usize {
    use crate::limits::{TCP_BUFFER_BUDGET, TCP_BUFFER_MAX, TCP_BUFFER_MIN};
    let share = TCP_BUFFER_BUDGET.saturating_sub(held) / 16;
    // A power of two, so that freed buffers fit the next flow.
    let rounded = if share == 0 { 0 } else { 1 << share.ilog2() };
    rounded.clamp(TCP_BUFFER_MIN, TCP_BUFFER_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{TCP_BUFFER_BUDGET, TCP_BUFFER_MAX, TCP_BUFFER_MIN, TCP_FLOWS_MAX};

    #[test]
    fn flows_get_smaller_buffers_the_more_there_are() {
        let mut held = 0;
        let lens: Vec<_> = (0..TCP_FLOWS_MAX)
            .map(|_| {
                let len = buffer_len(held);
                held += 2 * len;
                len
            })
            .collect();
        assert_eq!(lens[..8], [TCP_BUFFER_MAX; 8]);
        assert!(lens.is_sorted_by(|before, after| before >= after));
        assert_eq!(lens.last(), Some(&TCP_BUFFER_MIN));
        assert!(held <= TCP_BUFFER_BUDGET + TCP_FLOWS_MAX * 2 * TCP_BUFFER_MIN);
    }
}
