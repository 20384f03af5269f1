// SPDX-License-Identifier: Apache-2.0
//! The network on a host with neighbours: two network name spaces joined by a cable, one of which
//! is the host that runs the network, the other the world outside. Needs root and `ip`.

use std::fs::{self, File};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::thread;

use hc_usernet::Config;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};

use crate::guest::{Guest, Refused};
use crate::packet::{self, Icmp};

/// The host's own addresses on the cable, and the outside ones. The ranges are for benchmarks and
/// documentation, so nothing real is meant.
const HOST: [&str; 2] = ["198.18.0.1", "2001:db8::1"];
const OUTSIDE: [&str; 2] = ["198.18.0.2", "2001:db8::2"];

/// Two name spaces, which go when it is dropped.
struct World {
    host: String,
    outside: String,
}

/// Runs `ip`; whether it did what it was asked to.
pub(crate) fn ip(arguments: &str) -> bool {
    Command::new("ip")
        .args(arguments.split(' '))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Says why a test does not run here.
pub(crate) fn skip<T>(reason: &str) -> Option<T> {
    hc_testkit::skip(reason);
    None
}

impl World {
    /// `None`, with the reason told, where this machine does not let us.
    fn new(test: &str) -> Option<Self> {
        if !hc_testkit::is_root() {
            return skip("network name spaces need root");
        }
        let name = |side| format!("hc-{test}-{side}-{}", std::process::id());
        let world = Self { host: name("h"), outside: name("o") };
        let Self { host, outside } = &world;
        let made = ip(&format!("netns add {host}"))
            && ip(&format!("netns add {outside}"))
            && ip(&format!(
                "link add cable netns {host} type veth peer name cable netns {outside}"
            ))
            && [(host, HOST), (outside, OUTSIDE)].into_iter().all(|(side, [v4, v6])| {
                ip(&format!("-n {side} address add {v4}/24 dev cable broadcast +"))
                    && ip(&format!("-n {side} address add {v6}/64 dev cable nodad"))
                    && ip(&format!("-n {side} link set cable up"))
                    && ip(&format!("-n {side} link set lo up"))
            });
        if !made {
            return skip("`ip netns` cannot make network name spaces here");
        }
        Some(world)
    }

    /// Runs `work` on a thread of its own within name space `name`.
    fn run<T: Send + 'static>(
        name: &str,
        work: impl Future<Output = T> + Send + 'static,
    ) -> thread::JoinHandle<T> {
        let space = File::open(format!("/run/netns/{name}")).unwrap();
        thread::spawn(move || {
            move_into_link_name_space(space.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap()
                .block_on(work)
        })
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for side in [&self.host, &self.outside] {
            ip(&format!("netns delete {side}"));
        }
    }
}

/// Listens on all of `addresses`, port 80, over both transports: greets over TCP, echoes over UDP.
async fn serve(addresses: [&'static str; 2]) {
    for address in addresses {
        let tcp = TcpListener::bind((address, 80)).await.unwrap();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = tcp.accept().await.unwrap();
                stream.write_all(b"hello from outside").await.unwrap();
                stream.shutdown().await.unwrap();
                let _ = stream.read(&mut [0; 1]).await;
            }
        });
        let udp = UdpSocket::bind((address, 80)).await.unwrap();
        tokio::spawn(async move {
            let mut datagram = [0; 2000];
            loop {
                let (len, from) = udp.recv_from(&mut datagram).await.unwrap();
                udp.send_to(&datagram[..len], from).await.unwrap();
            }
        });
    }
}

/// The guest's own address of the family of `other`.
fn guest_address(other: IpAddr) -> IpAddr {
    if other.is_ipv4() { packet::GUEST } else { packet::GUEST6.into() }
}

/// Sends `frame` and waits for the ICMP message or the datagram that answers it.
async fn answer(guest: &mut Guest, frame: &[u8]) -> Result<Vec<u8>, Icmp> {
    guest.tap().clear();
    guest.send_frame(frame);
    guest
        .until("an answer", |guest| {
            guest.tap().iter().find_map(|frame| {
                packet::icmp(frame).map(Err).or_else(|| packet::udp_payload(frame).map(Ok))
            })
        })
        .await
}

#[test]
fn a_guest_reaches_the_outside_and_not_the_host() {
    let Some(world) = World::new("reach") else {
        return;
    };
    let (started, running) = std::sync::mpsc::channel();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let outside = World::run(&world.outside, async move {
        serve(OUTSIDE).await;
        started.send(()).unwrap();
        let _ = stopped.await;
    });
    running.recv().unwrap();
    World::run(&world.host, async {
        // What the host itself listens on must not be found by the guest.
        serve(HOST).await;
        let mut guest = Guest::start(Config::default());
        for address in OUTSIDE.map(|address| address.parse::<IpAddr>().unwrap()) {
            let connection = guest.connect((address, 80).into()).await.unwrap();
            let mut greeting = Vec::new();
            guest.read_to_end(connection, |bytes| greeting.extend_from_slice(bytes)).await;
            assert_eq!(greeting, b"hello from outside");

            let from = SocketAddr::new(guest_address(address), 9);
            let datagram = packet::udp(from, (address, 80).into(), b"datagram");
            assert_eq!(answer(&mut guest, &datagram).await, Ok(b"datagram".to_vec()));
        }
        for (address, prohibited) in HOST.into_iter().zip([13, 1]) {
            let address: IpAddr = address.parse().unwrap();
            assert_eq!(guest.connect((address, 80).into()).await, Err(Refused));
            let from = SocketAddr::new(guest_address(address), 9);
            let datagram = packet::udp(from, (address, 80).into(), b"datagram");
            let expected = Err(Icmp::Unreachable(prohibited));
            assert_eq!(answer(&mut guest, &datagram).await, expected);
        }
        let broadcast: SocketAddr = "198.18.0.255:80".parse().unwrap();
        let datagram = packet::udp((packet::GUEST, 9).into(), broadcast, b"x");
        assert_eq!(answer(&mut guest, &datagram).await, Err(Icmp::Unreachable(13)));
        assert_eq!(guest.counts().denied, 5);
    })
    .join()
    .unwrap();
    drop(stop);
    outside.join().unwrap();
}

#[test]
fn a_destination_without_route_is_unreachable() {
    let Some(world) = World::new("route") else {
        return;
    };
    World::run(&world.host, async {
        let mut guest = Guest::start(Config::default());
        let nowhere = "203.0.113.1:80".parse().unwrap();
        let syn = packet::syn((packet::GUEST, 9).into(), nowhere);
        assert_eq!(answer(&mut guest, &syn).await, Err(Icmp::Unreachable(1)));
        let datagram = packet::udp((packet::GUEST, 9).into(), nowhere, b"x");
        assert_eq!(answer(&mut guest, &datagram).await, Err(Icmp::Unreachable(1)));
        let nowhere = "[2001:db8:1::1]:80".parse().unwrap();
        let syn = packet::syn((packet::GUEST6, 9).into(), nowhere);
        assert_eq!(answer(&mut guest, &syn).await, Err(Icmp::Unreachable(3)));
    })
    .join()
    .unwrap();
}

#[test]
fn pings_go_out_where_the_host_allows_ping_sockets() {
    let Some(world) = World::new("ping") else {
        return;
    };
    World::run(&world.host, async {
        let range = "/proc/sys/net/ipv4/ping_group_range";
        let mut guest = Guest::start(Config::default());
        for (address, prohibited) in OUTSIDE.into_iter().zip([13, 1]) {
            let address: IpAddr = address.parse().unwrap();
            let request = packet::echo_request(address, 77, b"are you there");
            fs::write(range, "1 0").unwrap();
            let expected = Err(Icmp::Unreachable(prohibited));
            assert_eq!(answer(&mut guest, &request).await, expected);
            fs::write(range, "0 0").unwrap();
            let expected = Err(Icmp::Echo(address, 77, b"are you there".to_vec()));
            assert_eq!(answer(&mut guest, &request).await, expected);
        }
    })
    .join()
    .unwrap();
}
