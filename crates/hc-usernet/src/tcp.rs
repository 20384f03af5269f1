// SPDX-License-Identifier: Apache-2.0
//! TCP flows: each joins a host socket with a smoltcp socket and copies both ways.
//!
//! ```text
//! guest's SYN --allowed--> Connecting --host connected--> Open --both halves closed--> gone
//!       |                      |  (the SYN is kept)         |
//!       | denied               | refused: RST               | reset by either: reset the other
//!       +--> RST               | no way there: ICMP         +--> gone
//!                              +--> gone
//! published port's connection ------------------------> Open (smoltcp connects to the guest)
//! ```
//!
//! The guest gets its SYN-ACK only after the host has connected, so it learns the truth about the
//! destination. Until then the flow is a descriptor and the SYN; the buffers come with the answer.
//!
//! Nothing is buffered but in the two smoltcp buffers: bytes go from the host socket straight into
//! one and from the other straight into the host socket. A full buffer closes the window of the
//! peer that fills it.
//!
//! # Limits
//!
//! An open flow has no time-out. A paused VM keeps its connections, and a guest that lets them lie
//! only uses up its own [`TCP_FLOWS_MAX`].

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp::{RecvError, State};
use tokio::net::TcpStream;

use crate::frame::Flow;
use crate::limits::{PUBLISH_PATIENCE, SYN_MAX, TCP_FLOWS_MAX};
use crate::link::Output;
use crate::ready::{Ready, Token};
use crate::stack::{Stack, buffer_len};

/// All TCP flows of one guest.
#[derive(Debug, Default)]
pub(crate) struct TcpFlows {
    flows: HashMap<u64, TcpFlow>,
    by_ends: HashMap<Flow, u64>,
    next_id: u64,
    /// Bytes of smoltcp buffers in use.
    held: usize,
    /// Flows that are over but whose last segment may not have left smoltcp.
    finished: Vec<u64>,
    next_port: u16,
}

#[derive(Debug)]
struct TcpFlow {
    ends: Flow,
    waker: Waker,
    stage: Stage,
}

enum Stage {
    Connecting { connect: Connect, syn: Box<[u8]> },
    Open(Relay),
}

type Connect = Pin<Box<dyn Future<Output = io::Result<TcpStream>> + Send>>;

impl std::fmt::Debug for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Connecting { .. } => f.write_str("Connecting"),
            Self::Open(relay) => f.debug_tuple("Open").field(relay).finish(),
        }
    }
}

/// What the caller has to tell the guest about a flow that came to nothing.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Nothing.
    Quiet,
    /// There is no way to the destination of this SYN.
    Unreachable(Box<[u8]>),
}

/// What to do with a SYN.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// It opens a new flow.
    New,
    /// It repeats the one that is being worked on.
    Repeated,
    /// It belongs to an open flow, so smoltcp must answer it.
    Known,
    /// There are too many flows, or it is no honest SYN.
    Refused,
}

impl TcpFlows {
    /// How many flows there are.
    pub(crate) fn len(&self) -> usize {
        self.flows.len()
    }

    /// Whether one more may be opened.
    pub(crate) fn has_room(&self) -> bool {
        self.flows.len() < TCP_FLOWS_MAX
    }

    /// Says what to do with a SYN of `syn_len` bytes.
    pub(crate) fn admit(&self, ends: &Flow, syn_len: usize) -> Admission {
        match self.by_ends.get(ends).and_then(|id| self.flows.get(id)) {
            Some(TcpFlow { stage: Stage::Connecting { .. }, .. }) => Admission::Repeated,
            Some(TcpFlow { stage: Stage::Open(_), .. }) => Admission::Known,
            None if syn_len > SYN_MAX || !self.has_room() => Admission::Refused,
            None => Admission::New,
        }
    }

    /// Keeps the repeated SYN of a flow that is still connecting, in place of the one before it: the
    /// guest may have given up meanwhile and be trying anew from the same port.
    pub(crate) fn renew(&mut self, ends: &Flow, syn: &[u8]) {
        if let Some(flow) = self.by_ends.get(ends).and_then(|id| self.flows.get_mut(id))
            && let Stage::Connecting { syn: kept, .. } = &mut flow.stage
            && syn.len() <= SYN_MAX
            && **kept != *syn
        {
            *kept = syn.into();
        }
    }

    /// Opens an admitted flow to `target`, keeping `syn` until the host has connected.
    pub(crate) fn open(&mut self, ends: Flow, target: SocketAddr, syn: &[u8], ready: &Ready) {
        let connect = Box::pin(TcpStream::connect(target));
        self.insert(ends, Stage::Connecting { connect, syn: syn.into() }, ready);
    }

    /// Carries a connection to a published port on to `guest`; it seems to come from `gateway`.
    pub(crate) fn publish(
        &mut self,
        host: TcpStream,
        guest: SocketAddr,
        gateway: std::net::IpAddr,
        stack: &mut Stack,
        ready: &Ready,
    ) {
        let Some(port) = self.free_port(guest, gateway) else {
            return;
        };
        let ends = Flow { guest, remote: SocketAddr::new(gateway, port) };
        let relay = Relay::new(host, self.take_socket(stack));
        stack.socket(relay.socket).set_timeout(Some(PUBLISH_PATIENCE.into()));
        if stack.connect(relay.socket, ends) {
            self.insert(ends, Stage::Open(relay), ready);
        } else {
            self.give_back(relay.socket, stack);
        }
    }

    /// Moves flow `id` on as far as it goes now.
    pub(crate) fn step(&mut self, id: u64, stack: &mut Stack, output: &mut Output) -> Outcome {
        let Some(flow) = self.flows.get_mut(&id) else {
            return Outcome::Quiet;
        };
        let waker = flow.waker.clone();
        let mut cx = Context::from_waker(&waker);
        if let Stage::Connecting { connect, .. } = &mut flow.stage {
            let Poll::Ready(connected) = connect.as_mut().poll(&mut cx) else {
                return Outcome::Quiet;
            };
            match connected {
                Ok(host) => self.answer(id, host, stack, output),
                Err(error) => return self.refuse(id, &error, stack, output),
            }
        }
        if let Some(TcpFlow { stage: Stage::Open(relay), .. }) = self.flows.get_mut(&id)
            && relay.step(stack, &mut cx).is_ready()
        {
            self.finished.push(id);
        }
        Outcome::Quiet
    }

    /// Forgets flows that are over. Call it after [`Stack::egress`], which sends their last words.
    pub(crate) fn reap(&mut self, stack: &mut Stack) {
        while let Some(id) = self.finished.pop() {
            self.remove(id, stack);
        }
    }

    /// Lets smoltcp answer the kept SYN, now that the host has connected.
    fn answer(&mut self, id: u64, host: TcpStream, stack: &mut Stack, output: &mut Output) {
        let socket = self.take_socket(stack);
        let Some(flow) = self.flows.get_mut(&id) else {
            return;
        };
        let stage = std::mem::replace(&mut flow.stage, Stage::Open(Relay::new(host, socket)));
        let Stage::Connecting { syn, .. } = stage else {
            return;
        };
        // No other socket listens at any time, so the SYN can only go to this one.
        let listening = stack.socket(socket).listen(flow.ends.remote).is_ok();
        stack.ingress(&syn, output);
        if !listening || stack.socket(socket).state() == State::Listen {
            stack.socket(socket).abort();
        }
    }

    /// Tells the guest that the host could not connect.
    fn refuse(
        &mut self,
        id: u64,
        error: &io::Error,
        stack: &mut Stack,
        output: &mut Output,
    ) -> Outcome {
        use io::ErrorKind::{HostUnreachable, NetworkUnreachable, TimedOut};
        let Some(TcpFlow { ends, stage: Stage::Connecting { syn, .. }, .. }) =
            self.remove(id, stack)
        else {
            return Outcome::Quiet;
        };
        tracing::debug!(remote = %ends.remote, %error, "host could not connect");
        if matches!(error.kind(), HostUnreachable | NetworkUnreachable | TimedOut) {
            return Outcome::Unreachable(syn);
        }
        // No socket listens, so smoltcp answers the SYN with a reset.
        stack.ingress(&syn, output);
        Outcome::Quiet
    }

    fn insert(&mut self, ends: Flow, stage: Stage, ready: &Ready) {
        let id = self.next_id;
        self.next_id += 1;
        let waker = ready.waker(Token::Tcp(id));
        self.flows.insert(id, TcpFlow { ends, waker, stage });
        self.by_ends.insert(ends, id);
    }

    fn remove(&mut self, id: u64, stack: &mut Stack) -> Option<TcpFlow> {
        let flow = self.flows.remove(&id)?;
        self.by_ends.remove(&flow.ends);
        if let Stage::Open(relay) = &flow.stage {
            self.give_back(relay.socket, stack);
        }
        Some(flow)
    }

    fn take_socket(&mut self, stack: &mut Stack) -> SocketHandle {
        let len = buffer_len(self.held);
        self.held += 2 * len;
        stack.add(len)
    }

    fn give_back(&mut self, socket: SocketHandle, stack: &mut Stack) {
        self.held -= 2 * stack.socket(socket).recv_capacity();
        stack.remove(socket);
    }

    /// A port of the gateway that no other flow to `guest` uses.
    fn free_port(&mut self, guest: SocketAddr, gateway: std::net::IpAddr) -> Option<u16> {
        // There are 32 times as many ports as flows, so the first try nearly always hits.
        (0..=TCP_FLOWS_MAX).find_map(|_| {
            let port = EPHEMERAL_FIRST | self.next_port;
            self.next_port = self.next_port.wrapping_add(1) & !EPHEMERAL_FIRST;
            let ends = Flow { guest, remote: SocketAddr::new(gateway, port) };
            (!self.by_ends.contains_key(&ends)).then_some(port)
        })
    }
}

/// The first of the ports that IANA leaves for short-lived use; all its bits are set in all of them.
const EPHEMERAL_FIRST: u16 = 0xc000;

/// The two joined sockets of an open flow.
#[derive(Debug)]
struct Relay {
    host: TcpStream,
    socket: SocketHandle,
    /// Everything that the guest sent is with the host, and so is the end.
    guest_done: bool,
    /// Everything that the host sent is with smoltcp, and so is the end.
    host_done: bool,
}

impl Relay {
    fn new(host: TcpStream, socket: SocketHandle) -> Self {
        // The guest decides how its bytes are sent, and its own keep-alives reach no farther than
        // us. Both only make a flow better, so it goes on without them.
        let tuned = host
            .set_nodelay(true)
            .and_then(|()| Ok(rustix::net::sockopt::set_socket_keepalive(&host, true)?));
        if let Err(error) = tuned {
            tracing::debug!(%error, "cannot tune host socket");
        }
        Self { host, socket, guest_done: false, host_done: false }
    }

    /// Copies what can be copied; ready once the flow is over.
    fn step(&mut self, stack: &mut Stack, cx: &mut Context<'_>) -> Poll<()> {
        let copied = self.guest_to_host(stack, cx).and_then(|()| self.host_to_guest(stack, cx));
        let socket = stack.socket(self.socket);
        // Both also fire when the state changes, which is how a reset is noticed at once.
        socket.register_recv_waker(cx.waker());
        socket.register_send_waker(cx.waker());
        if socket.state() != State::SynSent {
            // The guest has answered; from now on it may take its time, as while its VM is paused.
            socket.set_timeout(None);
        }
        if let Err(error) = copied {
            tracing::debug!(%error, "host socket failed");
            socket.abort();
            return Poll::Ready(());
        }
        match socket.state() {
            // TIME-WAIT guards against stray segments of a real network; there are none here.
            State::Closed | State::TimeWait => {}
            _ => return Poll::Pending,
        }
        if self.guest_done && self.host_done {
            return Poll::Ready(());
        }
        if self.host_done && socket.can_recv() {
            // smoltcp is through with the guest, but the host has yet to take the rest.
            return Poll::Pending;
        }
        self.reset_host();
        Poll::Ready(())
    }

    fn guest_to_host(&mut self, stack: &mut Stack, cx: &mut Context<'_>) -> io::Result<()> {
        while !self.guest_done {
            let socket = stack.socket(self.socket);
            if socket.can_recv() {
                let host = &self.host;
                let written = socket.recv(|bytes| match host.try_write(bytes) {
                    Ok(len) => (len, Ok(())),
                    Err(error) => (0, Err(error)),
                });
                match written {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                        if host.poll_write_ready(cx)?.is_pending() {
                            return Ok(());
                        }
                    }
                    Ok(Err(error)) => return Err(error),
                    Err(_) => return Ok(()),
                }
            } else if socket.peek(0) == Err(RecvError::Finished) {
                self.guest_done = true;
                rustix::net::shutdown(&self.host, rustix::net::Shutdown::Write)?;
            } else {
                return Ok(());
            }
        }
        Ok(())
    }

    fn host_to_guest(&mut self, stack: &mut Stack, cx: &mut Context<'_>) -> io::Result<()> {
        while !self.host_done {
            let socket = stack.socket(self.socket);
            if !socket.can_send() {
                return Ok(());
            }
            let host = &self.host;
            let read = socket.send(|room| match host.try_read(room) {
                Ok(len) => (len, Ok(len)),
                Err(error) => (0, Err(error)),
            });
            match read {
                Ok(Ok(0)) => {
                    self.host_done = true;
                    socket.close();
                }
                Ok(Ok(_)) => {}
                Ok(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                    if host.poll_read_ready(cx)?.is_pending() {
                        return Ok(());
                    }
                }
                Ok(Err(error)) => return Err(error),
                Err(_) => return Ok(()),
            }
        }
        Ok(())
    }

    /// Makes dropping the host socket tell its peer that the flow did not end in good order.
    fn reset_host(&self) {
        if let Err(error) = self.host.set_zero_linger() {
            tracing::debug!(%error, "cannot reset host socket");
        }
    }
}
