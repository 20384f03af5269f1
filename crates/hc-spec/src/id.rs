// SPDX-License-Identifier: Apache-2.0
//! Identifiers that the system makes and names that people choose.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Hexadecimal digits in an [`Id`]; Docker's length, so that tools which cut to 12 still work.
const ID_LEN: usize = 64;
/// Digits shown to people; 48 random bits make a clash on one host unlikely.
const SHORT_LEN: usize = 12;
/// The longest name; a host name label may have 63 bytes, and names become host names.
const NAME_MAX: usize = 63;

/// The identifier of a pod or a container: 64 lower-case hexadecimal digits.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Id(String);

impl Id {
    /// Makes an identifier from 32 random bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Id {
        use fmt::Write as _;
        let mut text = String::with_capacity(ID_LEN);
        for byte in bytes {
            let _ = write!(text, "{byte:02x}"); // Writing to a String cannot fail.
        }
        Id(text)
    }

    /// All 64 digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first 12 digits, as shown in tables.
    pub fn short(&self) -> &str {
        &self.0[..SHORT_LEN]
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.short())
    }
}

/// The text is no [`Id`].
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("an id has 64 hexadecimal digits")]
pub struct ParseIdError;

impl FromStr for Id {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Id, ParseIdError> {
        Id::try_from(text.to_owned())
    }
}

impl TryFrom<String> for Id {
    type Error = ParseIdError;

    fn try_from(text: String) -> Result<Id, ParseIdError> {
        let hex = text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if text.len() == ID_LEN && hex { Ok(Id(text)) } else { Err(ParseIdError) }
    }
}

impl From<Id> for String {
    fn from(id: Id) -> String {
        id.0
    }
}

/// A name that a person gave to a pod or a container: `[a-zA-Z0-9][a-zA-Z0-9_.-]*`, at most 63
/// bytes, as Docker has it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

impl Name {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The text is no [`Name`].
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "invalid name {0:?}: use 1 to {NAME_MAX} of a-z, A-Z, 0-9, '_', '.' and '-', \
     starting with a letter or digit"
)]
pub struct ParseNameError(String);

impl FromStr for Name {
    type Err = ParseNameError;

    fn from_str(text: &str) -> Result<Name, ParseNameError> {
        let mut bytes = text.bytes();
        let first = bytes.next().is_some_and(|b| b.is_ascii_alphanumeric());
        let rest = bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
        if first && rest && text.len() <= NAME_MAX {
            Ok(Name(text.to_owned()))
        } else {
            let shown = text.chars().take(NAME_MAX + 1).collect();
            Err(ParseNameError(shown))
        }
    }
}

impl TryFrom<String> for Name {
    type Error = ParseNameError;

    fn try_from(text: String) -> Result<Name, ParseNameError> {
        text.parse()
    }
}

impl From<Name> for String {
    fn from(name: Name) -> String {
        name.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_64_lower_case_hex_digits() {
        let id = Id::from_bytes([0xab; 32]);
        assert_eq!(id.as_str(), "ab".repeat(32));
        assert_eq!(id.short(), "abababababab");
        assert_eq!(id.as_str().parse(), Ok(id));
        for bad in ["", "ab", &"AB".repeat(32), &"zz".repeat(32), &"ab".repeat(33)] {
            assert_eq!(bad.parse::<Id>(), Err(ParseIdError), "{bad}");
        }
    }

    #[test]
    fn names_follow_dockers_grammar() {
        for good in ["a", "web-1", "A_b.c", "0", &"x".repeat(63)] {
            assert_eq!(good.parse::<Name>().unwrap().as_str(), good);
        }
        for bad in ["", "-a", ".a", "a b", "a/b", "ä", "a\n", &"x".repeat(64)] {
            assert!(bad.parse::<Name>().is_err(), "{bad:?}");
        }
    }
}
