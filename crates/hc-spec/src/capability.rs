// SPDX-License-Identifier: Apache-2.0
//! Linux capabilities: names, numbers, and the set that a container gets.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Every capability by its number, as in `capabilities(7)`.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// The capabilities that Docker gives a container by default.
const DEFAULT: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// One Linux capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Capability(u8);

impl Capability {
    /// Its number, the bit in the kernel's masks.
    pub fn number(self) -> u8 {
        self.0
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CAP_{}", NAMES[usize::from(self.0)])
    }
}

/// The text names no capability.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown capability {0:?}: use a name such as NET_ADMIN, or ALL")]
pub struct ParseCapabilityError(String);

impl FromStr for Capability {
    type Err = ParseCapabilityError;

    /// Reads `NET_ADMIN`, `CAP_NET_ADMIN` and `net_admin` alike.
    fn from_str(text: &str) -> Result<Capability, ParseCapabilityError> {
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
        NAMES
            .iter()
            .position(|known| *known == name)
            .and_then(|position| u8::try_from(position).ok())
            .map(Capability)
            .ok_or_else(|| ParseCapabilityError(text.chars().take(32).collect()))
    }
}

/// A set of capabilities as the kernel's bit mask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapabilitySet(u64);

impl CapabilitySet {
    /// Every capability known here.
    pub const ALL: CapabilitySet = CapabilitySet((1 << NAMES.len()) - 1);
    /// None at all.
    pub const NONE: CapabilitySet = CapabilitySet(0);

    /// Applies `--cap-add`, `--cap-drop` and `--privileged` to Docker's default set.
    ///
    /// As in Docker, `ALL` may be added or dropped, and a capability that is named itself wins over
    /// `ALL` on the other side.
    pub fn resolve(
        add: &[String],
        drop: &[String],
        privileged: bool,
    ) -> Result<CapabilitySet, ParseCapabilityError> {
        if privileged {
            return Ok(CapabilitySet::ALL);
        }
        let is_all = |text: &String| text.eq_ignore_ascii_case("ALL");
        let (added, dropped) = (mask(add)?, mask(drop)?);
        let base = if add.iter().any(is_all) {
            CapabilitySet::ALL.0
        } else if drop.iter().any(is_all) {
            0
        } else {
            CapabilitySet::default().0
        };
        Ok(CapabilitySet((base & !dropped) | added))
    }

    /// Whether `capability` is in the set.
    pub fn contains(self, capability: Capability) -> bool {
        self.0 & (1 << capability.0) != 0
    }

    /// The set as the kernel's mask, bit n for capability n.
    pub fn mask(self) -> u64 {
        self.0
    }
}

impl Default for CapabilitySet {
    fn default() -> CapabilitySet {
        let numbers = NAMES.iter().enumerate().filter(|(_, name)| DEFAULT.contains(name));
        CapabilitySet(numbers.fold(0, |mask, (number, _)| mask | 1 << number))
    }
}

/// The mask of the capabilities that `names` name one by one; `ALL` is the caller's.
fn mask(names: &[String]) -> Result<u64, ParseCapabilityError> {
    names
        .iter()
        .filter(|name| !name.eq_ignore_ascii_case("ALL"))
        .try_fold(0, |mask, name| Ok(mask | 1 << name.parse::<Capability>()?.number()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(add: &[&str], drop: &[&str], privileged: bool, expected: u64) {
        let own = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let set = CapabilitySet::resolve(&own(add), &own(drop), privileged).unwrap();
        assert_eq!(format!("{:#x}", set.mask()), format!("{expected:#x}"));
    }

    #[test]
    fn the_set_resolves_as_in_docker() {
        check(&[], &[], false, 0xa804_25fb);
        check(&["NET_ADMIN"], &[], false, 0xa804_35fb);
        check(&[], &["cap_chown"], false, 0xa804_25fa);
        check(&[], &["ALL"], false, 0);
        check(&["KILL"], &["ALL"], false, 0x20);
        check(&["ALL"], &[], false, 0x1ff_ffff_ffff);
        check(&["all"], &["CHOWN"], false, 0x1ff_ffff_fffe);
        check(&[], &["ALL"], true, 0x1ff_ffff_ffff);
    }

    #[test]
    fn an_unknown_capability_is_refused_by_name() {
        let error = CapabilitySet::resolve(&["FLY".into()], &[], false).unwrap_err();
        assert_eq!(
            error.to_string(),
            "unknown capability \"FLY\": use a name such as NET_ADMIN, or ALL"
        );
    }
}
