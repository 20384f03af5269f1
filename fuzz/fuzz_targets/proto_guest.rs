// SPDX-License-Identifier: Apache-2.0
//! A host that says anything to a guest. The guest trusts its host, but a damaged line must not
//! bring it down: it is PID 1. Whatever came before, an honest host gets through to it.
//!
//! The input is pieces, each a byte that says what follows: raw bytes, or the parts of a frame, or
//! of a hello.
#![no_main]

use hc_proto::message::Request;
use hc_proto::{GuestMux, HostMux, Line, MuxEvent, Nonce, SessionId, decode};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| run(input));

fn run(mut input: &[u8]) {
    let mut guest = GuestMux::new();
    while let Some(bytes) = next_piece(&mut input) {
        let _ = guest.feed(&bytes);
        while let Some(event) = guest.next_event() {
            answer(&mut guest, event);
        }
        while guest.has_output() {
            let n = guest.pending_output().len();
            guest.advance(n.div_ceil(2));
        }
    }
    let mut host = HostMux::new(SessionId(99));
    host.attach(Nonce(99), Line::Used);
    while host.has_output() {
        let bytes = host.pending_output().to_vec();
        host.advance(bytes.len());
        let _ = guest.feed(&bytes);
    }
    assert!(guest.is_ready(), "an honest host gets through");
}

/// Does what a guest would: echoes, consumes, and gives some streams up.
fn answer(guest: &mut GuestMux, event: MuxEvent) {
    match event {
        MuxEvent::Data { stream, bytes } => {
            let _ = guest.send_data(stream, &bytes);
            guest.consumed(stream, bytes.len());
        }
        MuxEvent::Eof { stream } => guest.send_eof(stream),
        MuxEvent::Control(message) => {
            let _ = guest.send_control(&decode::<Request>(&message).is_ok());
        }
        MuxEvent::Opened { stream, .. } if stream % 4 == 0 => guest.reset(stream),
        MuxEvent::Ready { .. }
        | MuxEvent::Opened { .. }
        | MuxEvent::Reset { .. }
        | MuxEvent::Writable { .. } => {}
    }
}

/// The next bytes for the line: raw, a hello of some mode, or a frame of kind, stream and body.
fn next_piece(input: &mut &[u8]) -> Option<Vec<u8>> {
    let (&[kind, stream, len], rest) = input.split_first_chunk()?;
    if kind == 1 {
        *input = rest;
        return Some(hello(stream, len));
    }
    let (body, rest) = rest.split_at(usize::from(len).min(rest.len()));
    *input = rest;
    if kind == 0 {
        return Some(body.to_vec());
    }
    let mut frame = vec![kind, body.len() as u8, 0, 0, stream, 0, 0, 0];
    frame.extend_from_slice(body);
    frame.push(0xA5);
    Some(frame)
}

/// A whole hello: new, resuming or adopting.
fn hello(mode: u8, session: u8) -> Vec<u8> {
    let mut frame = vec![1, 48, 0, 0, 0, 0, 0, 0];
    frame.extend_from_slice(b"hypermux");
    frame.extend_from_slice(&[1, 0, 1, 0, mode % 4, 0, 0, 0]);
    frame.extend_from_slice(&u128::from(session % 2).to_le_bytes());
    frame.extend_from_slice(&7_u128.to_le_bytes());
    frame.push(0xA5);
    frame
}
