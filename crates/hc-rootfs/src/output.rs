// SPDX-License-Identifier: Apache-2.0
//! The output file: hands out its blocks, and gathers what is written into large writes.
//!
//! Blocks are handed out once and in order; what is given back becomes a hole. Bytes that nobody
//! writes are zeros, because the file starts out empty.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use rustix::fs::FallocateFlags;

use crate::erofs::{BLOCK_BYTES, BLOCK_LEN};
use crate::error::Stop;
use crate::tree::Extent;

/// Large enough that calls into the kernel do not matter beside copying; larger gains nothing.
const BUFFER_LEN: usize = 1 << 20;
/// The largest piece that one call may write.
pub(crate) const MAX_PIECE_LEN: usize = BUFFER_LEN / 4;

/// The file that becomes the image.
pub(crate) struct Output<'f> {
    file: &'f File,
    buffer: Box<[u8]>,
    /// Bytes in the buffer, and where in the file they go.
    used: usize,
    start: u64,
    next_block: u64,
    max_bytes: u64,
}

impl<'f> Output<'f> {
    /// Empties `file` and keeps its first `reserved` blocks back.
    pub(crate) fn new(
        file: &'f File,
        reserved: u64,
        max_bytes: u64,
    ) -> Result<Output<'f>, io::Error> {
        file.set_len(0)?;
        let buffer = vec![0; BUFFER_LEN].into_boxed_slice();
        Ok(Output { file, buffer, used: 0, start: 0, next_block: reserved, max_bytes })
    }

    /// Where the next blocks to be handed out start in the file.
    pub(crate) fn next_position(&self) -> u64 {
        self.next_block * BLOCK_BYTES
    }

    /// Hands out blocks that follow each other.
    pub(crate) fn allocate(&mut self, blocks: u64) -> Result<u32, Stop> {
        let over = Stop::Limit { limit: self.max_bytes, unit: "bytes" };
        let end = self.next_block.checked_add(blocks);
        // A block number has 32 bits, the last of which stands for a hole.
        let max_blocks = (self.max_bytes / BLOCK_BYTES).min(u64::from(u32::MAX));
        match (end, u32::try_from(self.next_block)) {
            (Some(end), Ok(start)) if end <= max_blocks => {
                self.next_block = end;
                Ok(start)
            }
            _ => Err(over),
        }
    }

    /// The next `len` bytes to be written, from `position` on. The caller fills all of them.
    pub(crate) fn piece(&mut self, position: u64, len: usize) -> Result<&mut [u8], Stop> {
        assert!(len <= MAX_PIECE_LEN, "pieces are bounded by their makers");
        let end = self.start + self.used as u64;
        // Only within a block may a gap be filled: whole blocks in between are someone else's.
        let gap = position.checked_sub(end).filter(|gap| *gap < BLOCK_BYTES);
        let gap = gap.and_then(|gap| usize::try_from(gap).ok());
        let gap = gap.filter(|gap| self.used + gap + len <= self.buffer.len() && self.used > 0);
        if let Some(gap) = gap {
            self.buffer[self.used..][..gap].fill(0);
            self.used += gap;
        } else {
            self.flush()?;
            self.start = position;
        }
        let piece = &mut self.buffer[self.used..][..len];
        self.used += len;
        Ok(piece)
    }

    /// Takes back the last `len` bytes of the last piece: they are zeros and need no writing.
    pub(crate) fn retract(&mut self, len: usize) {
        self.used -= len;
    }

    /// Writes what is gathered.
    pub(crate) fn flush(&mut self) -> Result<(), Stop> {
        let bytes = &self.buffer[..self.used];
        self.used = 0;
        self.file.write_all_at(bytes, self.start).map_err(Stop::Write)
    }

    /// Writes at once, beside what is gathered.
    pub(crate) fn write_at(&mut self, bytes: &[u8], position: u64) -> Result<(), Stop> {
        self.file.write_all_at(bytes, position).map_err(Stop::Write)
    }

    /// Gives the disk space of blocks back that no file uses any more.
    pub(crate) fn punch(&mut self, mut extents: Vec<Extent>) -> Result<(), Stop> {
        self.flush()?;
        extents.sort_unstable();
        let mut extents = extents.into_iter().peekable();
        while let Some(extent) = extents.next() {
            let start = u64::from(extent.start);
            let mut end = start + u64::from(extent.blocks);
            while let Some(next) = extents.next_if(|next| u64::from(next.start) == end) {
                end += u64::from(next.blocks);
            }
            if !punch_hole(self.file, start * BLOCK_BYTES, (end - start) * BLOCK_BYTES)
                .map_err(Stop::Write)?
            {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Ends the file behind the last block handed out, and says how long it is.
    pub(crate) fn finish(mut self) -> Result<u64, Stop> {
        self.flush()?;
        let len = self.next_position();
        self.file.set_len(len).map_err(Stop::Write)?;
        Ok(len)
    }
}

/// Makes a hole; false where the host's file system has none, which only costs space.
fn punch_hole(file: &File, start: u64, len: u64) -> Result<bool, io::Error> {
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    match rustix::fs::fallocate(file, flags, start, len) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// How many blocks so many bytes take.
pub(crate) fn blocks_for(bytes: u64) -> u64 {
    bytes.div_ceil(BLOCK_BYTES)
}

/// Whether all bytes are zeros.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    static ZEROS: [u8; BLOCK_LEN] = [0; BLOCK_LEN];
    bytes.chunks(BLOCK_LEN).all(|chunk| *chunk == ZEROS[..chunk.len()])
}
