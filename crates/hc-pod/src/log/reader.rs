// SPDX-License-Identifier: Apache-2.0
//! Reading a container's log while it may still grow.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use hc_api::stream::{Decoder, Frame};
use jiff::Timestamp;

use super::{Source, segment_path, segments};

/// Bytes read at once.
const CHUNK: usize = 256 * 1024;

/// Something that a container wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// When it reached us.
    pub time: Timestamp,
    /// On which stream.
    pub source: Source,
    /// What: any bytes, perhaps many lines, perhaps part of one.
    pub bytes: Vec<u8>,
}

/// Reads a log from its oldest entry on.
#[derive(Debug)]
pub struct LogReader {
    dir: PathBuf,
    segment: Option<(u64, File)>,
    decoder: Decoder,
    time: Timestamp,
    chunk: Vec<u8>,
}

impl LogReader {
    /// A reader of the log in `dir`, which may not exist yet.
    pub fn open(dir: &Path) -> LogReader {
        LogReader {
            dir: dir.to_owned(),
            segment: None,
            decoder: Decoder::default(),
            time: Timestamp::UNIX_EPOCH,
            chunk: vec![0; CHUNK],
        }
    }

    /// The next whole entry, or `None` at the present end of the log. Later entries come with
    /// later calls.
    pub fn next_entry(&mut self) -> io::Result<Option<Entry>> {
        loop {
            match self.decoder.next_frame() {
                Ok(Some(Frame::Time(nanos))) => {
                    self.time = Timestamp::from_nanosecond(nanos.into()).unwrap_or_default();
                }
                Ok(Some(Frame::Stdout(bytes))) => {
                    return Ok(Some(self.entry(Source::Stdout, bytes)));
                }
                Ok(Some(Frame::Stderr(bytes))) => {
                    return Ok(Some(self.entry(Source::Stderr, bytes)));
                }
                Ok(Some(_)) => {}
                Ok(None) => {
                    if !self.read_more()? {
                        return Ok(None);
                    }
                }
                Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
            }
        }
    }

    fn entry(&self, source: Source, bytes: Vec<u8>) -> Entry {
        Entry { time: self.time, source, bytes }
    }

    /// Reads on, in the next segment where this one has ended; whether anything came.
    fn read_more(&mut self) -> io::Result<bool> {
        if self.fill()? {
            return Ok(true);
        }
        let current = self.segment.as_ref().map_or(0, |(number, _)| *number);
        let Some(next) = segments(&self.dir)?.into_iter().find(|number| *number > current) else {
            return Ok(false);
        };
        // The writer may have gone on in the old segment between our read and the new one's
        // birth; after the birth it never does.
        if self.fill()? {
            return Ok(true);
        }
        match File::open(segment_path(&self.dir, next)) {
            Ok(file) => self.segment = Some((next, file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        }
        self.decoder = Decoder::default();
        self.fill()
    }

    fn fill(&mut self) -> io::Result<bool> {
        let Some((_, file)) = &mut self.segment else {
            return Ok(false);
        };
        let count = file.read(&mut self.chunk)?;
        self.decoder.feed(&self.chunk[..count]);
        Ok(count > 0)
    }
}

/// How many lines the log holds now; a last line without its end counts. A line is of one stream,
/// so what the other wrote in between does not end it.
pub fn count_lines(dir: &Path) -> io::Result<u64> {
    let mut reader = LogReader::open(dir);
    let mut lines = 0;
    let (mut stdout_open, mut stderr_open) = (false, false);
    while let Some(entry) = reader.next_entry()? {
        let open = match entry.source {
            Source::Stdout => &mut stdout_open,
            Source::Stderr => &mut stderr_open,
        };
        let pieces = entry.bytes.split_inclusive(|byte| *byte == b'\n').count() as u64;
        lines += pieces.saturating_sub(u64::from(*open));
        *open = !entry.bytes.ends_with(b"\n");
    }
    Ok(lines)
}
