// SPDX-License-Identifier: Apache-2.0
//! Copied guests that are held in memory, since they are likely to be wanted again.

use std::sync::{Mutex, PoisonError};

use hc_pod::saved::Guest;

/// The guests used last, by name.
#[derive(Debug)]
pub(crate) struct Loaded {
    most: usize,
    /// The last one used comes last.
    guests: Mutex<Vec<(String, Guest)>>,
}

impl Loaded {
    /// Holds no more than `most`. What a guest takes is what is not zero of its memory.
    pub(crate) fn new(most: usize) -> Loaded {
        Loaded { most, guests: Mutex::default() }
    }

    /// A handle of the guest of this name, if it is held.
    pub(crate) fn get(&self, name: &str) -> Option<Guest> {
        let mut guests = self.guests();
        let at = guests.iter().position(|(held, _)| held == name)?;
        let last = guests.remove(at);
        let guest = last.1.share().ok();
        guests.push(last);
        guest
    }

    /// Holds a guest, and gives a handle of it.
    pub(crate) fn keep(&self, name: &str, guest: Guest) -> Option<Guest> {
        let shared = guest.share().ok();
        let mut guests = self.guests();
        guests.retain(|(held, _)| held != name);
        guests.push((name.to_owned(), guest));
        let surplus = guests.len().saturating_sub(self.most);
        guests.drain(..surplus);
        shared
    }

    /// Holds the guest of this name no more. VMs that go on from it are not concerned.
    pub(crate) fn forget(&self, name: &str) {
        self.guests().retain(|(held, _)| held != name);
    }

    fn guests(&self) -> std::sync::MutexGuard<'_, Vec<(String, Guest)>> {
        self.guests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guest_that_was_not_used_for_longest_is_let_go() {
        let loaded = Loaded::new(2);
        for name in ["one", "two"] {
            loaded.keep(name, Guest::empty().unwrap());
        }
        assert!(loaded.get("one").is_some());
        loaded.keep("three", Guest::empty().unwrap());
        assert!(loaded.get("two").is_none());
        assert!(loaded.get("one").is_some() && loaded.get("three").is_some());
        loaded.forget("one");
        assert!(loaded.get("one").is_none());
    }
}
