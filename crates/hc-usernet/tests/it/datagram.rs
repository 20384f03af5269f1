// SPDX-License-Identifier: Apache-2.0
//! UDP, DNS and pings.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use hc_usernet::{Config, Dns, Protocol, Publish};
use smoltcp::iface::SocketHandle;
use smoltcp::socket::udp;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};

use crate::guest::{Guest, host_allowed};
use crate::packet::{self, DNS, GATEWAY, GATEWAY6, Icmp};

/// A UDP socket of the guest on `port`.
pub(crate) fn bind(guest: &mut Guest, port: u16) -> SocketHandle {
    let buffer =
        || udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; 16], vec![0; 256 << 10]);
    let mut socket = udp::Socket::new(buffer(), buffer());
    socket.bind(port).unwrap();
    guest.sockets.add(socket)
}

/// Sends a datagram.
pub(crate) fn send(
    guest: &mut Guest,
    socket: SocketHandle,
    to: impl Into<SocketAddr>,
    payload: &[u8],
) {
    guest.sockets.get_mut::<udp::Socket<'_>>(socket).send_slice(payload, to.into()).unwrap();
}

/// The next datagram, and from where it came.
pub(crate) async fn receive(guest: &mut Guest, socket: SocketHandle) -> (Vec<u8>, SocketAddr) {
    guest
        .until("a datagram", |guest| {
            let socket = guest.sockets.get_mut::<udp::Socket<'_>>(socket);
            let (payload, from) = socket.recv().ok()?;
            let from = SocketAddr::new(from.endpoint.addr.into(), from.endpoint.port);
            Some((payload.to_vec(), from))
        })
        .await
}

/// Echoes datagrams; the port where it does.
pub(crate) async fn echo_server(host: &str) -> u16 {
    let socket = UdpSocket::bind((host, 0)).await.unwrap();
    let port = socket.local_addr().unwrap().port();
    tokio::spawn(async move {
        let mut datagram = vec![0; 1 << 16];
        loop {
            let (len, from) = socket.recv_from(&mut datagram).await.unwrap();
            socket.send_to(&datagram[..len], from).await.unwrap();
        }
    });
    port
}

#[tokio::test]
async fn datagrams_go_out_and_answers_come_back() {
    let port = echo_server("127.0.0.1").await;
    let mut guest = Guest::start(host_allowed());
    let socket = bind(&mut guest, 5000);
    for len in [0, 1, 1472, 40_000] {
        let payload = vec![u8::try_from(len % 251).unwrap(); len];
        send(&mut guest, socket, (GATEWAY, port), &payload);
        let (answer, from) = receive(&mut guest, socket).await;
        assert!(answer == payload, "{len} bytes");
        assert_eq!(from, SocketAddr::new(GATEWAY, port));
    }
    assert_eq!(guest.counts().datagram_flows, 1);
}

#[tokio::test]
async fn datagrams_go_out_over_ipv6() {
    let port = echo_server("::1").await;
    let mut guest = Guest::start(host_allowed());
    let socket = bind(&mut guest, 5000);
    send(&mut guest, socket, (GATEWAY6, port), b"six");
    assert_eq!(receive(&mut guest, socket).await, (b"six".to_vec(), (GATEWAY6, port).into()));
}

/// Sends `frame` and waits for the ICMP message that answers it.
async fn icmp_answer(guest: &mut Guest, frame: &[u8]) -> Icmp {
    guest.tap().clear();
    guest.send_frame(frame);
    guest
        .until("an icmp message", |guest| guest.tap().iter().find_map(|frame| packet::icmp(frame)))
        .await
}

#[tokio::test]
async fn a_denied_datagram_is_answered_as_prohibited() {
    let mut guest = Guest::start(Config::default());
    for to in ["127.0.0.1", "10.0.2.2", "169.254.169.254"] {
        let to = SocketAddr::new(to.parse().unwrap(), 1234);
        let frame = packet::udp((packet::GUEST, 9).into(), to, b"x");
        assert_eq!(icmp_answer(&mut guest, &frame).await, Icmp::Unreachable(13), "{to}");
    }
    for to in ["::1", "fd68:7970:6572::2", "fe80::1", "::ffff:10.0.3.1"] {
        let to = SocketAddr::new(to.parse().unwrap(), 1234);
        let frame = packet::udp((packet::GUEST6, 9).into(), to, b"x");
        assert_eq!(icmp_answer(&mut guest, &frame).await, Icmp::Unreachable(1), "{to}");
    }
    assert_eq!(guest.counts().datagram_flows, 0);
}

#[tokio::test]
async fn a_refused_datagram_is_answered_as_port_unreachable() {
    let closed = {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.local_addr().unwrap().port()
    };
    let mut guest = Guest::start(host_allowed());
    let frame = packet::udp((packet::GUEST, 9).into(), (GATEWAY, closed).into(), b"x");
    assert_eq!(icmp_answer(&mut guest, &frame).await, Icmp::Unreachable(3));
}

#[tokio::test]
async fn the_gateway_answers_pings() {
    let mut guest = Guest::start(Config::default());
    for to in [GATEWAY, DNS, GATEWAY6.into()] {
        let frame = packet::echo_request(to, 77, b"are you there");
        let expected = Icmp::Echo(to, 77, b"are you there".to_vec());
        assert_eq!(icmp_answer(&mut guest, &frame).await, expected);
    }
}

#[tokio::test]
async fn old_flows_make_room_for_new_ones() {
    let port = echo_server("127.0.0.1").await;
    let mut guest = Guest::start(host_allowed());
    for from in 1000..1600 {
        guest.send_frame(&packet::udp((packet::GUEST, from).into(), (GATEWAY, port).into(), b"x"));
    }
    let socket = bind(&mut guest, 5000);
    send(&mut guest, socket, (GATEWAY, port), b"last");
    assert_eq!(receive(&mut guest, socket).await.0, b"last");
    assert_eq!(guest.counts().datagram_flows, 256);
}

/// A resolver that answers every query with the query and a mark, over UDP and TCP.
pub(crate) async fn resolver(mark: u8) -> SocketAddr {
    let (udp, tcp) = loop {
        let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        // The same port of the other transport may be taken by another test.
        if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()).await {
            break (udp, tcp);
        }
    };
    let address = udp.local_addr().unwrap();
    tokio::spawn(async move {
        let mut query = vec![0; 512];
        loop {
            let (len, from) = udp.recv_from(&mut query).await.unwrap();
            let answer = [&query[..len], &[mark]].concat();
            udp.send_to(&answer, from).await.unwrap();
        }
    });
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = tcp.accept().await.unwrap();
            let mut query = [0; 7];
            stream.read_exact(&mut query).await.unwrap();
            stream.write_all(&query).await.unwrap();
            stream.write_all(&[mark]).await.unwrap();
        }
    });
    address
}

#[tokio::test]
async fn dns_queries_reach_a_resolver_on_loopback() {
    let dns = Dns::Servers(vec![resolver(b'!').await]);
    let mut guest = Guest::start(Config { dns, ..Config::default() });
    let socket = bind(&mut guest, 5000);
    send(&mut guest, socket, (DNS, 53), b"query");
    assert_eq!(receive(&mut guest, socket).await, (b"query!".to_vec(), (DNS, 53).into()));

    let connection = guest.connect((DNS, 53).into()).await.unwrap();
    guest.send_all(connection, b"tcp-qry", |_| {}).await;
    let mut answer = Vec::new();
    guest.read_to_end(connection, |bytes| answer.extend_from_slice(bytes)).await;
    assert_eq!(answer, b"tcp-qry!");
}

#[tokio::test]
async fn the_dns_server_has_no_other_port() {
    let dns = Dns::Servers(vec![resolver(b'!').await]);
    let mut guest = Guest::start(Config { dns, ..Config::default() });
    assert!(guest.connect((DNS, 80).into()).await.is_err());
    let frame = packet::udp((packet::GUEST, 9).into(), (DNS, 54).into(), b"x");
    assert_eq!(icmp_answer(&mut guest, &frame).await, Icmp::Unreachable(13));
}

#[tokio::test]
async fn a_resolver_that_refuses_is_passed_over() {
    let closed = UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let dns = Dns::Servers(vec![closed, resolver(b'2').await]);
    let mut guest = Guest::start(Config { dns, ..Config::default() });
    let query = packet::udp((packet::GUEST, 5000).into(), (DNS, 53).into(), b"query");
    assert_eq!(icmp_answer(&mut guest, &query).await, Icmp::Unreachable(3));
    let socket = bind(&mut guest, 5000);
    send(&mut guest, socket, (DNS, 53), b"again");
    assert_eq!(receive(&mut guest, socket).await.0, b"again2");
}

#[tokio::test]
async fn a_published_udp_port_tells_its_clients_apart() {
    let publish = Publish {
        protocol: Protocol::Udp,
        host_ip: Ipv4Addr::LOCALHOST.into(),
        host_port: 0,
        guest_port: 53,
    };
    let mut guest = Guest::start(Config { publish: vec![publish], ..Config::default() });
    let server = bind(&mut guest, 53);
    let mut clients = Vec::new();
    for name in ["one", "two"] {
        let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        client.connect(guest.published()).await.unwrap();
        client.send(name.as_bytes()).await.unwrap();
        clients.push(client);
    }
    let mut senders = Vec::new();
    for _ in &clients {
        let (name, from) = receive(&mut guest, server).await;
        assert_eq!(from.ip(), GATEWAY);
        send(&mut guest, server, from, &[b"hello ", &name[..]].concat());
        senders.push(from);
    }
    assert_ne!(senders[0], senders[1]);
    for (client, expected) in clients.iter().zip(["hello one", "hello two"]) {
        let mut answer = [0; 32];
        let len = guest.until("an answer", |_| client.try_recv(&mut answer).ok()).await;
        assert_eq!(&answer[..len], expected.as_bytes());
    }
    // A port of the gateway that stands for no client is the gateway's, which is denied.
    let stray = SocketAddr::new(GATEWAY, senders[1].port() + 1);
    let frame = packet::udp((packet::GUEST, 53).into(), stray, b"x");
    assert_eq!(icmp_answer(&mut guest, &frame).await, Icmp::Unreachable(13));
}

#[tokio::test]
async fn pings_beyond_the_gateway_obey_the_policy() {
    let mut guest = Guest::start(Config::default());
    let loopback = IpAddr::from(Ipv4Addr::LOCALHOST);
    let frame = packet::echo_request(loopback, 77, b"x");
    assert_eq!(icmp_answer(&mut guest, &frame).await, Icmp::Unreachable(13));
}
