// SPDX-License-Identifier: Apache-2.0
//! Bodies of requests: nothing, JSON, or bytes that a thread reads from a file or pipe.

use std::io::{self, Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use serde::Serialize;
use tokio::sync::mpsc;

/// Bytes read at once. Pipes give 64 KiB at most; files are read with fewer calls.
const CHUNK: usize = 256 * 1024;
/// Chunks that wait for the connection.
const QUEUE: usize = 4;

/// The body of a request.
pub(crate) enum Body {
    /// All of it is there.
    Whole(Option<Bytes>),
    /// It comes as it is read.
    Stream(mpsc::Receiver<io::Result<Bytes>>),
}

impl Body {
    pub(crate) fn empty() -> Body {
        Body::Whole(None)
    }

    pub(crate) fn json(value: &impl Serialize) -> Body {
        // API types hold strings, numbers, lists and maps with string keys.
        let bytes = serde_json::to_vec(value).expect("API types are JSON");
        Body::Whole(Some(bytes.into()))
    }

    pub(crate) fn content_type(&self) -> &'static str {
        match self {
            Body::Whole(_) => "application/json",
            Body::Stream(_) => "application/x-tar",
        }
    }
}

/// A body of everything that `source` gives.
pub(crate) fn upload(mut source: impl Read + Send + 'static) -> Body {
    produce(move |out| {
        let mut buffer = vec![0; CHUNK];
        loop {
            match source.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(length) => out.send(Bytes::copy_from_slice(&buffer[..length]))?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    })
}

/// Where a producer puts its bytes.
pub(crate) struct Sink(mpsc::Sender<io::Result<Bytes>>);

impl Sink {
    /// Hands bytes over; fails when nobody wants more.
    pub(crate) fn send(&self, bytes: Bytes) -> io::Result<()> {
        self.0.blocking_send(Ok(bytes)).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Write for &Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.send(Bytes::copy_from_slice(bytes))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A body that `produce` writes, on a thread of its own because files and pipes block.
pub(crate) fn produce(produce: impl FnOnce(&Sink) -> io::Result<()> + Send + 'static) -> Body {
    let (sender, receiver) = mpsc::channel(QUEUE);
    std::thread::spawn(move || {
        let sink = Sink(sender);
        if let Err(error) = produce(&sink) {
            // An error breaks the upload off, so that half an archive is not taken for a whole one.
            let _ = sink.0.blocking_send(Err(error));
        }
    });
    Body::Stream(receiver)
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match self.get_mut() {
            Body::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Body::Stream(receiver) => {
                let next = ready!(receiver.poll_recv(context));
                Poll::Ready(next.map(|bytes| bytes.map(Frame::data)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Body::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Body::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Body::Stream(_) => SizeHint::default(),
        }
    }
}
