// SPDX-License-Identifier: Apache-2.0
//! A guest that sends whatever it likes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use hc_usernet::{Config, Dns, Prefix};
use proptest::prelude::*;

use crate::guest::{Guest, host_allowed};
use crate::packet::{self, GATEWAY, Segment};

/// A network from which nothing leaves, so that chance hits no stranger. DNS queries are served
/// whatever is denied; the discard port of loopback refuses them.
fn closed() -> Config {
    Config {
        deny: vec![
            Prefix::new(Ipv4Addr::UNSPECIFIED.into(), 0),
            Prefix::new(Ipv6Addr::UNSPECIFIED.into(), 0),
        ],
        dns: Dns::Servers(vec![(Ipv4Addr::LOCALHOST, 9).into()]),
        ..Config::default()
    }
}

/// A frame of each kind that the network understands.
fn honest_frame() -> impl Strategy<Value = Vec<u8>> {
    let somebody = prop_oneof![
        Just(GATEWAY),
        Just(packet::DNS),
        any::<u32>().prop_map(|bits| IpAddr::V4(bits.into())),
    ];
    let somebody6 = prop_oneof![Just(packet::GATEWAY6), any::<u128>().prop_map(Ipv6Addr::from)];
    (somebody, somebody6, any::<(u16, u16)>(), 0..6).prop_map(|(to, to6, (from, port), kind)| {
        let guest = SocketAddr::new(packet::GUEST, from);
        let guest6 = SocketAddr::new(packet::GUEST6.into(), from);
        match kind {
            0 => packet::syn(guest, (to, port).into()),
            1 => packet::syn(guest6, (to6, port).into()),
            2 => packet::udp(guest, (to, port).into(), b"some payload"),
            3 => packet::udp(guest6, (to6, port).into(), b"some payload"),
            4 => packet::echo_request(to, from, b"some payload"),
            _ => packet::arp_request(to),
        }
    })
}

/// Any bytes, or an honest frame with a few bytes changed and its end cut off.
fn frame() -> impl Strategy<Value = Vec<u8>> {
    let spoilt = (
        honest_frame(),
        prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        prop::option::of(any::<prop::sample::Index>()),
    )
        .prop_map(|(mut frame, changes, end)| {
            // The addresses of the link stay as they are, or nothing behind them is looked at.
            for (at, value) in changes {
                let at = 12 + at.index(frame.len() - 12);
                frame[at] = value;
            }
            if let Some(end) = end {
                frame.truncate(14 + end.index(frame.len() - 13));
            }
            frame
        });
    prop_oneof![1 => prop::collection::vec(any::<u8>(), 14..200), 9 => spoilt]
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// A segment whose numbers count from those of the handshake, mostly within the window.
fn segment() -> impl Strategy<Value = Segment> {
    let near = || prop_oneof![8 => 0_u32..4, 4 => 0_u32..70_000, 1 => any::<u32>()];
    let options = prop::collection::vec(any::<[u8; 4]>(), 0..4);
    let payload = (0_usize..3000).prop_map(|len| vec![7; len]);
    // Mostly plain acknowledgements, or the connection ends at once.
    let flags = prop_oneof![6 => Just(0x10), 1 => Just(0x11), 2 => any::<u8>()];
    (flags, near(), near(), any::<u16>(), options, payload).prop_map(
        |(flags, sequence, acknowledged, window, options, payload)| Segment {
            flags,
            sequence,
            acknowledged,
            window,
            options,
            payload,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_segment_of_an_open_connection_stops_the_network(
        mut segments in prop::collection::vec(segment(), 1..60),
    ) {
        run(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let port = listener.local_addr().unwrap().port();
            let echo = tokio::spawn(async move {
                let (stream, _) = listener.accept().await.unwrap();
                let (mut read, mut write) = stream.into_split();
                // A connection that a hostile guest resets ends this, too.
                drop(tokio::io::copy(&mut read, &mut write).await);
            });
            let mut guest = Guest::start(host_allowed());
            let (from, to) = ((packet::GUEST, 4000).into(), (GATEWAY, port).into());
            guest.silence_stack();
            guest.tap();
            guest.send_frame(&packet::arp_request(GATEWAY));
            guest.send_frame(&packet::syn(from, to));
            let theirs = guest.until("a syn-ack", |guest| {
                guest.tap().iter().find_map(|frame| packet::syn_ack(frame))
            }).await;
            for segment in &mut segments {
                // The handshake used number 1 on our side.
                segment.sequence = segment.sequence.wrapping_add(2);
                segment.acknowledged = segment.acknowledged.wrapping_add(theirs).wrapping_add(1);
                guest.send_frame(&segment.frame(from, to));
            }
            guest.tap().clear();
            guest.send_frame(&packet::arp_request(GATEWAY));
            guest.until("an arp answer", |guest| {
                guest.tap().iter().find_map(|frame| packet::arp_answer(frame))
            }).await;
            guest.stop().await.unwrap();
            echo.await.unwrap();
        });
    }

    #[test]
    fn no_frame_stops_the_network(frames in prop::collection::vec(frame(), 1..100)) {
        run(async {
            let mut guest = Guest::start(closed());
            guest.tap();
            for frame in &frames {
                guest.send_frame(frame);
            }
            guest.send_frame(&packet::arp_request(GATEWAY));
            guest.until("an arp answer", |guest| {
                guest.tap().iter().find_map(|frame| packet::arp_answer(frame))
            }).await;
            let counts = guest.counts();
            // One in 65,536 frames is a DNS query.
            assert!(counts.tcp_flows + counts.datagram_flows <= 4, "{counts:?}");
            guest.stop().await.unwrap();
        });
    }

    #[test]
    fn no_bytes_do_more_than_end_the_network(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        run(async {
            let mut guest = Guest::start(closed());
            guest.send_raw(&bytes);
            guest.until("all bytes to be taken", |guest| {
                (guest.has_stopped() || guest.has_sent_all()).then_some(())
            }).await;
            // Either is an end; a panic is none.
            drop(guest.stop().await);
        });
    }
}

#[tokio::test]
async fn a_flood_of_connections_is_bounded() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut guest = Guest::start(host_allowed());
    for from in 1000..2000 {
        guest.send_frame(&packet::syn((packet::GUEST, from).into(), (GATEWAY, port).into()));
    }
    guest.tap();
    guest.send_frame(&packet::arp_request(GATEWAY));
    guest
        .until("an arp answer", |guest| guest.tap().iter().find_map(|f| packet::arp_answer(f)))
        .await;
    assert_eq!(guest.counts().tcp_flows, 512);
}

#[tokio::test]
async fn a_guest_that_reads_nothing_is_not_read_from_for_ever() {
    let mut guest = Guest::start(Config::default());
    let request = packet::arp_request(GATEWAY);
    // Answers fill the way back, whereupon questions fill the way there, and then nothing moves.
    let sent = guest.send_without_reading(&request).await;
    assert!(sent < 16 << 20, "{sent} bytes of questions were taken");
    let answers = sent / (request.len() + 4);
    guest.tap();
    guest
        .until("all answers", |guest| {
            let come = guest.tap().iter().filter(|f| packet::arp_answer(f).is_some()).count();
            (come >= answers).then_some(())
        })
        .await;
}
