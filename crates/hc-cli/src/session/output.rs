// SPDX-License-Identifier: Apache-2.0
//! Writes standard output and standard error on a thread, in the order in which they came.
//!
//! A thread, so that signals still get through while the reader of our output is slow.

use std::os::fd::BorrowedFd;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use tokio::sync::{mpsc, oneshot};

/// Chunks that wait to be written.
const QUEUE: usize = 8;
/// Bytes that make a chunk full. Frames are often small, and handing over each would cost more than
/// writing it.
const CHUNK: usize = 128 * 1024;

/// Nobody reads our standard output any more, or it cannot be written.
#[derive(Debug)]
pub(crate) struct Closed;

/// Which outputs are shown; what is not shown is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shown {
    pub(crate) stdout: bool,
    pub(crate) stderr: bool,
}

impl Shown {
    pub(crate) const ALL: Shown = Shown { stdout: true, stderr: true };
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stream {
    Stdout,
    Stderr,
}

/// Bytes for one of the streams.
struct Chunk {
    stream: Stream,
    bytes: Vec<u8>,
}

/// The way to the writing thread.
pub(crate) struct Output {
    shown: Shown,
    /// What has not been handed over yet.
    pending: Chunk,
    sender: mpsc::Sender<Chunk>,
    /// Resolves when all has been written, or could not be.
    done: oneshot::Receiver<Result<(), Closed>>,
}

impl Output {
    pub(crate) fn new(shown: Shown) -> Output {
        let (sender, mut receiver) = mpsc::channel::<Chunk>(QUEUE);
        let (done_sender, done) = oneshot::channel();
        std::thread::spawn(move || {
            while let Some(Chunk { stream, bytes }) = receiver.blocking_recv() {
                let written = match stream {
                    Stream::Stdout => write(rustix::stdio::stdout(), &bytes),
                    // Standard error that nobody reads must not end what standard output is for.
                    Stream::Stderr => write(rustix::stdio::stderr(), &bytes).or(Ok(())),
                };
                if written.is_err() {
                    let _ = done_sender.send(Err(Closed));
                    return;
                }
            }
            let _ = done_sender.send(Ok(()));
        });
        let pending = Chunk { stream: Stream::Stdout, bytes: Vec::new() };
        Output { shown, pending, sender, done }
    }

    /// Takes bytes of standard output; they are written after the next [`Output::flush`] at the
    /// latest.
    pub(crate) async fn stdout(&mut self, bytes: Vec<u8>) -> Result<(), Closed> {
        if self.shown.stdout { self.add(Stream::Stdout, bytes).await } else { Ok(()) }
    }

    /// Takes bytes of standard error, likewise.
    pub(crate) async fn stderr(&mut self, bytes: Vec<u8>) -> Result<(), Closed> {
        if self.shown.stderr { self.add(Stream::Stderr, bytes).await } else { Ok(()) }
    }

    async fn add(&mut self, stream: Stream, bytes: Vec<u8>) -> Result<(), Closed> {
        if self.pending.stream != stream || self.pending.bytes.len() >= CHUNK {
            self.flush().await?;
        }
        if self.pending.bytes.is_empty() {
            self.pending = Chunk { stream, bytes };
        } else {
            self.pending.bytes.extend_from_slice(&bytes);
        }
        Ok(())
    }

    /// Hands over what is pending; callers do so before they wait for more.
    pub(crate) async fn flush(&mut self) -> Result<(), Closed> {
        if self.pending.bytes.is_empty() {
            return Ok(());
        }
        let empty = Chunk { stream: self.pending.stream, bytes: Vec::new() };
        let chunk = std::mem::replace(&mut self.pending, empty);
        self.sender.send(chunk).await.map_err(|_| Closed)
    }

    /// Waits until all has been written.
    pub(crate) async fn finish(mut self) -> Result<(), Closed> {
        self.flush().await?;
        drop(self.sender);
        self.done.await.unwrap_or(Err(Closed))
    }
}

fn write(file: BorrowedFd<'_>, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match rustix::io::write(file, bytes) {
            Ok(length) => bytes = &bytes[length..],
            Err(Errno::INTR) => {}
            // Another program has made the shared terminal or pipe non-blocking.
            Err(Errno::AGAIN) => {
                poll(&mut [PollFd::new(&file, PollFlags::OUT)], None)?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
