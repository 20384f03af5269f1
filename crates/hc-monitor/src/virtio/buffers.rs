// SPDX-License-Identifier: Apache-2.0
//! The buffers of one request: pieces of guest memory, checked once, then read and written.
#![expect(unsafe_code, reason = "vectors of guest memory for system calls")]

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use vm_memory::{Bytes as _, GuestAddress, GuestMemory as _, Permissions, VolatileSlice};

use crate::memory::Memory;

/// The most that one system call takes (`UIO_MAXIOV`), and more than any driver of Linux sends.
const MAX_PIECES: usize = 1024;

/// Pieces of guest memory, in order. All of them exist.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Buffers {
    pieces: Vec<(GuestAddress, usize)>,
    len: usize,
}

impl Buffers {
    /// Adds a piece, if there is such memory.
    pub(crate) fn push(
        &mut self,
        memory: &Memory,
        at: GuestAddress,
        len: usize,
    ) -> Result<(), NotMemory> {
        if len == 0 {
            return Ok(());
        }
        let exists = memory.check_range(at, len, Permissions::ReadWrite);
        let total = self.len.checked_add(len);
        let (true, Some(total), true) = (exists, total, self.pieces.len() < MAX_PIECES) else {
            return Err(NotMemory);
        };
        self.pieces.push((at, len));
        self.len = total;
        Ok(())
    }

    /// The length of all pieces together.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Where the pieces are.
    pub(crate) fn pieces(&self) -> &[(GuestAddress, usize)] {
        &self.pieces
    }

    /// Splits off what comes after the first `at` bytes, or after all there are.
    pub(crate) fn split_off(&mut self, at: usize) -> Buffers {
        let (mut before, mut after) = (Buffers::default(), Buffers::default());
        for &(start, len) in &self.pieces {
            let here = len.min(at - before.len);
            for (side, start, len) in [
                (&mut before, start, here),
                (&mut after, GuestAddress(start.0 + here as u64), len - here),
            ] {
                if len > 0 {
                    side.pieces.push((start, len));
                    side.len += len;
                }
            }
        }
        *self = before;
        after
    }

    /// Copies the bytes from `offset` on; gives how many there were.
    pub(crate) fn read(&self, memory: &Memory, offset: usize, bytes: &mut [u8]) -> usize {
        let mut done = 0;
        for (at, len) in self.from(offset) {
            let part = len.min(bytes.len() - done);
            // It was checked that the memory is there, so this cannot fail.
            let _ = memory.read_slice(&mut bytes[done..done + part], at);
            done += part;
        }
        done
    }

    /// Copies bytes to where `offset` is; gives how many there was room for.
    pub(crate) fn write(&self, memory: &Memory, offset: usize, bytes: &[u8]) -> usize {
        let mut done = 0;
        for (at, len) in self.from(offset) {
            let part = len.min(bytes.len() - done);
            // It was checked that the memory is there, so this cannot fail.
            let _ = memory.write_slice(&bytes[done..done + part], at);
            done += part;
        }
        done
    }

    /// Reads from a stream into the buffers from `offset` on: once.
    pub(crate) fn fill(
        &self,
        memory: &Memory,
        offset: usize,
        from: BorrowedFd<'_>,
    ) -> io::Result<usize> {
        self.vectored(memory, &[], offset, |vectors, count| {
            // SAFETY: the vectors describe guest memory, which stays mapped, and in which no Rust
            // reference points.
            unsafe { libc::readv(from.as_raw_fd(), vectors, count) }
        })
    }

    /// Writes the buffers from `offset` on to a stream: once.
    pub(crate) fn drain(
        &self,
        memory: &Memory,
        offset: usize,
        to: BorrowedFd<'_>,
    ) -> io::Result<usize> {
        self.drain_after(&[], memory, offset, to)
    }

    /// Writes `prefix`, and then the buffers from `offset` on, to a stream: once, in one piece.
    pub(crate) fn drain_after(
        &self,
        prefix: &[u8],
        memory: &Memory,
        offset: usize,
        to: BorrowedFd<'_>,
    ) -> io::Result<usize> {
        self.vectored(memory, prefix, offset, |vectors, count| {
            // SAFETY: as in `fill`; the prefix is only read.
            unsafe { libc::writev(to.as_raw_fd(), vectors, count) }
        })
    }

    /// Reads all of the buffers from a place in a file.
    pub(crate) fn fill_at(&self, memory: &Memory, file: BorrowedFd<'_>, at: u64) -> io::Result<()> {
        self.all(|done| {
            self.vectored(memory, &[], done, |vectors, count| {
                let at = position(at, done);
                // SAFETY: as in `fill`.
                unsafe { libc::preadv64(file.as_raw_fd(), vectors, count, at) }
            })
        })
    }

    /// Writes all of the buffers to a place in a file.
    pub(crate) fn drain_at(
        &self,
        memory: &Memory,
        file: BorrowedFd<'_>,
        at: u64,
    ) -> io::Result<()> {
        self.all(|done| {
            self.vectored(memory, &[], done, |vectors, count| {
                let at = position(at, done);
                // SAFETY: as in `fill`.
                unsafe { libc::pwritev64(file.as_raw_fd(), vectors, count, at) }
            })
        })
    }

    /// Calls until all bytes are through.
    fn all(&self, mut once: impl FnMut(usize) -> io::Result<usize>) -> io::Result<()> {
        let mut done = 0;
        while done < self.len {
            match once(done) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(len) => done += len,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn vectored(
        &self,
        memory: &Memory,
        prefix: &[u8],
        offset: usize,
        call: impl FnOnce(*const libc::iovec, libc::c_int) -> isize,
    ) -> io::Result<usize> {
        let slices: Vec<VolatileSlice<'_>> = self
            .from(offset)
            .flat_map(|(at, len)| memory.get_slices(at, len, Permissions::ReadWrite))
            .flatten()
            .map_while(Result::ok)
            .take(MAX_PIECES)
            .collect();
        let guards: Vec<_> = slices.iter().map(VolatileSlice::ptr_guard_mut).collect();
        let vector =
            |base: *const u8, len| libc::iovec { iov_base: base.cast_mut().cast(), iov_len: len };
        let own = (!prefix.is_empty()).then(|| vector(prefix.as_ptr(), prefix.len()));
        let guests = guards.iter().map(|guard| vector(guard.as_ptr(), guard.len()));
        let vectors: Vec<libc::iovec> = own.into_iter().chain(guests).collect();
        let count = libc::c_int::try_from(vectors.len()).map_err(io::Error::other)?;
        let done = call(vectors.as_ptr(), count);
        usize::try_from(done).map_err(|_| io::Error::last_os_error())
    }

    /// The pieces without their first `offset` bytes.
    fn from(&self, mut offset: usize) -> impl Iterator<Item = (GuestAddress, usize)> {
        self.pieces.iter().filter_map(move |&(at, len)| {
            let skipped = offset.min(len);
            offset -= skipped;
            (skipped < len).then(|| (GuestAddress(at.0 + skipped as u64), len - skipped))
        })
    }
}

fn position(at: u64, done: usize) -> i64 {
    // A file ends long before its offsets do, and then the call fails.
    i64::try_from(at.saturating_add(done as u64)).unwrap_or(i64::MAX)
}

/// The guest named memory that it does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotMemory;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::memory;

    fn buffers(memory: &Memory, pieces: &[(u64, usize)]) -> Buffers {
        let mut buffers = Buffers::default();
        for &(at, len) in pieces {
            buffers.push(memory, GuestAddress(at), len).unwrap();
        }
        buffers
    }

    #[test]
    fn only_memory_that_exists_is_taken() {
        let memory = memory::map(1).unwrap();
        let mut buffers = Buffers::default();
        let end: u64 = 1 << 20;
        for (at, len) in
            [(end, 1), (end - 1, 2), (u64::MAX, 1), (0, usize::MAX), (0, (1 << 20) + 1)]
        {
            assert_eq!(buffers.push(&memory, GuestAddress(at), len), Err(NotMemory));
        }
        assert_eq!(buffers.push(&memory, GuestAddress(end - 1), 1), Ok(()));
        for _ in 1..MAX_PIECES {
            buffers.push(&memory, GuestAddress(0), 1).unwrap();
        }
        assert_eq!(buffers.push(&memory, GuestAddress(0), 1), Err(NotMemory));
    }

    #[test]
    fn bytes_go_through_a_stream() {
        use std::os::fd::AsFd as _;
        use std::os::unix::net::UnixStream;
        let memory = memory::map(1).unwrap();
        let (here, there) = UnixStream::pair().unwrap();
        let from = buffers(&memory, &[(0, 3), (100, 4)]);
        assert_eq!(from.write(&memory, 0, b"abcdefgh"), 7);
        assert_eq!(from.drain(&memory, 1, here.as_fd()).unwrap(), 6);
        let to = buffers(&memory, &[(200, 2), (300, 50)]);
        assert_eq!(to.fill(&memory, 1, there.as_fd()).unwrap(), 6);
        let mut bytes = [0; 7];
        assert_eq!(to.read(&memory, 1, &mut bytes[..6]), 6);
        assert_eq!(&bytes, b"bcdefg\0");
    }

    #[test]
    fn end_of_a_file_is_an_error() {
        use std::os::fd::AsFd as _;
        let memory = memory::map(1).unwrap();
        let file = tempfile::tempfile().unwrap();
        file.set_len(10).unwrap();
        let ten = buffers(&memory, &[(0, 4), (8, 6)]);
        ten.fill_at(&memory, file.as_fd(), 0).unwrap();
        ten.drain_at(&memory, file.as_fd(), 0).unwrap();
        let error = ten.fill_at(&memory, file.as_fd(), 1).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        ten.drain_at(&memory, file.as_fd(), u64::MAX).unwrap_err();
    }

    proptest! {
        #[test]
        fn split_loses_nothing(
            lens in proptest::collection::vec(0usize..9, 0..6), at in 0usize..60,
        ) {
            let memory = memory::map(1).unwrap();
            let pieces: Vec<_> = lens.iter().zip((0u64..).step_by(16)).map(|(&len, at)| (at, len)).collect();
            let whole = buffers(&memory, &pieces);
            let mut before = whole.clone();
            let after = before.split_off(at);
            prop_assert_eq!(before.len(), whole.len().min(at));
            prop_assert_eq!(before.len() + after.len(), whole.len());
            let text: Vec<u8> = (1..).take(whole.len()).collect();
            whole.write(&memory, 0, &text);
            let mut bytes = vec![0; whole.len()];
            let (first, second) = bytes.split_at_mut(before.len());
            before.read(&memory, 0, first);
            after.read(&memory, 0, second);
            prop_assert_eq!(bytes, text);
        }
    }
}
