// SPDX-License-Identifier: Apache-2.0
//! SHA-256 digests: their text form, and a hasher that sits in a stream.
//!
//! Only SHA-256 exists here. The OCI specification also allows SHA-512, but no registry or tool in
//! use produces it for images, and one algorithm means one directory of blobs.

use std::fmt;
use std::io::{self, Read};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// Hexadecimal digits of a SHA-256 digest.
const HEX_LEN: usize = 64;
/// The algorithm's name and separator in the text form.
const PREFIX: &str = "sha256:";

/// A SHA-256 digest, written `sha256:` and 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Digest {
        Digest(Sha256::digest(bytes).into())
    }

    /// The 64 digits without the algorithm: the name of a blob's file.
    pub fn hex(&self) -> String {
        use fmt::Write as _;
        let mut text = String::with_capacity(HEX_LEN);
        for byte in self.0 {
            let _ = write!(text, "{byte:02x}"); // Writing to a String cannot fail.
        }
        text
    }

    /// The first 12 digits, as tables show an image.
    pub fn short(&self) -> String {
        let mut text = self.hex();
        text.truncate(12);
        text
    }

    /// Reads the 64 digits without the algorithm.
    pub fn from_hex(hex: &str) -> Result<Digest, ParseDigestError> {
        let hex = hex.as_bytes();
        if hex.len() != HEX_LEN {
            return Err(ParseDigestError);
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(hex.chunks_exact(2)) {
            *byte = (nibble(pair[0])? << 4) | nibble(pair[1])?;
        }
        Ok(Digest(bytes))
    }

    /// The chain ID of layers with these diff IDs, lowest first: the name of their merged tree.
    ///
    /// An image without layers gets the digest of nothing, which no chain of layers can have.
    pub fn chain(diff_ids: &[Digest]) -> Digest {
        let Some((first, rest)) = diff_ids.split_first() else { return Digest::of(b"") };
        rest.iter().fold(*first, |chain, diff| Digest::of(format!("{chain} {diff}").as_bytes()))
    }
}

fn nibble(digit: u8) -> Result<u8, ParseDigestError> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        _ => Err(ParseDigestError),
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(PREFIX)?;
        f.write_str(&self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.short())
    }
}

/// The text is no SHA-256 digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a digest is \"sha256:\" and 64 lower-case hexadecimal digits")]
pub struct ParseDigestError;

impl FromStr for Digest {
    type Err = ParseDigestError;

    fn from_str(text: &str) -> Result<Digest, ParseDigestError> {
        Digest::from_hex(text.strip_prefix(PREFIX).ok_or(ParseDigestError)?)
    }
}

impl TryFrom<String> for Digest {
    type Error = ParseDigestError;

    fn try_from(text: String) -> Result<Digest, ParseDigestError> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        digest.to_string()
    }
}

/// Hashes a stream piece by piece.
#[derive(Clone, Default)]
pub(crate) struct Hasher(Sha256);

impl Hasher {
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(crate) fn finish(self) -> Digest {
        Digest(self.0.finalize().into())
    }
}

/// Passes a stream through and hashes it on the way.
pub(crate) struct HashingReader<R> {
    inner: R,
    hasher: Hasher,
    len: u64,
}

impl<R: Read> HashingReader<R> {
    pub(crate) fn new(inner: R) -> Self {
        Self { inner, hasher: Hasher::default(), len: 0 }
    }

    /// The digest and length of what was read so far.
    pub(crate) fn finish(self) -> (Digest, u64) {
        (self.hasher.finish(), self.len)
    }
}

impl<R: Read> Read for HashingReader<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.hasher.update(&buf[..n]);
        self.len += n as u64;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_round_trips_and_nothing_else_parses() {
        let text = format!("sha256:{}", "0f".repeat(32));
        assert_eq!(text.parse::<Digest>().unwrap().to_string(), text);
        for bad in [
            "",
            "sha256:",
            &"0f".repeat(32),
            &text.to_uppercase(),
            &text[..70],
            &format!("{text}0"),
            &format!("sha512:{}", "0f".repeat(64)),
            &format!("sha256:{}é", "0f".repeat(31)),
        ] {
            assert_eq!(bad.parse::<Digest>(), Err(ParseDigestError), "{bad}");
        }
    }

    #[test]
    fn chain_of_one_layer_is_its_diff_id_and_order_matters() {
        let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
        assert_eq!(Digest::chain(&[a]), a);
        assert_eq!(Digest::chain(&[a, b]), Digest::of(format!("{a} {b}").as_bytes()));
        assert_ne!(Digest::chain(&[a, b]), Digest::chain(&[b, a]));
    }
}
