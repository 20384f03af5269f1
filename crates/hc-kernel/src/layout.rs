// SPDX-License-Identifier: Apache-2.0
//! How an ELF kernel goes into memory, for a hypervisor that loads it itself.

use std::fs::File;
use std::path::Path;

use crate::elf::{self, Purpose, Segment};
use crate::error::Error;
use crate::kernel::ElfFile;

/// Room for the file header and, in every kernel, for what follows it.
const HEAD_LEN: usize = 4096;

/// What a loader of an ELF kernel has to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The physical address of the 32-bit entry point of the PVH protocol.
    pub pvh_entry: u32,
    /// The parts of the file that go into memory. Where they go is the file's word: nothing says
    /// that there is memory, or that they lie apart.
    pub segments: Vec<LoadSegment>,
}

/// A part of a kernel's file, and where it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadSegment {
    /// Where it starts in the file.
    pub offset: u64,
    /// Its physical address.
    pub address: u64,
    /// Its length in the file.
    pub file_len: u64,
    /// Its length in memory, at least that in the file; the rest is zeros.
    pub memory_len: u64,
}

impl Layout {
    /// Reads the headers of a kernel; `path` names the file in errors.
    pub fn read(file: &File, path: &Path) -> Result<Layout, Error> {
        let elf = ElfFile { file, path };
        let not_a_kernel = |what| Error::NotAKernel { path: path.to_owned(), what };
        let header = elf::Header::parse(&elf.read(0, HEAD_LEN)?)
            .filter(elf::Header::is_x86_64_program)
            .ok_or_else(|| not_a_kernel("not an uncompressed x86-64 kernel (vmlinux)"))?;
        let segments = elf.segments(header.segments())?;
        let pvh_entry = elf
            .pvh_entry(&segments)?
            .and_then(|entry| u32::try_from(entry).ok())
            .ok_or_else(|| not_a_kernel("a kernel without a PVH entry"))?;
        let loaded = segments.iter().filter(|segment| segment.purpose == Purpose::Load);
        let segments = loaded.map(|&Segment { offset, len, address, memory_len, .. }| {
            LoadSegment { offset, address, file_len: len, memory_len: memory_len.max(len) }
        });
        Ok(Layout { pvh_entry, segments: segments.collect() })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    /// An ELF file with these entries in its table of segments, and a PVH note at the end.
    fn kernel(load: &[LoadSegment], entry: u32) -> File {
        let count = load.len() + 1;
        let note_at = 64 + 56 * count;
        let mut bytes = b"\x7fELF\x02\x01\x01".to_vec();
        bytes.resize(64, 0);
        bytes[16] = 2;
        bytes[18] = 62;
        bytes[32] = 64;
        bytes[54] = 56;
        bytes[56] = u8::try_from(count).unwrap();
        let mut segment = |kind: u32, offset: u64, address: u64, file_len: u64, memory_len: u64| {
            bytes.extend(kind.to_le_bytes());
            bytes.extend([0; 4]);
            for word in [offset, 0, address, file_len, memory_len, 0] {
                bytes.extend(word.to_le_bytes());
            }
        };
        for part in load {
            segment(1, part.offset, part.address, part.file_len, part.memory_len);
        }
        segment(4, note_at as u64, 0, 20, 20);
        for word in [4_u32, 4, 18] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(b"Xen\0");
        bytes.extend(entry.to_le_bytes());
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        file
    }

    const TEXT: LoadSegment =
        LoadSegment { offset: 4096, address: 1 << 24, file_len: 100, memory_len: 200 };

    #[test]
    fn segments_and_entry_are_read() {
        let layout = Layout::read(&kernel(&[TEXT], 0x100_0450), Path::new("vmlinux")).unwrap();
        assert_eq!(layout, Layout { pvh_entry: 0x100_0450, segments: vec![TEXT] });
    }

    #[test]
    fn segment_is_never_shorter_in_memory_than_in_the_file() {
        let odd = LoadSegment { memory_len: 1, ..TEXT };
        let layout = Layout::read(&kernel(&[odd], 1), Path::new("vmlinux")).unwrap();
        assert_eq!(layout.segments, [LoadSegment { memory_len: 100, ..TEXT }]);
    }

    #[test]
    fn what_is_no_kernel_is_named() {
        let mut text = tempfile::tempfile().unwrap();
        text.write_all(b"hello").unwrap();
        let error = Layout::read(&text, Path::new("/x/hello")).unwrap_err();
        let expected = "/x/hello is not a kernel that can be booted: \
                        it is not an uncompressed x86-64 kernel (vmlinux)";
        assert_eq!(error.to_string(), expected);
    }
}
