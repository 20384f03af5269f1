// SPDX-License-Identifier: Apache-2.0
//! Tar archives: POSIX headers with PAX records, and what GNU tar adds for long names and large
//! numbers. Bytes in, entries out, and back; files are the caller's.
//!
//! # Limits
//!
//! Sparse files and multi-volume archives are refused by name.

use std::io::{self, Read};

/// Everything in an archive comes in blocks of this size.
pub(super) const BLOCK: usize = 512;
/// The most that names and records of one entry may take: the kernel allows 64 KiB for an extended
/// attribute, and a file has few.
const EXTENSION_MAX: u64 = 1 << 20;
/// The longest path; the kernel's.
const PATH_MAX: usize = 4096;
/// The prefix of PAX records that hold extended attributes.
const XATTR_PREFIX: &[u8] = b"SCHILY.xattr.";

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    HardLink,
    Symlink,
    Character,
    Block,
    Directory,
    Fifo,
}

impl Kind {
    const ALL: [(u8, Kind); 7] = [
        (b'0', Kind::File),
        (b'1', Kind::HardLink),
        (b'2', Kind::Symlink),
        (b'3', Kind::Character),
        (b'4', Kind::Block),
        (b'5', Kind::Directory),
        (b'6', Kind::Fifo),
    ];
}

/// One entry without its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) path: Vec<u8>,
    pub(super) kind: Kind,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) size: u64,
    /// Seconds and nanoseconds since 1970.
    pub(super) modified: (u64, u32),
    pub(super) link: Vec<u8>,
    pub(super) device: (u32, u32),
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Where a field lies in a header.
struct Field(usize, usize);

const NAME: Field = Field(0, 100);
const MODE: Field = Field(100, 8);
const UID: Field = Field(108, 8);
const GID: Field = Field(116, 8);
const SIZE: Field = Field(124, 12);
const MTIME: Field = Field(136, 12);
const CHECKSUM: Field = Field(148, 8);
const TYPE: usize = 156;
const LINK: Field = Field(157, 100);
const MAGIC: Field = Field(257, 6);
const MAJOR: Field = Field(329, 8);
const MINOR: Field = Field(337, 8);
const PREFIX: Field = Field(345, 155);

impl Field {
    fn of<'a>(&self, block: &'a [u8; BLOCK]) -> &'a [u8] {
        &block[self.0..self.0 + self.1]
    }

    /// The bytes up to the first zero.
    fn text<'a>(&self, block: &'a [u8; BLOCK]) -> &'a [u8] {
        until_zero(self.of(block))
    }

    /// Octal digits, or the bytes of a large number behind a set first bit.
    fn number(&self, block: &[u8; BLOCK]) -> Option<u64> {
        let bytes = self.of(block);
        if bytes[0] & 0x80 == 0 {
            let text = std::str::from_utf8(until_zero(bytes)).ok()?.trim();
            return if text.is_empty() { Some(0) } else { u64::from_str_radix(text, 8).ok() };
        }
        let first = u64::from(bytes[0] & 0x7f);
        bytes[1..].iter().try_fold(first, |number, byte| {
            (number < 1 << 56).then_some(number << 8 | u64::from(*byte))
        })
    }

    fn set(&self, block: &mut [u8; BLOCK], bytes: &[u8]) {
        let length = bytes.len().min(self.1);
        block[self.0..self.0 + length].copy_from_slice(&bytes[..length]);
    }

    fn set_number(&self, block: &mut [u8; BLOCK], number: u64) {
        let digits = self.1 - 1;
        let text = format!("{number:0digits$o}");
        if text.len() <= digits {
            return self.set(block, text.as_bytes());
        }
        let bytes = number.to_be_bytes();
        let field = &mut block[self.0..self.0 + self.1];
        let from = field.len().saturating_sub(bytes.len());
        let skipped = bytes.len().saturating_sub(field.len());
        field[from..].copy_from_slice(&bytes[skipped..]);
        field[0] |= 0x80;
    }
}

/// The header blocks of an entry: PAX records first where the plain header cannot say it all.
pub(super) fn encode(entry: &Entry) -> Vec<u8> {
    let mut records = Vec::new();
    for (key, value, field) in [("path", &entry.path, NAME), ("linkpath", &entry.link, LINK)] {
        if value.len() > field.1 || !value.is_ascii() {
            push_record(&mut records, key.as_bytes(), value);
        }
    }
    let (seconds, nanos) = entry.modified;
    if nanos != 0 {
        push_record(&mut records, b"mtime", format!("{seconds}.{nanos:09}").as_bytes());
    }
    for (name, value) in &entry.xattrs {
        push_record(&mut records, &[XATTR_PREFIX, name].concat(), value);
    }
    let mut blocks = Vec::new();
    if !records.is_empty() {
        let extension = Entry {
            path: b"PaxHeaders/entry".to_vec(),
            kind: Kind::File,
            mode: 0o644,
            uid: 0,
            gid: 0,
            size: records.len() as u64,
            modified: (0, 0),
            link: Vec::new(),
            device: (0, 0),
            xattrs: Vec::new(),
        };
        blocks.extend(header(&extension, b'x'));
        records.resize(records.len().next_multiple_of(BLOCK), 0);
        blocks.extend(records);
    }
    let letter = Kind::ALL.iter().find(|(_, kind)| *kind == entry.kind).map_or(b'0', |(l, _)| *l);
    blocks.extend(header(entry, letter));
    blocks
}

fn header(entry: &Entry, letter: u8) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    NAME.set(&mut block, &entry.path);
    MODE.set_number(&mut block, u64::from(entry.mode & 0o7777));
    UID.set_number(&mut block, u64::from(entry.uid));
    GID.set_number(&mut block, u64::from(entry.gid));
    SIZE.set_number(&mut block, entry.size);
    MTIME.set_number(&mut block, entry.modified.0);
    block[TYPE] = letter;
    LINK.set(&mut block, &entry.link);
    MAGIC.set(&mut block, b"ustar\0");
    block[263..265].copy_from_slice(b"00");
    MAJOR.set_number(&mut block, u64::from(entry.device.0));
    MINOR.set_number(&mut block, u64::from(entry.device.1));
    let sum = checksum(&block);
    CHECKSUM.set(&mut block, format!("{sum:06o}\0 ").as_bytes());
    block
}

/// The sum of all bytes, those of the sum itself counting as spaces.
fn checksum(block: &[u8; BLOCK]) -> u64 {
    let all: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
    let own: u64 = CHECKSUM.of(block).iter().map(|byte| u64::from(*byte)).sum();
    all - own + u64::from(b' ') * CHECKSUM.1 as u64
}

/// Adds `LENGTH KEY=VALUE\n`, where the length counts its own digits.
fn push_record(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    records.extend(length.to_string().as_bytes());
    records.push(b' ');
    records.extend(key);
    records.push(b'=');
    records.extend(value);
    records.push(b'\n');
}

/// The records of a PAX header; ends with an error at the first that makes no sense.
fn parse_records(mut bytes: &[u8]) -> io::Result<Vec<(&[u8], &[u8])>> {
    let mut records = Vec::new();
    while !bytes.is_empty() {
        let record = parse_record(bytes).ok_or_else(|| bad("a PAX record makes no sense"))?;
        records.push((record.0, record.1));
        bytes = &bytes[record.2..];
    }
    Ok(records)
}

/// Key, value and length of the first record.
fn parse_record(bytes: &[u8]) -> Option<(&[u8], &[u8], usize)> {
    let space = bytes.iter().take(8).position(|byte| *byte == b' ')?;
    let length: usize = std::str::from_utf8(&bytes[..space]).ok()?.parse().ok()?;
    let body = bytes.get(space + 1..length)?.strip_suffix(b"\n")?;
    let equals = body.iter().position(|byte| *byte == b'=')?;
    Some((&body[..equals], &body[equals + 1..], length))
}

/// Reads entries one by one.
pub(super) struct Reader<R> {
    source: R,
    /// Bytes of the current entry that were not read, and its padding.
    left: u64,
    padding: u64,
}

/// What extension headers said about the entry that follows them.
#[derive(Default)]
struct Extension {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u32>,
    gid: Option<u32>,
    modified: Option<(u64, u32)>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl<R: Read> Reader<R> {
    /// A reader of the archive in `source`.
    pub(super) fn new(source: R) -> Reader<R> {
        Reader { source, left: 0, padding: 0 }
    }

    /// The next entry, or `None` at the end. What was not read of the last one is skipped.
    pub(super) fn next(&mut self) -> io::Result<Option<Entry>> {
        let mut extension = Extension::default();
        loop {
            self.skip_rest()?;
            let Some(block) = self.next_header()? else { return Ok(None) };
            self.begin(SIZE.number(&block).ok_or_else(|| bad("a size makes no sense"))?);
            match block[TYPE] {
                b'x' => extension.add_records(&self.read_extension()?)?,
                b'L' => extension.path = Some(until_zero(&self.read_extension()?).to_vec()),
                b'K' => extension.link = Some(until_zero(&self.read_extension()?).to_vec()),
                // Records for all entries: comments and the like.
                b'g' => {}
                _ => {
                    let entry = parse_entry(&block, extension)?;
                    self.begin(if entry.kind == Kind::File { entry.size } else { 0 });
                    return Ok(Some(entry));
                }
            }
        }
    }

    /// Reads to the end of the source, so that its writer is not cut off.
    pub(super) fn drain(mut self) -> io::Result<()> {
        io::copy(&mut self.source, &mut io::sink()).map(drop)
    }

    fn begin(&mut self, size: u64) {
        self.left = size;
        self.padding = (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64;
    }

    fn skip_rest(&mut self) -> io::Result<()> {
        let rest = self.left.checked_add(self.padding).ok_or_else(|| bad("a size is absurd"))?;
        let skipped = io::copy(&mut (&mut self.source).take(rest), &mut io::sink())?;
        (self.left, self.padding) = (0, 0);
        if skipped == rest { Ok(()) } else { Err(cut_short()) }
    }

    /// The next header block; `None` at the zeros that end an archive, or where it just stops.
    fn next_header(&mut self) -> io::Result<Option<[u8; BLOCK]>> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            match self.source.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(cut_short()),
                Ok(length) => filled += length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if block == [0; BLOCK] {
            return Ok(None);
        }
        if CHECKSUM.number(&block) != Some(checksum(&block)) {
            return Err(bad("a header's checksum is wrong"));
        }
        Ok(Some(block))
    }

    fn read_extension(&mut self) -> io::Result<Vec<u8>> {
        if self.left > EXTENSION_MAX {
            return Err(bad("an extension header is too long"));
        }
        let mut bytes = Vec::new();
        self.read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

impl<R: Read> Read for Reader<R> {
    /// Reads bytes of the current entry; an archive that ends before them is an error.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        if most == 0 {
            return Ok(0);
        }
        let length = self.source.read(&mut buffer[..most])?;
        self.left -= length as u64;
        if length == 0 { Err(cut_short()) } else { Ok(length) }
    }
}

impl Extension {
    fn add_records(&mut self, bytes: &[u8]) -> io::Result<()> {
        for (key, value) in parse_records(bytes)? {
            let number = || std::str::from_utf8(value).ok()?.parse::<u64>().ok();
            let id = || number().and_then(|id| u32::try_from(id).ok());
            match key {
                b"path" => self.path = Some(value.to_vec()),
                b"linkpath" => self.link = Some(value.to_vec()),
                b"size" => self.size = Some(number().ok_or_else(|| bad("a size makes no sense"))?),
                b"uid" => self.uid = id(),
                b"gid" => self.gid = id(),
                b"mtime" => self.modified = parse_time(value),
                _ if key.starts_with(b"GNU.sparse.") => {
                    return Err(bad("sparse files are not supported"));
                }
                _ => {
                    if let Some(name) = key.strip_prefix(XATTR_PREFIX) {
                        self.xattrs.push((name.to_vec(), value.to_vec()));
                    }
                }
            }
        }
        Ok(())
    }
}

fn parse_entry(block: &[u8; BLOCK], extension: Extension) -> io::Result<Entry> {
    let letter = block[TYPE];
    let kind = match letter {
        // The forms of a plain file: before POSIX, POSIX, and contiguous.
        0 | b'0' | b'7' => Some(Kind::File),
        _ => Kind::ALL.iter().find(|(known, _)| *known == letter).map(|(_, kind)| *kind),
    };
    let kind = kind.ok_or_else(|| bad("an entry of this type is not supported"))?;
    let number = |field: Field| {
        field
            .number(block)
            .and_then(|number| u32::try_from(number).ok())
            .ok_or_else(|| bad("a number in a header makes no sense"))
    };
    let path = extension.path.unwrap_or_else(|| plain_path(block));
    let link = extension.link.unwrap_or_else(|| LINK.text(block).to_vec());
    if path.len() > PATH_MAX || link.len() > PATH_MAX {
        return Err(bad("a path is too long"));
    }
    let is_device = matches!(kind, Kind::Character | Kind::Block);
    Ok(Entry {
        kind: if kind == Kind::File && path.ends_with(b"/") { Kind::Directory } else { kind },
        path,
        mode: number(MODE)? & 0o7777,
        uid: extension.uid.map_or_else(|| number(UID), Ok)?,
        gid: extension.gid.map_or_else(|| number(GID), Ok)?,
        size: extension.size.or_else(|| SIZE.number(block)).unwrap_or(0),
        // A time before 1970 has no form here.
        modified: extension.modified.unwrap_or((MTIME.number(block).unwrap_or(0), 0)),
        link,
        device: if is_device { (number(MAJOR)?, number(MINOR)?) } else { (0, 0) },
        xattrs: extension.xattrs,
    })
}

/// The path in a header; POSIX ones may have its beginning in a field of its own.
fn plain_path(block: &[u8; BLOCK]) -> Vec<u8> {
    let (name, prefix) = (NAME.text(block), PREFIX.text(block));
    if MAGIC.of(block) == b"ustar\0" && !prefix.is_empty() {
        [prefix, name].join(&b'/')
    } else {
        name.to_vec()
    }
}

/// Seconds with an optional fraction.
fn parse_time(value: &[u8]) -> Option<(u64, u32)> {
    let text = std::str::from_utf8(value).ok()?;
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    Some((seconds.parse().ok()?, digits.parse().ok()?))
}

fn until_zero(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

fn bad(message: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("archive: {message}"))
}

fn cut_short() -> io::Error {
    bad("it is cut short")
}
