// SPDX-License-Identifier: Apache-2.0
//! The EROFS format as far as this crate writes it: uncompressed, blocks of 4 KiB, extended inodes.
//!
//! Pure: values in, bytes out. All numbers are little-endian. Where the bytes go is for `output`
//! and `inodes` to decide.
//!
//! Compact inodes would save 32 bytes a file, but before Linux 6.12 they have no time of their own;
//! `make`, Python's bytecode caches and package managers go by these times.

pub(crate) mod dir;
pub(crate) mod xattr;

use crate::tar::Time;
use crate::tree::InodeKind;

/// Bytes of a block.
pub(crate) const BLOCK_LEN: usize = 1 << BLOCK_BITS;
/// The same as a file offset.
pub(crate) const BLOCK_BYTES: u64 = BLOCK_LEN as u64;
const BLOCK_BITS: u8 = 12;
/// Inodes start at multiples of this; an inode's number is its offset divided by it.
pub(crate) const INODE_ALIGN: usize = 32;
/// Bytes of an extended inode.
pub(crate) const INODE_LEN: usize = 64;
/// Where in an inode its link count is.
pub(crate) const LINKS_OFFSET: u64 = 44;

/// Where the superblock starts, in the first block.
pub(crate) const SUPER_OFFSET: usize = 1024;
/// Bytes of the superblock.
pub(crate) const SUPER_LEN: usize = 128;
const MAGIC: u32 = 0xE0F5_E1E2;
/// The superblock has a checksum.
const COMPAT_CHECKSUM: u32 = 1 << 0;
/// Times of inodes are those of modification.
const COMPAT_MTIME: u32 = 1 << 1;
/// Some inodes are made of chunks.
const INCOMPAT_CHUNKS: u32 = 1 << 2;

/// Stands for a chunk that is a hole.
pub(crate) const NULL_BLOCK: u32 = u32::MAX;

/// How the data of an inode lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// All of it in consecutive blocks.
    Plain,
    /// Whole blocks as above; the rest stands right behind the inode and its attributes.
    Inline,
    /// In chunks of `1 << bits` blocks each, listed behind the inode and its attributes.
    Chunks { bits: u8 },
}

/// An inode as it stands in the image, but for its number.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InodeRecord {
    pub(crate) layout: Layout,
    /// File type and permissions, as `st_mode`.
    pub(crate) mode: u16,
    pub(crate) size: u64,
    /// The first block of the data, or the device number.
    pub(crate) start: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: Time,
    pub(crate) links: u32,
    /// Bytes of the encoded attributes that follow.
    pub(crate) xattr_len: usize,
}

impl InodeRecord {
    /// The bytes of the inode with the number `nid`.
    pub(crate) fn encode(&self, nid: u64) -> [u8; INODE_LEN] {
        const EXTENDED: u16 = 1;
        let (layout, union) = match self.layout {
            Layout::Plain => (0, self.start),
            Layout::Inline => (2, self.start),
            Layout::Chunks { bits } => (4, u32::from(bits)),
        };
        let xattr_count = xattr::count(self.xattr_len);
        let mut bytes = [0; INODE_LEN];
        let mut put = |at: usize, value: &[u8]| bytes[at..][..value.len()].copy_from_slice(value);
        put(0, &(EXTENDED | layout << 1).to_le_bytes());
        put(2, &xattr_count.to_le_bytes());
        put(4, &self.mode.to_le_bytes());
        put(8, &self.size.to_le_bytes());
        put(16, &union.to_le_bytes());
        // For 32-bit programs only; Linux takes its inode numbers from the 64-bit ones.
        put(20, &nid.to_le_bytes()[..4]);
        put(24, &self.uid.to_le_bytes());
        put(28, &self.gid.to_le_bytes());
        put(32, &self.mtime.secs.to_le_bytes());
        put(40, &self.mtime.nanos.to_le_bytes());
        put(44, &self.links.to_le_bytes());
        bytes
    }
}

/// What the superblock says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Superblock {
    pub(crate) root_nid: u16,
    pub(crate) inodes: u64,
    pub(crate) blocks: u32,
    pub(crate) uuid: [u8; 16],
    pub(crate) has_chunks: bool,
}

impl Superblock {
    /// Puts the superblock into the first block, whose other bytes are final, and seals it.
    pub(crate) fn write(&self, block: &mut [u8; BLOCK_LEN]) {
        let incompat = if self.has_chunks { INCOMPAT_CHUNKS } else { 0 };
        let bytes = &mut block[SUPER_OFFSET..];
        let mut put = |at: usize, value: &[u8]| bytes[at..][..value.len()].copy_from_slice(value);
        put(0, &MAGIC.to_le_bytes());
        put(8, &(COMPAT_CHECKSUM | COMPAT_MTIME).to_le_bytes());
        put(12, &[BLOCK_BITS]);
        put(14, &self.root_nid.to_le_bytes());
        put(16, &self.inodes.to_le_bytes());
        put(36, &self.blocks.to_le_bytes());
        put(48, &self.uuid);
        put(80, &incompat.to_le_bytes());
        let sum = crc32c(bytes);
        bytes[4..8].copy_from_slice(&sum.to_le_bytes());
    }
}

/// The CRC that covers the superblock: Castagnoli's, not inverted at the end.
fn crc32c(bytes: &[u8]) -> u32 {
    const POLYNOMIAL: u32 = 0x82F6_3B78;
    bytes.iter().fold(u32::MAX, |mut sum, byte| {
        sum ^= u32::from(*byte);
        for _ in 0..8 {
            sum = (sum >> 1) ^ (POLYNOMIAL & (sum & 1).wrapping_neg());
        }
        sum
    })
}

/// The file type bits of `st_mode`.
pub(crate) fn type_bits(kind: &InodeKind) -> u16 {
    match kind {
        InodeKind::File(_) => 0o100_000,
        InodeKind::Symlink(_) => 0o120_000,
        InodeKind::CharDevice => 0o020_000,
        InodeKind::BlockDevice => 0o060_000,
        InodeKind::Fifo => 0o010_000,
    }
}

/// The file type bits of a directory.
pub(crate) const DIR_TYPE_BITS: u16 = 0o040_000;

/// A device number as Linux encodes it in 32 bits, if it fits.
pub(crate) fn device_number(major: u64, minor: u64) -> Option<u32> {
    let major = u32::try_from(major).ok().filter(|major| *major < 1 << 12)?;
    let minor = u32::try_from(minor).ok().filter(|minor| *minor < 1 << 20)?;
    Some((minor & 0xff) | (major << 8) | ((minor & !0xff) << 12))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc_is_castagnolis() {
        assert_eq!(!crc32c(b"123456789"), 0xE306_9283);
    }

    #[test]
    fn device_numbers_are_packed_as_linux_does() {
        assert_eq!(device_number(8, 1), Some(0x0801));
        assert_eq!(device_number(0xfff, 0xf_ffff), Some(u32::MAX));
        assert_eq!(device_number(259, 300), Some(0x0011_032c));
        assert_eq!(device_number(1 << 12, 0), None);
        assert_eq!(device_number(0, 1 << 20), None);
    }
}
