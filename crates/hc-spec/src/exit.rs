// SPDX-License-Identifier: Apache-2.0
//! How a process came to its end.

use serde::{Deserialize, Serialize};

/// The end of a process, as `wait(2)` tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Exit {
    /// It called `exit` with this status.
    Code(u8),
    /// A signal of this number ended it.
    Signal(u8),
}

impl Exit {
    /// The status that a shell shows: the code itself, or 128 plus the signal.
    pub fn status(self) -> u8 {
        match self {
            Exit::Code(code) => code,
            Exit::Signal(signal) => signal.saturating_add(128),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_is_told_apart_from_a_code_and_maps_to_128_plus_n() {
        assert_eq!(Exit::Code(0).status(), 0);
        assert_eq!(Exit::Code(42).status(), 42);
        assert_eq!(Exit::Signal(9).status(), 137);
        assert_ne!(Exit::Signal(9), Exit::Code(137));
    }
}
