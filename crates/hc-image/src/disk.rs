// SPDX-License-Identifier: Apache-2.0
//! Keeps the disk from filling up: looks at its free space while something is written.

use std::fs::File;
use std::path::{Path, PathBuf};

use crate::limits::CHECK_EVERY;
use crate::{Error, Limits, Result};

/// Bytes in the unit that messages speak in.
const MIB: u64 = 1 << 20;

/// Watches the file system of one directory.
#[derive(Debug)]
pub(crate) struct DiskGuard {
    dir: File,
    path: PathBuf,
    percent: u64,
    max_bytes: u64,
}

impl DiskGuard {
    pub(crate) fn new(path: &Path, limits: &Limits) -> Result<DiskGuard> {
        let dir = File::open(path).map_err(|e| Error::store("open", path, e))?;
        Ok(DiskGuard {
            dir,
            path: path.to_owned(),
            percent: limits.reserve_percent,
            max_bytes: limits.reserve_max_bytes,
        })
    }

    /// Bytes that may still be written; an error where there are none.
    pub(crate) fn check(&self) -> Result<u64> {
        let stat = rustix::fs::fstatvfs(&self.dir)
            .map_err(|e| Error::store("look at the file system of", &self.path, e.into()))?;
        let total = stat.f_blocks.saturating_mul(stat.f_frsize);
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        let reserve = (total / 100).saturating_mul(self.percent).min(self.max_bytes);
        if free > reserve {
            return Ok(free - reserve);
        }
        Err(Error::DiskFull {
            path: self.path.clone(),
            detail: format!(
                "{} MiB are free, of which {} MiB stay reserved for others",
                free / MIB,
                reserve / MIB
            ),
        })
    }

    /// Checks that `bytes` more fit, before a single one is written.
    pub(crate) fn check_room(&self, bytes: u64) -> Result<()> {
        let room = self.check()?;
        if bytes <= room {
            return Ok(());
        }
        Err(Error::DiskFull {
            path: self.path.clone(),
            detail: format!("{} MiB are needed, {} MiB may be used", bytes / MIB, room / MIB),
        })
    }
}

/// Counts bytes and says when it is time for another look around.
#[derive(Debug, Default)]
pub(crate) struct Ticker(u64);

impl Ticker {
    /// Adds `bytes`; true about every [`CHECK_EVERY`].
    pub(crate) fn tick(&mut self, bytes: u64) -> bool {
        self.0 += bytes;
        let due = self.0 >= CHECK_EVERY;
        if due {
            self.0 = 0;
        }
        due
    }
}
