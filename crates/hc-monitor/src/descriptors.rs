// SPDX-License-Identifier: Apache-2.0
//! The descriptors that the monitor inherited, each taken once.
#![expect(unsafe_code, reason = "descriptors arrive as numbers")]

use std::collections::BTreeSet;
use std::os::fd::{FromRawFd as _, IntoRawFd as _, OwnedFd, RawFd};

use kvm_ioctls::Kvm;

use crate::error::{Error, Result};

/// Remembers which numbers have been taken.
#[derive(Debug, Default)]
pub(crate) struct Descriptors {
    taken: BTreeSet<RawFd>,
}

impl Descriptors {
    /// Takes a descriptor by its number: once, and only if there is one.
    pub(crate) fn take(&mut self, number: RawFd) -> Result<OwnedFd> {
        const FIRST: RawFd = 3;
        // SAFETY: asks for a flag of a descriptor, or fails because there is none.
        let open = unsafe { libc::fcntl(number, libc::F_GETFD) } >= 0;
        if number < FIRST || !open || !self.taken.insert(number) {
            return Err(Error::Senseless(format!("descriptor {number} is not for this")));
        }
        // SAFETY: it is open, this process has one thread, and nobody else takes it: the standard
        // library owns none of those that were inherited.
        Ok(unsafe { OwnedFd::from_raw_fd(number) })
    }

    /// Takes the descriptor of `/dev/kvm`.
    pub(crate) fn kvm(&mut self, number: RawFd) -> Result<Kvm> {
        let descriptor = self.take(number)?.into_raw_fd();
        // SAFETY: the descriptor is ours alone. What is not KVM fails at the first request.
        Ok(unsafe { Kvm::from_raw_fd(descriptor) })
    }
}
