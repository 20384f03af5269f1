// SPDX-License-Identifier: Apache-2.0
//! A disk: a file of raw sectors (virtio 1.2, 5.2).
//!
//! # Invariants
//!
//! - The guest reads and writes inside the file, whose length never changes; it may be given another.
//! - A host without room, or a broken disk, is an error for the guest, which lives on.

use std::fs::File;
use std::io::{self, Seek as _, SeekFrom};
use std::os::fd::AsFd as _;

use rustix::fs::FallocateFlags;
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_RO, VIRTIO_BLK_F_SEG_MAX,
    VIRTIO_BLK_F_WRITE_ZEROES, VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK, VIRTIO_BLK_S_UNSUPP,
    VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN,
    VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_WRITE_ZEROES,
};
use virtio_bindings::virtio_ids::VIRTIO_ID_BLOCK;

use crate::error::{Error, Result};
use crate::memory::Memory;
use crate::saved::Access;
use crate::virtio::{Chain, Device, Queues, Wake};

const SECTOR: u64 = 512;
/// Pieces that a request may have besides header and status: what a queue has room for.
const SEG_MAX: u32 = 254;
/// The kind of a request, a reserved word, and the sector it starts at.
const HEADER_LEN: usize = 16;
/// `struct virtio_blk_discard_write_zeroes`.
const RANGE_LEN: usize = 16;
/// Ranges in one request to trim. Linux sends one.
const MAX_RANGES: usize = 16;
/// The guest's driver may give the space back when it asks for zeros.
const UNMAP: u32 = 1;
const ID_LEN: usize = 20;

/// A disk.
#[derive(Debug)]
pub(crate) struct Block {
    file: File,
    id: [u8; ID_LEN],
    sectors: u64,
    read_only: bool,
    durable: bool,
}

impl Block {
    /// A disk of a file. Its last, incomplete sector is left out.
    pub(crate) fn new(file: File, id: &str, access: Access) -> Result<Block> {
        let sectors = sectors(&file).map_err(Error::host("look at a disk"))?;
        let mut padded = [0; ID_LEN];
        for (byte, value) in padded.iter_mut().zip(id.bytes()) {
            *byte = value;
        }
        let Access { read_only, durable } = access;
        Ok(Block { file, id: padded, sectors, read_only, durable })
    }

    /// Whether it has this name.
    pub(crate) fn is(&self, id: &str) -> bool {
        self.id.iter().copied().eq(id.bytes().chain(std::iter::repeat(0)).take(ID_LEN))
    }

    /// What the guest may do with it.
    pub(crate) fn access(&self) -> Access {
        Access { read_only: self.read_only, durable: self.durable }
    }

    /// Puts another file behind it. The guest's driver learns of a new size when it binds again.
    pub(crate) fn replace(&mut self, file: File) -> io::Result<()> {
        self.sectors = sectors(&file)?;
        self.file = file;
        Ok(())
    }

    /// Carries a request out; gives the length of the answer without the status.
    fn carry_out(&self, memory: &Memory, chain: &Chain) -> Result<usize, Failure> {
        let mut header = [0; HEADER_LEN];
        if chain.readable.read(memory, 0, &mut header) < HEADER_LEN {
            return Err(Failure::Unsupported);
        }
        let kind = u32::from_le_bytes(*header.first_chunk().expect("it is longer"));
        let sector = u64::from_le_bytes(*header.last_chunk().expect("it is longer"));
        let file = self.file.as_fd();
        match kind {
            VIRTIO_BLK_T_IN => {
                let answer = chain.writable.len();
                let at = self.offset(sector, answer as u64)?;
                chain.writable.fill_at(memory, file, at)?;
                Ok(answer)
            }
            VIRTIO_BLK_T_OUT if !self.read_only => {
                let data = chain.readable.clone().split_off(HEADER_LEN);
                let at = self.offset(sector, data.len() as u64)?;
                data.drain_at(memory, file, at)?;
                Ok(0)
            }
            VIRTIO_BLK_T_FLUSH => {
                if self.durable {
                    self.file.sync_data()?;
                }
                Ok(0)
            }
            VIRTIO_BLK_T_GET_ID => Ok(chain.writable.write(memory, 0, &self.id)),
            VIRTIO_BLK_T_DISCARD | VIRTIO_BLK_T_WRITE_ZEROES if !self.read_only => {
                self.clear(memory, chain, kind == VIRTIO_BLK_T_DISCARD)
            }
            // A read-only disk was announced as such.
            VIRTIO_BLK_T_OUT | VIRTIO_BLK_T_DISCARD | VIRTIO_BLK_T_WRITE_ZEROES => {
                Err(Failure::Host)
            }
            _ => Err(Failure::Unsupported),
        }
    }

    /// Makes ranges read as zeros, and gives their space back where that is allowed.
    fn clear(&self, memory: &Memory, chain: &Chain, unmap: bool) -> Result<usize, Failure> {
        let mut ranges = [0; MAX_RANGES * RANGE_LEN];
        let len = chain.readable.read(memory, HEADER_LEN, &mut ranges);
        if chain.readable.len() - HEADER_LEN > ranges.len() {
            return Err(Failure::Unsupported);
        }
        for range in ranges[..len].chunks_exact(RANGE_LEN) {
            let sector = u64::from_le_bytes(*range.first_chunk().expect("a range is longer"));
            let [a, b, c, d, flags @ ..] = *range.last_chunk::<8>().expect("a range is longer");
            let len = u64::from(u32::from_le_bytes([a, b, c, d])) * SECTOR;
            let at = self.offset(sector, len)?;
            let unmap = unmap || u32::from_le_bytes(flags) & UNMAP != 0;
            let how = if unmap { FallocateFlags::PUNCH_HOLE } else { FallocateFlags::ZERO_RANGE };
            if len > 0 {
                rustix::fs::fallocate(&self.file, how | FallocateFlags::KEEP_SIZE, at, len)
                    .map_err(io::Error::from)?;
            }
        }
        Ok(0)
    }

    /// Where a sector is in the file, if as much as this follows it.
    fn offset(&self, sector: u64, len: u64) -> Result<u64, Failure> {
        let whole = len.is_multiple_of(SECTOR);
        let end = sector.checked_add(len / SECTOR);
        let inside = end.is_some_and(|end| end <= self.sectors);
        if whole && inside { Ok(sector * SECTOR) } else { Err(Failure::Host) }
    }
}

/// The whole sectors of a file, found out by a call that the filter knows.
fn sectors(mut file: &File) -> io::Result<u64> {
    Ok(file.seek(SeekFrom::End(0))? / SECTOR)
}

/// Why a request is not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failure {
    /// The device does not know it.
    Unsupported,
    /// It cannot be done, or not here.
    Host,
}

impl From<io::Error> for Failure {
    fn from(_: io::Error) -> Failure {
        Failure::Host
    }
}

impl Device for Block {
    fn kind(&self) -> u32 {
        VIRTIO_ID_BLOCK
    }

    fn features(&self) -> u64 {
        let write = 1 << VIRTIO_BLK_F_DISCARD | 1 << VIRTIO_BLK_F_WRITE_ZEROES;
        let access = if self.read_only { 1 << VIRTIO_BLK_F_RO } else { write };
        access | 1 << VIRTIO_BLK_F_FLUSH | 1 << VIRTIO_BLK_F_SEG_MAX
    }

    fn queues(&self) -> usize {
        1
    }

    fn config(&self) -> Vec<u8> {
        // `struct virtio_blk_config`, with zeros for what no feature has announced.
        let most_sectors = u32::try_from(self.sectors).unwrap_or(u32::MAX);
        let mut config = vec![0; 60];
        let mut put = |at: usize, bytes: &[u8]| config[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &self.sectors.to_le_bytes());
        put(12, &SEG_MAX.to_le_bytes());
        put(36, &most_sectors.to_le_bytes()); // max_discard_sectors
        put(40, &1_u32.to_le_bytes()); // max_discard_seg
        put(44, &1_u32.to_le_bytes()); // discard_sector_alignment
        put(48, &most_sectors.to_le_bytes()); // max_write_zeroes_sectors
        put(52, &1_u32.to_le_bytes()); // max_write_zeroes_seg
        put(56, &[1]); // write_zeroes_may_unmap
        config
    }

    fn disk(&mut self) -> Option<&mut Block> {
        Some(self)
    }

    fn serve(&mut self, _wake: Wake, queues: &mut Queues) {
        let mut served = false;
        while let Some(mut chain) = queues.pop(0) {
            let memory = queues.memory();
            // The status is the last byte of all.
            let answer_len = chain.writable.len().saturating_sub(1);
            let status = chain.writable.split_off(answer_len);
            let (code, len) = match self.carry_out(memory, &chain) {
                Ok(len) => (VIRTIO_BLK_S_OK, len),
                Err(Failure::Host) => (VIRTIO_BLK_S_IOERR, 0),
                Err(Failure::Unsupported) => (VIRTIO_BLK_S_UNSUPP, 0),
            };
            let code = u8::try_from(code).expect("a status is a byte");
            let len = len + status.write(memory, 0, &[code]);
            queues.done(chain, len);
            served = true;
        }
        if served {
            queues.signal(0);
        }
    }
}

#[cfg(test)]
mod tests;
