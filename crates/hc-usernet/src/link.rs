// SPDX-License-Identifier: Apache-2.0
//! The VM's end of the cable: Ethernet frames over a byte stream.
//!
//! Each frame follows its length as four bytes, big-endian, in both directions. [`Input`] and
//! [`Output`] are the two buffers; neither allocates for a frame, and both move as many frames with
//! one system call as are there. What a frame means is not known here.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::error::{Error, Result};
use crate::limits::{INPUT_LEN, OUTPUT_SOFT_MAX};

/// The shortest frame: an Ethernet header.
pub(crate) const MIN_FRAME: usize = 14;

/// The longest frame: the longest IPv4 packet with an Ethernet header, rounded up a little.
pub(crate) const MAX_FRAME: usize = 65_550;

const HEADER_LEN: usize = 4;

/// Frames from the VM, as they arrive.
#[derive(Debug)]
pub(crate) struct Input {
    /// Zeroed memory that the kernel backs only where it was written to.
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
}

/// What reading from the VM came to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// There are more bytes than before.
    Bytes,
    /// The VM has closed its stream.
    End,
}

impl Input {
    pub(crate) fn new() -> Self {
        Self { buffer: vec![0; INPUT_LEN].into_boxed_slice(), start: 0, end: 0 }
    }

    /// Reads what is there, up to the room left. Take all whole frames out first: what is then left
    /// is less than a frame, so there is room.
    pub(crate) fn poll_fill<S>(&mut self, vm: &mut S, cx: &mut Context<'_>) -> Poll<Result<Arrival>>
    where
        S: AsyncRead + Unpin,
    {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        let mut room = ReadBuf::new(&mut self.buffer[self.end..]);
        match Pin::new(vm).poll_read(cx, &mut room) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(())) if room.filled().is_empty() => Poll::Ready(Ok(Arrival::End)),
            Poll::Ready(Ok(())) => {
                self.end += room.filled().len();
                Poll::Ready(Ok(Arrival::Bytes))
            }
            Poll::Ready(Err(error)) if is_end(&error) => Poll::Ready(Ok(Arrival::End)),
            Poll::Ready(Err(source)) => Poll::Ready(Err(Error::Stream { action: "read", source })),
        }
    }

    /// The next whole frame, or `None` until more bytes come.
    pub(crate) fn next_frame(&mut self) -> Result<Option<&[u8]>> {
        let bytes = &self.buffer[self.start..self.end];
        let Some((header, rest)) = bytes.split_first_chunk::<HEADER_LEN>() else {
            return Ok(None);
        };
        let claimed = u32::from_be_bytes(*header);
        let len = usize::try_from(claimed).unwrap_or(usize::MAX);
        if !(MIN_FRAME..=MAX_FRAME).contains(&len) {
            return Err(Error::Frame { len: claimed });
        }
        let Some(frame) = rest.get(..len) else {
            return Ok(None);
        };
        self.start += HEADER_LEN + len;
        Ok(Some(frame))
    }
}

/// Frames to the VM that wait for its stream to take them.
#[derive(Debug, Default)]
pub(crate) struct Output {
    bytes: Vec<u8>,
    written: usize,
    frames: u64,
    frame_bytes: u64,
}

impl Output {
    /// Whether the VM reads too slowly for more frames to make sense now.
    pub(crate) fn is_full(&self) -> bool {
        self.bytes.len() - self.written >= OUTPUT_SOFT_MAX
    }

    /// Adds a frame of `len` bytes that `fill` writes; the bytes it gets are zero.
    pub(crate) fn push<R>(&mut self, len: usize, fill: impl FnOnce(&mut [u8]) -> R) -> R {
        debug_assert!((MIN_FRAME..=MAX_FRAME).contains(&len), "our own frames fit the framing");
        let header = u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes();
        self.bytes.extend_from_slice(&header);
        let start = self.bytes.len();
        self.bytes.resize(start + len, 0);
        self.frames += 1;
        self.frame_bytes += len as u64;
        fill(&mut self.bytes[start..])
    }

    /// Frames added so far.
    pub(crate) fn frames(&self) -> u64 {
        self.frames
    }

    /// Bytes of those.
    pub(crate) fn frame_bytes(&self) -> u64 {
        self.frame_bytes
    }

    /// Writes what the VM takes; ready once nothing waits.
    pub(crate) fn poll_flush<S>(&mut self, vm: &mut S, cx: &mut Context<'_>) -> Poll<Result<()>>
    where
        S: AsyncWrite + Unpin,
    {
        while self.written < self.bytes.len() {
            match Pin::new(&mut *vm).poll_write(cx, &self.bytes[self.written..]) {
                Poll::Ready(Ok(written)) if written > 0 => self.written += written,
                Poll::Ready(Ok(_)) => {
                    return Poll::Ready(Err(write_error(io::ErrorKind::WriteZero.into())));
                }
                // The read side reports the end; frames to a VM that is gone are nobody's loss.
                Poll::Ready(Err(error)) if is_end(&error) => self.written = self.bytes.len(),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(write_error(error))),
                Poll::Pending => {
                    self.compact();
                    return Poll::Pending;
                }
            }
        }
        self.bytes.clear();
        self.written = 0;
        Poll::Ready(Ok(()))
    }

    /// Forgets written bytes once they outweigh the ones to move, so that the buffer stays small.
    fn compact(&mut self) {
        if self.written > self.bytes.len() / 2 {
            self.bytes.drain(..self.written);
            self.written = 0;
        }
    }
}

fn write_error(source: io::Error) -> Error {
    Error::Stream { action: "write", source }
}

/// Whether `error` is how a stream says that its other end is gone.
fn is_end(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof)
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use proptest::prelude::*;
    use tokio::io::AsyncWriteExt;

    use super::*;

    /// All frames that `bytes` hold when they arrive in pieces of up to `piece` bytes.
    fn read(bytes: &[u8], piece: usize) -> Result<Vec<Vec<u8>>> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (mut ours, mut theirs) = tokio::io::duplex(piece);
            let mut input = Input::new();
            let mut frames = Vec::new();
            let receive = async {
                while poll_fn(|cx| input.poll_fill(&mut ours, cx)).await? != Arrival::End {
                    while let Some(frame) = input.next_frame()? {
                        frames.push(frame.to_vec());
                    }
                }
                Ok(())
            };
            let feed = async {
                // The other end stops listening at the first bad frame.
                let _ = theirs.write_all(bytes).await;
                drop(theirs);
            };
            let mut receive = std::pin::pin!(receive);
            let mut feed = std::pin::pin!(feed);
            let mut all_sent = false;
            poll_fn(|cx| {
                all_sent = all_sent || feed.as_mut().poll(cx).is_ready();
                receive.as_mut().poll(cx)
            })
            .await?;
            Ok(frames)
        })
    }

    proptest! {
        #[test]
        fn frames_survive_any_split(
            frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 14..2000), 0..20),
            piece in 1_usize..5000,
        ) {
            let mut output = Output::default();
            for frame in &frames {
                output.push(frame.len(), |room| room.copy_from_slice(frame));
            }
            prop_assert_eq!(read(&output.bytes, piece).unwrap(), frames);
        }
    }

    #[test]
    fn the_largest_frame_fits() {
        let mut output = Output::default();
        output.push(MAX_FRAME, |room| room.fill(7));
        output.push(MIN_FRAME, |room| room.fill(8));
        assert_eq!(read(&output.bytes, 1 << 20).unwrap(), [vec![7; MAX_FRAME], vec![8; MIN_FRAME]]);
    }
}
