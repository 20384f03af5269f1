// SPDX-License-Identifier: Apache-2.0
//! A guest that sends any frames to its network, from which nothing leaves the machine.
//!
//! The input is a list of frames, each after its length in one byte. The Ethernet header is put
//! before it here, so that the fuzzer does not have to find the addresses.
#![no_main]

use std::net::{Ipv4Addr, Ipv6Addr};

use hc_usernet::{Config, Dns, Network, Prefix};
use libfuzzer_sys::fuzz_target;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::{Builder, Runtime};

thread_local! {
    static RUNTIME: Runtime = Builder::new_current_thread().enable_all().build().unwrap();
}

fuzz_target!(|input: &[u8]| RUNTIME.with(|runtime| runtime.block_on(run(input))));

async fn run(input: &[u8]) {
    let deny = vec![
        Prefix::new(Ipv4Addr::UNSPECIFIED.into(), 0),
        Prefix::new(Ipv6Addr::UNSPECIFIED.into(), 0),
    ];
    // DNS queries are served whatever is denied; the discard port of loopback refuses them.
    let dns = Dns::Servers(vec![(Ipv4Addr::LOCALHOST, 9).into()]);
    let network = Network::bind(Config { deny, dns, ..Config::default() }).unwrap();
    let stats = network.stats();
    let (vm, other) = tokio::io::duplex(1 << 16);
    let (mut read, mut write) = tokio::io::split(vm);
    let frames = frames(input);
    let guest = async {
        let _ = write.write_all(&frames).await;
        let _ = write.shutdown().await;
    };
    let sink = async {
        let mut chunk = [0; 1 << 12];
        while read.read(&mut chunk).await.is_ok_and(|len| len > 0) {}
    };
    let (_, _, ended) = tokio::join!(guest, sink, network.run(other));
    ended.unwrap();
    let counts = stats.read();
    assert!(counts.tcp_flows <= 512 && counts.datagram_flows <= 256, "{counts:?}");
}

/// The frames of `input` as the VM's monitor would send them.
fn frames(mut input: &[u8]) -> Vec<u8> {
    let mut stream = Vec::new();
    while let [len, rest @ ..] = input {
        let (body, rest) = rest.split_at(usize::from(*len).min(rest.len()));
        let kind = match body.first().map_or(0, |first| first >> 4) {
            4 => [0x08, 0x00],
            6 => [0x86, 0xdd],
            _ => [0x08, 0x06],
        };
        let frame = [b"\x02host\0", &b"\x02hyper"[..], &kind, body].concat();
        stream.extend(u32::try_from(frame.len()).unwrap().to_be_bytes());
        stream.extend(frame);
        input = rest;
    }
    stream
}
