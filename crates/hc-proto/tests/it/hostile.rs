// SPDX-License-Identifier: Apache-2.0
//! Peers that do not keep to the protocol: one error, no panic, and no more held than allowed.

use hc_proto::limits::{
    CONTROL_WINDOW, MAX_BODY_LEN, MAX_MESSAGE_LEN, MAX_SKIPPED, MAX_STREAMS, STREAM_WINDOW,
};
use hc_proto::{Direction, GuestMux, HostMux, Line, MuxEvent, Nonce, ProtocolError};
use proptest::prelude::*;

use crate::world::{SESSION, World};

/// A frame as anyone could write it.
fn frame(kind: u8, stream: u32, body: &[u8]) -> Vec<u8> {
    let mut frame = vec![kind];
    frame.extend_from_slice(&u32::try_from(body.len()).unwrap().to_le_bytes()[..3]);
    frame.extend_from_slice(&stream.to_le_bytes());
    frame.extend_from_slice(body);
    frame.push(0xA5);
    frame
}

/// A host that has met an honest guest and opened `streams` streams, each in both directions.
fn host(streams: usize) -> HostMux {
    let mut world = World::new();
    world.run_dry();
    for _ in 0..streams {
        world.open(Direction::Both).unwrap();
    }
    world.run_dry();
    world.host
}

/// Feeds a ready host with one stream and says what it thinks of it.
#[track_caller]
fn check(bytes: &[u8], expected: ProtocolError) {
    let mut host = host(1);
    assert_eq!(host.feed(bytes), Err(expected));
    assert_eq!(host.feed(bytes), Ok(()), "an error is told once");
    assert!(!host.has_output() && !host.is_ready());
}

#[test]
fn each_breach_has_its_own_error() {
    let too_long = &[0x20, 0xff, 0xff, 0xff, 1, 0, 0, 0];
    check(too_long, ProtocolError::FrameTooLong { len: 0xff_ffff });
    check(&[0x20, 0, 0, 0, 1, 0, 0, 0, 7], ProtocolError::BadEnd { kind: 0x20, end: 7 });
    check(&[0x20, 0, 0, 0, 1, 0, 0, 0, 0], ProtocolError::BadEnd { kind: 0x20, end: 0 });
    check(&frame(0x7f, 1, b""), ProtocolError::UnknownKind { kind: 0x7f });
    check(&frame(0x20, 1, b""), ProtocolError::BadBody { kind: 0x20, len: 0 });
    check(&frame(0x22, 1, b"short"), ProtocolError::BadBody { kind: 0x22, len: 5 });
    check(&frame(0x21, 1, b"x"), ProtocolError::BadBody { kind: 0x21, len: 1 });
    check(&frame(0x10, 9, b"{}"), ProtocolError::BadBody { kind: 0x10, len: 2 });
    check(&frame(0x11, 0, b""), ProtocolError::BadBody { kind: 0x11, len: 0 });
    check(&frame(0x20, 2, b"x"), ProtocolError::NoSuchStream { kind: 0x20, stream: 2 });
    check(&frame(0x23, 2, b""), ProtocolError::NoSuchStream { kind: 0x23, stream: 2 });
    check(&frame(0x23, 0, b""), ProtocolError::NoSuchStream { kind: 0x23, stream: 0 });
    check(&frame(0x24, 1, b""), ProtocolError::NoSuchStream { kind: 0x24, stream: 1 });
    let open = ProtocolError::Misplaced { kind: 0x12, during: "the session stands" };
    check(&frame(0x12, 2, &[3]), open);
    let hello = ProtocolError::Misplaced { kind: 0x01, during: "the session stands" };
    check(&frame(0x01, 0, b""), hello);
    let after_end = [frame(0x21, 1, b""), frame(0x20, 1, b"x")].concat();
    check(&after_end, ProtocolError::ClosedDirection { kind: 0x20, stream: 1 });
    let ack = |offset: u64| frame(0x22, 1, &offset.to_le_bytes());
    check(&ack(1), ProtocolError::BadAck { stream: 1, offset: 1 });
    check(&ack(u64::MAX), ProtocolError::BadAck { stream: 1, offset: u64::MAX });
    let lane_ack = frame(0x22, 0, &3_u64.to_le_bytes());
    check(&lane_ack, ProtocolError::BadAck { stream: 0, offset: 3 });
}

#[test]
fn no_more_than_the_window_is_taken() {
    let mut host = host(1);
    let whole = frame(0x20, 1, &vec![b'x'; MAX_BODY_LEN]);
    for _ in 0..STREAM_WINDOW / MAX_BODY_LEN as u64 {
        host.feed(&whole).unwrap();
    }
    let error = host.feed(&frame(0x20, 1, b"x"));
    assert_eq!(error, Err(ProtocolError::WindowExceeded { stream: 1 }));
}

#[test]
fn messages_are_bounded_in_length_and_in_number() {
    let mut host = host(0);
    let part = frame(0x11, 0, &vec![b'x'; MAX_BODY_LEN]);
    for _ in 0..MAX_MESSAGE_LEN / MAX_BODY_LEN {
        host.feed(&part).unwrap();
    }
    assert_eq!(host.feed(&part), Err(ProtocolError::MessageTooLong));

    let mut host = self::host(0);
    let mut fed = 0;
    let error = loop {
        match host.feed(&frame(0x10, 0, b"1")) {
            Ok(()) => fed += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(error, ProtocolError::WindowExceeded { stream: 0 });
    assert!(fed <= CONTROL_WINDOW / 64);
}

#[test]
fn resets_without_a_pause_are_bounded() {
    let mut host = host(1);
    let resets = frame(0x23, 1, b"").repeat(MAX_STREAMS);
    assert_eq!(host.feed(&resets), Ok(()));
    assert_eq!(host.feed(&frame(0x23, 1, b"")), Err(ProtocolError::TooManyResets));
}

#[test]
fn more_streams_than_allowed_are_refused_on_both_sides() {
    let mut host = host(MAX_STREAMS);
    assert_eq!(host.open(Direction::Both), Err(hc_proto::SendError::NoStreamFree));

    let mut world = World::new();
    world.run_dry();
    let mut opens = (1..).map(|stream| frame(0x12, stream, &[3]));
    for open in opens.by_ref().take(MAX_STREAMS) {
        assert_eq!(world.guest.feed(&open), Ok(()));
    }
    let one_more = opens.next().unwrap();
    assert_eq!(world.guest.feed(&one_more), Err(ProtocolError::TooManyStreams));
}

#[test]
fn a_guest_that_does_not_answer_the_hello_is_an_error_at_last() {
    let mut host = HostMux::new(SESSION);
    host.attach(Nonce(1), Line::Fresh);
    let noise: Vec<u8> = (0..=255).cycle().take(1 << 20).collect();
    let mut fed = 0;
    let error = loop {
        match host.feed(&noise) {
            Ok(()) => fed += noise.len(),
            Err(error) => break error,
        }
    };
    assert_eq!(error, ProtocolError::NoWelcome);
    assert!(fed <= MAX_SKIPPED);
}

/// What a guest says about a session that does not exist must not make the host build it.
#[test]
fn made_up_positions_are_refused() {
    let position = |stream: u32, numbers: [u64; 3], extra: u32| {
        let mut body: Vec<u8> = numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
        body.extend_from_slice(&extra.to_le_bytes());
        body.extend_from_slice(&[0; 4]);
        frame(0x03, stream, &body)
    };
    let end = frame(0x04, 0, b"");
    let lane = position(0, [0, 0, 0], 5);
    let table = [
        (end.clone(), 0),
        (position(0, [0, 1, 0], 0), 0),
        (position(0, [u64::MAX, 0, 0], 0), 0),
        ([lane.clone(), position(6, [0, 0, 0], 3), end.clone()].concat(), 6),
        ([lane.clone(), position(5, [0, 0, 0], 0), end.clone()].concat(), 5),
        ([lane.clone(), position(5, [0, 0, 0], 4 | 2), end.clone()].concat(), 5),
        ([lane.clone(), lane.clone()].concat(), 0),
    ];
    for (bytes, stream) in table {
        let mut host = HostMux::adopt(SESSION);
        let mut guest = GuestMux::new();
        let mut first = HostMux::new(SESSION);
        first.attach(Nonce(1), Line::Fresh);
        guest.feed(first.pending_output()).unwrap();
        guest.line_lost();
        host.attach(Nonce(2), Line::Fresh);
        guest.feed(host.pending_output()).unwrap();
        host.feed(&guest.pending_output()[..57]).unwrap();
        assert_eq!(host.feed(&bytes), Err(ProtocolError::BadPosition { stream }), "{bytes:x?}");
    }
}

/// A mix of whole frames, half frames and noise.
fn rave() -> impl Strategy<Value = Vec<u8>> {
    let kind = prop_oneof![
        Just(0x03_u8),
        Just(0x04),
        Just(0x10),
        Just(0x11),
        Just(0x12),
        Just(0x20),
        Just(0x20),
        Just(0x21),
        Just(0x22),
        Just(0x23),
        Just(0x24),
        any::<u8>(),
    ];
    let body = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..40),
        (0..300_u64).prop_map(|n| n.to_le_bytes().to_vec()),
        (0..MAX_BODY_LEN).prop_map(|len| vec![b'7'; len]),
        Just(Vec::new()),
    ];
    let part = prop_oneof![
        8 => (kind, 0..5_u32, body).prop_map(|(kind, stream, body)| frame(kind, stream, &body)),
        1 => proptest::collection::vec(any::<u8>(), 0..40),
        1 => (0..100_usize).prop_map(|len| vec![0; len]),
    ];
    proptest::collection::vec(part, 0..60).prop_map(|parts| parts.concat())
}

/// Counts what the events hold that were taken and not consumed.
fn held(events: impl Iterator<Item = MuxEvent>) -> u64 {
    events
        .map(|event| match event {
            MuxEvent::Data { bytes, .. } => bytes.len() as u64,
            MuxEvent::Control(message) => message.len() as u64,
            _ => 0,
        })
        .sum()
}

proptest! {
    #[test]
    fn a_raving_guest_never_makes_the_host_panic_or_hoard(
        rave in rave(),
        chunk in 1..5000_usize,
    ) {
        let mut host = host(3);
        for bytes in rave.chunks(chunk) {
            if host.feed(bytes).is_err() {
                break;
            }
            prop_assert!(host.pending_output().len() < 1 << 20);
        }
        let held = held(std::iter::from_fn(|| host.next_event()));
        prop_assert!(held <= 3 * STREAM_WINDOW + CONTROL_WINDOW);
    }

    #[test]
    fn a_raving_host_never_makes_the_guest_panic(rave in rave(), met: bool, chunk in 1..5000_usize) {
        let mut world = World::new();
        if met {
            world.run_dry();
        }
        for bytes in rave.chunks(chunk) {
            // The guest waits for the next hello after an error, and bears all that comes before.
            let _ = world.guest.feed(bytes);
            while world.guest.next_event().is_some() {}
        }
        // An honest host gets through to it afterwards.
        world.host.attach(Nonce(77), Line::Used);
        while world.host.has_output() {
            let bytes = world.host.pending_output().to_vec();
            world.host.advance(bytes.len());
            let _ = world.guest.feed(&bytes);
        }
        prop_assert!(world.guest.has_output(), "the guest answers the hello");
    }
}
