// SPDX-License-Identifier: Apache-2.0
//! ELF as far as kernels and modules need it: segments, notes, sections. 64-bit little-endian only.
//!
//! All functions take bytes and return `None` where the bytes do not hold what they claim; where the
//! bytes come from is the caller's business. Counts and sizes in the file are never trusted: a
//! slice that is not there is not read.

const SEGMENT_LEN: usize = 56;
const SECTION_LEN: usize = 64;
const MAGIC: &[u8] = b"\x7fELF";
const CLASS_64: u8 = 2;
const LITTLE_ENDIAN: u8 = 1;

/// `e_type` of a program linked to a fixed address, as a kernel is.
const TYPE_EXECUTABLE: u16 = 2;
const MACHINE_X86_64: u16 = 62;

/// Type of the note that holds the PVH entry point: `XEN_ELFNOTE_PHYS32_ENTRY`.
const NOTE_PHYS32_ENTRY: u32 = 18;

/// Whether the bytes begin like an ELF file of any kind.
pub(crate) fn is_elf(head: &[u8]) -> bool {
    head.starts_with(MAGIC)
}

/// The file header, reduced to where the tables are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    kind: u16,
    machine: u16,
    segments: Table,
    sections: Table,
    section_names: usize,
}

/// A table of equal entries in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Table {
    /// Where it starts.
    pub(crate) offset: u64,
    /// How many bytes it has, at most 65,535 entries of one kind.
    pub(crate) len: usize,
}

impl Header {
    /// Reads the header of a 64-bit little-endian file whose entries have the usual sizes.
    pub(crate) fn parse(head: &[u8]) -> Option<Self> {
        if !is_elf(head) || *head.get(4)? != CLASS_64 || *head.get(5)? != LITTLE_ENDIAN {
            return None;
        }
        Some(Self {
            kind: u16_at(head, 16)?,
            machine: u16_at(head, 18)?,
            segments: table(head, 32, 54, SEGMENT_LEN)?,
            sections: table(head, 40, 58, SECTION_LEN)?,
            section_names: u16_at(head, 62)?.into(),
        })
    }

    /// Whether this is a program for our machine, rather than a library, a module or a core dump.
    pub(crate) fn is_x86_64_program(&self) -> bool {
        self.kind == TYPE_EXECUTABLE && self.machine == MACHINE_X86_64
    }

    /// Where the table of segments is.
    pub(crate) fn segments(&self) -> Table {
        self.segments
    }
}

/// Reads the table whose offset is at `offset_at`, entry size at `size_at` and count right after it.
/// An entry size that is not ours makes an empty table: nothing in it could be read.
fn table(head: &[u8], offset_at: usize, size_at: usize, entry_len: usize) -> Option<Table> {
    let count = usize::from(u16_at(head, size_at + 2)?);
    let usable = usize::from(u16_at(head, size_at)?) == entry_len;
    let len = if usable { count * entry_len } else { 0 };
    Some(Table { offset: u64_at(head, offset_at)?, len })
}

/// What a segment is for, as far as we care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Goes into memory.
    Load,
    /// Notes, among them the PVH entry point.
    Note,
}

/// A piece of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) purpose: Purpose,
    pub(crate) offset: u64,
    /// Length in the file.
    pub(crate) len: u64,
    /// Physical address in memory.
    pub(crate) address: u64,
    /// Length in memory.
    pub(crate) memory_len: u64,
}

/// The segments in `table` that we care about.
pub(crate) fn segments(table: &[u8]) -> impl Iterator<Item = Segment> {
    table.chunks_exact(SEGMENT_LEN).filter_map(|entry| {
        let purpose = match u32_at(entry, 0)? {
            1 => Purpose::Load,
            4 => Purpose::Note,
            _ => return None,
        };
        Some(Segment {
            purpose,
            offset: u64_at(entry, 8)?,
            len: u64_at(entry, 32)?,
            address: u64_at(entry, 24)?,
            memory_len: u64_at(entry, 40)?,
        })
    })
}

/// The PVH entry point in the bytes of a note segment.
pub(crate) fn pvh_entry(mut notes: &[u8]) -> Option<u64> {
    loop {
        let name_len = u32_at(notes, 0)? as usize;
        let value_len = u32_at(notes, 4)? as usize;
        let kind = u32_at(notes, 8)?;
        let name_end = 12_usize.checked_add(name_len)?;
        let value_at = name_end.checked_next_multiple_of(4)?;
        let value_end = value_at.checked_add(value_len)?;
        let (name, value) = (notes.get(12..name_end)?, notes.get(value_at..value_end)?);
        if kind == NOTE_PHYS32_ENTRY && name == b"Xen\0" {
            // The linker writes 4 or 8 bytes, whatever the size of a pointer was then.
            return u64_at(value, 0).or_else(|| u32_at(value, 0).map(u64::from));
        }
        notes = notes.get(value_end.checked_next_multiple_of(4)?..)?;
    }
}

/// The contents of the section `name` in a whole file.
pub(crate) fn section<'a>(file: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let header = Header::parse(file)?;
    let table = slice(file, header.sections.offset, header.sections.len as u64)?;
    let contents = |index: usize| {
        let entry = table.chunks_exact(SECTION_LEN).nth(index)?;
        slice(file, u64_at(entry, 24)?, u64_at(entry, 32)?)
    };
    let names = contents(header.section_names)?;
    let index = table.chunks_exact(SECTION_LEN).position(|entry| {
        let found = u32_at(entry, 0).and_then(|at| names.get(at as usize..));
        found.is_some_and(|found| {
            found.strip_prefix(name).is_some_and(|rest| rest.starts_with(b"\0"))
        })
    })?;
    contents(index)
}

fn slice(file: &[u8], offset: u64, len: u64) -> Option<&[u8]> {
    let start = usize::try_from(offset).ok()?;
    let end = start.checked_add(usize::try_from(len).ok()?)?;
    file.get(start..end)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Length of the file header.
    pub(crate) const HEADER_LEN: usize = 64;

    fn note(name: &[u8], kind: u32, value: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for len in [name.len(), value.len()] {
            bytes.extend_from_slice(&u32::try_from(len).unwrap().to_le_bytes());
        }
        bytes.extend_from_slice(&kind.to_le_bytes());
        for part in [name, value] {
            bytes.extend_from_slice(part);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        bytes
    }

    #[test]
    fn pvh_entry_is_found_behind_other_notes() {
        let other = note(b"GNU\0", NOTE_PHYS32_ENTRY, b"not ours");
        for value in [&0x100_0450_u32.to_le_bytes()[..], &0x100_0450_u64.to_le_bytes()[..]] {
            let notes = [other.clone(), note(b"Xen\0", NOTE_PHYS32_ENTRY, value)].concat();
            assert_eq!(pvh_entry(&notes), Some(0x100_0450));
        }
        assert_eq!(pvh_entry(&other), None);
    }

    #[test]
    fn note_that_claims_too_much_is_no_note() {
        let mut bytes = note(b"Xen\0", NOTE_PHYS32_ENTRY, &[1, 0, 0, 0]);
        bytes[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(pvh_entry(&bytes), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            let mut elf = b"\x7fELF\x02\x01".to_vec();
            elf.extend_from_slice(&bytes);
            let _ = (section(&elf, b".modinfo"), pvh_entry(&bytes), segments(&bytes).count());
            if let Some(header) = Header::parse(&elf) {
                prop_assert!(header.segments().len <= 65_535 * SEGMENT_LEN);
            }
        }

        #[test]
        fn section_with_any_table_stays_inside_the_file(
            offset in any::<u64>(), count in any::<u16>(), names in any::<u16>(),
            rest in proptest::collection::vec(any::<u8>(), 0..1024),
        ) {
            let mut elf = vec![0; HEADER_LEN];
            elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
            elf[40..48].copy_from_slice(&(offset % 1024).to_le_bytes());
            elf[58] = 64;
            elf[60..62].copy_from_slice(&(count % 16).to_le_bytes());
            elf[62..64].copy_from_slice(&(names % 16).to_le_bytes());
            elf.extend_from_slice(&rest);
            if let Some(found) = section(&elf, b"") {
                prop_assert!(found.len() <= elf.len());
            }
        }

        #[test]
        fn pvh_entry_survives_any_neighbours(
            name in proptest::collection::vec(any::<u8>(), 0..16),
            value in proptest::collection::vec(any::<u8>(), 0..32),
            entry in any::<u32>(),
        ) {
            prop_assume!(name != b"Xen\0");
            let ours = note(b"Xen\0", NOTE_PHYS32_ENTRY, &entry.to_le_bytes());
            let notes = [note(&name, NOTE_PHYS32_ENTRY, &value), ours].concat();
            prop_assert_eq!(pvh_entry(&notes), Some(u64::from(entry)));
        }
    }
}
