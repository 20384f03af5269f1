// SPDX-License-Identifier: Apache-2.0
//! Places inodes, with what stands right behind them, among the blocks of the image.
//!
//! They are written as their entries come, so that no file's last bytes are held in memory. A few
//! dozen blocks are filled at a time, each inode going to the first that has room for it, and then
//! written as one: that keeps them dense, and the inodes of a directory near each other.
//!
//! The tail of a file must not cross from one block to the next; nor do inodes here, unless they
//! are larger than one.

use crate::erofs::{BLOCK_BYTES, BLOCK_LEN, INODE_ALIGN};
use crate::error::Stop;
use crate::output::{Output, blocks_for};

/// Blocks that are filled side by side.
const SEGMENT_BLOCKS: usize = 64;

/// Blocks with inodes that still have room.
pub(crate) struct Inodes {
    bytes: Box<[u8]>,
    /// Bytes used of each block.
    used: [usize; SEGMENT_BLOCKS],
    /// Where the blocks are, once they are.
    start: Option<u64>,
}

impl Inodes {
    pub(crate) fn new() -> Inodes {
        Inodes {
            bytes: vec![0; SEGMENT_BLOCKS * BLOCK_LEN].into_boxed_slice(),
            used: [0; SEGMENT_BLOCKS],
            start: None,
        }
    }

    /// Room for an inode of `len` bytes and its number. The caller fills it.
    pub(crate) fn place<'a>(
        &'a mut self,
        len: usize,
        output: &'a mut Output<'_>,
    ) -> Result<(u64, &'a mut [u8]), Stop> {
        if len > BLOCK_LEN {
            let position = output.next_position();
            output.allocate(blocks_for(len as u64))?;
            return Ok((number(position), output.piece(position, len)?));
        }
        let (block, start) = if let (Some(block), Some(start)) = (self.block_with(len), self.start)
        {
            (block, start)
        } else {
            self.flush(output)?;
            let start = output.next_position();
            output.allocate(SEGMENT_BLOCKS as u64)?;
            (0, *self.start.insert(start))
        };
        let at = block * BLOCK_LEN + self.used[block];
        self.used[block] = (self.used[block] + len).next_multiple_of(INODE_ALIGN);
        Ok((number(start + at as u64), &mut self.bytes[at..][..len]))
    }

    /// Writes the blocks out.
    pub(crate) fn flush(&mut self, output: &mut Output<'_>) -> Result<(), Stop> {
        let Some(start) = self.start.take() else {
            return Ok(());
        };
        let blocks = self.used.iter().take_while(|used| **used != 0).count();
        let bytes = &mut self.bytes[..blocks * BLOCK_LEN];
        output.write_at(bytes, start)?;
        bytes.fill(0);
        self.used.fill(0);
        Ok(())
    }

    fn block_with(&self, len: usize) -> Option<usize> {
        self.used.iter().position(|used| used + len <= BLOCK_LEN)
    }
}

/// The number of the inode at a position.
pub(crate) fn number(position: u64) -> u64 {
    debug_assert!(position.is_multiple_of(INODE_ALIGN as u64));
    position / INODE_ALIGN as u64
}

/// Where the inode with a number is.
pub(crate) fn position(nid: u64) -> u64 {
    nid * INODE_ALIGN as u64
}

/// Where the last block of an inode's data fits: right behind it, if one block holds both.
pub(crate) fn fits_inline(header_len: usize, tail_len: usize) -> bool {
    tail_len != 0 && header_len + tail_len <= BLOCK_LEN
}

/// The bytes of the last block of `size` bytes, if it is not whole.
pub(crate) fn tail_len(size: u64) -> usize {
    usize::try_from(size % BLOCK_BYTES).expect("below the length of a block")
}
