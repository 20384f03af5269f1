// SPDX-License-Identifier: Apache-2.0
use proptest::prelude::*;

use super::*;

const NONCE: Nonce = Nonce(0x1234_5678_9abc_def0);

fn welcome(nonce: Nonce) -> Welcome {
    let session = SessionId(u128::MAX);
    Welcome { versions: [1, 0], verdict: Verdict::Accepted, session, nonce }
}

/// Feeds `bytes` in pieces of `chunk`, and returns the welcome and what is left behind it.
fn search(bytes: &[u8], chunk: usize) -> Option<(Welcome, Vec<u8>)> {
    let mut search = Search::new(NONCE);
    let mut rest = bytes;
    while !rest.is_empty() {
        let (mut piece, later) = rest.split_at(chunk.min(rest.len()));
        if let Some(welcome) = search.step(&mut piece).unwrap() {
            return Some((welcome, [piece, later].concat()));
        }
        rest = later;
    }
    None
}

#[test]
fn the_newest_common_version_is_chosen() {
    let table = [((1, 1), Some(1)), ((0, 9), Some(1)), ((2, 9), None), ((0, 0), None)];
    for ((min_version, max_version), expected) in table {
        let hello = Hello {
            min_version,
            max_version,
            mode: Attached::New,
            session: SessionId(1),
            nonce: NONCE,
        };
        assert_eq!(hello.common_version(), expected, "{min_version} to {max_version}");
    }
}

#[test]
fn a_welcome_to_another_hello_is_passed_over() {
    let bytes = [welcome(Nonce(1)).encode(), welcome(NONCE).encode(), b"rest".to_vec()].concat();
    assert_eq!(search(&bytes, 7), Some((welcome(NONCE), b"rest".to_vec())));
}

proptest! {
    /// Also behind noise that looks like the beginning of a welcome.
    #[test]
    fn a_welcome_is_found_behind_anything(
        noise in proptest::collection::vec(any::<u8>(), 0..200),
        cut in 0..WELCOME_LEN,
        repeat in 0..4_usize,
        chunk in 1..100_usize,
    ) {
        let whole = welcome(NONCE).encode();
        let before = [noise, whole[..cut].repeat(repeat)].concat();
        let bytes = [before, whole, b"rest".to_vec()].concat();
        prop_assert_eq!(search(&bytes, chunk), Some((welcome(NONCE), b"rest".to_vec())));
    }
}
