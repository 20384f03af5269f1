// SPDX-License-Identifier: Apache-2.0
//! Whatever two honest sides do, in whatever order, and wherever the line is cut: every byte and
//! every message arrives once and in order, and nothing gets stuck.

use hc_proto::Direction;
use hc_proto::limits::MAX_MESSAGE_LEN;
use proptest::prelude::*;

use crate::world::{Side, World};

/// Something that one side or the line does. Streams are picked by a number that is taken modulo
/// those that exist.
#[derive(Clone, Debug)]
enum Step {
    Open(Direction),
    Write { side: Side, stream: usize, len: usize, owned: bool },
    End { side: Side, stream: usize },
    Reset { side: Side, stream: usize },
    Tell { side: Side, len: usize },
    Carry { side: Side, len: usize },
    Deliver { side: Side, len: usize },
    Take { side: Side, count: usize },
    Consume { side: Side, stream: usize, all: bool },
    FlushAcks,
    Cut { keep: [usize; 2], guest_notices: bool },
}

fn side() -> impl Strategy<Value = Side> {
    prop_oneof![Just(Side::Host), Just(Side::Guest)]
}

fn direction() -> impl Strategy<Value = Direction> {
    prop_oneof![Just(Direction::ToGuest), Just(Direction::ToHost), Just(Direction::Both)]
}

/// Lengths around the borders that matter: nothing, a byte, a header, a copy, a frame, a window.
fn len() -> impl Strategy<Value = usize> {
    prop_oneof![
        0..20_usize,
        1000..1050_usize,
        4000..5000_usize,
        32_700..33_000_usize,
        Just(300_000)
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let stream = 0..8_usize;
    prop_oneof![
        2 => direction().prop_map(Step::Open),
        6 => (side(), stream.clone(), len(), any::<bool>())
            .prop_map(|(side, stream, len, owned)| Step::Write { side, stream, len, owned }),
        1 => (side(), stream.clone()).prop_map(|(side, stream)| Step::End { side, stream }),
        1 => (side(), stream.clone()).prop_map(|(side, stream)| Step::Reset { side, stream }),
        2 => (side(), len()).prop_map(|(side, len)| Step::Tell { side, len }),
        6 => (side(), len()).prop_map(|(side, len)| Step::Carry { side, len }),
        6 => (side(), len()).prop_map(|(side, len)| Step::Deliver { side, len }),
        6 => (side(), 0..20_usize).prop_map(|(side, count)| Step::Take { side, count }),
        4 => (side(), stream, any::<bool>())
            .prop_map(|(side, stream, all)| Step::Consume { side, stream, all }),
        1 => Just(Step::FlushAcks),
        1 => ([len(), len()], any::<bool>())
            .prop_map(|(keep, guest_notices)| Step::Cut { keep, guest_notices }),
    ]
}

fn run(world: &mut World, step: &Step) {
    let streams = world.streams();
    let pick = |n: usize| streams.get(n % streams.len().max(1)).copied().unwrap_or(1);
    match *step {
        Step::Open(direction) => {
            world.open(direction);
        }
        Step::Write { side, stream, len, owned } => world.write(side, pick(stream), len, owned),
        Step::End { side, stream } => world.end(side, pick(stream)),
        Step::Reset { side, stream } => world.reset(side, pick(stream)),
        Step::Tell { side, len } => world.tell(side, len),
        Step::Carry { side, len } => {
            world.carry(side, len);
        }
        Step::Deliver { side, len } => {
            world.deliver(side, len);
        }
        Step::Take { side, count } => {
            world.take(side, count);
        }
        Step::Consume { side, stream, all } => {
            world.consume(side, pick(stream), all);
        }
        Step::FlushAcks => {
            world.host.flush_acks();
            world.guest.flush_acks();
        }
        Step::Cut { keep, guest_notices } => world.cut(keep, guest_notices),
    }
}

proptest! {
    #[test]
    fn everything_arrives_once_and_in_order(
        met in any::<bool>(),
        steps in proptest::collection::vec(step(), 0..150),
    ) {
        let mut world = World::new();
        if met {
            world.run_dry();
        }
        for step in &steps {
            run(&mut world, step);
        }
        world.settle();
    }
}

/// A conversation that has a bit of everything, cut once at each byte of what the host says.
#[test]
fn a_cut_at_any_byte_towards_the_guest_loses_nothing() {
    cut_everywhere(Side::Host);
}

#[test]
fn a_cut_at_any_byte_towards_the_host_loses_nothing() {
    cut_everywhere(Side::Guest);
}

fn cut_everywhere(side: Side) {
    for cut_at in 0.. {
        let mut world = World::new();
        world.run_dry();
        talk(&mut world);
        // Both sides talk bit by bit; the line fails when `side` has said `cut_at` bytes.
        let mut said = 0;
        while said < cut_at && world.carry(side, 1) {
            said += 1;
            world.deliver(side.other(), 1);
            world.take(side.other(), usize::MAX);
            for stream in world.streams() {
                world.consume(side.other(), stream, true);
            }
            world.carry(side.other(), 7);
            world.deliver(side, 3);
            world.take(side, usize::MAX);
        }
        if said < cut_at {
            assert!(cut_at > 200, "the conversation is too short to mean anything");
            return;
        }
        world.cut([usize::MAX; 2], false);
        world.settle();
    }
}

fn talk(world: &mut World) {
    let both = world.open(Direction::Both).unwrap();
    let out = world.open(Direction::ToHost).unwrap();
    world.tell(Side::Host, 40);
    world.write(Side::Host, both, 90, false);
    world.run_dry();
    world.write(Side::Guest, both, 70, false);
    world.write(Side::Guest, out, 50, false);
    world.tell(Side::Guest, 30);
    world.end(Side::Guest, out);
    let given_up = world.open(Direction::Both).unwrap();
    world.write(Side::Host, given_up, 60, false);
    world.reset(Side::Host, given_up);
    world.tell(Side::Host, 20);
    world.write(Side::Host, both, 140, false);
    world.end(Side::Host, both);
    world.write(Side::Guest, both, 110, false);
}

/// A message longer than a frame goes out in parts, and a cut between them repeats no part.
#[test]
fn a_long_message_survives_a_cut_in_the_middle() {
    let mut world = World::new();
    world.run_dry();
    world.tell(Side::Host, MAX_MESSAGE_LEN - 100);
    world.tell(Side::Host, 5);
    world.carry(Side::Host, 300_000);
    world.deliver(Side::Guest, 250_000);
    world.cut([0, 20_000], false);
    world.settle();
}

/// Many lines fail one after the other, also in the middle of the handshakes.
#[test]
fn cuts_during_the_handshake_are_harmless() {
    let mut world = World::new();
    world.run_dry();
    talk(&mut world);
    for len in (0..40_000).step_by(37) {
        world.carry(Side::Host, len);
        world.deliver(Side::Guest, len);
        world.carry(Side::Guest, len / 50);
        world.deliver(Side::Host, len / 60);
        world.cut([len / 70, len / 3], len % 2 == 0);
    }
    world.settle();
}
