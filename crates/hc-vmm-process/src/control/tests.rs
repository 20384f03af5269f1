// SPDX-License-Identifier: Apache-2.0

use expect_test::{Expect, expect};
use proptest::prelude::*;

use super::*;

/// Feeds `chunks` one by one and compares what comes out after each.
fn check(chunks: &[&str], expected: Expect) {
    let mut decoder = Decoder::default();
    let mut log = String::new();
    for chunk in chunks {
        decoder.feed(chunk.as_bytes());
        loop {
            match decoder.next_message() {
                Ok(Some(message)) => log.extend([format!("{message:?}"), "\n".to_owned()]),
                Ok(None) => break log += "wait\n",
                Err(Garbled) => return expected.assert_eq(&format!("{log}garbled\n")),
            }
        }
    }
    expected.assert_eq(&log);
}

#[test]
fn a_session_as_it_comes() {
    check(
        &[
            "{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 22, \"minor\": 2, \"major\": 7}}, \"ca",
            "pabilities\": [\"oob\"]}}\r\n{\"return\": {}}\r\n",
            "{\"timestamp\": {\"seconds\": 1, \"microseconds\": 2}, \"event\": \"STOP\"}\r\n",
            "{\"error\": {\"class\": \"GenericError\", \"desc\": \"no\"}}\r\n\r\n",
            "{\"event\": \"SHUTDOWN\", \"data\": {\"guest\": true, \"reason\": \"guest-reset\"}}\r\n",
        ],
        expect![[r#"
            wait
            Other
            Done
            wait
            Progress("held")
            wait
            Failed("no")
            wait
            Shutdown(Shutdown { guest: true, reason: "guest-reset" })
            wait
        "#]],
    );
}

#[test]
fn what_is_no_message_is_garbled() {
    check(&["hello\n"], expect!["garbled\n"]);
    check(&["{}\n"], expect!["garbled\n"]);
    check(&["[]\n"], expect!["garbled\n"]);
    check(&["{\"event\": \"SHUTDOWN\", \"data\": {\"guest\": 1}}\n"], expect!["garbled\n"]);
}

#[test]
fn a_line_without_end_is_garbled() {
    let mut decoder = Decoder::default();
    decoder.feed(&vec![b' '; MAX_LINE_LEN]);
    assert_eq!(decoder.next_message(), Ok(None));
    decoder.feed(b"  ");
    assert_eq!(decoder.next_message(), Err(Garbled));
}

proptest! {
    #[test]
    fn no_bytes_are_too_strange(chunks: Vec<Vec<u8>>) {
        let mut decoder = Decoder::default();
        for chunk in chunks {
            decoder.feed(&chunk);
            while let Ok(Some(_)) = decoder.next_message() {}
        }
    }

    #[test]
    fn the_split_does_not_matter(at in 0usize..120) {
        let lines = "{\"return\": {}}\n{\"event\": \"STOP\"}\n{\"error\": {\"desc\": \"x\"}}\n";
        let (before, after) = lines.split_at(at.min(lines.len()));
        let mut decoder = Decoder::default();
        let mut messages = Vec::new();
        for part in [before, after] {
            decoder.feed(part.as_bytes());
            while let Some(message) = decoder.next_message().unwrap() {
                messages.push(message);
            }
        }
        prop_assert_eq!(messages, [Message::Done, Message::Progress(HELD.into()), Message::Failed("x".into())]);
    }
}
