// SPDX-License-Identifier: Apache-2.0

use std::sync::atomic::{AtomicBool, Ordering};

use proptest::prelude::*;
use vm_memory::{Bytes as _, GuestAddress};

use super::*;
use crate::virtio::guest::{self, Guest};

fn on_stream() -> (Guest, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    (Guest::new(Net::new([2; 6], Wire::Stream(Stream::new(theirs))).unwrap()), ours)
}

/// To the card, a socket that keeps what is written apart is like a tap device.
fn on_tap() -> (Guest, OwnedFd) {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    let kind = SocketType::SEQPACKET;
    let (ours, theirs) =
        socketpair(AddressFamily::UNIX, kind, SocketFlags::NONBLOCK, None).unwrap();
    (Guest::new(Net::new([2; 6], Wire::Tap(Tap::new(theirs))).unwrap()), ours)
}

fn framed(frame: &[u8]) -> Vec<u8> {
    let len = u32::try_from(frame.len()).unwrap();
    [&len.to_be_bytes()[..], frame].concat()
}

fn all(mut host: &UnixStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let error = host.read_to_end(&mut bytes).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    bytes
}

#[test]
fn frames_of_any_size_go_out_or_are_lost() {
    let (mut guest, host) = on_stream();
    for len in [0, 1, HEADER_LEN - 1, HEADER_LEN] {
        assert_eq!(guest.ask(TO_HOST, &vec![1; len], 0), Some(Vec::new()));
    }
    assert_eq!(guest.ask(TO_HOST, &vec![1; HEADER_LEN + MAX_FRAME + 1], 0), Some(Vec::new()));
    assert_eq!(all(&host), b"");
    for len in [1, 1514, MAX_FRAME] {
        // The header says whatever the guest likes.
        let frame = [vec![0xff; HEADER_LEN], vec![7; len]].concat();
        assert_eq!(guest.ask(TO_HOST, &frame, 0), Some(Vec::new()));
        assert!(all(&host) == framed(&vec![7; len]), "frame of {len} bytes");
    }
}

#[test]
fn header_of_the_guest_does_not_reach_a_tap_device() {
    let (mut guest, host) = on_tap();
    let mut bytes = vec![0; 1 << 17];
    for len in [0, 1, HEADER_LEN, HEADER_LEN + MAX_FRAME + 1] {
        assert_eq!(guest.ask(TO_HOST, &vec![0xff; len], 0), Some(Vec::new()));
        assert_eq!(rustix::io::read(&host, &mut bytes[..]), Err(rustix::io::Errno::AGAIN));
    }
    let frame = [vec![0xff; HEADER_LEN], vec![7; 60]].concat();
    assert_eq!(guest.ask(TO_HOST, &frame, 0), Some(Vec::new()));
    let len = rustix::io::read(&host, &mut bytes[..]).unwrap();
    assert_eq!((&bytes[..HEADER_LEN], &bytes[HEADER_LEN..len]), (&PLAIN_HEADER[..], &[7; 60][..]));
}

#[test]
fn frame_from_a_tap_device_comes_without_its_header() {
    let (mut guest, host) = on_tap();
    for bytes in [&[0xff; HEADER_LEN][..], &[&[0xff; HEADER_LEN][..], &[7; 60]].concat()] {
        rustix::io::write(&host, bytes).unwrap();
    }
    guest.wake_host();
    let frame = guest.ask(FROM_HOST, &[], 2000).unwrap();
    let header = [&[0; HEADER_LEN - 2][..], &1_u16.to_le_bytes()].concat();
    assert_eq!((&frame[..HEADER_LEN], &frame[HEADER_LEN..]), (&header[..], &[7; 60][..]));
}

#[test]
fn large_frame_takes_several_buffers() {
    let (mut guest, mut host) = on_stream();
    host.write_all(&framed(&[7; 100])).unwrap();
    guest.wake_host();
    let places: Vec<u64> = (0..3).map(|_| guest.send(FROM_HOST, &[], 50)).collect();
    let lens: Vec<_> = (0..3).map(|_| guest.answered(FROM_HOST)).collect();
    assert_eq!(lens, [Some(50), Some(50), Some(12)]);
    assert_eq!(guest.memory_at(places[0] + 10, 3), [3, 0, 7]);
}

#[test]
fn buffers_without_room_cost_a_frame_and_no_more() {
    let (mut guest, mut host) = on_stream();
    for _ in 0..MAX_BUFFERS {
        guest.put(FROM_HOST, &[]);
    }
    guest.kick(FROM_HOST);
    host.write_all(&framed(&[7; 100])).unwrap();
    guest.wake_host();
    while guest.answered(FROM_HOST).is_some() {}
    host.write_all(&framed(&[8; 100])).unwrap();
    guest.wake_host();
    assert_eq!(guest.ask(FROM_HOST, &[], 2000).map(|frame| frame[50]), Some(8));
}

#[test]
fn length_that_is_no_frame_ends_the_link() {
    let (mut guest, mut host) = on_stream();
    host.write_all(&[0xff; 8]).unwrap();
    host.write_all(&framed(&[7; 100])).unwrap();
    guest.wake_host();
    assert_eq!(guest.ask(FROM_HOST, &[], 2000), None);
}

proptest! {
    #[test]
    fn frames_survive_any_split(
        lens in proptest::collection::vec(0usize..3000, 1..8), cut in 1usize..4000,
    ) {
        let (mut guest, mut host) = on_stream();
        let sent: Vec<Vec<u8>> = lens.iter().map(|&len| vec![7; len]).collect();
        let bytes: Vec<u8> = sent.iter().flat_map(|frame| framed(frame)).collect();
        let places: Vec<u64> = sent.iter().map(|_| guest.send(FROM_HOST, &[], 4000)).collect();
        for part in bytes.chunks(cut) {
            host.write_all(part).unwrap();
            guest.wake_host();
        }
        for (frame, at) in sent.iter().zip(places) {
            let len = guest.answered(FROM_HOST);
            prop_assert_eq!(len, Some(HEADER_LEN + frame.len()));
            prop_assert_eq!(&guest.memory_at(at + HEADER_LEN as u64, frame.len()), frame);
        }
    }
}

#[test]
fn buffers_of_a_frame_are_given_back_at_once() {
    const BUFFERS: usize = 32;
    let (mut guest, mut host) = on_stream();
    let (memory, done) = (std::sync::Arc::clone(&guest.memory), AtomicBool::new(false));
    std::thread::scope(|scope| {
        // What a processor of the guest sees that looks all the time.
        let seen = scope.spawn(|| {
            let mut seen = std::collections::BTreeSet::new();
            while !done.load(Ordering::Relaxed) {
                let index = GuestAddress(guest::used(FROM_HOST) + 2);
                seen.insert(memory.load::<u16>(index, Ordering::Relaxed).unwrap());
            }
            seen
        });
        for _ in 0..500 {
            for _ in 0..BUFFERS {
                guest.send(FROM_HOST, &[], 1000);
            }
            host.write_all(&framed(&vec![5; BUFFERS * 1000 - HEADER_LEN])).unwrap();
            guest.wake_host();
        }
        done.store(true, Ordering::Relaxed);
        let seen = seen.join().unwrap();
        assert!(seen.iter().all(|index| usize::from(*index) % BUFFERS == 0), "{seen:?}");
    });
    assert_eq!(std::iter::from_fn(|| guest.answered(FROM_HOST)).next(), Some(1000));
}

#[test]
fn saved_card_keeps_its_address_and_loses_what_was_on_its_way() {
    let (guest, mut host) = on_stream();
    host.write_all(&framed(&[1; 100])[..50]).unwrap();
    guest.wake_host();
    let (mut second, theirs) = UnixStream::pair().unwrap();
    let mut guest = guest.go_on(Net::new([9; 6], Wire::Stream(Stream::new(theirs))).unwrap());
    assert_eq!(guest.read(0x100), 0x0202_0202);
    second.write_all(&framed(&[3; 60])).unwrap();
    guest.wake_host();
    let answer = guest.ask(FROM_HOST, &[], 200).unwrap();
    assert_eq!(answer[HEADER_LEN..], [3; 60]);
}
