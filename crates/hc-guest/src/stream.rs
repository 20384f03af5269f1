// SPDX-License-Identifier: Apache-2.0
//! Streams of a process as `AsyncRead` and `AsyncWrite`.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hc_proto::message::StreamId;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::shared::{Handle, Inbox, StreamEnd};

/// The host's end of a stream that the guest writes, such as standard output.
///
/// What is not read stays in the guest but for one window, and stops the writer there. Dropped
/// before its end, it gives the stream up, which the writer sees as a closed pipe.
#[derive(Debug)]
pub struct StreamReader {
    handle: Arc<Handle>,
    id: StreamId,
    /// Bytes that somebody has read before us.
    known: u64,
}

impl StreamReader {
    pub(crate) fn new(handle: Arc<Handle>, id: StreamId) -> StreamReader {
        handle.shared().lock().inboxes.insert(id, Inbox::default());
        StreamReader { handle, id, known: 0 }
    }

    /// Leaves out what comes before `position`, where the stream is behind that still.
    pub(crate) fn skip_to(&mut self, position: u64) {
        let now = self.handle.shared().lock().mux.position(self.id);
        self.known = now.map_or(0, |now| position.saturating_sub(now));
    }

    pub(crate) fn id(&self) -> StreamId {
        self.id
    }

    /// Whether anything may still be read.
    pub(crate) fn is_open(&self) -> bool {
        self.handle.shared().lock().mux.is_open(self.id)
    }

    /// Takes the next bytes as they came, without a copy; `None` at the end.
    pub async fn next_chunk(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            let chunk = std::future::poll_fn(|cx| self.poll_take(cx, Inbox::take_chunk)).await?;
            let Some(mut chunk) = chunk else { return Ok(None) };
            let known = usize::try_from(self.known).map_or(chunk.len(), |k| k.min(chunk.len()));
            self.known -= known as u64;
            if known < chunk.len() {
                chunk.drain(..known);
                return Ok(Some(chunk));
            }
        }
    }

    /// Takes bytes in the way of `take`, and tells the guest that it may send as many more.
    fn poll_take<T: AsRef<[u8]>>(
        &self,
        cx: &mut Context<'_>,
        take: impl FnOnce(&mut Inbox) -> Option<T>,
    ) -> Poll<io::Result<Option<T>>> {
        let mut guard = self.handle.shared().lock();
        let state = &mut *guard;
        let Some(inbox) = state.inboxes.get_mut(&self.id) else { return Poll::Ready(Ok(None)) };
        if let Some(taken) = take(inbox) {
            state.mux.consumed(self.id, taken.as_ref().len());
            state.wake_if_output();
            return Poll::Ready(Ok(Some(taken)));
        }
        match (inbox.end, &state.ended) {
            (Some(StreamEnd::Eof), _) => Poll::Ready(Ok(None)),
            (Some(StreamEnd::Reset), _) => Poll::Ready(Err(reset())),
            (None, Some(error)) => Poll::Ready(Err(error.clone().into())),
            (None, None) => {
                inbox.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl AsyncRead for StreamReader {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        debug_assert_eq!(self.known, 0, "an adopted stream is read by chunks");
        let start = buffer.filled().len();
        let taken = self.poll_take(cx, |inbox| {
            inbox.read_into(buffer);
            let new = &buffer.filled()[start..];
            (!new.is_empty()).then_some(new)
        });
        taken.map_ok(|_| ())
    }
}

impl Drop for StreamReader {
    fn drop(&mut self) {
        let mut state = self.handle.shared().lock();
        let Some(inbox) = state.inboxes.remove(&self.id) else { return };
        if inbox.end.is_some() {
            state.mux.consumed(self.id, inbox.unread());
        } else {
            state.mux.reset(self.id);
        }
        state.wake_if_output();
    }
}

/// The host's end of a stream that the guest reads, such as standard input.
///
/// Writing waits when the reader does not read. [`shutdown`](tokio::io::AsyncWriteExt::shutdown) or
/// dropping it ends the stream; the reader still gets what was written before.
#[derive(Debug)]
pub struct StreamWriter {
    handle: Arc<Handle>,
    id: StreamId,
}

impl StreamWriter {
    pub(crate) fn new(handle: Arc<Handle>, id: StreamId) -> StreamWriter {
        handle.shared().lock().writers.insert(id, None);
        StreamWriter { handle, id }
    }

    pub(crate) fn id(&self) -> StreamId {
        self.id
    }

    /// Whether anything may still be written.
    pub(crate) fn is_open(&self) -> bool {
        self.handle.shared().lock().mux.send_space(self.id).is_ok()
    }

    /// Gives the stream up: the reader gets nothing more, not even what is under way.
    pub fn abort(self) {
        self.handle.shared().lock().mux.reset(self.id);
    }
}

impl AsyncWrite for StreamWriter {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.handle.shared().lock();
        if let Some(error) = &state.ended {
            return Poll::Ready(Err(error.clone().into()));
        }
        let accepted = state.mux.send_data(self.id, bytes).map_err(|_| reset())?;
        if accepted == 0 && !bytes.is_empty() {
            state.writers.insert(self.id, Some(cx.waker().clone()));
            return Poll::Pending;
        }
        state.wake_if_output();
        Poll::Ready(Ok(accepted))
    }

    /// Does nothing: what was written is on its way.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.handle.shared().lock();
        state.mux.send_eof(self.id);
        state.wake_if_output();
        Poll::Ready(Ok(()))
    }
}

impl Drop for StreamWriter {
    fn drop(&mut self) {
        let mut state = self.handle.shared().lock();
        state.writers.remove(&self.id);
        state.mux.send_eof(self.id);
        state.wake_if_output();
    }
}

fn reset() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "guest closed the stream")
}
