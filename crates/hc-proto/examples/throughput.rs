// SPDX-License-Identifier: Apache-2.0
//! How fast the multiplexer alone is: two sides in one thread, and a line that copies nothing.
//!
//! `cargo run --release -p hc-proto --example throughput`
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement, run by hand")]

use std::hint::black_box;
#[expect(clippy::disallowed_types, reason = "the measurement has a clock; the crate has none")]
use std::time::Instant;

use hc_proto::{Direction, GuestMux, HostMux, Line, Mux, MuxEvent, Nonce, SessionId};

/// Bytes of each measurement.
const TOTAL: usize = 2 << 30;

fn main() {
    let block = vec![7; 64 * 1024];
    for (name, len) in [("64 KiB writes", 64 * 1024), ("4 KiB writes", 4096), ("80 B writes", 80)] {
        let total = TOTAL / if len < 1000 { 16 } else { 1 };
        measure(name, total, |mux, stream| mux.send_data(stream, &block[..len]).unwrap());
    }
    let piece = &block[..32 * 1024];
    measure("32 KiB writes, each handed over", TOTAL, |mux, stream| {
        let left = mux.send_owned(stream, piece.to_vec()).unwrap();
        piece.len() - left.len()
    });
}

/// Writes on one stream until `total` bytes were consumed at the other side.
#[expect(clippy::disallowed_types, reason = "the measurement has a clock; the crate has none")]
fn measure(name: &str, total: usize, mut write: impl FnMut(&mut GuestMux, u32) -> usize) {
    let (mut host, mut guest) = (HostMux::new(SessionId(1)), GuestMux::new());
    host.attach(Nonce(1), Line::Fresh);
    let stream = meet(&mut host, &mut guest);
    let start = Instant::now();
    let mut read = 0;
    while read < total {
        while write(&mut guest, stream) > 0 {}
        carry(&mut guest, |bytes| host.feed(bytes).unwrap());
        while let Some(event) = host.next_event() {
            if let MuxEvent::Data { stream, bytes } = event {
                read += black_box(bytes.as_slice()).len();
                host.consumed(stream, bytes.len());
            }
        }
        carry(&mut host, |bytes| guest.feed(bytes).unwrap());
    }
    let nanos = start.elapsed().as_nanos();
    println!("{name}: {} MB/s", read as u128 * 1000 / nanos);
}

fn meet(host: &mut HostMux, guest: &mut GuestMux) -> u32 {
    carry(host, |bytes| guest.feed(bytes).unwrap());
    carry(guest, |bytes| host.feed(bytes).unwrap());
    let stream = host.open(Direction::ToHost).unwrap();
    carry(host, |bytes| guest.feed(bytes).unwrap());
    stream
}

/// Hands everything that `from` has to say to `to`, as the slices of a vectored write.
fn carry<S>(from: &mut Mux<S>, mut to: impl FnMut(&[u8])) {
    loop {
        let piece = from.pending_output();
        if piece.is_empty() {
            return;
        }
        to(piece);
        let len = piece.len();
        from.advance(len);
    }
}
