// SPDX-License-Identifier: Apache-2.0
//! Reads a tar archive from a guest, entry by entry, and trusts nothing in it.
//!
//! Knows ustar, GNU long names and the PAX records for paths and sizes, which is what packers write.
//! Memory is bounded by one extension header; a broken header, checksum or length is an error.

use std::io::{self, Read};

use tar::{EntryType, Header};

/// Bytes of a header and of the pieces that content is filled up to.
const BLOCK: usize = 512;
/// The longest extension: paths have 4 KiB at most, and PAX adds other records.
const MAX_EXTENSION: u64 = 1 << 20;

/// One entry; its content is read from the archive before the next one.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) path: Vec<u8>,
    pub(super) link: Vec<u8>,
    pub(super) kind: EntryType,
    pub(super) size: u64,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: u64,
}

/// An archive as it comes.
pub(super) struct Archive<R> {
    source: R,
    /// Content of the current entry that nobody has read.
    left: u64,
    /// Zeros behind it.
    padding: u64,
}

/// What extension headers say about the next entry.
#[derive(Default)]
struct Extensions {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
}

impl<R: Read> Archive<R> {
    pub(super) fn new(source: R) -> Archive<R> {
        Archive { source, left: 0, padding: 0 }
    }

    /// The next entry, or `None` at the end. Skips what is left of the one before.
    pub(super) fn next(&mut self) -> io::Result<Option<Entry>> {
        let mut extensions = Extensions::default();
        loop {
            self.skip_rest()?;
            let block = self.block()?;
            let header = Header::from_byte_slice(&block);
            if block.iter().all(|byte| *byte == 0) {
                // The end mark; whatever follows is filling.
                io::copy(&mut self.source, &mut io::sink())?;
                return Ok(None);
            }
            check(&block, header)?;
            let own_size = header.entry_size()?;
            let kind = header.entry_type();
            let size = match kind {
                EntryType::Link
                | EntryType::Symlink
                | EntryType::Directory
                | EntryType::Char
                | EntryType::Block
                | EntryType::Fifo => 0,
                _ if extension(kind) => own_size,
                _ => extensions.size.unwrap_or(own_size),
            };
            self.left = size;
            self.padding = size.next_multiple_of(BLOCK as u64).wrapping_sub(size) % BLOCK as u64;
            match kind {
                EntryType::GNULongName => extensions.path = Some(until_nul(self.extension()?)),
                EntryType::GNULongLink => extensions.link = Some(until_nul(self.extension()?)),
                EntryType::XHeader => pax(&self.extension()?, &mut extensions)?,
                EntryType::XGlobalHeader => drop(self.extension()?),
                _ => return Ok(Some(entry(header, extensions, size)?)),
            }
        }
    }

    fn skip_rest(&mut self) -> io::Result<()> {
        let rest = self.left.saturating_add(self.padding);
        (self.left, self.padding) = (0, 0);
        if io::copy(&mut (&mut self.source).take(rest), &mut io::sink())? < rest {
            return Err(truncated());
        }
        Ok(())
    }

    /// The next block. A stream that ends without the end mark has been broken off.
    fn block(&mut self) -> io::Result<[u8; BLOCK]> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            match self.source.read(&mut block[filled..]) {
                Ok(0) => return Err(truncated()),
                Ok(length) => filled += length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(block)
    }

    fn extension(&mut self) -> io::Result<Vec<u8>> {
        if self.left > MAX_EXTENSION {
            return Err(bad("an extension header is too long"));
        }
        let mut bytes = Vec::new();
        let wanted = self.left;
        self.read_to_end(&mut bytes)?;
        if bytes.len() as u64 != wanted {
            return Err(truncated());
        }
        Ok(bytes)
    }
}

/// The content of the current entry.
impl<R: Read> Read for Archive<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        if wanted == 0 {
            return Ok(0);
        }
        let length = self.source.read(&mut buffer[..wanted])?;
        if length == 0 {
            return Err(truncated());
        }
        self.left -= length as u64;
        Ok(length)
    }
}

fn extension(kind: EntryType) -> bool {
    matches!(
        kind,
        EntryType::GNULongName
            | EntryType::GNULongLink
            | EntryType::XHeader
            | EntryType::XGlobalHeader
    )
}

fn check(block: &[u8; BLOCK], header: &Header) -> io::Result<()> {
    const FIELD: std::ops::Range<usize> = 148..156;
    let sum: u32 = block
        .iter()
        .enumerate()
        .map(|(index, byte)| u32::from(if FIELD.contains(&index) { b' ' } else { *byte }))
        .sum();
    if header.cksum()? == sum { Ok(()) } else { Err(bad("a header has a wrong checksum")) }
}

fn entry(header: &Header, extensions: Extensions, size: u64) -> io::Result<Entry> {
    // Old packers leave owners and times empty.
    let number = |number: io::Result<u64>| u32::try_from(number.unwrap_or(0)).unwrap_or(0);
    let link = || header.link_name_bytes().map(std::borrow::Cow::into_owned).unwrap_or_default();
    Ok(Entry {
        path: extensions.path.unwrap_or_else(|| header.path_bytes().into_owned()),
        link: extensions.link.unwrap_or_else(link),
        kind: header.entry_type(),
        size,
        mode: header.mode()?,
        uid: number(header.uid()),
        gid: number(header.gid()),
        mtime: header.mtime().unwrap_or(0),
    })
}

fn until_nul(mut bytes: Vec<u8>) -> Vec<u8> {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    bytes.truncate(end);
    bytes
}

/// Records are `LENGTH KEY=VALUE\n`, where the length counts all of it.
fn pax(mut rest: &[u8], extensions: &mut Extensions) -> io::Result<()> {
    let wrong = || bad("a PAX record is malformed");
    while !rest.is_empty() {
        let space = rest.iter().position(|byte| *byte == b' ').ok_or_else(wrong)?;
        let length = number(&rest[..space]).ok_or_else(wrong)?;
        let length = usize::try_from(length).map_err(|_| wrong())?;
        let record = rest.get(space + 1..length).ok_or_else(wrong)?;
        rest = &rest[length..];
        let record = record.strip_suffix(b"\n").ok_or_else(wrong)?;
        let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(wrong)?;
        let (key, value) = (&record[..equals], &record[equals + 1..]);
        match key {
            b"path" => extensions.path = Some(value.to_vec()),
            b"linkpath" => extensions.link = Some(value.to_vec()),
            b"size" => extensions.size = Some(number(value).ok_or_else(wrong)?),
            _ => {}
        }
    }
    Ok(())
}

fn number(digits: &[u8]) -> Option<u64> {
    let plain = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    plain.then(|| std::str::from_utf8(digits).ok()?.parse().ok()).flatten()
}

fn truncated() -> io::Error {
    bad("the archive breaks off in the middle")
}

pub(super) fn bad(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(bytes: &[u8]) -> io::Result<Vec<(Entry, Vec<u8>)>> {
        let mut archive = Archive::new(bytes);
        let mut entries = Vec::new();
        while let Some(entry) = archive.next()? {
            let mut content = Vec::new();
            archive.read_to_end(&mut content)?;
            entries.push((entry, content));
        }
        Ok(entries)
    }

    fn sample(path: &str, content: &[u8]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, path, content).unwrap();
        builder.into_inner().unwrap()
    }

    #[test]
    fn long_names_and_contents_are_read() {
        let path = "d/".repeat(100) + &"x".repeat(200);
        let entries = all(&sample(&path, b"hello")).unwrap();
        assert_eq!(entries.len(), 1);
        assert_eq!(entries[0].0.path, path.as_bytes());
        assert_eq!(entries[0].1, b"hello");
    }

    #[test]
    fn pax_records_give_paths_and_sizes() {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = Header::new_ustar();
        let records = b"12 path=a/b\n15 linkpath=xy\n13 foo=bar12\n";
        let records = [&records[..], b"9 size=3\n"].concat();
        header.set_entry_type(EntryType::XHeader);
        header.set_size(records.len() as u64);
        builder.append_data(&mut header, "pax", &records[..]).unwrap();
        let mut header = Header::new_ustar();
        header.set_mode(0o600);
        header.set_size(3);
        builder.append_data(&mut header, "short", &b"abc"[..]).unwrap();
        let entries = all(&builder.into_inner().unwrap()).unwrap();
        assert_eq!(entries[0].0.path, b"a/b");
        assert_eq!(entries[0].0.link, b"xy");
        assert_eq!(entries[0].1, b"abc");
    }

    #[test]
    fn broken_archives_are_refused() {
        let whole = sample("a", &[7; 700]);
        assert!(all(&whole[..512 + 600]).is_err(), "content breaks off");
        assert!(all(&whole[..300]).is_err(), "header breaks off");
        assert!(all(&whole[..1536]).is_err(), "the end mark is missing");
        let mut flipped = whole.clone();
        flipped[0] ^= 1;
        assert!(all(&flipped).unwrap_err().to_string().contains("checksum"));
        for record in ["5 a=b\n", "x a=b\n", "99 a=b\n", "6 ab=c\n", "", "18446744073709551616 a"] {
            let result = pax(record.as_bytes(), &mut Extensions::default());
            assert_eq!(result.is_ok(), record.is_empty(), "{record:?}");
        }
    }

    #[test]
    fn a_huge_extension_is_refused_before_it_is_held() {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::GNULongName);
        header.set_size(1 << 40);
        header.set_cksum();
        let endless = io::repeat(b'x');
        let mut archive = Archive::new(header.as_bytes().chain(endless));
        assert!(archive.next().unwrap_err().to_string().contains("too long"));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..3000), at in 0_usize..2000, value: u8) {
            let _ = all(&bytes);
            // Mutations of a real archive get further.
            bytes = sample("some/path", b"content");
            let at = at % bytes.len();
            bytes[at] = value;
            let _ = all(&bytes);
        }

        #[test]
        fn no_record_makes_pax_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = pax(&bytes, &mut Extensions::default());
        }
    }
}
