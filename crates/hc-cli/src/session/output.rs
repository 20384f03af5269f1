// SPDX-License-Identifier: Apache-2.0
//! Writes standard output and standard error on a thread, in the order in which they came.
//!
//! A thread, so that signals still get through while the reader of our output is slow.

use std::os::fd::BorrowedFd;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use tokio::sync::{mpsc, oneshot};

/// Chunks that wait to be written; with the largest frames, 1 MiB.
const QUEUE: usize = 16;

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

enum Chunk {
    Stdout(Vec<u8>),
    Stderr(Vec<u8>),
}

/// The way to the writing thread.
pub(crate) struct Output {
    shown: Shown,
    sender: mpsc::Sender<Chunk>,
    /// Resolves when all has been written, or could not be.
    done: oneshot::Receiver<Result<(), Closed>>,
}

impl Output {
    pub(crate) fn new(shown: Shown) -> Output {
        let (sender, mut receiver) = mpsc::channel(QUEUE);
        let (done_sender, done) = oneshot::channel();
        std::thread::spawn(move || {
            while let Some(chunk) = receiver.blocking_recv() {
                let written = match chunk {
                    Chunk::Stdout(bytes) => write(rustix::stdio::stdout(), &bytes),
                    // Standard error that nobody reads must not end what standard output is for.
                    Chunk::Stderr(bytes) => write(rustix::stdio::stderr(), &bytes).or(Ok(())),
                };
                if written.is_err() {
                    let _ = done_sender.send(Err(Closed));
                    return;
                }
            }
            let _ = done_sender.send(Ok(()));
        });
        Output { shown, sender, done }
    }

    pub(crate) async fn stdout(&self, bytes: Vec<u8>) -> Result<(), Closed> {
        if !self.shown.stdout {
            return Ok(());
        }
        self.sender.send(Chunk::Stdout(bytes)).await.map_err(|_| Closed)
    }

    pub(crate) async fn stderr(&self, bytes: Vec<u8>) -> Result<(), Closed> {
        if !self.shown.stderr {
            return Ok(());
        }
        self.sender.send(Chunk::Stderr(bytes)).await.map_err(|_| Closed)
    }

    /// Waits until all has been written.
    pub(crate) async fn finish(self) -> Result<(), Closed> {
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
