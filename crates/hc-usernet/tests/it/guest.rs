// SPDX-License-Identifier: Apache-2.0
//! A guest without a VM: smoltcp behind the framing that a VM's network card has.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hc_usernet::{Config, Counts, Network, Stats};
use smoltcp::iface::{Config as InterfaceConfig, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpCidr};
use tokio::net::UnixStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// How long a test waits for what must happen; far more than it takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// A guest with its network running beside it on the same runtime.
pub(crate) struct Guest {
    vm: UnixStream,
    network: JoinHandle<hc_usernet::Result<()>>,
    published: Vec<hc_usernet::Bound>,
    stats: Stats,
    card: Card,
    interface: Interface,
    pub(crate) sockets: SocketSet<'static>,
    started: std::time::Instant,
    next_port: u16,
}

/// The guest's network card.
#[derive(Default)]
pub(crate) struct Card {
    mtu: usize,
    received: VecDeque<Vec<u8>>,
    /// Frames that were received, kept where a test looks at them itself.
    pub(crate) tap: Option<Vec<Vec<u8>>>,
    /// Whether the guest's own stack sees nothing, so that it cannot answer by itself.
    deaf: bool,
    bytes_in: Vec<u8>,
    bytes_out: Vec<u8>,
}

/// A network whose gateway is the host's loopback, which is all that tests can reach.
pub(crate) fn host_allowed() -> Config {
    Config { allow_host: true, ..Config::default() }
}

/// Bytes whose order shows.
pub(crate) fn pattern(len: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let mut bytes = Vec::with_capacity(len);
    while bytes.len() < len {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        bytes.extend(state.to_be_bytes());
    }
    bytes.truncate(len);
    bytes
}

impl Guest {
    pub(crate) fn start(config: Config) -> Self {
        let network = Network::bind(config).unwrap();
        let published = network.published().to_vec();
        let stats = network.stats();
        let told = network.guest().clone();
        let (vm, other) = UnixStream::pair().unwrap();
        let network = tokio::spawn(network.run(other));
        let mut card = Card { mtu: told.mtu.into(), ..Card::default() };
        let hardware = HardwareAddress::Ethernet(EthernetAddress(told.mac));
        let mut interface =
            Interface::new(InterfaceConfig::new(hardware), &mut card, Instant::ZERO);
        interface.update_ip_addrs(|list| {
            for &(address, prefix_len) in &told.addresses {
                list.push(IpCidr::new(address.into(), prefix_len)).unwrap();
            }
        });
        for gateway in told.gateways {
            match gateway {
                IpAddr::V4(v4) => interface.routes_mut().add_default_ipv4_route(v4).map(drop),
                IpAddr::V6(v6) => interface.routes_mut().add_default_ipv6_route(v6).map(drop),
            }
            .unwrap();
        }
        Self {
            vm,
            network,
            published,
            stats,
            card,
            interface,
            sockets: SocketSet::new(Vec::new()),
            started: std::time::Instant::now(),
            next_port: 32_768,
        }
    }

    /// Where the host listens for the first published port.
    pub(crate) fn published(&self) -> SocketAddr {
        self.published[0].host
    }

    pub(crate) fn counts(&self) -> Counts {
        self.stats.read()
    }

    /// Switches the VM off and says how the network ended.
    pub(crate) async fn stop(self) -> hc_usernet::Result<()> {
        drop(self.vm);
        timeout(PATIENCE, self.network).await.expect("network ends with its vm").unwrap()
    }

    /// Runs the guest until `ready` has something to say.
    pub(crate) async fn until<T>(
        &mut self,
        what: &str,
        mut ready: impl FnMut(&mut Self) -> Option<T>,
    ) -> T {
        // By the true clock, since a test may have stopped the runtime's.
        let start = std::time::Instant::now();
        loop {
            let now =
                Instant::from_micros(i64::try_from(self.started.elapsed().as_micros()).unwrap());
            self.interface.poll(now, &mut self.card, &mut self.sockets);
            let value = ready(self);
            self.interface.poll(now, &mut self.card, &mut self.sockets);
            self.card.flush(&self.vm);
            if let Some(value) = value {
                return value;
            }
            assert!(start.elapsed() < PATIENCE, "waited for {what}");
            let delay = self.interface.poll_delay(now, &self.sockets);
            // Without a timer of its own, a guest still looks at what the test changed outside.
            let delay = delay.map_or(Duration::from_millis(5), |delay| {
                Duration::from_micros(delay.total_micros()).min(Duration::from_millis(5))
            });
            if self.card.bytes_out.is_empty() {
                let _ = timeout(delay, self.vm.readable()).await;
            } else {
                let interest = tokio::io::Interest::READABLE | tokio::io::Interest::WRITABLE;
                let _ = timeout(delay, self.vm.ready(interest)).await;
            }
            self.card.fill(&self.vm);
        }
    }

    /// Whether the network has ended by itself.
    pub(crate) fn has_stopped(&self) -> bool {
        self.network.is_finished()
    }

    /// Whether the network has read all that was sent, or at least the kernel has taken it.
    pub(crate) fn has_sent_all(&self) -> bool {
        self.card.bytes_out.is_empty()
    }

    /// Sends `frame` again and again, reading nothing, until the network takes no more; how many
    /// bytes it took.
    pub(crate) async fn send_without_reading(&mut self, frame: &[u8]) -> usize {
        // The network has the same thread, so that by then it has done all it can.
        const YIELDS_WITHOUT_PROGRESS: u32 = 1000;
        let once = [&u32::try_from(frame.len()).unwrap().to_be_bytes(), frame].concat();
        let many = once.repeat(1000);
        let (mut sent, mut idle) = (0, 0);
        while idle < YIELDS_WITHOUT_PROGRESS && sent < 64 << 20 {
            match self.vm.try_write(&many[sent % once.len()..]) {
                Ok(len) => (sent, idle) = (sent + len, 0),
                Err(_) => idle += 1,
            }
            tokio::task::yield_now().await;
        }
        // The rest of a frame that was cut short goes out once the guest reads.
        let rest = (once.len() - sent % once.len()) % once.len();
        self.card.bytes_out.extend_from_slice(&once[once.len() - rest..]);
        sent + rest
    }

    /// Sends raw bytes in place of frames.
    pub(crate) fn send_raw(&mut self, bytes: &[u8]) {
        self.card.bytes_out.extend_from_slice(bytes);
    }

    /// Sends one frame that no stack made.
    pub(crate) fn send_frame(&mut self, frame: &[u8]) {
        self.card.push(frame.len(), |room| room.copy_from_slice(frame));
    }

    /// Lets the test alone answer frames.
    pub(crate) fn silence_stack(&mut self) {
        self.card.deaf = true;
    }

    /// The frames that were received since the first call.
    pub(crate) fn tap(&mut self) -> &mut Vec<Vec<u8>> {
        self.card.tap.get_or_insert_default()
    }

    pub(crate) fn add_tcp(&mut self) -> SocketHandle {
        let buffer = || SocketBuffer::new(vec![0; 256 << 10]);
        let mut socket = Socket::new(buffer(), buffer());
        socket.set_ack_delay(None);
        self.sockets.add(socket)
    }

    pub(crate) fn tcp(&mut self, handle: SocketHandle) -> &mut Socket<'static> {
        self.sockets.get_mut(handle)
    }

    /// Starts to connect to `remote`.
    pub(crate) fn start_connect(&mut self, remote: SocketAddr) -> SocketHandle {
        let handle = self.add_tcp();
        let port = self.next_port;
        self.next_port = port.checked_add(1).unwrap_or(32_768);
        let context = self.interface.context();
        self.sockets.get_mut::<Socket<'_>>(handle).connect(context, remote, port).unwrap();
        handle
    }

    /// Connects to `remote`; `Err` if that is refused.
    pub(crate) async fn connect(&mut self, remote: SocketAddr) -> Result<SocketHandle, Refused> {
        let handle = self.start_connect(remote);
        self.until("a connection", |guest| match guest.tcp(handle).state() {
            State::SynSent | State::SynReceived => None,
            State::Closed => Some(Err(Refused)),
            _ => Some(Ok(handle)),
        })
        .await
    }

    /// Sends all of `bytes`, while `read` takes what comes.
    pub(crate) async fn send_all(
        &mut self,
        handle: SocketHandle,
        bytes: &[u8],
        mut read: impl FnMut(&[u8]),
    ) {
        let mut sent = 0;
        self.until("all bytes to be sent", |guest| {
            let socket = guest.tcp(handle);
            if socket.can_send() {
                sent += socket.send_slice(&bytes[sent..]).unwrap();
            }
            drain(socket, &mut read);
            (sent == bytes.len()).then_some(())
        })
        .await;
    }

    /// Reads until the other end has sent all it wants; `false` if it broke off.
    pub(crate) async fn read_to_end(
        &mut self,
        handle: SocketHandle,
        mut read: impl FnMut(&[u8]),
    ) -> bool {
        self.until("the end of a connection", |guest| {
            let socket = guest.tcp(handle);
            drain(socket, &mut read);
            match socket.peek(0) {
                Ok(_) => None,
                Err(smoltcp::socket::tcp::RecvError::Finished) => Some(true),
                Err(_) => Some(false),
            }
        })
        .await
    }

    /// Ends a connection whose other end has ended it.
    pub(crate) async fn close(&mut self, handle: SocketHandle) {
        self.tcp(handle).close();
        self.until("a connection to end", |guest| match guest.tcp(handle).state() {
            State::Closed | State::TimeWait => Some(()),
            _ => None,
        })
        .await;
        self.sockets.remove(handle);
    }

    /// Waits until the network holds no TCP flow.
    pub(crate) async fn no_flows(&mut self) {
        self.until("flows to end", |guest| (guest.counts().tcp_flows == 0).then_some(())).await;
    }
}

/// What a guest's connection attempt came to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refused;

fn drain(socket: &mut Socket<'_>, read: &mut impl FnMut(&[u8])) {
    while socket.can_recv() {
        socket
            .recv(|bytes| {
                read(bytes);
                (bytes.len(), ())
            })
            .unwrap();
    }
}

impl Card {
    fn push<R>(&mut self, len: usize, fill: impl FnOnce(&mut [u8]) -> R) -> R {
        self.bytes_out.extend(u32::try_from(len).unwrap().to_be_bytes());
        let start = self.bytes_out.len();
        self.bytes_out.resize(start + len, 0);
        fill(&mut self.bytes_out[start..])
    }

    fn flush(&mut self, vm: &UnixStream) {
        while !self.bytes_out.is_empty() {
            match vm.try_write(&self.bytes_out) {
                Ok(len) => drop(self.bytes_out.drain(..len)),
                Err(_) => return,
            }
        }
    }

    fn fill(&mut self, vm: &UnixStream) {
        let mut chunk = vec![0; 256 << 10];
        while let Ok(len) = vm.try_read(&mut chunk) {
            if len == 0 {
                break;
            }
            self.bytes_in.extend_from_slice(&chunk[..len]);
            if self.bytes_in.len() > 1 << 20 {
                break;
            }
        }
        let mut rest = &self.bytes_in[..];
        while let Some((header, after)) = rest.split_first_chunk::<4>() {
            let len = usize::try_from(u32::from_be_bytes(*header)).unwrap();
            let Some(frame) = after.get(..len) else {
                break;
            };
            if let Some(tap) = &mut self.tap {
                tap.push(frame.to_vec());
            }
            if !self.deaf {
                self.received.push_back(frame.to_vec());
            }
            rest = &after[len..];
        }
        let used = self.bytes_in.len() - rest.len();
        self.bytes_in.drain(..used);
    }
}

impl Device for Card {
    type RxToken<'a> = Frame;
    type TxToken<'a> = Room<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Frame, Room<'_>)> {
        let frame = self.received.pop_front()?;
        Some((Frame(frame), Room(self)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Room<'_>> {
        (self.bytes_out.len() < 1 << 20).then_some(Room(self))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = self.mtu + 14;
        capabilities
    }
}

pub(crate) struct Frame(Vec<u8>);

impl RxToken for Frame {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

pub(crate) struct Room<'a>(&'a mut Card);

impl TxToken for Room<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        self.0.push(len, f)
    }
}
