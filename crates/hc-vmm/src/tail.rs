// SPDX-License-Identifier: Apache-2.0
//! The end of an endless text, kept for the moment in which somebody asks for last words.

use std::collections::VecDeque;

/// Keeps the last bytes of what it is fed and gives them back as text that is safe to print.
///
/// The text may come from a guest, so it comes out bounded and without control characters: it ends
/// up in terminals and logs.
#[derive(Clone, Debug, Default)]
pub struct Tail {
    bytes: VecDeque<u8>,
}

impl Tail {
    /// Room for a kernel's whole report of a panic, stack trace and registers included.
    pub const CAPACITY: usize = 8 << 10;

    /// Takes the next bytes and forgets the oldest ones beyond [`Tail::CAPACITY`].
    pub fn feed(&mut self, bytes: &[u8]) {
        let bytes = &bytes[bytes.len().saturating_sub(Self::CAPACITY)..];
        let surplus = (self.bytes.len() + bytes.len()).saturating_sub(Self::CAPACITY);
        self.bytes.drain(..surplus);
        self.bytes.extend(bytes);
    }

    /// The text so far: valid UTF-8, of control characters only newlines, no blank ends.
    #[must_use]
    pub fn text(&self) -> String {
        let bytes: Vec<u8> = self.bytes.iter().copied().collect();
        let printable = String::from_utf8_lossy(&bytes)
            .chars()
            .filter(|&c| c == '\n' || c == '\t' || !c.is_control())
            .map(|c| if c == '\t' { ' ' } else { c })
            .collect::<String>();
        printable.trim().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `chunks` and compares the text that is left.
    #[track_caller]
    fn check(chunks: &[&[u8]], expected: &str) {
        let mut tail = Tail::default();
        for chunk in chunks {
            tail.feed(chunk);
        }
        assert_eq!(tail.text(), expected);
    }

    #[test]
    fn chunks_are_joined_and_trimmed() {
        check(&[b"\r\nhello ", b"world\r\n", b"bye\n\n"], "hello world\nbye");
    }

    #[test]
    fn terminal_controls_do_not_get_through() {
        check(&[b"a\x1b[31mb\x07\x00\tc\xff"], "a[31mb c\u{fffd}");
    }

    #[test]
    fn only_the_end_is_kept() {
        let most = "b".repeat(Tail::CAPACITY - 1);
        check(&[b"aaaa", most.as_bytes()], &format!("a{most}"));
        let more = "b".repeat(3 * Tail::CAPACITY);
        check(&[b"a", more.as_bytes()], &more[..Tail::CAPACITY]);
    }

    #[test]
    fn a_character_cut_in_half_stays_valid_text() {
        let mut tail = Tail::default();
        tail.feed("é".repeat(Tail::CAPACITY).as_bytes());
        tail.feed(b"x");
        assert!(tail.text().ends_with("éx"));
        assert!(tail.text().starts_with('\u{fffd}'));
    }
}
