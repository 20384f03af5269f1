// SPDX-License-Identifier: Apache-2.0
//! What an urgent frame waits for while others flood the line.

use hc_proto::limits::{MAX_BODY_LEN, OUTPUT_AHEAD};
use hc_proto::{Direction, Line, Mux, MuxEvent, Nonce};

use crate::world::World;

/// The most that can stand before an urgent frame: what is framed, the frame that went over the
/// limit, and one frame of a stream whose turn came first.
const AHEAD: usize = OUTPUT_AHEAD + 2 * (MAX_BODY_LEN + 16);

fn flooded() -> World {
    let mut world = World::new();
    world.run_dry();
    for _ in 0..10 {
        let flood = world.host.open(Direction::ToGuest).unwrap();
        assert_eq!(world.host.send_data(flood, &vec![7; 250_000]), Ok(250_000));
    }
    assert!(world.host.has_output());
    world
}

/// How many bytes go out until the guest has taken an event of the kind that `wanted` knows.
fn wait_for(world: &mut World, wanted: impl Fn(&MuxEvent) -> bool) -> usize {
    fn step<S>(mux: &mut Mux<S>) -> Vec<u8> {
        let bytes = mux.pending_output().iter().copied().take(512).collect::<Vec<u8>>();
        mux.advance(bytes.len());
        bytes
    }
    let mut written = 0;
    loop {
        let bytes = step(&mut world.host);
        assert!(!bytes.is_empty(), "everything is out and it never came");
        written += bytes.len();
        world.guest.feed(&bytes).unwrap();
        while let Some(event) = world.guest.next_event() {
            if wanted(&event) {
                return written;
            }
        }
    }
}

#[test]
fn a_message_overtakes_a_flood() {
    let mut world = flooded();
    world.host.send_control(&"urgent").unwrap();
    let waited = wait_for(&mut world, |event| matches!(event, MuxEvent::Control(_)));
    assert!(waited <= AHEAD, "waited for {waited} bytes");
}

#[test]
fn an_echo_waits_for_one_frame_and_not_for_one_of_each_flood() {
    let mut world = flooded();
    let echo = world.host.open(Direction::ToGuest).unwrap();
    for _ in 0..5 {
        world.host.send_data(echo, b"x").unwrap();
        let waited = wait_for(
            &mut world,
            |event| matches!(event, MuxEvent::Data { stream, .. } if *stream == echo),
        );
        assert!(waited <= AHEAD, "waited for {waited} bytes");
    }
}

#[test]
fn a_reset_overtakes_its_own_stream() {
    let mut world = flooded();
    world.host.reset(1);
    let waited = wait_for(&mut world, |event| *event == MuxEvent::Reset { stream: 1 });
    assert!(waited <= AHEAD, "waited for {waited} bytes");
}

/// Streams that always have a little to say do not starve those with much.
#[test]
fn floods_advance_beside_many_small_writers() {
    let mut world = flooded();
    let small = world.host.open(Direction::ToGuest).unwrap();
    let mut flood = 0;
    for _ in 0..40 {
        world.host.send_data(small, &[1; 2000]).unwrap();
        let bytes = world.host.pending_output().to_vec();
        world.host.advance(bytes.len());
        world.guest.feed(&bytes).unwrap();
        while let Some(event) = world.guest.next_event() {
            if let MuxEvent::Data { stream, bytes } = event {
                world.guest.consumed(stream, bytes.len());
                flood += if stream == small { 0 } else { bytes.len() };
            }
        }
    }
    assert!(flood >= 20 * 2000, "only {flood} bytes of the floods came through");
}

#[test]
fn a_fresh_line_costs_one_small_frame() {
    let mut host = hc_proto::HostMux::new(crate::world::SESSION);
    host.attach(Nonce(1), Line::Fresh);
    assert_eq!(host.pending_output().len(), 57);
}
