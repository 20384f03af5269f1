// SPDX-License-Identifier: Apache-2.0
//! What there is to say about KVM, for code and for people.

use std::fmt;

/// A processor turns over a thousand million times a second, also in a nested VM; an emulator in
/// the kernel about one million times. Anything between is closer to the one or to the other.
const EMULATED_BELOW: u64 = 20_000_000;

/// What the probe found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// KVM runs guests on the processor.
    Usable {
        /// Turns of an empty loop of kernel code.
        loops_per_second: u64,
    },
    /// KVM makes VMs, but emulates the kernel code in them.
    Emulated {
        /// Turns of an empty loop of kernel code.
        loops_per_second: u64,
    },
    /// `/dev/kvm` is there, but not for this user.
    NoPermission,
    /// There is no `/dev/kvm`.
    Absent,
    /// `/dev/kvm` opens, and then something fails.
    Broken(String),
}

impl Probe {
    /// Sorts a measurement.
    pub(crate) fn of_speed(loops_per_second: u64) -> Probe {
        if loops_per_second < EMULATED_BELOW {
            Probe::Emulated { loops_per_second }
        } else {
            Probe::Usable { loops_per_second }
        }
    }

    /// Whether guests should run under KVM.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        matches!(self, Probe::Usable { .. })
    }

    /// What the user could do to make KVM usable, if anything.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Probe::Usable { .. } => None,
            Probe::Emulated { .. } => Some("enable nested virtualisation on the outer host"),
            Probe::NoPermission => Some("add yourself to the group of /dev/kvm, often kvm"),
            Probe::Absent => Some(
                "enable virtualisation in the firmware, or on the outer host, and load kvm_intel \
                 or kvm_amd",
            ),
            Probe::Broken(_) => Some("look for kvm in the kernel's log"),
        }
    }
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Probe::Usable { loops_per_second } => {
                write!(f, "KVM works: {} million loop turns a second", millions(*loops_per_second))
            }
            Probe::Emulated { loops_per_second } => write!(
                f,
                "KVM only emulates guest kernels here: {} million loop turns a second",
                millions(*loops_per_second)
            ),
            Probe::NoPermission => f.write_str("this user may not open /dev/kvm"),
            Probe::Absent => f.write_str("this host has no /dev/kvm"),
            Probe::Broken(reason) => write!(f, "KVM does not work: {reason}"),
        }
    }
}

/// Millions with one digit after the point, which slow emulators need.
fn millions(count: u64) -> String {
    format!("{}.{}", count / 1_000_000, count / 100_000 % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speed_decides() {
        assert_eq!(Probe::of_speed(1_000_000), Probe::Emulated { loops_per_second: 1_000_000 });
        assert!(!Probe::of_speed(0).is_usable());
        assert!(Probe::of_speed(3_000_000_000).is_usable());
    }

    #[test]
    fn each_verdict_has_its_own_sentence() {
        let check = |probe: Probe, expected| assert_eq!(probe.to_string(), expected);
        check(Probe::of_speed(2_996_123_456), "KVM works: 2996.1 million loop turns a second");
        check(
            Probe::of_speed(1_080_000),
            "KVM only emulates guest kernels here: 1.0 million loop turns a second",
        );
        check(Probe::NoPermission, "this user may not open /dev/kvm");
        check(Probe::Absent, "this host has no /dev/kvm");
        check(
            Probe::Broken("cannot create a VM: busy".into()),
            "KVM does not work: cannot create a VM: busy",
        );
    }

    #[test]
    fn whatever_is_not_usable_has_a_hint() {
        let others =
            [Probe::of_speed(1), Probe::NoPermission, Probe::Absent, Probe::Broken(String::new())];
        assert!(others.iter().all(|probe| probe.hint().is_some()));
        assert_eq!(Probe::of_speed(u64::MAX).hint(), None);
    }
}
