// SPDX-License-Identifier: Apache-2.0
//! What containers wrote, kept on disk: a folder of numbered segments.
//!
//! A segment is a sequence of the frames of [`hc_api::stream`]: a time, then what was written on
//! one stream at that time, and so on. A log can be sent to a client as it lies on the disk, and
//! bytes that are no text survive.
//!
//! # Invariants
//!
//! - A log is bounded: a segment that is full is followed by the next, and only
//!   [`LogLimits::segments`] of them are kept.
//! - A kill at any instant tears at most the last entry; readers stop before it and the next
//!   writer cuts it off.
//! - Reader and writer need not be the same process, and any number of readers may follow.

mod reader;
mod writer;

pub use reader::{Entry, LogReader, count_lines};
pub use writer::LogWriter;

use std::io;
use std::path::{Path, PathBuf};

/// How much of a container's output is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogLimits {
    /// Bytes of a full segment.
    pub segment_bytes: u64,
    /// Segments that are kept, the one being written included.
    pub segments: u64,
}

impl Default for LogLimits {
    /// 256 MiB: a CI job's whole output, and little enough for hundreds of pods on one disk.
    fn default() -> LogLimits {
        LogLimits { segment_bytes: 64 << 20, segments: 4 }
    }
}

/// One of the two streams that are logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Standard output, or all of a terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

fn segment_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:010}.log"))
}

/// The numbers of the segments in `dir`, ascending. A folder that is gone has none.
fn segments(dir: &Path) -> io::Result<Vec<u64>> {
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut numbers = Vec::new();
    for entry in entries {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(".log")?.parse().ok());
        numbers.extend::<Option<u64>>(number);
    }
    numbers.sort_unstable();
    Ok(numbers)
}

#[cfg(test)]
mod tests;
