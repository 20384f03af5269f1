// SPDX-License-Identifier: Apache-2.0
//! Finding byte patterns in a large file without holding it.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use memchr::memmem;

/// Bytes looked at in one step: large enough that the system calls do not show.
const STEP_LEN: usize = 256 * 1024;

/// Where in `range` of `file` the `pattern` first starts.
pub(crate) fn find(file: &File, range: Range<u64>, pattern: &[u8]) -> io::Result<Option<u64>> {
    let finder = memmem::Finder::new(pattern);
    let mut buffer = vec![0; STEP_LEN];
    let mut at = range.start;
    while at < range.end {
        let read = read_up_to(file, at, range.end, &mut buffer)?;
        if let Some(found) = finder.find(&buffer[..read]) {
            return Ok(Some(at + found as u64));
        }
        if read < STEP_LEN {
            break;
        }
        // A pattern may lie across two steps.
        at += (STEP_LEN - pattern.len() + 1) as u64;
    }
    Ok(None)
}

/// Reads from `at`, until `end`, the end of the file or a full buffer.
pub(crate) fn read_up_to(file: &File, at: u64, end: u64, buffer: &mut [u8]) -> io::Result<usize> {
    let wanted = usize::try_from(end.saturating_sub(at)).unwrap_or(usize::MAX).min(buffer.len());
    let mut filled = 0;
    while filled < wanted {
        match file.read_at(&mut buffer[filled..wanted], at.saturating_add(filled as u64)) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // An offset that no file can have holds no bytes.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => break,
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn file(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    #[test]
    fn pattern_across_two_steps_is_found() {
        for at in [0, STEP_LEN - 1, STEP_LEN - 3, STEP_LEN, 2 * STEP_LEN - 4] {
            let mut bytes = vec![b'.'; 3 * STEP_LEN];
            bytes[at..at + 4].copy_from_slice(b"here");
            let found = find(&file(&bytes), 0..u64::MAX, b"here").unwrap();
            assert_eq!(found, Some(at as u64));
        }
    }

    #[test]
    fn pattern_outside_the_range_is_not_found() {
        let file = file(b"..here..");
        assert_eq!(find(&file, 0..5, b"here").unwrap(), None);
        assert_eq!(find(&file, 3..8, b"here").unwrap(), None);
        assert_eq!(find(&file, u64::MAX - 1..u64::MAX, b"here").unwrap(), None);
    }
}
