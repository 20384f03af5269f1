// SPDX-License-Identifier: Apache-2.0
//! Streams the content of files to its place, and writes the inodes that point at it.
//!
//! Small files take whole blocks and a tail behind the inode. Large ones are read in pieces; where
//! pieces are nothing but zeros, stored so or left out by a sparse archive, the file becomes one of
//! chunks, and those that are holes take no place in the image at all.

use std::io::Read;

use crate::erofs::{BLOCK_BYTES, BLOCK_LEN, INODE_LEN, InodeRecord, Layout, NULL_BLOCK, xattr};
use crate::error::Stop;
use crate::inodes::{Inodes, fits_inline, tail_len};
use crate::output::{Output, blocks_for, is_zero};
use crate::tar::{Attributes, Reader};
use crate::tree::Extent;

/// Files from here on are looked through for holes, in pieces of this size. Smaller pieces find
/// more holes and make more writes.
const PIECE_LEN: u64 = 128 << 10;
/// Chunks that a file may have: with 4 bytes each, what a hostile sparse file of a few bytes makes
/// us write stays at 64 KiB, and a disk image of 4 GiB still has chunks of 256 KiB.
const MAX_CHUNKS: u64 = 1 << 14;

/// What all inodes are written from.
pub(crate) struct Header<'a> {
    /// File type and permissions.
    pub(crate) mode: u16,
    /// The entry's own attributes.
    pub(crate) attributes: &'a Attributes,
    /// Its extended attributes.
    pub(crate) xattrs: &'a xattr::Encoded,
}

/// Where inodes and data go.
pub(crate) struct Target<'f> {
    pub(crate) output: Output<'f>,
    pub(crate) inodes: Inodes,
    /// Whether any file has chunks.
    pub(crate) has_chunks: bool,
}

/// The data of a large file as it lies in the image.
struct ChunkMap {
    /// Blocks of a chunk, as a power of two.
    bits: u8,
    /// The first block of each chunk.
    starts: Vec<u32>,
    /// All chunks that are no holes: they follow each other, because nothing else is placed while
    /// a file is read.
    extent: Option<Extent>,
}

impl Target<'_> {
    /// Writes an inode whose data is all at hand, and gives its number: a symbolic link with its
    /// target, or a node without data, whose `start` is the device number.
    pub(crate) fn write_node(
        &mut self,
        header: &Header<'_>,
        data: &[u8],
        start: u32,
    ) -> Result<u64, Stop> {
        if fits_inline(header.len(), data.len()) {
            let record = header.record(Layout::Inline, data.len() as u64, start);
            return self.write_inode(header, &record, data);
        }
        let mut start = start;
        if !data.is_empty() {
            let position = self.output.next_position();
            start = self.output.allocate(blocks_for(data.len() as u64))?;
            self.output.piece(position, data.len())?.copy_from_slice(data);
        }
        let record = header.record(Layout::Plain, data.len() as u64, start);
        self.write_inode(header, &record, &[])
    }

    /// Reads the content of a regular file to its place, and gives the inode's number.
    pub(crate) fn write_file<R: Read>(
        &mut self,
        header: &Header<'_>,
        size: u64,
        archive: &mut Reader<R>,
    ) -> Result<(u64, Option<Extent>), Stop> {
        if size < PIECE_LEN {
            self.write_small(header, size, archive)
        } else {
            self.write_large(header, size, archive)
        }
    }

    fn write_small<R: Read>(
        &mut self,
        header: &Header<'_>,
        size: u64,
        archive: &mut Reader<R>,
    ) -> Result<(u64, Option<Extent>), Stop> {
        let tail_len = tail_len(size);
        let inline = fits_inline(header.len(), tail_len);
        let in_blocks = if inline { size - tail_len as u64 } else { size };
        let (mut start, mut extent) = (0, None);
        if in_blocks > 0 {
            let position = self.output.next_position();
            let blocks = blocks_for(in_blocks);
            start = self.output.allocate(blocks)?;
            let len = usize::try_from(in_blocks).expect("small");
            archive.read_content(self.output.piece(position, len)?)?;
            let blocks = u32::try_from(blocks).expect("small");
            extent = Some(Extent { start, blocks });
        }
        let layout = if inline { Layout::Inline } else { Layout::Plain };
        let record = header.record(layout, size, start);
        let len = header.len() + if inline { tail_len } else { 0 };
        let (nid, place) = self.inodes.place(len, &mut self.output)?;
        archive.read_content(header.fill(place, &record, nid))?;
        Ok((nid, extent))
    }

    fn write_large<R: Read>(
        &mut self,
        header: &Header<'_>,
        size: u64,
        archive: &mut Reader<R>,
    ) -> Result<(u64, Option<Extent>), Stop> {
        let map = self.write_chunks(size, archive)?;
        let nid = match map.extent {
            Some(whole) if u64::from(whole.blocks) == blocks_for(size) => {
                let record = header.record(Layout::Plain, size, whole.start);
                self.write_inode(header, &record, &[])?
            }
            _ => {
                self.has_chunks = true;
                let record = header.record(Layout::Chunks { bits: map.bits }, size, 0);
                let table = map.starts.iter().flat_map(|start| start.to_le_bytes());
                self.write_inode(header, &record, &table.collect::<Vec<_>>())?
            }
        };
        Ok((nid, map.extent))
    }

    fn write_chunks<R: Read>(
        &mut self,
        size: u64,
        archive: &mut Reader<R>,
    ) -> Result<ChunkMap, Stop> {
        let chunk_len = size.div_ceil(MAX_CHUNKS).next_power_of_two().max(PIECE_LEN);
        let mut map = ChunkMap { bits: block_bits(chunk_len), starts: Vec::new(), extent: None };
        let mut left = size;
        while left > 0 {
            let len = left.min(chunk_len);
            let start = self.write_chunk(len, archive)?;
            map.starts.push(start.unwrap_or(NULL_BLOCK));
            if let Some(start) = start {
                let blocks = u32::try_from(blocks_for(len)).expect("allocated as such");
                map.extent.get_or_insert(Extent { start, blocks: 0 }).blocks += blocks;
            }
            left -= len;
        }
        if map.extent.is_none() {
            // All of it is one hole: one chunk tells that as well.
            map.bits = block_bits(size.next_power_of_two());
            map.starts.truncate(1);
        }
        Ok(map)
    }

    /// Reads one chunk to its place, or finds that it is a hole and needs none.
    fn write_chunk<R: Read>(
        &mut self,
        len: u64,
        archive: &mut Reader<R>,
    ) -> Result<Option<u32>, Stop> {
        let position = self.output.next_position();
        let mut start = None;
        let mut done = 0;
        while done < len {
            let left = len - done;
            // What the archive says is a hole is skipped in whole blocks, so that little data in
            // large holes makes few writes.
            let hole = archive.hole_len();
            let hole = if hole >= left { left } else { hole - hole % BLOCK_BYTES };
            if hole > 0 {
                archive.skip_hole(hole);
                done += hole;
                continue;
            }
            let run = archive.run_len().next_multiple_of(BLOCK_BYTES);
            let data_len = usize::try_from(run.min(left).min(PIECE_LEN)).expect("at most a piece");
            let padded_len = data_len.next_multiple_of(BLOCK_LEN);
            let piece = self.output.piece(position + done, padded_len)?;
            let (data, padding) = piece.split_at_mut(data_len);
            archive.read_content(data)?;
            padding.fill(0);
            if is_zero(data) {
                self.output.retract(padded_len);
            } else if start.is_none() {
                start = Some(self.output.allocate(blocks_for(len))?);
            }
            done += data_len as u64;
        }
        Ok(start)
    }

    fn write_inode(
        &mut self,
        header: &Header<'_>,
        record: &InodeRecord,
        behind: &[u8],
    ) -> Result<u64, Stop> {
        let (nid, place) = self.inodes.place(header.len() + behind.len(), &mut self.output)?;
        header.fill(place, record, nid).copy_from_slice(behind);
        Ok(nid)
    }
}

impl Header<'_> {
    /// Bytes of the inode and its extended attributes.
    fn len(&self) -> usize {
        INODE_LEN + self.xattrs.bytes.len()
    }

    fn record(&self, layout: Layout, size: u64, start: u32) -> InodeRecord {
        InodeRecord {
            layout,
            mode: self.mode,
            size,
            start,
            uid: self.attributes.uid,
            gid: self.attributes.gid,
            mtime: self.attributes.mtime,
            links: 1,
            xattr_len: self.xattrs.bytes.len(),
        }
    }

    /// Fills the start of an inode's place and gives the rest.
    fn fill<'p>(&self, place: &'p mut [u8], record: &InodeRecord, nid: u64) -> &'p mut [u8] {
        let (inode, rest) = place.split_at_mut(INODE_LEN);
        inode.copy_from_slice(&record.encode(nid));
        let (xattrs, rest) = rest.split_at_mut(self.xattrs.bytes.len());
        xattrs.copy_from_slice(&self.xattrs.bytes);
        rest
    }
}

/// The power of two of blocks that a power of two of bytes takes.
fn block_bits(len: u64) -> u8 {
    let blocks = len / BLOCK_LEN as u64;
    u8::try_from(blocks.trailing_zeros()).expect("below 64")
}
