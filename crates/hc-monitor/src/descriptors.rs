// SPDX-License-Identifier: Apache-2.0
//! The descriptors that the monitor inherited, or was passed later, each taken once.
#![expect(unsafe_code, reason = "descriptors arrive as numbers")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
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

/// Files that the owner has passed, by the names that it gave them.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    files: BTreeMap<String, File>,
}

impl Kept {
    /// More than any command takes.
    const MOST: usize = 8;

    /// Keeps a file, in place of one that has the same name.
    pub(crate) fn keep(&mut self, name: String, passed: Vec<OwnedFd>) -> Result<(), String> {
        let Ok([file]) = <[OwnedFd; 1]>::try_from(passed) else {
            return Err("one descriptor has to come along".to_owned());
        };
        if self.files.len() == Self::MOST && !self.files.contains_key(&name) {
            return Err(format!("{} descriptors are kept already", Self::MOST));
        }
        self.files.insert(name, file.into());
        Ok(())
    }

    /// Gives a file away.
    pub(crate) fn take(&mut self, name: &str) -> Result<File, String> {
        self.files.remove(name).ok_or_else(|| format!("there is no descriptor {name}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_is_kept_until_it_is_taken() {
        let mut kept = Kept::default();
        let file = || vec![OwnedFd::from(tempfile::tempfile().unwrap())];
        kept.keep("a".to_owned(), file()).unwrap();
        kept.keep("a".to_owned(), file()).unwrap();
        kept.take("a").unwrap();
        assert_eq!(kept.take("a").unwrap_err(), "there is no descriptor a");
        kept.keep("a".to_owned(), Vec::new()).unwrap_err();
        kept.keep("a".to_owned(), file().into_iter().chain(file()).collect()).unwrap_err();
        for number in 0..Kept::MOST {
            kept.keep(number.to_string(), file()).unwrap();
        }
        kept.keep("more".to_owned(), file()).unwrap_err();
        kept.keep("0".to_owned(), file()).unwrap();
    }
}
