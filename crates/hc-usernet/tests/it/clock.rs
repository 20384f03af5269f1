// SPDX-License-Identifier: Apache-2.0
//! What happens when time passes. The clock jumps to the next timer whenever all tasks wait, so
//! hours take no time.

use std::future::poll_fn;
use std::net::Ipv4Addr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hc_usernet::{Config, Dns, Network, Protocol, Publish};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream, UdpSocket, UnixStream};
use tokio::time::{Instant, sleep};

use crate::datagram::{bind, echo_server, receive, resolver, send};
use crate::guest::{Guest, host_allowed};
use crate::packet::{DNS, GATEWAY};

#[tokio::test(start_paused = true)]
async fn an_unused_udp_flow_ends_after_a_minute() {
    let port = echo_server("127.0.0.1").await;
    let mut guest = Guest::start(host_allowed());
    let socket = bind(&mut guest, 5000);
    send(&mut guest, socket, (GATEWAY, port), b"x");
    receive(&mut guest, socket).await;
    let answered = Instant::now();
    while guest.counts().datagram_flows > 0 {
        sleep(Duration::from_secs(1)).await;
    }
    let lived = answered.elapsed();
    assert!(lived >= Duration::from_secs(59) && lived <= Duration::from_secs(70), "{lived:?}");
}

#[tokio::test(start_paused = true)]
async fn a_resolver_that_is_silent_is_passed_over() {
    let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let servers = vec![silent.local_addr().unwrap(), resolver(b'2').await];
    let mut guest = Guest::start(Config { dns: Dns::Servers(servers), ..Config::default() });
    let socket = bind(&mut guest, 5000);
    send(&mut guest, socket, (DNS, 53), b"query");
    guest.until("the query", |_| silent.try_recv(&mut [0; 64]).ok()).await;
    // The guest's resolver asks again, from the same socket, after its own time-out.
    sleep(Duration::from_secs(4)).await;
    send(&mut guest, socket, (DNS, 53), b"query");
    assert_eq!(receive(&mut guest, socket).await.0, b"query2");
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_never_answers_costs_a_client_half_a_minute() {
    let publish = Publish {
        protocol: Protocol::Tcp,
        host_ip: Ipv4Addr::LOCALHOST.into(),
        host_port: 0,
        guest_port: 80,
    };
    let guest = Guest::start(Config { publish: vec![publish], ..Config::default() });
    let mut client = TcpStream::connect(guest.published()).await.unwrap();
    let connected = Instant::now();
    client.read(&mut [0; 1]).await.unwrap_err();
    let waited = connected.elapsed();
    assert!(waited >= Duration::from_secs(29) && waited <= Duration::from_mins(1), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn an_idle_network_never_wakes() {
    let network = Network::bind(host_allowed()).unwrap();
    let (vm, other) = UnixStream::pair().unwrap();
    let polls = Arc::new(AtomicUsize::new(0));
    tokio::spawn({
        let polls = Arc::clone(&polls);
        async move {
            let mut running = pin!(network.run(other));
            poll_fn(|cx| {
                polls.fetch_add(1, Ordering::Relaxed);
                running.as_mut().poll(cx)
            })
            .await
        }
    });
    sleep(Duration::from_secs(1)).await;
    let settled = polls.load(Ordering::Relaxed);
    sleep(Duration::from_hours(24)).await;
    assert_eq!(polls.load(Ordering::Relaxed), settled);
    drop(vm);
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_lasts_a_day() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut guest = Guest::start(host_allowed());
    let connection = guest.connect((GATEWAY, port).into()).await.unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    sleep(Duration::from_hours(24)).await;
    guest.send_all(connection, b"still here", |_| {}).await;
    let mut bytes = [0; 10];
    guest.until("the bytes", |_| stream.try_read(&mut bytes).ok()).await;
    assert_eq!(&bytes, b"still here");
}
