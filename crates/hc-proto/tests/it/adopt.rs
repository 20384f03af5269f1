// SPDX-License-Identifier: Apache-2.0
//! A new host process takes over the session of one that is gone.

use hc_proto::{
    Attached, Direction, GuestMux, HostMux, Line, Mux, MuxEvent, Nonce, ProtocolError, SessionId,
};

use crate::world::SESSION;

fn settle(host: &mut HostMux, guest: &mut GuestMux) {
    while host.has_output() || guest.has_output() {
        carry(host, |bytes| guest.feed(bytes).unwrap());
        carry(guest, |bytes| host.feed(bytes).unwrap());
    }
}

fn carry<S>(from: &mut Mux<S>, mut to: impl FnMut(&[u8])) {
    while from.has_output() {
        let bytes = from.pending_output().to_vec();
        from.advance(bytes.len());
        to(&bytes);
    }
}

fn events<S>(mux: &mut Mux<S>) -> Vec<MuxEvent> {
    std::iter::from_fn(|| mux.next_event()).collect()
}

fn data(stream: u32, bytes: &[u8]) -> MuxEvent {
    MuxEvent::Data { stream, bytes: bytes.to_vec() }
}

/// Two sides in the middle of something: on stream 1 both wrote and the host consumed the half; on
/// stream 2 the host wrote and ended; stream 3 is the guest's.
fn busy_pair() -> (HostMux, GuestMux) {
    let mut host = HostMux::new(SESSION);
    let mut guest = GuestMux::new();
    host.attach(Nonce(1), Line::Fresh);
    settle(&mut host, &mut guest);
    let both = host.open(Direction::Both).unwrap();
    let input = host.open(Direction::ToGuest).unwrap();
    let output = host.open(Direction::ToHost).unwrap();
    assert_eq!([both, input, output], [1, 2, 3]);
    host.send_data(both, b"question").unwrap();
    host.send_data(input, b"all of it").unwrap();
    host.send_eof(input);
    settle(&mut host, &mut guest);
    events(&mut guest);
    guest.send_data(both, b"seen").unwrap();
    guest.send_control(&"seen").unwrap();
    settle(&mut host, &mut guest);
    events(&mut host);
    host.consumed(both, 4);
    host.flush_acks();
    settle(&mut host, &mut guest);
    guest.send_data(both, b"unseen").unwrap();
    guest.send_data(output, b"log").unwrap();
    guest.send_control(&"unseen").unwrap();
    (host, guest)
}

#[test]
fn the_new_host_gets_what_the_old_one_did_not_acknowledge() {
    let (mut old, mut guest) = busy_pair();
    // The old host still receives all of it, but is killed before it acknowledges anything.
    carry(&mut guest, |bytes| old.feed(bytes).unwrap());
    assert!(!events(&mut old).is_empty());
    drop(old);

    let mut host = HostMux::adopt(SESSION);
    host.attach(Nonce(2), Line::Used);
    settle(&mut host, &mut guest);
    let opened = |stream, direction| MuxEvent::Opened { stream, direction };
    let ready = MuxEvent::Ready { version: 1, attached: Attached::Adopted };
    assert_eq!(
        events(&mut host),
        [
            opened(1, Direction::Both),
            opened(2, Direction::ToGuest),
            opened(3, Direction::ToHost),
            ready.clone(),
            MuxEvent::Control(b"\"unseen\"".to_vec()),
            data(1, b"unseen"),
            data(3, b"log"),
        ]
    );
    assert_eq!(events(&mut guest), [ready]);
}

#[test]
fn the_new_host_goes_on_where_the_old_one_stopped() {
    let (old, mut guest) = busy_pair();
    drop(old);
    let mut host = HostMux::adopt(SESSION);
    host.attach(Nonce(2), Line::Used);
    settle(&mut host, &mut guest);
    events(&mut host);
    events(&mut guest);

    host.send_data(1, b" and answer").unwrap();
    assert!(host.send_data(2, b"more").is_err(), "its end was handed in by the old host");
    assert_eq!(host.open(Direction::Both), Ok(4), "numbers go on rising");
    settle(&mut host, &mut guest);
    let opened = MuxEvent::Opened { stream: 4, direction: Direction::Both };
    assert_eq!(events(&mut guest), [opened, data(1, b" and answer")]);

    // Everything ends as it would have ended with the old host.
    for (stream, n) in [(1, 8 + 11), (2, 9)] {
        guest.consumed(stream, n);
    }
    host.consumed(1, 6);
    host.consumed(3, 3);
    for stream in [1, 3, 4] {
        guest.send_eof(stream);
        host.send_eof(stream);
    }
    settle(&mut host, &mut guest);
    events(&mut guest);
    events(&mut host);
    settle(&mut host, &mut guest);
    assert!((1..=4).all(|stream| !guest.is_open(stream) && !host.is_open(stream)));
}

#[test]
fn an_adopted_session_survives_another_lost_line() {
    let (old, mut guest) = busy_pair();
    drop(old);
    let mut host = HostMux::adopt(SESSION);
    host.attach(Nonce(2), Line::Used);
    // The line fails when the host has just told its positions.
    carry(&mut host, |bytes| guest.feed(bytes).unwrap());
    carry(&mut guest, |bytes| host.feed(bytes).unwrap());
    assert!(host.is_ready() && !guest.is_ready());
    host.attach(Nonce(3), Line::Used);
    settle(&mut host, &mut guest);
    assert!(host.is_ready() && guest.is_ready());
    assert!(events(&mut host).contains(&data(1, b"unseen")));
}

#[test]
fn a_stream_that_the_guest_gave_up_is_not_adopted() {
    let (old, mut guest) = busy_pair();
    drop(old);
    guest.reset(1);
    let mut host = HostMux::adopt(SESSION);
    host.attach(Nonce(2), Line::Used);
    settle(&mut host, &mut guest);
    assert!(!host.is_open(1) && host.is_open(2));
    assert!(!guest.is_open(1));
    assert!(!events(&mut host).contains(&MuxEvent::Reset { stream: 1 }));
}

#[test]
fn a_session_that_the_guest_does_not_have_is_lost() {
    let (old, mut guest) = busy_pair();
    drop(old);
    let mut host = HostMux::adopt(SessionId(1));
    host.attach(Nonce(2), Line::Used);
    carry(&mut host, |bytes| guest.feed(bytes).unwrap());
    let output = guest.pending_output().to_vec();
    assert_eq!(host.feed(&output), Err(ProtocolError::SessionLost));
    // The guest keeps the session for its right owner.
    guest.advance(output.len());
    let mut host = HostMux::adopt(SESSION);
    host.attach(Nonce(3), Line::Used);
    settle(&mut host, &mut guest);
    assert!(host.is_ready());
}
