// SPDX-License-Identifier: Apache-2.0
//! Promises about the network card, whatever its frames go through.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UdpSocket, UnixStream};

use super::{Bench, Running, in_time, tap};
use crate::{Ability, Link, Nic};

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const PEER: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// A type of Ethernet frame that is free for experiments; the guest sends back no other.
pub(super) const EXPERIMENTAL: [u8; 2] = [0x88, 0xb5];

/// Frames of every size that Linux makes come through whole, one by one.
pub async fn network_carries_frames_both_ways(bench: &Bench) {
    if !bench.driver.abilities().contains(&Ability::Network) {
        return;
    }
    let running = bench.boot(|spec| spec.nic = Some(card(Link::Owner))).await;
    owner_gets_the_frames(running).await;
}

/// The owner of a running VM is at the other end of its card.
pub(super) async fn owner_gets_the_frames(mut running: Running) {
    let network = UnixStream::from_std(running.vm.network().unwrap()).unwrap();
    assert!(running.vm.network().is_none());
    bounce(running, Peer::Stream(network)).await;
}

/// The same through a socket that the caller brings, and then the owner has no stream.
pub async fn socket_carries_frames_both_ways(bench: &Bench) {
    if !bench.driver.abilities().contains(&Ability::Socket) {
        return;
    }
    let (ours, theirs) = UnixStream::pair().unwrap();
    let link = Link::Socket(theirs.into_std().unwrap());
    let mut running = bench.boot(|spec| spec.nic = Some(card(link))).await;
    assert!(running.vm.network().is_none());
    bounce(running, Peer::Stream(ours)).await;
}

/// The same through a tap device of the host.
pub async fn tap_carries_frames_both_ways(bench: &Bench) {
    if !bench.driver.abilities().contains(&Ability::Tap) {
        return;
    }
    let tap::Wired { device, socket } = match tap::wire() {
        Ok(wired) => wired,
        Err(error) => return (bench.skip)(&format!("no tap device can be made: {error}")),
    };
    let mut running = bench.boot(|spec| spec.nic = Some(card(Link::Tap(device)))).await;
    assert!(running.vm.network().is_none());
    // To the runtime, a socket of datagrams is like another.
    let socket = UdpSocket::from_std(socket.into()).unwrap();
    bounce(running, Peer::Packets(socket)).await;
}

pub(super) fn card(link: Link) -> Nic {
    Nic { mac: MAC, link }
}

/// Sends frames, and gets them back with their addresses exchanged.
async fn bounce(mut running: Running, mut peer: Peer) {
    let payloads = [46, 47, 1000, 1500, 9000, 65520];
    assert_eq!(running.ask(&format!("bounce {}", payloads.len())).await, "ok");
    for len in payloads {
        let payload: Vec<u8> = (0..=255).cycle().take(len).collect();
        peer.send(&[&MAC[..], &PEER, &EXPERIMENTAL, &payload].concat()).await;
        let expected = [&PEER[..], &MAC, &EXPERIMENTAL, &payload].concat();
        let received = loop {
            let frame = in_time("receive a frame", peer.receive()).await;
            if frame.get(12..14) == Some(&EXPERIMENTAL) {
                break frame;
            }
        };
        assert!(received == expected, "frame of {len} bytes: {} came", received.len());
    }
}

/// The far end of a card.
enum Peer {
    /// A stream, each frame after its length.
    Stream(UnixStream),
    /// A packet socket, one frame a call.
    Packets(UdpSocket),
}

impl Peer {
    async fn send(&mut self, frame: &[u8]) {
        match self {
            Peer::Stream(stream) => {
                let len = u32::try_from(frame.len()).unwrap();
                stream.write_all(&len.to_be_bytes()).await.unwrap();
                stream.write_all(frame).await.unwrap();
            }
            Peer::Packets(socket) => {
                assert_eq!(socket.send(frame).await.unwrap(), frame.len());
            }
        }
    }

    async fn receive(&mut self) -> Vec<u8> {
        match self {
            Peer::Stream(stream) => {
                let len = stream.read_u32().await.unwrap();
                let mut frame = vec![0; usize::try_from(len).unwrap()];
                stream.read_exact(&mut frame).await.unwrap();
                frame
            }
            Peer::Packets(socket) => {
                let mut frame = vec![0; 1 << 16];
                let len = socket.recv(&mut frame).await.unwrap();
                frame.truncate(len);
                frame
            }
        }
    }
}
