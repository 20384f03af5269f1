// SPDX-License-Identifier: Apache-2.0
//! A guest that does what a test says, at the other end of a socket pair.

use std::io;

use hc_guest::{Events, Guest};
use hc_proto::message::{Answer, Call, Event, FromGuest, Reply, Request, Spawn};
use hc_proto::{GuestMux, MuxEvent, decode};
use tokio::io::Interest;
use tokio::net::UnixStream;

use crate::PATIENCE;

/// The guest's end of a line.
pub(crate) struct FakeGuest {
    pub(crate) line: UnixStream,
    pub(crate) mux: GuestMux,
}

/// A host and a guest that have met.
pub(crate) async fn pair() -> (Guest, Events, FakeGuest) {
    let (host, guest) = UnixStream::pair().unwrap();
    let mut guest = FakeGuest { line: guest, mux: GuestMux::new() };
    let welcome = async {
        assert!(matches!(guest.next().await, Some(MuxEvent::Ready { .. })));
        guest.flush().await;
    };
    let (connected, ()) = tokio::join!(Guest::connect(host, PATIENCE), welcome);
    let (handle, events) = connected.unwrap();
    (handle, events, guest)
}

impl FakeGuest {
    /// The next event, or `None` when the host closed the line. Writes whenever it can.
    pub(crate) async fn next(&mut self) -> Option<MuxEvent> {
        loop {
            if let Some(event) = self.mux.next_event() {
                return Some(event);
            }
            if !self.turn().await {
                return None;
            }
        }
    }

    /// The next request; skips what is not one.
    pub(crate) async fn next_request(&mut self) -> Option<Request> {
        loop {
            if let MuxEvent::Control(message) = self.next().await? {
                return Some(decode(&message).unwrap());
            }
        }
    }

    /// Waits for a process to be started, says it runs, and returns how.
    pub(crate) async fn accept_spawn(&mut self) -> Spawn {
        let Request { id, call: Call::Spawn(spawn) } = self.next_request().await.unwrap() else {
            panic!("expected a spawn");
        };
        self.reply(id);
        self.flush().await;
        *spawn
    }

    /// Answers a request with success.
    pub(crate) fn reply(&mut self, id: u64) {
        self.send(&FromGuest::Reply(Reply { id, result: Ok(Answer::Done) }));
    }

    pub(crate) fn tell(&mut self, event: Event) {
        self.send(&FromGuest::Event(event));
    }

    pub(crate) fn send(&mut self, message: &FromGuest) {
        self.mux.send_control(message).unwrap();
    }

    /// Writes everything that can be written.
    pub(crate) async fn flush(&mut self) {
        while self.mux.has_output() && self.turn().await {}
    }

    /// Reads or writes once; `false` at the end of the line.
    pub(crate) async fn turn(&mut self) -> bool {
        let mut interest = Interest::READABLE;
        if self.mux.has_output() {
            interest |= Interest::WRITABLE;
        }
        let ready = self.line.ready(interest).await.unwrap();
        if ready.is_writable() && self.mux.has_output() {
            match self.line.try_write(self.mux.pending_output()) {
                Ok(n) => self.mux.advance(n),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return false,
            }
        }
        if ready.is_readable() {
            let mut bytes = vec![0; 64 * 1024];
            match self.line.try_read(&mut bytes) {
                Ok(0) => return false,
                Ok(n) => self.mux.feed(&bytes[..n]).unwrap(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return false,
            }
        }
        true
    }
}
