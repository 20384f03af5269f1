// SPDX-License-Identifier: Apache-2.0
//! Signals by name and number, as Linux has them on x86-64 and arm64.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Names of the signals 1 to 31, in order.
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
    "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
    "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];
/// The first real-time signal that the C library leaves to programs.
const RTMIN: u8 = 34;
/// The last signal there is.
const RTMAX: u8 = 64;

/// A signal number from 1 to 64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct Signal(u8);

impl Signal {
    /// Hang-up: the terminal is gone.
    pub const HUP: Signal = Signal(1);
    /// Interrupt, as from ctrl-C.
    pub const INT: Signal = Signal(2);
    /// The end, at once.
    pub const KILL: Signal = Signal(9);
    /// The request to end.
    pub const TERM: Signal = Signal(15);

    /// The number, never 0.
    pub fn number(self) -> u8 {
        self.0
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.get(usize::from(self.0) - 1) {
            Some(name) => write!(f, "SIG{name}"),
            None => write!(f, "{}", self.0),
        }
    }
}

/// The text or number names no signal.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown signal {0:?}: use a name such as SIGTERM or a number from 1 to 64")]
pub struct ParseSignalError(String);

impl TryFrom<u8> for Signal {
    type Error = ParseSignalError;

    fn try_from(number: u8) -> Result<Signal, ParseSignalError> {
        if (1..=RTMAX).contains(&number) {
            Ok(Signal(number))
        } else {
            Err(ParseSignalError(number.to_string()))
        }
    }
}

impl From<Signal> for u8 {
    fn from(signal: Signal) -> u8 {
        signal.0
    }
}

impl FromStr for Signal {
    type Err = ParseSignalError;

    /// Reads `9`, `KILL`, `SIGKILL` and `sigkill` alike, and `RTMIN+3`, `RTMAX-1`.
    fn from_str(text: &str) -> Result<Signal, ParseSignalError> {
        let unknown = || ParseSignalError(text.chars().take(32).collect());
        if let Ok(number) = text.parse::<u8>() {
            return Signal::try_from(number).map_err(|_| unknown());
        }
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        let number = match name {
            "IOT" => Some(6),
            "CLD" => Some(17),
            "POLL" => Some(29),
            _ => real_time(name).or_else(|| {
                let position = NAMES.iter().position(|known| *known == name)?;
                u8::try_from(position + 1).ok()
            }),
        };
        number.map(Signal).ok_or_else(unknown)
    }
}

/// Reads `RTMIN`, `RTMIN+n`, `RTMAX` and `RTMAX-n`.
fn real_time(name: &str) -> Option<u8> {
    let number = if let Some(rest) = name.strip_prefix("RTMIN") {
        let above = if rest.is_empty() { 0 } else { rest.strip_prefix('+')?.parse().ok()? };
        RTMIN.checked_add(above)?
    } else {
        let rest = name.strip_prefix("RTMAX")?;
        let below = if rest.is_empty() { 0 } else { rest.strip_prefix('-')?.parse().ok()? };
        RTMAX.checked_sub(below)?
    };
    (RTMIN..=RTMAX).contains(&number).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_read_as_docker_does() {
        let table = [
            ("9", 9),
            ("KILL", 9),
            ("SIGKILL", 9),
            ("sigterm", 15),
            ("SIGSYS", 31),
            ("RTMIN", 34),
            ("SIGRTMIN+3", 37),
            ("RTMAX-1", 63),
            ("64", 64),
        ];
        for (text, number) in table {
            assert_eq!(text.parse::<Signal>().unwrap().number(), number, "{text}");
        }
        for bad in ["", "0", "65", "SIG", "TERMINATE", "RTMIN+31", "RTMIN+-1", "256", "-1"] {
            assert!(bad.parse::<Signal>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_signal_prints_the_name_that_reads_back() {
        for number in 1..=64 {
            let signal = Signal::try_from(number).unwrap();
            assert_eq!(signal.to_string().parse(), Ok(signal));
        }
    }
}
