// SPDX-License-Identifier: Apache-2.0
//! What pods take of the host's memory, by what it is for.

use std::ops::{AddAssign, Sub};

use hc_testkit::{Host, mappings};

use crate::table::{figure, mib};

/// What guests' memory is called in maps, where it comes from a copy.
const GUEST: &str = "guest-memory";

/// Memory of pods, in KiB of PSS.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Memory {
    /// What guests have written to, and their share of the copy that they read.
    guest: u64,
    /// Code of guests that the hypervisor has translated.
    translated: u64,
    /// The rest of the hypervisor.
    hypervisor: u64,
    /// The pods' processes.
    pod: u64,
}

impl Memory {
    /// Of all these containers.
    pub(crate) fn of<'a>(host: &Host, names: impl IntoIterator<Item = &'a String>) -> Memory {
        let mut sum = Memory::default();
        for name in names {
            sum += Memory::of_one(host, name);
        }
        sum
    }

    fn of_one(host: &Host, name: &str) -> Memory {
        let mut memory = Memory::default();
        for mapping in mappings(host.hypervisor(name)) {
            let counter = if mapping.path.contains(GUEST) {
                &mut memory.guest
            } else if mapping.path.is_empty() && mapping.permissions.contains('x') {
                &mut memory.translated
            } else {
                &mut memory.hypervisor
            };
            *counter += mapping.pss_kib;
        }
        memory.pod = mappings(host.pod_pid(name)).iter().map(|mapping| mapping.pss_kib).sum();
        memory
    }

    /// Of one of `count`.
    pub(crate) fn each(self, count: usize) -> Memory {
        let count = count as u64;
        Memory {
            guest: self.guest / count,
            translated: self.translated / count,
            hypervisor: self.hypervisor / count,
            pod: self.pod / count,
        }
    }

    pub(crate) fn print(&self, bar: &str) {
        let Memory { guest, translated, hypervisor, pod } = *self;
        figure("all of it", &mib(guest + translated + hypervisor + pod), bar);
        figure("  guest's memory", &mib(guest), "");
        figure("  hypervisor, translated code", &mib(translated), "");
        figure("  hypervisor, all else", &mib(hypervisor), "");
        figure("  hyper-pod", &mib(pod), "at most 8 MiB");
    }
}

impl AddAssign for Memory {
    fn add_assign(&mut self, other: Memory) {
        self.guest += other.guest;
        self.translated += other.translated;
        self.hypervisor += other.hypervisor;
        self.pod += other.pod;
    }
}

impl Sub for Memory {
    type Output = Memory;

    /// What came on top; nothing where there is less.
    fn sub(self, other: Memory) -> Memory {
        Memory {
            guest: self.guest.saturating_sub(other.guest),
            translated: self.translated.saturating_sub(other.translated),
            hypervisor: self.hypervisor.saturating_sub(other.hypervisor),
            pod: self.pod.saturating_sub(other.pod),
        }
    }
}
