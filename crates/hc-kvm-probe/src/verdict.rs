// SPDX-License-Identifier: Apache-2.0
//! What there is to say about KVM, for code and for people.

use std::fmt;

/// A processor turns over a thousand million times a second, also in a nested VM; an emulator in
/// the kernel about one million times. What lies between is a KVM that is real on a processor that
/// is not: two hundred million times, and on a busy machine still thirty.
const EMULATED_BELOW: u64 = 6_000_000;

/// With nested paging, page tables are switched at least ten times faster than a guest is left;
/// without it, switching them leaves the guest and takes longer than just leaving it.
const SHADOWED_BELOW_EXITS: u64 = 3;

/// What the probe found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// KVM runs guests on the processor.
    Usable(Speed),
    /// The same, but each change of the guest's page tables is traced by the host.
    Shadowed(Speed),
    /// KVM makes VMs, but emulates the kernel code in them.
    Emulated(Speed),
    /// `/dev/kvm` is there, but not for this user.
    NoPermission,
    /// There is no `/dev/kvm`.
    Absent,
    /// Another hypervisor has the processor.
    Busy,
    /// `/dev/kvm` opens, and then something fails.
    Broken(String),
}

/// How fast kernel code in the throw-away VM went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Speed {
    /// Turns of an empty loop.
    pub loops_per_second: u64,
    /// Switches of page tables; zero where KVM is emulated, for none were made.
    pub switches_per_second: u64,
    /// Times that the guest could be left and entered again; zero likewise.
    pub exits_per_second: u64,
}

impl Speed {
    /// Whether the empty loop went as slowly as only an emulator does.
    pub(crate) fn is_emulated(loops_per_second: u64) -> bool {
        loops_per_second < EMULATED_BELOW
    }

    /// Whether switching page tables costs what leaving the guest costs.
    fn is_shadowed(self) -> bool {
        self.switches_per_second < self.exits_per_second.saturating_mul(SHADOWED_BELOW_EXITS)
    }
}

impl Probe {
    /// Sorts a measurement. What the kernel says about nested paging counts more than the clock.
    pub(crate) fn of_speed(speed: Speed, nested_paging: Option<bool>) -> Probe {
        if Speed::is_emulated(speed.loops_per_second) {
            Probe::Emulated(speed)
        } else if !nested_paging.unwrap_or(!speed.is_shadowed()) {
            Probe::Shadowed(speed)
        } else {
            Probe::Usable(speed)
        }
    }

    /// Whether guests should run under KVM.
    ///
    /// They should without nested paging as well: all their code runs on the processor, where
    /// without KVM none does; only new processes and new memory cost more.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        matches!(self, Probe::Usable(_) | Probe::Shadowed(_))
    }

    /// How fast it was, where a guest ran.
    #[must_use]
    pub fn speed(&self) -> Option<Speed> {
        match self {
            Probe::Usable(speed) | Probe::Shadowed(speed) | Probe::Emulated(speed) => Some(*speed),
            Probe::NoPermission | Probe::Absent | Probe::Busy | Probe::Broken(_) => None,
        }
    }

    /// What the user could do to make KVM usable, or faster, if anything.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Probe::Usable(_) => None,
            Probe::Shadowed(_) => Some(
                "load kvm_intel with ept=1 or kvm_amd with npt=1; in a virtual machine, have the \
                 outer host offer nested paging",
            ),
            Probe::Emulated(_) => Some("enable nested virtualisation on the outer host"),
            Probe::NoPermission => Some("add yourself to the group of /dev/kvm, often kvm"),
            Probe::Absent => Some(
                "enable virtualisation in the firmware, or on the outer host, and load kvm_intel \
                 or kvm_amd",
            ),
            Probe::Busy => Some("end the VMs of VirtualBox or VMware, or unload their modules"),
            Probe::Broken(_) => Some("look for kvm in the kernel's log"),
        }
    }
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Probe::Usable(speed) => {
                write!(f, "KVM works: {} loop turns a second", count(speed.loops_per_second))
            }
            Probe::Shadowed(speed) => write!(
                f,
                "KVM works without nested paging: {} loop turns a second, but only {} changes of \
                 page tables",
                count(speed.loops_per_second),
                count(speed.switches_per_second)
            ),
            Probe::Emulated(speed) => write!(
                f,
                "KVM only emulates guest kernels here: {} loop turns a second",
                count(speed.loops_per_second)
            ),
            Probe::NoPermission => f.write_str("this user may not open /dev/kvm"),
            Probe::Absent => f.write_str("this host has no /dev/kvm"),
            Probe::Busy => f.write_str("another hypervisor has the processor's virtualisation"),
            Probe::Broken(reason) => write!(f, "KVM does not work: {reason}"),
        }
    }
}

/// A count as people say it, such as `3.0 billion`.
fn count(count: u64) -> String {
    let (unit, name) = match count {
        999_950_000.. => (1_000_000_000, " billion"),
        999_950.. => (1_000_000, " million"),
        1_000.. => (1_000, " thousand"),
        _ => return count.to_string(),
    };
    let tenths = (u128::from(count) * 10 + unit / 2) / unit;
    format!("{}.{}{name}", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests;
