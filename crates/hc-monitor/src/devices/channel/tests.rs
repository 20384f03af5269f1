// SPDX-License-Identifier: Apache-2.0

use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;

use super::*;
use crate::virtio::guest::Guest;

fn channel() -> (Guest, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    (Guest::new(Channel::new(theirs.into(), "a-name").unwrap()), ours)
}

/// What the device says about ports.
fn told(guest: &mut Guest) -> Option<Vec<u8>> {
    guest.ask(TALK_FROM_HOST, &[], 64)
}

#[test]
fn port_is_announced_with_its_name_and_open() {
    let (mut guest, _host) = channel();
    assert_eq!(told(&mut guest), None);
    guest.send(TALK_TO_HOST, &message(DEVICE_READY, 1, &[]), 0);
    assert_eq!(guest.answered(TALK_FROM_HOST), Some(8));
    guest.send(TALK_TO_HOST, &message(PORT_READY, 1, &[]), 0);
    assert_eq!(told(&mut guest), Some(message(PORT_NAME, 1, b"a-name\0")));
    assert_eq!(told(&mut guest), Some(message(PORT_OPEN, 1, &[])));
    assert_eq!(told(&mut guest), None);
}

#[test]
fn guest_that_only_talks_is_not_remembered_for_ever() {
    let (mut guest, _host) = channel();
    for _ in 0..1000 {
        guest.send(TALK_TO_HOST, &message(PORT_READY, 1, &[]), 0);
    }
    let answers = std::iter::from_fn(|| told(&mut guest)).count();
    assert!((MAX_UNREAD..MAX_UNREAD + 2).contains(&answers), "{answers}");
}

#[test]
fn messages_without_sense_lead_to_nothing() {
    let (mut guest, _host) = channel();
    for bytes in [&[][..], &[0; 7], &message(99, 0, &[0; 100]), &[0xff; 8]] {
        guest.send(TALK_TO_HOST, bytes, 8);
        assert_eq!(guest.answered(TALK_TO_HOST), Some(0));
    }
    assert_eq!(told(&mut guest), None);
}

#[test]
fn each_side_waits_for_the_other() {
    let (mut guest, mut host) = channel();
    let chunk = [7; 1000];
    let mut sent = 0;
    loop {
        guest.send(TO_HOST, &chunk, 0);
        sent += chunk.len();
        if guest.answered(TO_HOST).is_none() {
            break;
        }
    }
    // The last chunk waits for room, and is whole when there is some.
    let mut received = 0;
    let mut bytes = vec![0; 1 << 16];
    while received < sent {
        match host.read(&mut bytes) {
            Ok(len) => received += len,
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        guest.wake_host();
    }
    assert_eq!((received, guest.answered(TO_HOST)), (sent, Some(0)));
    host.write_all(b"hello").unwrap();
    guest.wake_host();
    // Nobody in the guest has opened the port.
    let at = guest.send(FROM_HOST, &[], 3);
    assert_eq!(guest.answered(FROM_HOST), None);
    guest.send(TALK_TO_HOST, &message(PORT_OPEN, 1, &[]), 0);
    assert_eq!(guest.answered(FROM_HOST), Some(3));
    assert_eq!(guest.memory_at(at, 3), b"hel");
    assert_eq!(guest.ask(FROM_HOST, &[], 64), Some(b"lo".to_vec()));
    assert_eq!(guest.ask(FROM_HOST, &[], 64), None);
}

#[test]
fn without_an_owner_bytes_go_nowhere_and_the_guest_goes_on() {
    let (mut guest, host) = channel();
    drop(host);
    guest.send(TALK_TO_HOST, &message(PORT_OPEN, 1, &[]), 0);
    assert_eq!(guest.ask(TO_HOST, b"anybody?", 0), Some(Vec::new()));
    assert_eq!(guest.ask(FROM_HOST, &[], 64), None);
    guest.start();
    assert_eq!(guest.ask(TO_HOST, b"anybody?", 0), Some(Vec::new()));
}

#[test]
fn bytes_that_wait_for_room_go_on_at_the_next_owner() {
    let (mut guest, mut first) = channel();
    let mut sent = Vec::new();
    for byte in (0..=250).cycle() {
        sent.extend(vec![byte; 1000]);
        guest.send(TO_HOST, &[byte; 1000], 0);
        if guest.answered(TO_HOST).is_none() {
            break;
        }
    }
    // The first owner has all but the end, which is in the middle of a buffer.
    let (mut second, theirs) = UnixStream::pair().unwrap();
    second.set_nonblocking(true).unwrap();
    let mut guest = guest.go_on(Channel::new(theirs.into(), "a-name").unwrap());
    assert_eq!(guest.answered(TO_HOST), Some(0));
    let mut received = Vec::new();
    first.read_to_end(&mut received).unwrap();
    let error = second.read_to_end(&mut received).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    assert!(received == sent, "{} bytes of {}", received.len(), sent.len());
    assert_eq!(guest.ask(TO_HOST, b"more", 0), Some(Vec::new()));
    let mut bytes = [0; 5];
    assert_eq!(second.read(&mut bytes).unwrap(), 4);
}

#[test]
fn saved_port_is_as_open_as_it_was_and_what_was_to_be_said_is_said() {
    let (mut guest, _first) = channel();
    guest.send(TALK_TO_HOST, &message(PORT_OPEN, 1, &[]), 0);
    guest.send(TALK_TO_HOST, &message(DEVICE_READY, 1, &[]), 0);
    let (mut second, theirs) = UnixStream::pair().unwrap();
    let mut guest = guest.go_on(Channel::new(theirs.into(), "a-name").unwrap());
    assert_eq!(told(&mut guest), Some(message(PORT_ADD, 1, &[])));
    second.write_all(b"hello").unwrap();
    guest.wake_host();
    assert_eq!(guest.ask(FROM_HOST, &[], 64), Some(b"hello".to_vec()));
}
