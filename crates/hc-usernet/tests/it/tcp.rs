// SPDX-License-Identifier: Apache-2.0
//! TCP, out of the guest and into it.

use std::net::{Ipv4Addr, SocketAddr};

use hc_usernet::{Config, Protocol, Publish};
use sha2::{Digest, Sha256};
use smoltcp::socket::tcp::State;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::guest::{Guest, PATIENCE, Refused, host_allowed};

/// The gateway as the guest addresses it.
fn gateway(port: u16) -> SocketAddr {
    (Ipv4Addr::new(10, 0, 2, 2), port).into()
}

async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, gateway(port))
}

/// Bytes whose order shows.
fn pattern(len: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let mut bytes = Vec::with_capacity(len);
    while bytes.len() < len {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        bytes.extend(state.to_be_bytes());
    }
    bytes.truncate(len);
    bytes
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
