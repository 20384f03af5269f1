// SPDX-License-Identifier: Apache-2.0
//! The task on the line: writes what the mux has to say, feeds it what arrives.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use crate::error::Error;
use crate::shared::Shared;

/// Bytes read from the line at once: two frames of the greatest length.
const READ_LEN: usize = 64 * 1024;

/// Pieces of one vectored write: more than the mux frames ahead.
const SLICES: usize = 16;

/// Turns of reading and writing before other tasks get a chance.
const TURNS: usize = 32;

/// How long acknowledgements that nobody waits for are held back for company. Long against the gap
/// between two lines of a busy log, short against a restart of the host.
const ACK_DELAY: Duration = Duration::from_millis(20);

/// Runs until the line ends, the guest breaks the protocol or no handle is left.
pub(crate) struct Pump<S> {
    shared: Arc<Shared>,
    line: S,
    buffer: Box<[u8]>,
    ack_timer: Option<Pin<Box<Sleep>>>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Pump<S> {
    pub(crate) fn new(shared: Arc<Shared>, line: S) -> Pump<S> {
        Pump { shared, line, buffer: vec![0; READ_LEN].into(), ack_timer: None }
    }

    /// One pass; `Ready` when the connection is over, with the reason.
    fn turn(&mut self, cx: &mut Context<'_>) -> Poll<Error> {
        for _ in 0..TURNS {
            let wrote = match self.write(cx) {
                Poll::Ready(Err(source)) => return Poll::Ready(line_error(source)),
                Poll::Ready(Ok(())) => true,
                Poll::Pending => false,
            };
            let read = match self.read(cx) {
                Poll::Ready(Err(error)) => return Poll::Ready(error),
                Poll::Ready(Ok(())) => true,
                Poll::Pending => false,
            };
            if self.shared.lock().closing {
                return Poll::Ready(Error::Closed);
            }
            if !wrote && !read {
                return self.wait(cx);
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Writes until the line is full (`Pending`) or nothing is left.
    ///
    /// `Ready` only if something was written.
    fn write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.shared.lock();
        let mut wrote = Poll::Pending;
        loop {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let filled = state.mux.pending_slices(&mut slices);
            if filled == 0 {
                return wrote;
            }
            match Pin::new(&mut self.line).poll_write_vectored(cx, &slices[..filled]) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(n)) => state.mux.advance(n),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return wrote,
            }
            wrote = Poll::Ready(Ok(()));
        }
    }

    /// Reads once; `Pending` when there is nothing to read.
    fn read(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let mut buffer = ReadBuf::new(&mut self.buffer);
        match Pin::new(&mut self.line).poll_read(cx, &mut buffer) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Err(source)) => return Poll::Ready(Err(line_error(source))),
            Poll::Ready(Ok(())) => {}
        }
        let bytes = buffer.filled();
        if bytes.is_empty() {
            return Poll::Ready(Err(Error::Closed));
        }
        let fed = self.shared.lock().feed(bytes);
        self.shared.room.notify_one();
        Poll::Ready(fed)
    }

    /// The line is idle: waits for it, for a handle, or for acknowledgements to become due.
    fn wait(&mut self, cx: &mut Context<'_>) -> Poll<Error> {
        let mut state = self.shared.lock();
        state.pump = Some(cx.waker().clone());
        if !state.mux.has_lazy_acks() {
            self.ack_timer = None;
            return Poll::Pending;
        }
        let timer = self.ack_timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(ACK_DELAY)));
        if timer.as_mut().poll(cx).is_ready() {
            self.ack_timer = None;
            state.mux.flush_acks();
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Future for Pump<S> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match self.turn(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(error) => {
                self.shared.end(error);
                Poll::Ready(())
            }
        }
    }
}

fn line_error(source: io::Error) -> Error {
    Error::Line { source: Arc::new(source) }
}
