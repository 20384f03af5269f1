// SPDX-License-Identifier: Apache-2.0
//! Where each frame of the guest goes, and whose turn it is on the host side.
//!
//! The switch owns every flow. It asks the policy before it opens one for the guest, and tells the
//! guest in its own protocol's words when one may not be or cannot be.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::task::{Context, Poll};

use tokio::time::Instant;

use crate::config::Config;
use crate::datagram::{DatagramFlows, Event, Key, Kind, Sent};
use crate::dns::Resolvers;
use crate::frame::{Addresses, Flow, Purpose, classify};
use crate::limits::{ACCEPT_RETRY, ACCEPTS_PER_TURN, SWEEP_EVERY};
use crate::link::Output;
use crate::policy::{Policy, Verdict};
use crate::port::{Port, PortSocket};
use crate::ready::{Ready, Token};
use crate::reply::{Replies, Unreachable};
use crate::route::RouteTable;
use crate::stack::Stack;
use crate::stats::Counts;
use crate::tcp::{Admission, Outcome, TcpFlows};

/// Everything behind the cable.
#[derive(Debug)]
pub(crate) struct Switch {
    addresses: Addresses,
    /// Where published ports lead, and from where they seem to come.
    guest: IpAddr,
    gateway: IpAddr,
    policy: Policy,
    routes: RouteTable,
    resolvers: Resolvers,
    replies: Replies,
    stack: Stack,
    tcp: TcpFlows,
    datagrams: DatagramFlows,
    ports: Vec<Port>,
    /// Published ports that wait for room among the TCP flows.
    waiting: Vec<usize>,
    /// Published ports that rest after an error, and until when.
    resting: Vec<usize>,
    rest_until: Option<Instant>,
    next_sweep: Option<Instant>,
    ready: Ready,
    tokens: Vec<Token>,
    frames_from_guest: u64,
    bytes_from_guest: u64,
    denied: u64,
}

/// Where a new flow is to go.
enum Target {
    Host(SocketAddr),
    Denied,
    Unreachable,
}

/// The only port that the DNS server has.
const DNS_PORT: u16 = 53;

impl Switch {
    pub(crate) fn new(
        config: &Config,
        ports: Vec<Port>,
        resolvers: Resolvers,
        routes: RouteTable,
        ready: Ready,
    ) -> Self {
        Self {
            addresses: Addresses::new(config),
            guest: config.ipv4.guest.into(),
            gateway: config.ipv4.gateway.into(),
            policy: Policy::new(config),
            routes,
            resolvers,
            replies: Replies::new(config),
            stack: Stack::new(config),
            tcp: TcpFlows::default(),
            datagrams: DatagramFlows::new(),
            ports,
            waiting: Vec::new(),
            resting: Vec::new(),
            rest_until: None,
            next_sweep: None,
            ready,
            tokens: Vec::new(),
            frames_from_guest: 0,
            bytes_from_guest: 0,
            denied: 0,
        }
    }

    /// Takes one frame from the guest.
    pub(crate) fn frame(&mut self, frame: &[u8], output: &mut Output) {
        self.frames_from_guest += 1;
        self.bytes_from_guest += frame.len() as u64;
        match classify(frame, &self.addresses) {
            Purpose::Stack => self.stack.ingress(frame, output),
            Purpose::Syn(ends) => self.syn(ends, frame, output),
            Purpose::Datagram(ends, payload) => {
                let is_dns = self.addresses.is_dns(ends.remote);
                let kind = if is_dns { Kind::Dns } else { Kind::Udp };
                self.datagram(Key { kind, ends }, payload, frame, output);
            }
            // The gateway and the DNS server themselves are there.
            Purpose::Echo(ends, message) if self.addresses.is_ours(ends.remote.ip()) => {
                self.replies.echo(&ends, message, output);
            }
            Purpose::Echo(ends, message) => {
                self.datagram(Key { kind: Kind::Echo, ends }, message, frame, output);
            }
            Purpose::Nothing => {}
        }
    }

    /// Looks at every flow that has something to do; whether any had.
    pub(crate) fn step(&mut self, output: &mut Output) -> bool {
        let before = output.frames();
        self.keep_time();
        let mut tokens = std::mem::take(&mut self.tokens);
        self.ready.take(&mut tokens);
        let stepped = !tokens.is_empty();
        for token in tokens.drain(..) {
            match token {
                Token::Tcp(id) => {
                    if let Outcome::Unreachable(syn) = self.tcp.step(id, &mut self.stack, output) {
                        self.replies.unreachable(&syn, Unreachable::Host, output);
                    }
                }
                Token::Datagram(id) => {
                    if let Event::Refused(server) = self.datagrams.step(id, &self.replies, output) {
                        self.resolvers.pass_over(server);
                    }
                }
                Token::Port(index) => self.port(index, output),
            }
        }
        self.tokens = tokens;
        self.stack.egress(output);
        if !output.is_full() {
            self.tcp.reap(&mut self.stack);
            if self.tcp.has_room() {
                self.wake_ports(|switch| &mut switch.waiting);
            }
        }
        stepped || output.frames() != before
    }

    /// When [`step`](Self::step) has work though no socket is ready.
    pub(crate) fn next_deadline(&mut self) -> Option<Instant> {
        [self.stack.next_egress(), self.rest_until, self.next_sweep].into_iter().flatten().min()
    }

    /// The counters as they are now.
    pub(crate) fn counts(&self, output: &Output) -> Counts {
        Counts {
            frames_from_guest: self.frames_from_guest,
            bytes_from_guest: self.bytes_from_guest,
            frames_to_guest: output.frames(),
            bytes_to_guest: output.frame_bytes(),
            tcp_flows: self.tcp.len() as u64,
            datagram_flows: self.datagrams.len() as u64,
            denied: self.denied,
        }
    }

    fn syn(&mut self, ends: Flow, frame: &[u8], output: &mut Output) {
        match self.tcp.admit(&ends, frame.len()) {
            Admission::Repeated => self.tcp.renew(&ends, frame),
            // With no socket that listens, smoltcp answers one that opens nothing with a reset.
            Admission::Known | Admission::Refused => self.stack.ingress(frame, output),
            Admission::New => match self.target(ends.remote) {
                Target::Host(target) => self.tcp.open(ends, target, frame, &self.ready),
                Target::Denied => self.stack.ingress(frame, output),
                Target::Unreachable => self.replies.unreachable(frame, Unreachable::Host, output),
            },
        }
    }

    fn datagram(&mut self, key: Key, payload: &[u8], frame: &[u8], output: &mut Output) {
        let mut sent = self.datagrams.send(&key, payload, &self.ports);
        if let Sent::Silent(server) = sent {
            self.resolvers.pass_over(server);
            sent = Sent::NoFlow;
        }
        if let Sent::NoFlow = sent {
            let target = match self.target(key.ends.remote) {
                Target::Host(target) => target,
                Target::Denied => {
                    return self.replies.unreachable(frame, Unreachable::Prohibited, output);
                }
                Target::Unreachable => {
                    return self.replies.unreachable(frame, Unreachable::Host, output);
                }
            };
            sent = match self.datagrams.open(key, target, &self.ready) {
                Ok(()) => self.datagrams.send(&key, payload, &self.ports),
                Err(error) => Sent::Failed(error),
            };
            self.next_sweep.get_or_insert_with(|| Instant::now() + SWEEP_EVERY);
        }
        if let Sent::Failed(error) = sent {
            tracing::debug!(remote = %key.ends.remote, %error, "cannot send datagram");
            self.replies.unreachable(frame, why_unreachable(&error), output);
        }
    }

    fn target(&mut self, remote: SocketAddr) -> Target {
        match self.policy.verdict(remote.ip(), |address| self.routes.look_up(address)) {
            Verdict::Forward(address) => Target::Host(SocketAddr::new(address, remote.port())),
            Verdict::Resolver if remote.port() == DNS_PORT => {
                Target::Host(self.resolvers.current())
            }
            Verdict::Resolver => Target::Denied,
            Verdict::Unreachable => Target::Unreachable,
            Verdict::Deny(reason) => {
                tracing::debug!(%remote, ?reason, "flow denied");
                self.denied += 1;
                Target::Denied
            }
        }
    }

    fn port(&mut self, index: usize, output: &mut Output) {
        let Some(port) = self.ports.get(index) else {
            return;
        };
        let PortSocket::Tcp(listener) = &port.socket else {
            self.datagrams.step_port(index, port, self.guest, &self.replies, output);
            self.next_sweep.get_or_insert_with(|| Instant::now() + SWEEP_EVERY);
            return;
        };
        let guest = SocketAddr::new(self.guest, port.target);
        let mut cx = Context::from_waker(&port.waker);
        for _ in 0..ACCEPTS_PER_TURN {
            if !self.tcp.has_room() {
                self.waiting.push(index);
                return;
            }
            match listener.poll_accept(&mut cx) {
                Poll::Pending => return,
                Poll::Ready(Ok((host, _))) => {
                    self.tcp.publish(host, guest, self.gateway, &mut self.stack, &self.ready);
                }
                Poll::Ready(Err(error)) => {
                    tracing::warn!(port = %port.host, %error, "cannot accept connection");
                    self.resting.push(index);
                    self.rest_until = Some(Instant::now() + ACCEPT_RETRY);
                    return;
                }
            }
        }
        port.waker.wake_by_ref();
    }

    /// Does what is due by the clock.
    fn keep_time(&mut self) {
        let now = Instant::now();
        if self.rest_until.is_some_and(|until| until <= now) {
            self.rest_until = None;
            self.wake_ports(|switch| &mut switch.resting);
        }
        if self.next_sweep.is_some_and(|due| due <= now) {
            for server in self.datagrams.sweep() {
                self.resolvers.pass_over(server);
            }
            self.next_sweep = (self.datagrams.len() > 0).then(|| now + SWEEP_EVERY);
        }
    }

    fn wake_ports(&mut self, list: impl Fn(&mut Self) -> &mut Vec<usize>) {
        while let Some(index) = list(self).pop() {
            self.ports[index].waker.wake_by_ref();
        }
    }
}

/// What the host's `error` about a datagram means to the guest.
fn why_unreachable(error: &io::Error) -> Unreachable {
    match error.kind() {
        // Also what the kernel says where ping sockets are not for us.
        io::ErrorKind::PermissionDenied => Unreachable::Prohibited,
        io::ErrorKind::ConnectionRefused => Unreachable::Port,
        _ => Unreachable::Host,
    }
}
