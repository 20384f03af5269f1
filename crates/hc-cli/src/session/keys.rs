// SPDX-License-Identifier: Apache-2.0
//! The keys that leave a process running: a sequence of bytes found in what is typed.

use crate::failure::{Failure, Result};

/// What is typed to leave: ctrl-p, ctrl-q unless the user says otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DetachKeys(Vec<u8>);

impl Default for DetachKeys {
    fn default() -> DetachKeys {
        DetachKeys(vec![0x10, 0x11])
    }
}

impl DetachKeys {
    /// Reads `ctrl-a,x`: keys parted by commas, each a character or `ctrl-` and one.
    pub(crate) fn parse(text: Option<&str>) -> Result<DetachKeys> {
        let Some(text) = text.filter(|text| !text.is_empty()) else {
            return Ok(DetachKeys::default());
        };
        let key = |key: &str| match (key.strip_prefix("ctrl-"), key.as_bytes()) {
            (Some(letter), _) => control(letter),
            (None, &[byte]) => Some(byte),
            _ => None,
        };
        text.split(',').map(key).collect::<Option<_>>().map(DetachKeys).ok_or_else(|| {
            Failure::argument(format!("--detach-keys {text:?} are no keys")).with_hint(
                "write them as ctrl-p,ctrl-q; after ctrl- goes a letter or one of @[\\]^_",
            )
        })
    }
}

fn control(letter: &str) -> Option<u8> {
    match letter.as_bytes() {
        [byte @ (b'a'..=b'z' | b'@' | b'['..=b'_')] => Some(byte & 0x1f),
        _ => None,
    }
}

/// Finds the keys in what is typed, however it is split, and lets everything else through.
///
/// What could be the beginning of the keys is held back until the next byte tells.
#[derive(Debug)]
pub(super) struct Filter {
    keys: Vec<u8>,
    held: Vec<u8>,
}

impl Filter {
    pub(super) fn new(keys: DetachKeys) -> Filter {
        Filter { keys: keys.0, held: Vec::new() }
    }

    /// Takes the next bytes, adds what is to be sent to `passed`, and says whether the keys came.
    /// What follows them is dropped.
    pub(super) fn feed(&mut self, typed: &[u8], passed: &mut Vec<u8>) -> bool {
        for byte in typed {
            self.held.push(*byte);
            while !self.keys.starts_with(&self.held) {
                passed.push(self.held.remove(0));
            }
            if self.held.len() == self.keys.len() {
                return true;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn keys_are_characters_and_controls() {
        let parse = |text| DetachKeys::parse(Some(text)).map(|keys| keys.0).ok();
        assert_eq!(parse("ctrl-p,ctrl-q"), Some(vec![16, 17]));
        assert_eq!(parse("a"), Some(vec![b'a']));
        assert_eq!(parse("ctrl-@,ctrl-[,ctrl-_,ctrl-\\,ctrl-]"), Some(vec![0, 27, 31, 28, 29]));
        assert_eq!(parse(""), Some(vec![16, 17]));
        for wrong in ["ctrl-", "ctrl-P", "ctrl-1", "ab", "a,", "ctrl-pp", "ä"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
        assert_eq!(DetachKeys::parse(None).unwrap(), DetachKeys(vec![16, 17]));
    }

    #[track_caller]
    fn check(keys: &[u8], typed: &[&[u8]], expected: (&[u8], bool)) {
        let mut filter = Filter::new(DetachKeys(keys.to_vec()));
        let mut passed = Vec::new();
        let found = typed.iter().any(|typed| filter.feed(typed, &mut passed));
        assert_eq!((passed.as_slice(), found), expected);
    }

    #[test]
    fn keys_are_found_across_reads_and_half_of_them_is_let_through() {
        check(b"pq", &[b"apqb"], (b"a", true));
        check(b"pq", &[b"ap", b"qb"], (b"a", true));
        check(b"pq", &[b"ap", b"x"], (b"apx", false));
        check(b"pq", &[b"pp"], (b"p", false));
        check(b"pq", &[b"ppq"], (b"p", true));
        check(b"ppq", &[b"pppq"], (b"p", true));
        check(b"a", &[b"xa"], (b"x", true));
    }

    proptest! {
        #[test]
        fn the_filter_finds_what_a_search_finds(
            keys in proptest::collection::vec(b'a'..=b'b', 1..4),
            typed in proptest::collection::vec(b'a'..=b'c', 0..40),
            cut in 0_usize..40,
        ) {
            let mut filter = Filter::new(DetachKeys(keys.clone()));
            let mut passed = Vec::new();
            let (first, second) = typed.split_at(cut.min(typed.len()));
            let found = filter.feed(first, &mut passed) || filter.feed(second, &mut passed);
            let place = typed.windows(keys.len()).position(|window| window == keys);
            prop_assert_eq!(found, place.is_some());
            if let Some(place) = place { prop_assert_eq!(&passed, &typed[..place]) } else {
                passed.extend_from_slice(&filter.held);
                prop_assert_eq!(&passed, &typed);
            }
        }
    }
}
