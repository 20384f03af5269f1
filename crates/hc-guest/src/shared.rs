// SPDX-License-Identifier: Apache-2.0
//! What the handles and the task on the line share.
//!
//! The state sits behind a lock that is held for one change of the state machine and never over an
//! `await`; so a reader takes bytes without a round trip through the task, and only the task ever
//! touches the line.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use hc_proto::message::{Answer, Event, Failure, FromGuest, Reply, StreamId};
use hc_proto::{Direction, HostMux, MuxEvent, ProtocolError, decode};
use tokio::io::ReadBuf;
use tokio::sync::{Notify, mpsc, oneshot};

use crate::error::Error;

/// Events that wait to be taken; one more ends the connection.
///
/// An honest guest tells of the end of processes and containers, which the host itself started. A
/// thousand of them untaken means a guest that floods us, or an owner that is gone.
pub const MAX_UNTAKEN_EVENTS: usize = 1024;

/// Shorter pieces of a stream are put together.
const GATHER_LEN: usize = 4 * 1024;

/// Held by each handle; the last one to go ends the connection.
#[derive(Debug)]
pub(crate) struct Handle {
    shared: Arc<Shared>,
}

impl Handle {
    pub(crate) fn new(shared: Arc<Shared>) -> Arc<Handle> {
        Arc::new(Handle { shared })
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.closing = true;
        state.wake_pump();
    }
}

/// The shared state and its lock.
#[derive(Debug)]
pub(crate) struct Shared {
    state: Mutex<State>,
    /// Wakes one caller when the control lane may have room; who finds room wakes the next.
    pub(crate) room: Notify,
    /// Told when the connection ends.
    pub(crate) over: Notify,
}

impl Shared {
    pub(crate) fn new(
        mux: HostMux,
        last_call: u64,
        events: mpsc::Sender<Event>,
        ready: oneshot::Sender<()>,
    ) -> Shared {
        let state = State {
            mux,
            pump: None,
            inboxes: HashMap::new(),
            writers: HashMap::new(),
            calls: HashMap::new(),
            last_call,
            events: Some(events),
            ready: Some(ready),
            ended: None,
            closing: false,
        };
        Shared { state: Mutex::new(state), room: Notify::new(), over: Notify::new() }
    }

    /// A panic elsewhere leaves the state usable: each change is complete before anything can panic.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the connection for every handle. Only the first reason counts.
    pub(crate) fn end(&self, error: Error) {
        self.lock().end(error);
        self.room.notify_waiters();
        self.over.notify_waiters();
    }
}

/// What arrived on a stream and was not read.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    chunks: VecDeque<Vec<u8>>,
    /// Bytes of the first chunk that were read.
    offset: usize,
    pub(crate) end: Option<StreamEnd>,
    pub(crate) waker: Option<Waker>,
}

impl Inbox {
    /// Adds what arrived; short pieces are put together, so that a guest which trickles single
    /// bytes costs no more than its window.
    pub(crate) fn push(&mut self, bytes: Vec<u8>) {
        match self.chunks.back_mut() {
            Some(last) if last.len() + bytes.len() <= GATHER_LEN => last.extend_from_slice(&bytes),
            _ => self.chunks.push_back(bytes),
        }
        wake(&mut self.waker);
    }

    /// Takes the first chunk, or what is left of it.
    pub(crate) fn take_chunk(&mut self) -> Option<Vec<u8>> {
        let mut chunk = self.chunks.pop_front()?;
        chunk.drain(..std::mem::take(&mut self.offset));
        Some(chunk)
    }

    /// Moves as many bytes as `buffer` has room for.
    pub(crate) fn read_into(&mut self, buffer: &mut ReadBuf<'_>) {
        while let Some(chunk) = self.chunks.front() {
            let rest = &chunk[self.offset..];
            let taken = rest.len().min(buffer.remaining());
            buffer.put_slice(&rest[..taken]);
            if taken < rest.len() {
                self.offset += taken;
                return;
            }
            self.offset = 0;
            self.chunks.pop_front();
        }
    }

    /// Bytes that were not read.
    pub(crate) fn unread(&self) -> usize {
        self.chunks.iter().map(Vec::len).sum::<usize>() - self.offset
    }
}

/// How a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StreamEnd {
    Eof,
    Reset,
}

/// Everything behind the lock.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) mux: HostMux,
    pub(crate) pump: Option<Waker>,
    pub(crate) inboxes: HashMap<StreamId, Inbox>,
    /// Writers that exist, each with the waker of one that waits for room.
    pub(crate) writers: HashMap<StreamId, Option<Waker>>,
    pub(crate) calls: HashMap<u64, oneshot::Sender<Result<Answer, Failure>>>,
    last_call: u64,
    events: Option<mpsc::Sender<Event>>,
    ready: Option<oneshot::Sender<()>>,
    pub(crate) ended: Option<Error>,
    pub(crate) closing: bool,
}

impl State {
    /// A number for the next call.
    pub(crate) fn next_call(&mut self) -> u64 {
        self.last_call += 1;
        self.last_call
    }

    /// Wakes the task on the line if it has something to write.
    pub(crate) fn wake_if_output(&mut self) {
        if self.mux.has_output() {
            self.wake_pump();
        }
    }

    fn wake_pump(&mut self) {
        if let Some(waker) = self.pump.take() {
            waker.wake();
        }
    }

    /// Takes bytes of the line and passes on what they mean.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.mux.feed(bytes).map_err(|source| Error::Protocol { source })?;
        while let Some(event) = self.mux.next_event() {
            self.pass_on(event)?;
        }
        Ok(())
    }

    fn pass_on(&mut self, event: MuxEvent) -> Result<(), Error> {
        match event {
            MuxEvent::Ready { .. } => {
                if let Some(ready) = self.ready.take() {
                    // A receiver that is gone gave up waiting; it ends the connection by itself.
                    let _ = ready.send(());
                }
            }
            MuxEvent::Control(message) => return self.pass_on_message(&message),
            MuxEvent::Data { stream, bytes } => {
                if let Some(inbox) = self.inboxes.get_mut(&stream) {
                    inbox.push(bytes);
                }
            }
            MuxEvent::Eof { stream } => self.end_stream(stream, StreamEnd::Eof),
            MuxEvent::Reset { stream } => self.end_stream(stream, StreamEnd::Reset),
            MuxEvent::Writable { stream } => {
                if let Some(waker) = self.writers.get_mut(&stream) {
                    wake(waker);
                }
            }
            // Only a session that is adopted has streams that we did not open.
            MuxEvent::Opened { stream, direction } => {
                let claimed = match direction {
                    Direction::ToGuest => self.writers.contains_key(&stream),
                    Direction::ToHost => self.inboxes.contains_key(&stream),
                    Direction::Both => false,
                };
                if !claimed {
                    self.mux.reset(stream);
                }
            }
        }
        Ok(())
    }

    fn pass_on_message(&mut self, message: &[u8]) -> Result<(), Error> {
        let message = decode(message).map_err(|source| Error::Protocol { source })?;
        match message {
            FromGuest::Reply(Reply { id, result }) => {
                // The answer to a call that timed out finds nobody, nor does one to no call.
                if let Some(call) = self.calls.remove(&id) {
                    let _ = call.send(result);
                }
                Ok(())
            }
            FromGuest::Event(event) => match self.events.as_ref().map(|tx| tx.try_send(event)) {
                Some(Err(mpsc::error::TrySendError::Full(_))) => Err(Error::Flooded),
                // An owner that dropped its end does not want to know.
                Some(Err(mpsc::error::TrySendError::Closed(_)) | Ok(())) | None => Ok(()),
            },
        }
    }

    fn end_stream(&mut self, stream: StreamId, end: StreamEnd) {
        if let Some(inbox) = self.inboxes.get_mut(&stream) {
            inbox.end = Some(end);
            wake(&mut inbox.waker);
        }
        if let Some(waker) = self.writers.get_mut(&stream) {
            wake(waker);
        }
    }

    fn end(&mut self, error: Error) {
        if self.ended.is_some() {
            return;
        }
        if let Error::Protocol { source: ProtocolError::BadMessage { reason } } = &error {
            tracing::debug!(reason, "guest sent a message that does not parse");
        }
        self.ended = Some(error);
        self.mux.line_lost();
        self.calls.clear();
        self.events = None;
        self.ready = None;
        self.inboxes.values_mut().for_each(|inbox| wake(&mut inbox.waker));
        self.writers.values_mut().for_each(wake);
    }
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn single_bytes_are_put_together_and_read_in_order() {
        let mut inbox = Inbox::default();
        let bytes: Vec<u8> = (0..=255).cycle().take(3 * GATHER_LEN).collect();
        for byte in &bytes {
            inbox.push(vec![*byte]);
        }
        assert_eq!(inbox.chunks.len(), 3);

        let mut part = vec![0; 100];
        let mut buffer = ReadBuf::new(&mut part);
        inbox.read_into(&mut buffer);
        assert_eq!(inbox.unread(), bytes.len() - 100);
        let rest: Vec<u8> = std::iter::from_fn(|| inbox.take_chunk()).flatten().collect();
        assert_eq!([part, rest].concat(), bytes);
    }
}
