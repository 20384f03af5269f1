// SPDX-License-Identifier: Apache-2.0
use super::*;

/// Carries everything that both sides have to say until they fall silent.
fn settle(host: &mut HostMux, guest: &mut GuestMux) {
    while host.has_output() || guest.has_output() {
        let bytes = host.pending_output().to_vec();
        host.advance(bytes.len());
        guest.feed(&bytes).unwrap();
        let bytes = guest.pending_output().to_vec();
        guest.advance(bytes.len());
        host.feed(&bytes).unwrap();
    }
}

fn events<S>(mux: &mut Mux<S>) -> Vec<MuxEvent> {
    std::iter::from_fn(|| mux.next_event()).collect()
}

/// Two sides that have met.
fn pair() -> (HostMux, GuestMux) {
    let mut host = HostMux::new(SessionId(7));
    let mut guest = GuestMux::new();
    host.attach(Nonce(1), Line::Fresh);
    settle(&mut host, &mut guest);
    let ready = [MuxEvent::Ready { version: 1, attached: Attached::New }];
    assert_eq!(events(&mut host), ready);
    assert_eq!(events(&mut guest), ready);
    (host, guest)
}

#[test]
fn bytes_and_ends_arrive_in_both_directions() {
    let (mut host, mut guest) = pair();
    let stream = host.open(Direction::Both).unwrap();
    host.send_control(&"hello").unwrap();
    assert_eq!(host.send_data(stream, b"to the guest"), Ok(12));
    host.send_eof(stream);
    settle(&mut host, &mut guest);

    assert_eq!(
        events(&mut guest),
        [
            MuxEvent::Opened { stream, direction: Direction::Both },
            MuxEvent::Control(b"\"hello\"".to_vec()),
            MuxEvent::Data { stream, bytes: b"to the guest".to_vec() },
            MuxEvent::Eof { stream },
        ]
    );
    guest.consumed(stream, 12);
    assert_eq!(guest.send_data(stream, b"to the host"), Ok(11));
    guest.send_eof(stream);
    settle(&mut host, &mut guest);

    assert_eq!(
        events(&mut host),
        [MuxEvent::Data { stream, bytes: b"to the host".to_vec() }, MuxEvent::Eof { stream },]
    );
    host.consumed(stream, 11);
    settle(&mut host, &mut guest);
    assert!(!host.is_open(stream) && !guest.is_open(stream));
}
