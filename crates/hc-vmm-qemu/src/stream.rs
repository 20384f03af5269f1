// SPDX-License-Identifier: Apache-2.0
//! The stream that QEMU copies a guest over, taken apart into memory and all else.
//!
//! Its layout is in QEMU's `docs/devel/migration.rst` and the code that it names. As far as it
//! matters here, numbers being big-endian:
//!
//! ```text
//! "QEVM" version | configuration | section, section, ... | devices, to the end
//!
//! section: 1 (start) id name instance version, or 2 (part) id, or 3 (end) id
//!          entries of memory | 0x7e id
//! entry:   offset and flags | block's name, unless it is the last entry's | a page, or its one byte
//! ```
//!
//! The pages of the guest's own memory go to their places in a file. What is left is a stream that
//! QEMU takes as well: it lists the memory, and brings no page of it, so a QEMU that has mapped the
//! file keeps what is there. So any number of guests share what they have not changed.
//!
//! # Invariants
//!
//! - A page is written only below the memory's length, and a stream ends up in the state only up to
//!   a limit, whatever a QEMU sends that its guest has taken over.
//! - A memory file stays sparse where the guest's memory was never touched.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt as _;

const MAGIC: [u8; 4] = *b"QEVM";
const VERSION: u32 = 3;
const PAGE: usize = 4096;
/// Devices need some 60 KB, firmware 130 KB.
const MAX_STATE: usize = 32 << 20;

const SECTION_START: u8 = 1;
const SECTION_PART: u8 = 2;
const SECTION_END: u8 = 3;
const SECTION_FULL: u8 = 4;
const CONFIGURATION: u8 = 7;
const FOOTER: u8 = 0x7e;

const ZERO: u64 = 0x02;
const SIZES: u64 = 0x04;
const WHOLE: u64 = 0x08;
const END: u64 = 0x10;
const SAME_BLOCK: u64 = 0x20;
const FLAGS: u64 = PAGE as u64 - 1;

/// Reads a stream to its end; the pages of the block `block` go to `memory`, all else to `state`.
pub(crate) fn split(
    input: impl Read,
    block: &str,
    memory: &File,
    mut state: impl Write,
) -> io::Result<()> {
    let len = memory.metadata()?.len();
    let pages = Pages { file: memory, len, touched: vec![0; pages(len).div_ceil(64)] };
    let mut split = Split { input, rest: Vec::new(), own: block, last: Vec::new(), pages };
    split.all()?;
    state.write_all(&split.rest)
}

fn pages(len: u64) -> usize {
    usize::try_from(len / PAGE as u64).unwrap_or(usize::MAX)
}

struct Split<'a, R> {
    input: R,
    /// What becomes the state.
    rest: Vec<u8>,
    own: &'a str,
    /// The block of the last entry, also if a section has begun since.
    last: Vec<u8>,
    pages: Pages<'a>,
}

/// The memory as far as it has come.
struct Pages<'a> {
    file: &'a File,
    len: u64,
    /// A bit a page: whether it was written, so that zeros have to be written as well.
    touched: Vec<u64>,
}

impl<R: Read> Split<'_, R> {
    fn all(&mut self) -> io::Result<()> {
        if self.copy::<4>()? != MAGIC || u32::from_be_bytes(self.copy()?) != VERSION {
            return Err(nonsense("it does not begin like one"));
        }
        loop {
            match self.copy::<1>()? {
                [CONFIGURATION] => {
                    let len = u32::from_be_bytes(self.copy()?);
                    self.copy_many(len.into())?;
                }
                [SECTION_START] => {
                    self.copy::<4>()?;
                    if self.copy_name()? != b"ram" {
                        return Err(nonsense(
                            "something besides memory comes while the guest runs",
                        ));
                    }
                    self.copy::<8>()?;
                    self.entries()?;
                }
                [SECTION_PART | SECTION_END] => {
                    self.copy::<4>()?;
                    self.entries()?;
                }
                [SECTION_FULL] => break,
                _ => return Err(nonsense("a section of an unknown kind")),
            }
        }
        // The devices: whatever is still to come.
        let room = MAX_STATE.saturating_sub(self.rest.len()) as u64;
        if (&mut self.input).take(room).read_to_end(&mut self.rest)? as u64 == room {
            return Err(nonsense("it has no end"));
        }
        Ok(())
    }

    /// The entries of one section, and its footer.
    fn entries(&mut self) -> io::Result<()> {
        loop {
            let word = u64::from_be_bytes(self.read()?);
            let (offset, flags) = (word & !FLAGS, word & FLAGS);
            match flags & !SAME_BLOCK {
                END => {
                    self.keep(&word.to_be_bytes())?;
                    break;
                }
                SIZES => {
                    self.keep(&word.to_be_bytes())?;
                    self.sizes(offset)?;
                    continue;
                }
                ZERO | WHOLE => {}
                _ => return Err(nonsense("an entry of an unknown kind")),
            }
            if flags & SAME_BLOCK == 0 {
                let [len] = self.read()?;
                self.last.resize(len.into(), 0);
                self.input.read_exact(&mut self.last)?;
            }
            let mut page = [0; PAGE];
            let whole = flags & WHOLE != 0;
            let content = if whole { &mut page[..] } else { &mut page[..1] };
            self.input.read_exact(content)?;
            if self.last == self.own.as_bytes() {
                match (whole, page[0]) {
                    (true, _) => self.pages.write(offset, &page)?,
                    (false, 0) => self.pages.clear(offset)?,
                    (false, byte) => self.pages.write(offset, &[byte; PAGE])?,
                }
                continue;
            }
            // By its name, since what came before it may have been left out.
            let word = offset | flags & !SAME_BLOCK;
            let len = u8::try_from(self.last.len()).map_err(io::Error::other)?;
            let content = if whole { &page[..] } else { &page[..1] };
            let entry = [&word.to_be_bytes()[..], &[len], &self.last, content].concat();
            self.keep(&entry)?;
        }
        match self.copy::<5>()? {
            [FOOTER, ..] => Ok(()),
            _ => Err(nonsense("a section without an end")),
        }
    }

    /// The list of blocks, whose lengths are `total` together.
    fn sizes(&mut self, total: u64) -> io::Result<()> {
        let mut left = total;
        while left > 0 {
            let own = self.copy_name()? == self.own.as_bytes();
            let len = u64::from_be_bytes(self.copy()?);
            if own && len != self.pages.len {
                return Err(nonsense("the guest's memory is not as long as it was"));
            }
            left =
                left.checked_sub(len).filter(|_| len > 0).ok_or_else(|| nonsense("its sizes"))?;
        }
        Ok(())
    }

    fn copy_name(&mut self) -> io::Result<Vec<u8>> {
        let [len] = self.copy()?;
        self.copy_many(len.into())?;
        Ok(self.rest[self.rest.len() - usize::from(len)..].to_vec())
    }

    /// Reads so many bytes and keeps them.
    fn copy<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let bytes = self.read()?;
        self.keep(&bytes)?;
        Ok(bytes)
    }

    fn copy_many(&mut self, len: u64) -> io::Result<()> {
        if self.rest.len() as u64 + len > MAX_STATE as u64 {
            return Err(nonsense("it has no end"));
        }
        let read = (&mut self.input).take(len).read_to_end(&mut self.rest)?;
        if (read as u64) < len { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }

    fn read<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.input.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn keep(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.rest.len() + bytes.len() > MAX_STATE {
            return Err(nonsense("it has no end"));
        }
        self.rest.extend_from_slice(bytes);
        Ok(())
    }
}

impl Pages<'_> {
    fn write(&mut self, offset: u64, page: &[u8; PAGE]) -> io::Result<()> {
        let (word, bit) = self.place(offset)?;
        self.touched[word] |= bit;
        self.file.write_all_at(page, offset)
    }

    /// A page of zeros, which is what a page is that was never written.
    fn clear(&mut self, offset: u64) -> io::Result<()> {
        let (word, bit) = self.place(offset)?;
        if self.touched[word] & bit == 0 {
            return Ok(());
        }
        self.file.write_all_at(&[0; PAGE], offset)
    }

    /// Where the page's bit is.
    fn place(&self, offset: u64) -> io::Result<(usize, u64)> {
        if offset >= self.len {
            return Err(nonsense("a page outside the guest's memory"));
        }
        let page = pages(offset);
        Ok((page / 64, 1 << (page % 64)))
    }
}

fn nonsense(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("QEMU's copy makes no sense: {what}"))
}

#[cfg(test)]
mod tests;
