// SPDX-License-Identifier: Apache-2.0
//! A guest that says anything to a host. The host may refuse it once; it may not panic, and it may
//! not hold more than the windows of the streams that it opened itself.
//!
//! The first byte chooses how the host came to the line; the rest is pieces, each a byte that says
//! what follows: raw bytes, or the parts of a frame, so that the fuzzer need not find end marks.
#![no_main]

use hc_proto::limits::{CONTROL_WINDOW, STREAM_WINDOW, SYNC_LEN};
use hc_proto::message::{FromGuest, StreamId};
use hc_proto::{
    Direction, GuestMux, HostMux, Line, MuxEvent, Nonce, SessionId, decode,
};
use libfuzzer_sys::fuzz_target;

/// Streams that the host opens.
const STREAMS: u64 = 3;

fuzz_target!(|input: &[u8]| run(input));

fn run(input: &[u8]) {
    let Some((&mode, mut rest)) = input.split_first() else { return };
    let mut host = match mode % 3 {
        0 => searching(),
        1 => ready(),
        _ => adopting(),
    };
    let mut held = 0;
    let mut opened = 0;
    while let Some(bytes) = next_piece(&mut rest) {
        if host.feed(&bytes).is_err() {
            assert!(!host.has_output() && !host.is_ready());
            break;
        }
        while let Some(event) = host.next_event() {
            match event {
                MuxEvent::Data { stream, bytes } => held += consume_some(&mut host, stream, &bytes),
                MuxEvent::Control(message) => drop(decode::<FromGuest>(&message)),
                MuxEvent::Opened { .. } => opened += 1,
                _ => {}
            }
        }
        assert!(mode % 3 == 2 || opened == 0, "only a host that adopts learns of streams");
        assert!(held <= (STREAMS + opened) * STREAM_WINDOW + CONTROL_WINDOW);
        write(&mut host);
    }
}

/// Consumes what begins with an even byte; returns what is still held.
fn consume_some(host: &mut HostMux, stream: StreamId, bytes: &[u8]) -> u64 {
    if bytes[0].is_multiple_of(2) {
        host.consumed(stream, bytes.len());
        return 0;
    }
    bytes.len() as u64
}

/// Writes what the host has to say to nowhere.
fn write(host: &mut HostMux) {
    while host.has_output() {
        let n = host.pending_output().len();
        assert!(n <= 2 * SYNC_LEN + 200 * 1024, "{n} bytes framed ahead");
        host.advance(n);
    }
}

fn searching() -> HostMux {
    let mut host = HostMux::new(SessionId(1));
    host.attach(Nonce(1), Line::Fresh);
    host
}

/// A host that has met an honest guest, and opened streams of each kind.
fn ready() -> HostMux {
    let mut host = searching();
    let mut guest = GuestMux::new();
    meet(&mut host, &mut guest);
    for direction in [Direction::Both, Direction::ToHost, Direction::ToGuest] {
        let stream = host.open(direction).expect("there is room for three");
        let _ = host.send_data(stream, b"question");
    }
    write(&mut host);
    host
}

/// A host that waits for the positions of a session to adopt.
fn adopting() -> HostMux {
    let mut guest = GuestMux::new();
    meet(&mut searching(), &mut guest);
    let mut host = HostMux::adopt(SessionId(1));
    host.attach(Nonce(2), Line::Fresh);
    guest.feed(host.pending_output()).expect("a hello is welcome");
    let welcome = &guest.pending_output()[..57];
    host.feed(welcome).expect("so is its answer");
    write(&mut host);
    host
}

fn meet(host: &mut HostMux, guest: &mut GuestMux) {
    guest.feed(host.pending_output()).expect("a hello is welcome");
    write(host);
    host.feed(guest.pending_output()).expect("so is its answer");
    assert!(host.is_ready() && guest.is_ready());
}

/// The next bytes for the line: raw, or a frame of kind, stream and body.
fn next_piece(input: &mut &[u8]) -> Option<Vec<u8>> {
    let (&[kind, stream, len], rest) = input.split_first_chunk()?;
    let (body, rest) = rest.split_at(usize::from(len).min(rest.len()));
    *input = rest;
    if kind == 0 {
        return Some(body.to_vec());
    }
    // A body that ends in 0xff is long, so that windows can be filled.
    let repeat = if body.last() == Some(&0xff) { 100 } else { 1 };
    let body = body.repeat(repeat);
    let [l0, l1, l2, _] = (body.len() as u32).to_le_bytes();
    let mut frame = vec![kind, l0, l1, l2, stream, 0, 0, 0];
    frame.extend_from_slice(&body);
    frame.push(0xA5);
    Some(frame)
}
