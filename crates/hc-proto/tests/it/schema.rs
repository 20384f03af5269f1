// SPDX-License-Identifier: Apache-2.0
//! The wire format, frozen: what is written today must be read by every later version.
//!
//! `schema/v1.frames` is a conversation in which every kind of frame occurs; `schema/v1.messages`
//! holds every control message. A change of either file in a review is a change of the wire: it
//! needs a new version, unless it only adds what an old peer never sees. `UPDATE_EXPECT=1` rewrites
//! both.

mod samples;

use std::fmt::Write as _;

use expect_test::expect_file;
use hc_proto::message::{FromGuest, PathStat, Request};
use hc_proto::{Direction, GuestMux, HostMux, Line, Mux, Nonce, SessionId, decode};

use crate::schema::samples::{from_guest, path_stat, requests};

/// Writes down what each side says, frame by frame.
#[derive(Default)]
struct Transcript {
    text: String,
}

impl Transcript {
    fn note(&mut self, what: &str) {
        let _ = writeln!(self.text, "# {what}");
    }

    /// Carries everything that both sides have to say.
    fn settle(&mut self, host: &mut HostMux, guest: &mut GuestMux) {
        while host.has_output() || guest.has_output() {
            let bytes = self.take("host ", host);
            guest.feed(&bytes).unwrap();
            while guest.next_event().is_some() {}
            let bytes = self.take("guest", guest);
            host.feed(&bytes).unwrap();
            while host.next_event().is_some() {}
        }
    }

    fn take<S>(&mut self, who: &str, mux: &mut Mux<S>) -> Vec<u8> {
        let mut bytes = Vec::new();
        while mux.has_output() {
            let output = mux.pending_output().to_vec();
            mux.advance(output.len());
            bytes.extend(output);
        }
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            rest = self.frame(who, rest);
        }
        bytes
    }

    /// Writes the first frame of `bytes`, or the padding before it, and returns what follows.
    fn frame<'a>(&mut self, who: &str, bytes: &'a [u8]) -> &'a [u8] {
        let padding = bytes.iter().take_while(|byte| **byte == 0).count();
        if padding > 0 {
            let _ = writeln!(self.text, "{who} {padding} zeros");
            return &bytes[padding..];
        }
        let len = usize::from(bytes[1]) | usize::from(bytes[2]) << 8 | usize::from(bytes[3]) << 16;
        let (header, rest) = bytes.split_at(8);
        let (body, rest) = rest.split_at(len);
        let _ = writeln!(self.text, "{who} {} | {} | {}", hex(header), hex(body), hex(&rest[..1]));
        &rest[1..]
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[test]
fn frames_are_as_they_were() {
    let mut log = Transcript::default();
    let session = SessionId(0x0f0e_0d0c_0b0a_0908_0706_0504_0302_0100);
    let (mut host, mut guest) = (HostMux::new(session), GuestMux::new());

    log.note("a new session: hello, welcome");
    host.attach(Nonce(0x11), Line::Fresh);
    log.settle(&mut host, &mut guest);
    log.note("open, control and data; the guest acknowledges the messages with its answer");
    let stream = host.open(Direction::Both).unwrap();
    host.send_control(&"ask").unwrap();
    host.send_data(stream, b"question").unwrap();
    log.settle(&mut host, &mut guest);
    guest.consumed(stream, 8);
    guest.send_data(stream, b"answer").unwrap();
    guest.send_control(&"tell").unwrap();
    log.settle(&mut host, &mut guest);
    log.note("the ends of both directions, each acknowledged");
    host.consumed(stream, 6);
    host.send_eof(stream);
    guest.send_eof(stream);
    log.settle(&mut host, &mut guest);
    log.note("open and reset, answered");
    let stream = host.open(Direction::ToGuest).unwrap();
    host.reset(stream);
    log.settle(&mut host, &mut guest);
    log.note("another line: zeros, hello, welcome, positions of both sides");
    let stream = host.open(Direction::ToHost).unwrap();
    log.settle(&mut host, &mut guest);
    guest.send_data(stream, b"lost with the line").unwrap();
    guest.line_lost();
    host.attach(Nonce(0x22), Line::Used);
    log.settle(&mut host, &mut guest);
    log.note("another host: hello, welcome, positions of both sides");
    let mut host = HostMux::adopt(session);
    host.attach(Nonce(0x33), Line::Fresh);
    log.settle(&mut host, &mut guest);
    log.note("a session that is not there");
    let mut stranger = HostMux::adopt(SessionId(1));
    stranger.attach(Nonce(0x44), Line::Fresh);
    let bytes = log.take("host ", &mut stranger);
    guest.feed(&bytes).unwrap();
    log.take("guest", &mut guest);
    expect_file!["../../schema/v1.frames"].assert_eq(&log.text);
}

#[test]
fn a_message_longer_than_a_frame_goes_in_parts() {
    let session = SessionId(1);
    let (mut host, mut guest) = (HostMux::new(session), GuestMux::new());
    host.attach(Nonce(1), Line::Fresh);
    Transcript::default().settle(&mut host, &mut guest);
    host.send_control(&"x".repeat(70_000)).unwrap();
    let mut log = Transcript::default();
    log.settle(&mut host, &mut guest);
    let heads: Vec<&str> = log.text.lines().map(|line| &line[..22]).collect();
    let part = "host  1100800000000000";
    assert_eq!(heads, [part, part, "host  1072110000000000"]);
}

#[test]
fn messages_are_as_they_were() {
    let mut text = String::new();
    for request in requests() {
        let json = serde_json::to_string(&request).unwrap();
        assert_eq!(decode::<Request>(json.as_bytes()), Ok(request));
        let _ = writeln!(text, "host  {json}");
    }
    for message in from_guest() {
        let json = serde_json::to_string(&message).unwrap();
        assert_eq!(decode::<FromGuest>(json.as_bytes()), Ok(message));
        let _ = writeln!(text, "guest {json}");
    }
    let json = serde_json::to_string(&path_stat()).unwrap();
    assert_eq!(decode::<PathStat>(json.as_bytes()), Ok(path_stat()));
    let _ = writeln!(text, "stat  {json}");
    expect_file!["../../schema/v1.messages"].assert_eq(&text);
}

/// Each line of the file is read as it was written then, so a field that is taken away or renamed
/// fails here even if the samples change with it.
#[test]
fn messages_that_were_written_once_are_still_read() {
    for line in include_str!("../../schema/v1.messages").lines() {
        match line.split_at(6) {
            ("host  ", json) => drop(decode::<Request>(json.as_bytes()).unwrap()),
            ("guest ", json) => drop(decode::<FromGuest>(json.as_bytes()).unwrap()),
            ("stat  ", json) => drop(decode::<PathStat>(json.as_bytes()).unwrap()),
            _ => panic!("odd line: {line}"),
        }
    }
}
