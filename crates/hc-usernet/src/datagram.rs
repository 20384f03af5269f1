// SPDX-License-Identifier: Apache-2.0
//! UDP flows and pings: what a guest sends to one destination from one port.
//!
//! Each flow has a host socket connected to its destination, so that nobody else can answer and an
//! unreachable destination is reported. Flows of published UDP ports share the port's own socket;
//! each stands for one client. A flow ends when it was not used for a while, or when it is the one
//! longest unused and there are too many.
//!
//! # Limits
//!
//! No datagram waits anywhere but in the kernel: what a slow host socket does not take is lost, as
//! on any network. Pings work where the host lets our group open ping sockets
//! (`net.ipv4.ping_group_range`).

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, ipproto};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::time::Instant;

use crate::frame::Flow;
use crate::limits::{
    DATAGRAM_FLOWS_MAX, DATAGRAMS_PER_TURN, DNS_IDLE, DNS_PATIENCE, ECHO_IDLE, UDP_IDLE,
};
use crate::link::Output;
use crate::port::{Port, PortSocket};
use crate::ready::{Ready, Token};
use crate::reply::Replies;

/// All UDP and ping flows of one guest.
pub(crate) struct DatagramFlows {
    flows: HashMap<u64, DatagramFlow>,
    by_key: HashMap<Key, u64>,
    by_client: HashMap<Client, u64>,
    next_id: u64,
    next_port: u16,
    /// Where a datagram is read before its length, and with it its frame, is known.
    scratch: Box<[u8]>,
}

/// What tells the guest's flows apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) kind: Kind,
    pub(crate) ends: Flow,
}

/// What a flow carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Udp,
    /// UDP to the DNS server.
    Dns,
    /// Echo requests.
    Echo,
}

impl Kind {
    fn idle(self) -> Duration {
        match self {
            Self::Udp => UDP_IDLE,
            Self::Dns => DNS_IDLE,
            Self::Echo => ECHO_IDLE,
        }
    }
}

/// A client of a published UDP port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Client {
    port: usize,
    address: SocketAddr,
}

struct DatagramFlow {
    key: Key,
    way: Way,
    used: Instant,
    /// Since when a DNS query waits for its answer.
    asked: Option<Instant>,
}

/// The host side of a flow.
enum Way {
    /// A socket of its own, connected to `target`.
    Own { socket: Arc<UdpSocket>, failure: Failure, target: SocketAddr, waker: Waker },
    /// The socket of a published port.
    Published(Client),
}

/// Ready when the kernel has an error to tell that no datagram caused: polling for datagrams alone
/// does not notice it.
type Failure = Pin<Box<dyn Future<Output = io::Result<tokio::io::Ready>> + Send>>;

/// What became of a datagram from the guest.
#[derive(Debug)]
pub(crate) enum Sent {
    /// The host's kernel has it, or it is lost without a reason to give.
    Done,
    /// There is no such flow yet.
    NoFlow,
    /// The DNS server of this flow did not answer in time; the flow is gone.
    Silent(SocketAddr),
    /// The host refused it.
    Failed(io::Error),
}

/// What happened on the host side of a flow.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// Nothing that concerns others.
    Quiet,
    /// The DNS server at this address refused a query.
    Refused(SocketAddr),
}

impl std::fmt::Debug for DatagramFlows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.by_key.keys()).finish()
    }
}

impl DatagramFlows {
    pub(crate) fn new() -> Self {
        Self {
            flows: HashMap::new(),
            by_key: HashMap::new(),
            by_client: HashMap::new(),
            next_id: 0,
            next_port: 0,
            scratch: vec![0; usize::from(u16::MAX)].into_boxed_slice(),
        }
    }

    /// How many flows there are.
    pub(crate) fn len(&self) -> usize {
        self.flows.len()
    }

    /// Sends on a datagram of the guest.
    pub(crate) fn send(&mut self, key: &Key, payload: &[u8], ports: &[Port]) -> Sent {
        let Some((&id, flow)) =
            self.by_key.get(key).and_then(|id| self.flows.get_mut(id).map(|flow| (id, flow)))
        else {
            return Sent::NoFlow;
        };
        let now = Instant::now();
        flow.used = now;
        let sent = match &flow.way {
            Way::Own { target, .. } if flow.is_unanswered(now) => {
                let target = *target;
                self.remove(id);
                return Sent::Silent(target);
            }
            Way::Own { socket, .. } => {
                send_now(|| rustix::net::send(socket, payload, SendFlags::DONTWAIT))
            }
            Way::Published(Client { port, address }) => match ports.get(*port).map(|p| &p.socket) {
                Some(PortSocket::Udp(socket)) => {
                    send_now(|| rustix::net::sendto(socket, payload, SendFlags::DONTWAIT, address))
                }
                _ => return Sent::Done,
            },
        };
        if key.kind == Kind::Dns {
            flow.asked.get_or_insert(now);
        }
        match sent {
            Ok(_) => Sent::Done,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Sent::Done,
            Err(error) => Sent::Failed(error),
        }
    }

    /// Opens a flow to `target`, making room if need be.
    pub(crate) fn open(&mut self, key: Key, target: SocketAddr, ready: &Ready) -> io::Result<()> {
        let socket = match key.kind {
            Kind::Udp | Kind::Dns => udp_socket(target)?,
            Kind::Echo => ping_socket(target.ip())?,
        };
        let socket = Arc::new(socket);
        let failure = Box::pin({
            let socket = Arc::clone(&socket);
            async move { socket.ready(Interest::ERROR).await }
        });
        let id = self.make_room();
        let waker = ready.waker(Token::Datagram(id));
        self.insert(id, key, Way::Own { socket, failure, target, waker });
        Ok(())
    }

    /// Passes on what the host socket of flow `id` has.
    pub(crate) fn step(&mut self, id: u64, replies: &Replies, output: &mut Output) -> Event {
        let Some(flow) = self.flows.get_mut(&id) else {
            return Event::Quiet;
        };
        let Way::Own { socket, failure, target, waker } = &mut flow.way else {
            return Event::Quiet;
        };
        let mut cx = Context::from_waker(waker);
        if failure.as_mut().poll(&mut cx).is_ready() {
            let (key, target) = (flow.key, *target);
            return self.fail(id, key, target, replies, output);
        }
        for _ in 0..DATAGRAMS_PER_TURN {
            if output.is_full() {
                break;
            }
            match poll_recv(socket, &mut cx, |socket| socket.try_recv(&mut self.scratch)) {
                Poll::Pending => return Event::Quiet,
                Poll::Ready(Ok(len)) => {
                    flow.used = Instant::now();
                    flow.asked = None;
                    match flow.key.kind {
                        Kind::Udp | Kind::Dns => {
                            replies.datagram(&flow.key.ends, &self.scratch[..len], output);
                        }
                        Kind::Echo => replies.echo(&flow.key.ends, &self.scratch[..len], output),
                    }
                }
                Poll::Ready(Err(_)) => {
                    let (key, target) = (flow.key, *target);
                    return self.fail(id, key, target, replies, output);
                }
            }
        }
        waker.wake_by_ref();
        Event::Quiet
    }

    /// Ends a flow whose destination does not listen, and tells the guest. If that was premature,
    /// the guest's next datagram opens it again.
    fn fail(
        &mut self,
        id: u64,
        key: Key,
        target: SocketAddr,
        replies: &Replies,
        output: &mut Output,
    ) -> Event {
        tracing::debug!(%target, "datagram came back");
        self.remove(id);
        match key.kind {
            Kind::Udp => replies.refused(&key.ends, output),
            Kind::Echo => {}
            Kind::Dns => {
                replies.refused(&key.ends, output);
                return Event::Refused(target);
            }
        }
        Event::Quiet
    }

    /// Passes on what clients of published port `index` sent to `guest`.
    pub(crate) fn step_port(
        &mut self,
        index: usize,
        port: &Port,
        guest: IpAddr,
        replies: &Replies,
        output: &mut Output,
    ) {
        let PortSocket::Udp(socket) = &port.socket else {
            return;
        };
        let mut cx = Context::from_waker(&port.waker);
        for _ in 0..DATAGRAMS_PER_TURN {
            if output.is_full() {
                break;
            }
            match poll_recv(socket, &mut cx, |socket| socket.try_recv_from(&mut self.scratch)) {
                Poll::Ready(Ok((len, address))) => {
                    let client = Client { port: index, address };
                    let guest = SocketAddr::new(guest, port.target);
                    if let Some(ends) = self.client_flow(client, guest, replies) {
                        replies.datagram(&ends, &self.scratch[..len], output);
                    }
                }
                // An answer of ours did not reach its client, which is nobody else's business.
                Poll::Ready(Err(error)) => tracing::debug!(%error, "published port failed"),
                Poll::Pending => return,
            }
        }
        port.waker.wake_by_ref();
    }

    /// Ends flows that are idle, and says which DNS servers left queries unanswered.
    pub(crate) fn sweep(&mut self) -> Vec<SocketAddr> {
        let now = Instant::now();
        let mut silent = Vec::new();
        let mut over = Vec::new();
        for (&id, flow) in &self.flows {
            if let Way::Own { target, .. } = &flow.way
                && flow.is_unanswered(now)
            {
                silent.push(*target);
                over.push(id);
            } else if now - flow.used > flow.key.kind.idle() {
                over.push(id);
            }
        }
        for id in over {
            self.remove(id);
        }
        silent
    }

    /// The flow that stands for `client`, new if need be.
    fn client_flow(
        &mut self,
        client: Client,
        guest: SocketAddr,
        replies: &Replies,
    ) -> Option<Flow> {
        if let Some(flow) = self.by_client.get(&client).and_then(|id| self.flows.get_mut(id)) {
            flow.used = Instant::now();
            return Some(flow.key.ends);
        }
        let gateway = replies.gateway(guest.ip())?;
        let id = self.make_room();
        let ends = (0..=DATAGRAM_FLOWS_MAX).find_map(|_| {
            self.next_port = self.next_port.wrapping_add(1);
            let remote = SocketAddr::new(gateway, EPHEMERAL_FIRST | self.next_port);
            let ends = Flow { guest, remote };
            (!self.by_key.contains_key(&Key { kind: Kind::Udp, ends })).then_some(ends)
        })?;
        self.insert(id, Key { kind: Kind::Udp, ends }, Way::Published(client));
        self.by_client.insert(client, id);
        Some(ends)
    }

    /// Ends the flow that was not used for longest if there are too many; the number for a new one.
    fn make_room(&mut self) -> u64 {
        if self.flows.len() >= DATAGRAM_FLOWS_MAX {
            let oldest = self.flows.iter().min_by_key(|(_, flow)| flow.used).map(|(&id, _)| id);
            if let Some(id) = oldest {
                self.remove(id);
            }
        }
        self.next_id += 1;
        self.next_id
    }

    fn insert(&mut self, id: u64, key: Key, way: Way) {
        self.flows.insert(id, DatagramFlow { key, way, used: Instant::now(), asked: None });
        self.by_key.insert(key, id);
    }

    fn remove(&mut self, id: u64) {
        if let Some(flow) = self.flows.remove(&id) {
            self.by_key.remove(&flow.key);
            if let Way::Published(client) = flow.way {
                self.by_client.remove(&client);
            }
        }
    }
}

impl DatagramFlow {
    fn is_unanswered(&self, now: Instant) -> bool {
        self.asked.is_some_and(|asked| now - asked > DNS_PATIENCE)
    }
}

/// The first of the ports that IANA leaves for short-lived use; all its bits are set in all of them.
const EPHEMERAL_FIRST: u16 = 0xc000;

/// Sends, and once more if what failed was an earlier datagram, whose error waited at the socket.
///
/// It goes around the runtime, which knows of a new socket only later that it can send.
fn send_now(mut send: impl FnMut() -> rustix::io::Result<usize>) -> io::Result<usize> {
    match send() {
        Err(Errno::CONNREFUSED) => Ok(send()?),
        done => Ok(done?),
    }
}

/// Receives once the socket is readable.
fn poll_recv<R>(
    socket: &UdpSocket,
    cx: &mut Context<'_>,
    mut receive: impl FnMut(&UdpSocket) -> io::Result<R>,
) -> Poll<io::Result<R>> {
    loop {
        ready!(socket.poll_recv_ready(cx))?;
        match receive(socket) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            received => return Poll::Ready(received),
        }
    }
}

fn udp_socket(target: SocketAddr) -> io::Result<UdpSocket> {
    let any: IpAddr = match target {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = std::net::UdpSocket::bind((any, 0))?;
    socket.set_nonblocking(true)?;
    socket.connect(target)?;
    UdpSocket::from_std(socket)
}

/// A socket on which the kernel sends and receives nothing but echo messages, without privilege.
fn ping_socket(target: IpAddr) -> io::Result<UdpSocket> {
    let (family, protocol) = match target {
        IpAddr::V4(_) => (AddressFamily::INET, ipproto::ICMP),
        IpAddr::V6(_) => (AddressFamily::INET6, ipproto::ICMPV6),
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::DGRAM, flags, Some(protocol))?;
    // The same system calls as for UDP do here.
    let socket = std::net::UdpSocket::from(socket);
    socket.connect(SocketAddr::new(target, 0))?;
    UdpSocket::from_std(socket)
}
