// SPDX-License-Identifier: Apache-2.0
//! Reads standard input on a thread and makes frames of it.
//!
//! A thread, because files and terminals cannot be waited for like sockets, and non-blocking mode
//! would be shared with whatever else has the same terminal open.

use std::io;

use hc_api::stream::{Frame, HEADER, MAX_BODY};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use tokio::sync::mpsc;

use super::keys::{DetachKeys, Filter};

/// Reads that wait for the socket; more would only hold back what `ctrl-C` should drop.
pub(super) const QUEUE: usize = 4;

/// What the user does.
pub(super) enum Input {
    /// Encoded frames for the process.
    Frames(Vec<u8>),
    /// The detach keys.
    Detach,
}

/// Reads until the end, the detach keys, or until nobody wants more.
pub(super) fn read(keys: Option<DetachKeys>, sender: mpsc::Sender<Input>) {
    std::thread::spawn(move || {
        let mut filter = keys.map(Filter::new);
        let mut buffer = vec![0; MAX_BODY];
        let mut passed = Vec::new();
        loop {
            let length = match read_stdin(&mut buffer) {
                // A terminal that is gone, or a standard input that was never open, ends the input.
                Ok(0) | Err(_) => break,
                Ok(length) => length,
            };
            let mut frames = Vec::with_capacity(length + HEADER);
            let mut detach = false;
            match &mut filter {
                None => Frame::encode_stdin(&buffer[..length], &mut frames),
                Some(filter) => {
                    passed.clear();
                    detach = filter.feed(&buffer[..length], &mut passed);
                    Frame::encode_stdin(&passed, &mut frames);
                }
            }
            if !frames.is_empty() && sender.blocking_send(Input::Frames(frames)).is_err() {
                return;
            }
            if detach {
                let _ = sender.blocking_send(Input::Detach);
                return;
            }
        }
        let mut end = Vec::new();
        Frame::StdinEnd.encode(&mut end);
        let _ = sender.blocking_send(Input::Frames(end));
    });
}

fn read_stdin(buffer: &mut [u8]) -> io::Result<usize> {
    let stdin = rustix::stdio::stdin();
    loop {
        match rustix::io::read(stdin, &mut *buffer) {
            Err(Errno::INTR) => {}
            // Another program has made the shared terminal or pipe non-blocking.
            Err(Errno::AGAIN) => {
                let _ = poll(&mut [PollFd::new(&stdin, PollFlags::IN)], None);
            }
            result => return Ok(result?),
        }
    }
}
