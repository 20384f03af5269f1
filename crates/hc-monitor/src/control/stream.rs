// SPDX-License-Identifier: Apache-2.0
//! What comes from the owner: lines, and descriptors passed along with them (`SCM_RIGHTS`).

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

/// Descriptors that come with one line at most; the kernel closes any more.
const MAX_DESCRIPTORS: usize = 4;

/// The reading end of the control socket.
#[derive(Debug)]
pub(crate) struct Lines {
    socket: UnixStream,
    bytes: Vec<u8>,
    descriptors: Vec<OwnedFd>,
    /// How many of the bytes there were when descriptors came last.
    came_with: usize,
}

impl Lines {
    pub(crate) fn of(socket: UnixStream) -> Lines {
        Lines { socket, bytes: Vec::new(), descriptors: Vec::new(), came_with: 0 }
    }

    /// Reads once; says whether there was something.
    ///
    /// The kernel may join what was sent with descriptors to what was sent before, and never to what
    /// was sent after. So they belong to the last byte that comes with them.
    fn read(&mut self) -> bool {
        let mut bytes = [0; 4096];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut along = RecvAncillaryBuffer::new(&mut space);
        let read = loop {
            let buffer = &mut [IoSliceMut::new(&mut bytes)];
            match recvmsg(&self.socket, buffer, &mut along, RecvFlags::CMSG_CLOEXEC) {
                Err(rustix::io::Errno::INTR) => {}
                read => break read,
            }
        };
        let Ok(message) = read else { return false };
        let mut passed = false;
        for message in along.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                self.descriptors.extend(descriptors);
                passed = true;
            }
        }
        self.bytes.extend(&bytes[..message.bytes]);
        if passed {
            self.came_with = self.bytes.len();
        }
        message.bytes > 0
    }
}

/// Each line with what came along.
impl Iterator for Lines {
    type Item = (String, Vec<OwnedFd>);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(end) = self.bytes.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.bytes.drain(..=end).collect();
                let theirs = line.len() >= self.came_with;
                self.came_with = self.came_with.saturating_sub(line.len());
                let descriptors =
                    if theirs { std::mem::take(&mut self.descriptors) } else { Vec::new() };
                return Some((String::from_utf8_lossy(&line).into_owned(), descriptors));
            }
            if !self.read() {
                return None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{IoSlice, Read as _, Write as _};
    use std::os::fd::AsFd as _;

    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

    use super::*;

    #[test]
    fn descriptors_come_with_their_line() {
        let (mut owner, theirs) = UnixStream::pair().unwrap();
        let mut lines = Lines::of(theirs);
        let (mut reader, writer) = std::io::pipe().unwrap();
        owner.write_all(b"one\ntw").unwrap();
        owner.write_all(b"o\n").unwrap();
        let passed = [writer.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut along = SendAncillaryBuffer::new(&mut space);
        along.push(SendAncillaryMessage::ScmRights(&passed));
        let flags = SendFlags::empty();
        sendmsg(&owner, &[IoSlice::new(b"three\n")], &mut along, flags).unwrap();
        drop(writer);
        owner.write_all(b"four\nfi").unwrap();
        drop(owner);
        let mut next = || lines.next().map(|(line, along)| (line, along.len(), along));
        let (line, count, _) = next().unwrap();
        assert_eq!((line.as_str(), count), ("one\n", 0));
        let (line, count, _) = next().unwrap();
        assert_eq!((line.as_str(), count), ("two\n", 0));
        let (line, count, along) = next().unwrap();
        assert_eq!((line.as_str(), count), ("three\n", 1));
        for descriptor in along {
            File::from(descriptor).write_all(b"it is this one").unwrap();
        }
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "it is this one");
        let (line, count, _) = next().unwrap();
        assert_eq!((line.as_str(), count), ("four\n", 0));
        assert!(next().is_none());
    }
}
