// SPDX-License-Identifier: Apache-2.0
//! Reads a tar archive of any dialect from a stream, one entry and then its content at a time.
//!
//! Knows v7, ustar, star, PAX and GNU headers, long names, base-256 numbers and sparse files. Knows
//! nothing of layers or file systems: paths are bytes as the archive has them.
//!
//! # Invariants
//!
//! - Hostile archives end in a [`Stop`], never in a panic; memory is bounded by two buffers, one
//!   extension header of each kind and one sparse map.
//! - A file's content is always as long as its size says, or the archive is truncated.
//!
//! # Limits
//!
//! A stream that ends where an entry could begin is taken for a whole archive, with or without the
//! two blocks of zeros that should end it: writers in use leave them out, and an image's digests
//! tell whether something is missing.

mod header;
mod pax;
mod sparse;

use std::io::{self, Read};

use crate::TarFault;
use crate::error::Stop;
use header::{BLOCK_LEN, Block, Header};
use pax::Pax;
pub(crate) use pax::{Time, Xattr};
use sparse::{Segment, SparseDialect, SparseMap, TextMap};

/// Large enough to make calls into a decompressor rare, small enough for a CPU's cache.
const BUFFER_LEN: usize = 256 << 10;
/// From here on, content is read straight to where it goes.
const DIRECT_LEN: usize = 16 << 10;
/// The largest extension header, as Go's reader and thereby Docker has it.
const MAX_EXTENSION_LEN: u64 = 1 << 20;

/// One entry of an archive.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) path: Vec<u8>,
    pub(crate) kind: EntryKind,
    pub(crate) attributes: Attributes,
}

/// What every entry has beside its path.
#[derive(Debug)]
pub(crate) struct Attributes {
    /// Permission bits with setuid, setgid and sticky, without the file type.
    pub(crate) mode: u16,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: Time,
    /// Sorted by name, no name twice.
    pub(crate) xattrs: Vec<Xattr>,
}

/// What an entry is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum EntryKind {
    /// A regular file of this many bytes, holes included.
    File {
        size: u64,
    },
    Directory,
    Symlink {
        target: Vec<u8>,
    },
    HardLink {
        target: Vec<u8>,
    },
    CharDevice {
        major: u64,
        minor: u64,
    },
    BlockDevice {
        major: u64,
        minor: u64,
    },
    Fifo,
}

/// An archive that is being read.
pub(crate) struct Reader<R> {
    source: R,
    buffer: Box<[u8]>,
    /// The part of the buffer not yet used.
    unread: std::ops::Range<usize>,
    /// Bytes taken from the source.
    taken: u64,
    /// Where the current entry starts, or the last header in front of it.
    entry_start: u64,
    limit: u64,
    global: Pax,
    content: Content,
}

/// The content of the current entry.
#[derive(Default)]
struct Content {
    /// Bytes the file has.
    size: u64,
    /// Where in the file the next byte goes.
    position: u64,
    /// Bytes of data still to come from the stream, and the padding behind them.
    stored: u64,
    padding: u64,
    /// The parts that have data, from the one that `position` is in or before.
    segments: std::vec::IntoIter<Segment>,
    current: Option<Segment>,
}

/// The overrides that stand in front of an entry.
#[derive(Default)]
struct Extensions {
    local: Option<Pax>,
    long_path: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
}

impl<R: Read> Reader<R> {
    /// Starts to read `source`, which may be at most `limit` bytes long.
    pub(crate) fn new(source: R, limit: u64) -> Reader<R> {
        Reader {
            source,
            buffer: vec![0; BUFFER_LEN].into_boxed_slice(),
            unread: 0..0,
            taken: 0,
            entry_start: 0,
            limit,
            global: Pax::default(),
            content: Content::default(),
        }
    }

    /// Bytes taken from the stream so far.
    pub(crate) fn taken(&self) -> u64 {
        self.taken
    }

    /// Where in the stream the current entry starts.
    pub(crate) fn entry_start(&self) -> u64 {
        self.entry_start
    }

    /// The next entry, or `None` at the end of the archive; what is left of the last entry's
    /// content is skipped.
    pub(crate) fn next_entry(&mut self) -> Result<Option<Entry>, Stop> {
        let rest = std::mem::take(&mut self.content);
        self.skip(rest.stored)?;
        self.skip(rest.padding)?;
        let mut extensions = Extensions::default();
        while let Some(header) = self.next_header()? {
            match header.entry_type() {
                b'x' | b'X' => {
                    let mut pax = self.global.clone();
                    pax.apply(&self.extension(&header)?)?;
                    extensions.local = Some(pax);
                }
                b'g' => {
                    let body = self.extension(&header)?;
                    self.global.apply_global(&body)?;
                }
                b'L' => {
                    let body = self.extension(&header)?;
                    extensions.long_path = Some(header::text(&body).to_vec());
                }
                b'K' => {
                    let body = self.extension(&header)?;
                    extensions.long_link = Some(header::text(&body).to_vec());
                }
                b'V' => {} // The label of a volume.
                _ => return self.entry(&header, extensions).map(Some),
            }
        }
        if extensions.is_empty() { Ok(None) } else { Err(TarFault::DanglingExtension.into()) }
    }

    /// Bytes from here to the next data of the file, or to its end.
    pub(crate) fn hole_len(&self) -> u64 {
        let end = self.content.current.map_or(self.content.size, |segment| segment.start);
        end.saturating_sub(self.content.position)
    }

    /// Bytes from here to the next hole of the file, or to its end, with the hole before them.
    pub(crate) fn run_len(&self) -> u64 {
        let end = self.content.current.map_or(self.content.size, |data| data.start + data.len);
        end - self.content.position
    }

    /// Moves on by `len` bytes of the hole that the file is in.
    pub(crate) fn skip_hole(&mut self, len: u64) {
        debug_assert!(len <= self.hole_len(), "skipping past a hole");
        self.content.position += len.min(self.hole_len());
    }

    /// Reads the next bytes of the file, which has at least `target.len()` left.
    pub(crate) fn read_content(&mut self, mut target: &mut [u8]) -> Result<(), Stop> {
        debug_assert!(target.len() as u64 <= self.content.size - self.content.position);
        while !target.is_empty() {
            let hole = capped(self.hole_len(), target.len());
            let part = match self.content.current {
                Some(Segment { start, len }) if hole == 0 => {
                    capped(start + len - self.content.position, target.len())
                }
                _ => hole.max(1), // At least 1, so that no mistake above makes this loop forever.
            };
            let (part, rest) = target.split_at_mut(part);
            if hole == 0 {
                self.read_exact(part)?;
                self.content.advance(part.len() as u64);
            } else {
                part.fill(0);
                self.content.position += part.len() as u64;
            }
            target = rest;
        }
        Ok(())
    }

    /// Reads the source to its end, so that it can say what it has to say there.
    pub(crate) fn drain(&mut self) -> Result<(), Stop> {
        loop {
            self.unread = 0..0;
            if self.refill()? == 0 {
                return Ok(());
            }
        }
    }

    /// The next header, or `None` at the end of the archive.
    fn next_header(&mut self) -> Result<Option<Header>, Stop> {
        const ZEROS: Block = [0; BLOCK_LEN];
        self.entry_start = self.taken - self.unread.len() as u64;
        if self.unread.is_empty() && self.refill()? == 0 {
            return Ok(None);
        }
        let block = self.block()?;
        if block != ZEROS {
            return Ok(Some(Header::parse(&block)?));
        }
        if self.unread.is_empty() && self.refill()? == 0 {
            return Ok(None); // Half an end mark is one, too.
        }
        if self.block()? == ZEROS { Ok(None) } else { Err(TarFault::LoneZeroBlock.into()) }
    }

    /// The body of an extension header.
    fn extension(&mut self, header: &Header) -> Result<Vec<u8>, Stop> {
        let len = header.size()?;
        if len > MAX_EXTENSION_LEN {
            return Err(TarFault::ExtensionTooLarge { len }.into());
        }
        let mut body = vec![0; capped(len, usize::MAX)];
        self.read_exact(&mut body)?;
        self.skip(padding(len))?;
        Ok(body)
    }

    /// Puts an entry together from its header and what stood before it.
    fn entry(&mut self, header: &Header, extensions: Extensions) -> Result<Entry, Stop> {
        let Extensions { local, long_path, long_link } = extensions;
        let pax = local.unwrap_or_else(|| self.global.clone());
        let path = long_path.or(pax.path).unwrap_or_else(|| header.path());
        let target = || long_link.or(pax.link_path).unwrap_or_else(|| header.link_name());
        let stored = pax.size.map_or_else(|| header.size(), Ok);
        let mut path = path;
        let kind = match header.entry_type() {
            // Before there was a type for them, directories were files whose name ends so.
            b'0' | b'\0' | b'7' if path.ends_with(b"/") => {
                self.content = Content::skipped(stored?);
                EntryKind::Directory
            }
            b'0' | b'\0' | b'7' => {
                if let Some(name) = &pax.sparse.name {
                    path.clone_from(name);
                }
                match pax.sparse.dialect()? {
                    None => self.content = Content::plain(stored?),
                    Some(dialect) => self.content = self.sparse_content(dialect, stored?)?,
                }
                EntryKind::File { size: self.content.size }
            }
            b'S' => {
                let stored = stored?;
                let map = self.old_sparse_map(header)?;
                let size = header.sparse_real_size()?;
                self.content = Content::new(size, map.finish(size, stored)?, stored);
                EntryKind::File { size }
            }
            // Nothing but files has data, whatever the size field says.
            b'1' => EntryKind::HardLink { target: target() },
            b'2' => EntryKind::Symlink { target: target() },
            b'3' => {
                let (major, minor) = header.device()?;
                EntryKind::CharDevice { major, minor }
            }
            b'4' => {
                let (major, minor) = header.device()?;
                EntryKind::BlockDevice { major, minor }
            }
            b'5' => EntryKind::Directory,
            b'6' => EntryKind::Fifo,
            other => return Err(TarFault::UnknownType(other).into()),
        };
        let mtime = |secs| Time { secs, nanos: 0 };
        let attributes = Attributes {
            mode: header.mode()?,
            uid: pax.uid.map_or_else(|| header.uid(), Ok)?,
            gid: pax.gid.map_or_else(|| header.gid(), Ok)?,
            mtime: pax.mtime.map_or_else(|| header.mtime().map(mtime), Ok)?,
            xattrs: pax.xattrs,
        };
        Ok(Entry { path, kind, attributes })
    }

    /// Reads the map that continues in blocks after the header.
    fn old_sparse_map(&mut self, header: &Header) -> Result<SparseMap, Stop> {
        let mut map = SparseMap::default();
        let mut more = map.apply_header(header.block())?;
        while more {
            more = map.apply_extension(&self.block()?)?;
        }
        Ok(map)
    }

    fn sparse_content(&mut self, dialect: SparseDialect, stored: u64) -> Result<Content, Stop> {
        match dialect {
            SparseDialect::Header { map, real_size } => {
                Ok(Content::new(real_size, map.finish(real_size, stored)?, stored))
            }
            SparseDialect::Data { real_size } => {
                let (mut text, mut left) = (TextMap::default(), stored);
                loop {
                    // The text is part of the data and padded to whole blocks.
                    left = left.checked_sub(BLOCK_LEN as u64).ok_or(TarFault::SparseMap)?;
                    if text.apply(&self.block()?)? {
                        break;
                    }
                }
                Ok(Content::new(real_size, text.into_map().finish(real_size, left)?, left))
            }
        }
    }

    fn block(&mut self) -> Result<Block, Stop> {
        let mut block = [0; BLOCK_LEN];
        self.read_exact(&mut block)?;
        Ok(block)
    }

    fn read_exact(&mut self, mut target: &mut [u8]) -> Result<(), Stop> {
        while !target.is_empty() {
            let read = if self.unread.is_empty() && target.len() >= DIRECT_LEN {
                take(&mut self.source, target, &mut self.taken, self.limit)?
            } else {
                if self.unread.is_empty() {
                    self.refill()?;
                }
                let len = self.unread.len().min(target.len());
                target[..len].copy_from_slice(&self.buffer[self.unread.start..][..len]);
                self.unread.start += len;
                len
            };
            if read == 0 {
                return Err(TarFault::Truncated.into());
            }
            target = &mut target[read..];
        }
        Ok(())
    }

    fn skip(&mut self, mut len: u64) -> Result<(), Stop> {
        while len > 0 {
            if self.unread.is_empty() && self.refill()? == 0 {
                return Err(TarFault::Truncated.into());
            }
            let step = capped(len, self.unread.len());
            self.unread.start += step;
            len -= step as u64;
        }
        Ok(())
    }

    /// Fills the empty buffer and says how much came.
    fn refill(&mut self) -> Result<usize, Stop> {
        let read = take(&mut self.source, &mut self.buffer, &mut self.taken, self.limit)?;
        self.unread = 0..read;
        Ok(read)
    }
}

impl Content {
    fn new(size: u64, segments: Vec<Segment>, stored: u64) -> Content {
        let mut segments = segments.into_iter();
        let current = segments.next();
        Content { size, position: 0, stored, padding: padding(stored), segments, current }
    }

    fn plain(size: u64) -> Content {
        let whole = Some(Segment { start: 0, len: size }).filter(|segment| segment.len != 0);
        Content { current: whole, ..Content::new(size, Vec::new(), size) }
    }

    /// Data that belongs to no file.
    fn skipped(stored: u64) -> Content {
        Content::new(0, Vec::new(), stored)
    }

    /// Moves on by `len` bytes of the current segment.
    fn advance(&mut self, len: u64) {
        self.position += len;
        self.stored -= len;
        if self.current.is_some_and(|segment| self.position == segment.start + segment.len) {
            self.current = self.segments.next();
        }
    }
}

impl Extensions {
    fn is_empty(&self) -> bool {
        self.local.is_none() && self.long_path.is_none() && self.long_link.is_none()
    }
}

/// Reads from the source, and counts.
fn take(
    source: &mut impl Read,
    target: &mut [u8],
    taken: &mut u64,
    limit: u64,
) -> Result<usize, Stop> {
    loop {
        match source.read(target) {
            Ok(read) => {
                *taken += read as u64;
                return if *taken > limit {
                    Err(Stop::Limit { limit, unit: "bytes of uncompressed layers" })
                } else {
                    Ok(read)
                };
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Stop::Source(error)),
        }
    }
}

/// Bytes from the end of `len` bytes to the next block.
fn padding(len: u64) -> u64 {
    len.wrapping_neg() % BLOCK_LEN as u64
}

/// The smaller of two lengths.
fn capped(len: u64, cap: usize) -> usize {
    usize::try_from(len).map_or(cap, |len| len.min(cap))
}
