// SPDX-License-Identifier: Apache-2.0
//! What the daemon inherits: a descriptor to tell how the start went, and nothing else.
//!
//! Whatever else a shell or another program left open is closed: a daemon that lives on would hold
//! pipes open whose readers wait for their end.
#![expect(unsafe_code, reason = "an inherited descriptor has no owner yet")]

use std::fs::File;
use std::io::Write as _;
use std::os::fd::{FromRawFd as _, OwnedFd, RawFd};

use anyhow::{Context as _, Result};

/// Whoever waits for the daemon to be ready.
pub(crate) struct Ready(Option<File>);

impl Ready {
    /// Takes over the descriptor of this number. Called once, before anything else is opened.
    pub(crate) fn take_over(number: Option<&str>) -> Result<Ready> {
        let Some(number) = number else {
            close(3, libc::c_uint::MAX);
            return Ok(Ready(None));
        };
        let number: RawFd = number.parse().context("--ready-fd wants a number")?;
        anyhow::ensure!(number > 2, "--ready-fd wants a descriptor beyond the standard ones");
        std::fs::metadata(format!("/proc/self/fd/{number}")).context("--ready-fd is not open")?;
        // SAFETY: the descriptor is open, as was just seen. It was inherited, and its number was
        // given to us for nothing but this, so no other owner of it exists in this process.
        let file = unsafe { OwnedFd::from_raw_fd(number) };
        let number = number.unsigned_abs();
        close(3, number - 1);
        close(number + 1, libc::c_uint::MAX);
        // No pod process may keep it open.
        rustix::io::fcntl_setfd(&file, rustix::io::FdFlags::CLOEXEC)?;
        Ok(Ready(Some(file.into())))
    }

    /// Says that requests are served from now on, or why they are not; once.
    pub(crate) fn tell(&mut self, error: &str) {
        if let Some(mut file) = self.0.take() {
            let _ = file.write_all(error.as_bytes()); // Whoever asked may have gone.
        }
    }
}

/// Closes the descriptors from `first` to `last`. Called before we have opened any.
fn close(first: libc::c_uint, last: libc::c_uint) {
    if first <= last {
        // SAFETY: these descriptors were inherited, and nothing in this process has taken them over.
        unsafe { libc::close_range(first, last, 0) };
    }
}
