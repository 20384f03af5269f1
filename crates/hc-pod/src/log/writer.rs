// SPDX-License-Identifier: Apache-2.0
//! Appending to a container's log.

use std::fs::File;
use std::io::{self, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use hc_api::stream::{Frame, HEADER, MAX_BODY};
use jiff::Timestamp;

use super::{LogLimits, Source, segment_path, segments};

/// Appends to a log. There is one writer at a time: the pod process.
#[derive(Debug)]
pub struct LogWriter {
    dir: PathBuf,
    limits: LogLimits,
    number: u64,
    file: File,
    length: u64,
    /// The entry being written, kept for its memory.
    entry: Vec<u8>,
}

impl LogWriter {
    /// Opens the log in `dir` at its end.
    pub fn open(dir: &Path, limits: LogLimits) -> io::Result<LogWriter> {
        let number = segments(dir)?.last().copied().unwrap_or(1);
        let mut file = open_segment(dir, number)?;
        let length = whole_length(&mut file)?;
        file.set_len(length)?;
        file.seek(SeekFrom::Start(length))?;
        let dir = dir.to_owned();
        Ok(LogWriter { dir, limits, number, file, length, entry: Vec::new() })
    }

    /// Appends what was written on `source` at `time`.
    ///
    /// When this fails, as on a full disk, the log has the whole of it or nothing.
    pub fn append(&mut self, source: Source, time: Timestamp, bytes: &[u8]) -> io::Result<()> {
        let nanos = i64::try_from(time.as_nanosecond()).unwrap_or(i64::MAX);
        self.entry.clear();
        for piece in bytes.chunks(MAX_BODY) {
            Frame::Time(nanos).encode(&mut self.entry);
            match source {
                Source::Stdout => Frame::encode_stdout(piece, &mut self.entry),
                Source::Stderr => Frame::encode_stderr(piece, &mut self.entry),
            }
        }
        if self.length > 0 && self.length + self.entry.len() as u64 > self.limits.segment_bytes {
            self.rotate()?;
        }
        match self.file.write_all(&self.entry) {
            Ok(()) => {
                self.length += self.entry.len() as u64;
                Ok(())
            }
            Err(error) => {
                // A torn entry would hide all that follows. Where even this fails, the next
                // writer's check of the segment cuts it off.
                let _ = self.file.set_len(self.length);
                let _ = self.file.seek(SeekFrom::Start(self.length));
                Err(error)
            }
        }
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.file = open_segment(&self.dir, self.number + 1)?;
        self.number += 1;
        self.length = 0;
        for old in segments(&self.dir)? {
            if old + self.limits.segments <= self.number {
                std::fs::remove_file(segment_path(&self.dir, old))?;
            }
        }
        Ok(())
    }
}

fn open_segment(dir: &Path, number: u64) -> io::Result<File> {
    File::options()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .mode(0o600)
        .open(segment_path(dir, number))
}

/// How many bytes of the segment are whole entries: a time and what belongs to it.
fn whole_length(file: &mut File) -> io::Result<u64> {
    let end = file.metadata()?.len();
    let mut reader = BufReader::with_capacity(1 << 20, file);
    let (mut whole, mut at) = (0, 0);
    let mut header = [0; HEADER];
    while at + HEADER as u64 <= end {
        reader.read_exact(&mut header)?;
        let [kind, l0, l1, l2, l3] = header;
        let length = u32::from_be_bytes([l0, l1, l2, l3]);
        at += HEADER as u64 + u64::from(length);
        if length as usize > MAX_BODY || at > end {
            break;
        }
        reader.seek_relative(i64::from(length))?;
        // Only a time is eight bytes long and leaves its entry open; see the frame's kinds.
        let mut time = Vec::new();
        Frame::Time(0).encode(&mut time);
        if kind != time[0] {
            whole = at;
        }
    }
    Ok(whole)
}
