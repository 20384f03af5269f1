// SPDX-License-Identifier: Apache-2.0
//! The blocks of a directory: entries sorted by name, then the names.

use super::{BLOCK_BYTES, BLOCK_LEN};
use crate::tree::InodeKind;

/// Bytes of an entry without its name.
const ENTRY_LEN: usize = 12;

/// A name in a directory and what it stands for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DirEntry<'a> {
    pub(crate) name: &'a [u8],
    pub(crate) nid: u64,
    pub(crate) file_type: u8,
}

/// The file type of a directory in an entry.
pub(crate) const DIR_FILE_TYPE: u8 = 2;

/// The file type of anything else.
pub(crate) fn file_type(kind: &InodeKind) -> u8 {
    match kind {
        InodeKind::File(_) => 1,
        InodeKind::CharDevice => 3,
        InodeKind::BlockDevice => 4,
        InodeKind::Fifo => 5,
        InodeKind::Symlink(_) => 7,
    }
}

/// The size of a directory: every block but the last counts whole.
pub(crate) fn size<'a>(names: impl Iterator<Item = &'a [u8]>) -> u64 {
    let (mut blocks, mut used) = (0, 0);
    for name in names {
        let len = ENTRY_LEN + name.len();
        if used + len > BLOCK_LEN {
            blocks += 1;
            used = 0;
        }
        used += len;
    }
    blocks * BLOCK_BYTES + used as u64
}

/// Encodes a directory block by block; the last one is as long as it is.
pub(crate) fn encode<'a, E>(
    entries: impl Iterator<Item = DirEntry<'a>>,
    mut emit: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let mut block = Vec::with_capacity(BLOCK_LEN);
    let mut open: Vec<DirEntry<'a>> = Vec::new();
    let mut used = 0;
    for entry in entries {
        let len = ENTRY_LEN + entry.name.len();
        if used + len > BLOCK_LEN {
            fill(&mut block, &open);
            block.resize(BLOCK_LEN, 0);
            emit(&block)?;
            open.clear();
            used = 0;
        }
        used += len;
        open.push(entry);
    }
    fill(&mut block, &open);
    emit(&block)
}

fn fill(block: &mut Vec<u8>, entries: &[DirEntry<'_>]) {
    block.clear();
    let mut name_at = entries.len() * ENTRY_LEN;
    for entry in entries {
        block.extend_from_slice(&entry.nid.to_le_bytes());
        let offset = u16::try_from(name_at).expect("names start within a block");
        block.extend_from_slice(&offset.to_le_bytes());
        block.extend_from_slice(&[entry.file_type, 0]);
        name_at += entry.name.len();
    }
    for entry in entries {
        block.extend_from_slice(entry.name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_is_known_before_the_bytes() {
        for count in [0_usize, 1, 14, 15, 16, 17, 1000] {
            let names = (0..count).map(|at| format!("{at:0>250}")).collect::<Vec<_>>();
            let names = || names.iter().map(String::as_bytes);
            let mut len = 0;
            let entries = names().map(|name| DirEntry { name, nid: 7, file_type: 1 });
            let emit = |block: &[u8]| {
                assert!(block.len() <= BLOCK_LEN);
                len += block.len() as u64;
                Ok::<_, ()>(())
            };
            encode(entries, emit).unwrap();
            assert_eq!(len, size(names()), "{count} entries");
        }
    }
}
