// SPDX-License-Identifier: Apache-2.0

use super::*;
use crate::virtio::guest::Guest;

const LOOKUP: u32 = 1;
const FORGET: u32 = 2;

fn share() -> (Guest, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    (Guest::new(Share::new("folder", theirs).unwrap()), ours)
}

/// A request of this length that says it has another.
fn request(said: usize, operation: u32, number: u64, len: usize) -> Vec<u8> {
    let said = u32::try_from(said).unwrap();
    let mut bytes =
        [&said.to_le_bytes()[..], &operation.to_le_bytes(), &number.to_le_bytes()].concat();
    bytes.resize(len, 0xaa);
    bytes
}

fn answer(said: u32, number: u64, rest: &[u8]) -> Vec<u8> {
    [&said.to_le_bytes()[..], &[0; 4], &number.to_le_bytes(), rest].concat()
}

fn received(mut host: &UnixStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    // Fails where there is nothing more for now, and with what has come in the buffer.
    let _ = host.read_to_end(&mut bytes);
    bytes
}

#[test]
fn answers_find_their_requests() {
    let (mut guest, mut host) = share();
    let requests = [3, 4].map(|number| request(50, LOOKUP, number, 50));
    let first = guest.send(REQUESTS, &requests[0], 100);
    let second = guest.send(REQUESTS, &requests[1], 100);
    assert_eq!(received(&host), requests.concat());
    let answers = [answer(20, 4, b"four"), answer(21, 3, b"three")].concat();
    for part in answers.chunks(7) {
        host.write_all(part).unwrap();
        guest.wake_host();
    }
    assert_eq!((guest.answered(REQUESTS), guest.answered(REQUESTS)), (Some(20), Some(21)));
    assert_eq!(guest.memory_at(second + 16, 4), b"four");
    assert_eq!(guest.memory_at(first + 16, 5), b"three");
}

#[test]
fn lying_lengths_do_not_reach_the_server() {
    let (mut guest, host) = share();
    for (said, len) in [(0, 50), (49, 50), (51, 50), (39, 39), (0, 0), (u32::MAX as usize, 50)] {
        guest.send(REQUESTS, &request(said, LOOKUP, 1, len), 64);
        assert_eq!(guest.answered(REQUESTS), Some(0), "{said} {len}");
    }
    assert_eq!(received(&host), b"");
}

#[test]
fn number_is_used_once_at_a_time() {
    let (mut guest, host) = share();
    guest.send(REQUESTS, &request(40, LOOKUP, 1, 40), 64);
    guest.send(REQUESTS, &request(40, LOOKUP, 1, 40), 64);
    assert_eq!((guest.answered(REQUESTS), guest.answered(REQUESTS)), (Some(0), None));
    assert_eq!(received(&host).len(), 40);
}

#[test]
fn forgetting_has_no_answer() {
    let (mut guest, host) = share();
    assert_eq!(guest.ask(URGENT, &request(48, FORGET, 1, 48), 0), Some(Vec::new()));
    assert_eq!(received(&host).len(), 48);
}

#[test]
fn requests_without_an_answer_are_counted() {
    let (mut guest, mut host) = share();
    for number in 0..2 * MAX_WAITING as u64 {
        guest.send(REQUESTS, &request(40, LOOKUP, number, 40), 64);
    }
    assert_eq!(received(&host).len(), MAX_WAITING * 40);
    host.write_all(&answer(16, 0, &[])).unwrap();
    guest.wake_host();
    assert_eq!(guest.answered(REQUESTS), Some(16));
    assert_eq!(received(&host).len(), 40);
}

#[test]
fn server_that_lies_or_goes_fails_what_is_under_way() {
    for last_words in [answer(15, 1, &[]), answer(u32::MAX, 1, &[]), Vec::new()] {
        let (mut guest, mut host) = share();
        guest.send(REQUESTS, &request(40, LOOKUP, 1, 40), 64);
        host.write_all(&last_words).unwrap();
        drop(host);
        guest.wake_host();
        assert_eq!(guest.answered(REQUESTS), Some(0));
        // And what comes later.
        assert_eq!(guest.ask(REQUESTS, &request(40, LOOKUP, 2, 40), 64), Some(Vec::new()));
    }
}

#[test]
fn answer_nobody_waits_for_goes_nowhere() {
    let (mut guest, mut host) = share();
    guest.send(REQUESTS, &request(40, LOOKUP, 1, 40), 20);
    guest.start();
    host.write_all(&answer(16, 1, &[])).unwrap();
    host.write_all(&answer(16, 9, &[])).unwrap();
    guest.wake_host();
    assert_eq!(guest.answered(REQUESTS), None);
    // An answer that is longer than the guest has room for is cut.
    let at = guest.send(REQUESTS, &request(40, LOOKUP, 2, 40), 20);
    host.write_all(&answer(30, 2, &[5; 14])).unwrap();
    guest.wake_host();
    assert_eq!(guest.answered(REQUESTS), Some(20));
    assert_eq!(guest.memory_at(at + 16, 5), [5, 5, 5, 5, 0]);
}
