// SPDX-License-Identifier: Apache-2.0
//! TCP, out of the guest and into it.

use std::net::{Ipv4Addr, SocketAddr};

use hc_usernet::{Config, Protocol, Publish};
use sha2::{Digest, Sha256};
use smoltcp::socket::tcp::State;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::guest::{Guest, PATIENCE, Refused, host_allowed, pattern};
use crate::packet::{self, GATEWAY6};

/// The gateway as the guest addresses it.
fn gateway(port: u16) -> SocketAddr {
    (Ipv4Addr::new(10, 0, 2, 2), port).into()
}

async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, gateway(port))
}

const LARGE: usize = 64 << 20;

#[tokio::test]
async fn bytes_arrive_whole_in_both_directions_at_once() {
    let (listener, remote) = listener().await;
    let bytes = pattern(LARGE);
    let host = tokio::spawn({
        let bytes = bytes.clone();
        async move {
            let (stream, _) = listener.accept().await.unwrap();
            let (mut read, mut write) = stream.into_split();
            let writer = tokio::spawn(async move {
                write.write_all(&bytes).await.unwrap();
                write.shutdown().await.unwrap();
            });
            let mut hash = Sha256::new();
            let mut chunk = vec![0; 1 << 16];
            loop {
                match read.read(&mut chunk).await.unwrap() {
                    0 => break,
                    len => hash.update(&chunk[..len]),
                }
            }
            writer.await.unwrap();
            hash.finalize()
        }
    });
    let mut guest = Guest::start(host_allowed());
    let connection = guest.connect(remote).await.unwrap();
    let mut hash = Sha256::new();
    guest.send_all(connection, &bytes, |chunk| hash.update(chunk)).await;
    guest.tcp(connection).close();
    assert!(guest.read_to_end(connection, |chunk| hash.update(chunk)).await);
    guest.no_flows().await;
    let expected = Sha256::digest(&bytes);
    assert_eq!(hash.finalize(), expected);
    assert_eq!(host.await.unwrap(), expected);
}

#[tokio::test]
async fn a_refused_connection_is_reset() {
    let (listener, remote) = listener().await;
    drop(listener);
    let mut guest = Guest::start(host_allowed());
    assert_eq!(guest.connect(remote).await, Err(Refused));
    guest.no_flows().await;
}

#[tokio::test]
async fn a_denied_connection_is_reset_and_never_made() {
    let (listener, remote) = listener().await;
    let mut guest = Guest::start(Config::default());
    assert_eq!(guest.connect(remote).await, Err(Refused));
    let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, remote.port()));
    assert_eq!(guest.connect(loopback).await, Err(Refused));
    assert_eq!(guest.counts().denied, 2);
    // A connection that had been made would be first in the queue.
    let ours = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (_, peer) = listener.accept().await.unwrap();
    assert_eq!(peer, ours.local_addr().unwrap());
}

fn publish(protocol: Protocol) -> Config {
    Config {
        publish: vec![Publish {
            protocol,
            host_ip: Ipv4Addr::LOCALHOST.into(),
            host_port: 0,
            guest_port: 80,
        }],
        ..Config::default()
    }
}

#[tokio::test]
async fn a_published_port_carries_bytes_both_ways() {
    let mut guest = Guest::start(publish(Protocol::Tcp));
    let server = guest.add_tcp();
    guest.tcp(server).listen(80).unwrap();
    let bytes = pattern(LARGE);
    let address = guest.published();
    let client = tokio::spawn({
        let bytes = bytes.clone();
        async move {
            let (mut read, mut write) = TcpStream::connect(address).await.unwrap().into_split();
            let writer = tokio::spawn(async move {
                write.write_all(&bytes).await.unwrap();
                write.shutdown().await.unwrap();
            });
            let mut all = Vec::new();
            read.read_to_end(&mut all).await.unwrap();
            writer.await.unwrap();
            Sha256::digest(&all)
        }
    });
    guest
        .until("a client", |guest| (guest.tcp(server).state() == State::Established).then_some(()))
        .await;
    assert_eq!(guest.tcp(server).remote_endpoint().unwrap().addr.to_string(), "10.0.2.2");
    let mut hash = Sha256::new();
    guest.send_all(server, &bytes, |chunk| hash.update(chunk)).await;
    guest.tcp(server).close();
    assert!(guest.read_to_end(server, |chunk| hash.update(chunk)).await);
    guest.no_flows().await;
    let expected = Sha256::digest(&bytes);
    assert_eq!(hash.finalize(), expected);
    assert_eq!(client.await.unwrap(), expected);
}

#[tokio::test]
async fn a_published_port_that_the_guest_refuses_closes_at_once() {
    let mut guest = Guest::start(publish(Protocol::Tcp));
    let address = guest.published();
    let client = tokio::spawn(async move {
        let mut stream = TcpStream::connect(address).await.unwrap();
        timeout(PATIENCE, stream.read(&mut [0; 1])).await.expect("an end")
    });
    guest.until("the client's end", |_| client.is_finished().then_some(())).await;
    assert!(client.await.unwrap().is_err(), "a reset");
    guest.no_flows().await;
}

#[tokio::test]
async fn connections_go_out_over_ipv6() {
    let listener = TcpListener::bind("[::1]:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut guest = Guest::start(host_allowed());
    let connection = guest.connect((GATEWAY6, port).into()).await.unwrap();
    let (mut stream, _) = listener.accept().await.unwrap();
    stream.write_all(b"six").await.unwrap();
    drop(stream);
    let mut bytes = Vec::new();
    assert!(guest.read_to_end(connection, |chunk| bytes.extend_from_slice(chunk)).await);
    assert_eq!(bytes, b"six");
}

#[tokio::test]
async fn the_guest_may_close_its_half_first() {
    let (listener, remote) = listener().await;
    let host = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut question = Vec::new();
        stream.read_to_end(&mut question).await.unwrap();
        stream.write_all(&[b"answer to ", &question[..]].concat()).await.unwrap();
    });
    let mut guest = Guest::start(host_allowed());
    let connection = guest.connect(remote).await.unwrap();
    guest.send_all(connection, b"question", |_| {}).await;
    guest.tcp(connection).close();
    let mut answer = Vec::new();
    assert!(guest.read_to_end(connection, |chunk| answer.extend_from_slice(chunk)).await);
    assert_eq!(answer, b"answer to question");
    host.await.unwrap();
    guest.no_flows().await;
}

#[tokio::test]
async fn the_host_may_close_its_half_first() {
    let (listener, remote) = listener().await;
    let host = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.shutdown().await.unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.unwrap();
        rest
    });
    let mut guest = Guest::start(host_allowed());
    let connection = guest.connect(remote).await.unwrap();
    assert!(guest.read_to_end(connection, |_| {}).await);
    guest.send_all(connection, b"still here", |_| {}).await;
    guest.close(connection).await;
    guest.no_flows().await;
    assert_eq!(host.await.unwrap(), b"still here");
}

#[tokio::test]
async fn a_reset_by_the_host_reaches_the_guest() {
    let (listener, remote) = listener().await;
    let mut guest = Guest::start(host_allowed());
    let connection = guest.connect(remote).await.unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    stream.set_zero_linger().unwrap();
    drop(stream);
    assert!(!guest.read_to_end(connection, |_| {}).await, "no end in good order");
    guest.no_flows().await;
}

#[tokio::test]
async fn a_reset_by_the_guest_reaches_the_host() {
    let (listener, remote) = listener().await;
    let mut guest = Guest::start(host_allowed());
    let connection = guest.connect(remote).await.unwrap();
    let (mut stream, _) = listener.accept().await.unwrap();
    guest.tcp(connection).abort();
    guest.no_flows().await;
    let error = timeout(PATIENCE, stream.read(&mut [0; 1])).await.expect("an end").unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_thousand_connections_leave_nothing_behind() {
    let (listener, remote) = listener().await;
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut question = [0; 4];
                stream.read_exact(&mut question).await.unwrap();
                stream.write_all(&question).await.unwrap();
            });
        }
    });
    let mut guest = Guest::start(host_allowed());
    for number in 0..1000_u32 {
        let connection = guest.connect(remote).await.unwrap();
        guest.send_all(connection, &number.to_be_bytes(), |_| {}).await;
        let mut answer = Vec::new();
        assert!(guest.read_to_end(connection, |chunk| answer.extend_from_slice(chunk)).await);
        assert_eq!(answer, number.to_be_bytes());
        guest.close(connection).await;
    }
    guest.no_flows().await;
}

#[tokio::test]
async fn a_host_that_does_not_read_closes_the_guests_window() {
    let (listener, remote) = listener().await;
    let mut guest = Guest::start(host_allowed());
    let connection = guest.connect(remote).await.unwrap();
    let (mut stream, _) = listener.accept().await.unwrap();
    let bytes = pattern(LARGE);
    let mut sent = 0;
    guest.tap();
    guest
        .until("a closed window", |guest| {
            let socket = guest.tcp(connection);
            sent += socket.send_slice(&bytes[sent..]).unwrap();
            guest.tap().drain(..).any(|frame| packet::tcp_window(&frame) == Some(0)).then_some(())
        })
        .await;
    assert!(sent < bytes.len(), "the kernel alone took everything");
    let host = tokio::spawn(async move {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.unwrap();
        Sha256::digest(&all)
    });
    guest.send_all(connection, &bytes[sent..], |_| {}).await;
    guest.tcp(connection).close();
    guest.no_flows().await;
    assert_eq!(host.await.unwrap(), Sha256::digest(&bytes));
}

#[tokio::test]
async fn a_guest_that_does_not_read_blocks_the_host() {
    let (listener, remote) = listener().await;
    let mut guest = Guest::start(host_allowed());
    let connection = guest.connect(remote).await.unwrap();
    let (mut stream, _) = listener.accept().await.unwrap();
    let bytes = pattern(LARGE);
    let host = tokio::spawn({
        let bytes = bytes.clone();
        async move { stream.write_all(&bytes).await.unwrap() }
    });
    guest
        .until("a full buffer", |guest| {
            let socket = guest.tcp(connection);
            (socket.recv_queue() == socket.recv_capacity()).then_some(())
        })
        .await;
    assert!(!host.is_finished(), "the kernel alone took everything");
    let mut hash = Sha256::new();
    assert!(guest.read_to_end(connection, |chunk| hash.update(chunk)).await);
    assert_eq!(hash.finalize(), Sha256::digest(&bytes));
    host.await.unwrap();
}

#[tokio::test]
async fn what_the_guest_sent_last_arrives_although_it_closed_and_the_host_is_slow() {
    let (listener, remote) = listener().await;
    let mut guest = Guest::start(host_allowed());
    let connection = guest.connect(remote).await.unwrap();
    let (mut stream, _) = listener.accept().await.unwrap();
    stream.shutdown().await.unwrap();
    assert!(guest.read_to_end(connection, |_| {}).await);
    let bytes = pattern(LARGE);
    let mut sent = 0;
    guest.tap();
    guest
        .until("a closed window", |guest| {
            sent += guest.tcp(connection).send_slice(&bytes[sent..]).unwrap();
            guest.tap().drain(..).any(|frame| packet::tcp_window(&frame) == Some(0)).then_some(())
        })
        .await;
    guest.tcp(connection).close();
    let host = tokio::spawn(async move {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.map(|_| all)
    });
    guest.no_flows().await;
    assert!(host.await.unwrap().unwrap() == bytes[..sent], "all of {sent} bytes");
}

#[tokio::test]
async fn published_ports_close_with_the_network() {
    let guest = Guest::start(publish(Protocol::Tcp));
    let address = guest.published();
    guest.stop().await.unwrap();
    let error = TcpStream::connect(address).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
}
