// SPDX-License-Identifier: Apache-2.0
//! Names of images, by the grammar of Docker's distribution project.
//!
//! ```text
//! [registry[:port]/]path[/path...][:tag][@sha256:digest]
//! ```
//!
//! Pure: text in, parts out. What a person leaves out is filled in as Docker does, so `debian` is
//! `docker.io/library/debian:latest`.
//!
//! # Invariants
//!
//! - A [`Reference`] that exists is valid and complete, and its text form parses to itself.
//! - It has a tag or a digest, never both: a digest says all, so a tag beside it is dropped.
//! - The repository holds no `..`, no empty part and nothing that a URL or a path would treat
//!   specially.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Digest, Error};

/// The registry of names that give none.
const DEFAULT_REGISTRY: &str = "docker.io";
/// Docker's older name of the same registry.
const LEGACY_REGISTRY: &str = "index.docker.io";
/// Where the default registry keeps names of one part.
const OFFICIAL: &str = "library/";
/// The tag of names that give none.
const DEFAULT_TAG: &str = "latest";
/// Bytes of registry and repository together, as the distribution grammar has it.
const NAME_MAX: usize = 255;
/// Bytes of a tag.
const TAG_MAX: usize = 128;
/// Bytes of any text worth looking at: name, tag, digest and their separators.
const TEXT_MAX: usize = NAME_MAX + TAG_MAX + 80;

/// The complete name of an image.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Reference {
    registry: String,
    repository: String,
    version: Version,
}

/// Which of a repository's images is meant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Version {
    Tag(String),
    Digest(Digest),
}

impl Reference {
    /// The registry's host and port, such as `docker.io` or `localhost:5000`.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The path within the registry, such as `library/debian`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag, unless the name goes by digest.
    pub fn tag(&self) -> Option<&str> {
        match &self.version {
            Version::Tag(tag) => Some(tag),
            Version::Digest(_) => None,
        }
    }

    /// The digest of manifest or index, if the name goes by digest.
    pub fn digest(&self) -> Option<&Digest> {
        match &self.version {
            Version::Tag(_) => None,
            Version::Digest(digest) => Some(digest),
        }
    }

    /// The name as people write it: without the default registry and `library/`.
    pub fn familiar(&self) -> String {
        let repository = if self.registry == DEFAULT_REGISTRY {
            self.repository.strip_prefix(OFFICIAL).unwrap_or(&self.repository).to_owned()
        } else {
            format!("{}/{}", self.registry, self.repository)
        };
        // Without its registry the first part of a path must not look like one.
        let text = format!("{repository}{}", self.version);
        if text.parse::<Reference>().is_ok_and(|parsed| parsed == *self) {
            text
        } else {
            self.to_string()
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Version::Tag(tag) => write!(f, ":{tag}"),
            Version::Digest(digest) => write!(f, "@{digest}"),
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}{}", self.registry, self.repository, self.version)
    }
}

impl From<Reference> for String {
    fn from(reference: Reference) -> String {
        reference.to_string()
    }
}

impl TryFrom<String> for Reference {
    type Error = Error;

    fn try_from(text: String) -> Result<Reference, Error> {
        text.parse()
    }
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Reference, Error> {
        parse(text).map_err(|reason| Error::InvalidReference {
            text: text.chars().take(NAME_MAX).collect(),
            reason,
        })
    }
}

fn parse(text: &str) -> Result<Reference, &'static str> {
    if text.is_empty() {
        return Err("it is empty");
    }
    if text.len() > TEXT_MAX {
        return Err("it is too long");
    }
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => {
            let digest = digest.parse().map_err(|_| "only sha256 digests are known")?;
            (rest, Some(digest))
        }
        None => (text, None),
    };
    // A colon before the last slash belongs to a port.
    let tag_at = rest.rfind(':').filter(|&at| !rest[at..].contains('/'));
    let (name, tag) = match tag_at {
        Some(at) => (&rest[..at], Some(&rest[at + 1..])),
        None => (rest, None),
    };
    check_tag(tag.unwrap_or(DEFAULT_TAG))?;
    let (registry, repository) = split_registry(name);
    check_registry(registry)?;
    if !repository.contains('/') && repository.len() == 64 && Digest::from_hex(repository).is_ok() {
        return Err("64 hexadecimal digits are an id, not a name");
    }
    let repository = if registry == DEFAULT_REGISTRY && !repository.contains('/') {
        format!("{OFFICIAL}{repository}")
    } else {
        repository.to_owned()
    };
    repository.split('/').try_for_each(check_component)?;
    if registry.len() + 1 + repository.len() > NAME_MAX {
        return Err("registry and repository are over 255 bytes");
    }
    let version = match digest {
        Some(digest) => Version::Digest(digest),
        None => Version::Tag(tag.unwrap_or(DEFAULT_TAG).to_owned()),
    };
    Ok(Reference { registry: registry.to_owned(), repository, version })
}

/// Docker's rule: the first part is a registry if it could not be anything else.
fn split_registry(name: &str) -> (&str, &str) {
    match name.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':'])
                || first == "localhost"
                || first.bytes().any(|b| b.is_ascii_uppercase()) =>
        {
            (if first == LEGACY_REGISTRY { DEFAULT_REGISTRY } else { first }, rest)
        }
        _ => (DEFAULT_REGISTRY, name),
    }
}

fn check_registry(registry: &str) -> Result<(), &'static str> {
    let (host, port) = match registry.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']').ok_or("its [ has no ]")?;
            address.parse::<std::net::Ipv6Addr>().map_err(|_| "no IPv6 address within [ ]")?;
            (None, port)
        }
        None => match registry.find(':') {
            Some(at) => (Some(&registry[..at]), &registry[at..]),
            None => (Some(registry), ""),
        },
    };
    if let Some(port) = port.strip_prefix(':') {
        let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
        if !digits || port.parse::<u16>().is_err() {
            return Err("the registry's port is no number up to 65535");
        }
    } else if !port.is_empty() {
        return Err("something follows the registry's ]");
    }
    let label = |label: &str| {
        let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphanumeric());
        edge(label.bytes().next())
            && edge(label.bytes().last())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    if host.is_some_and(|host| !host.split('.').all(label)) {
        return Err("the registry is no host name");
    }
    Ok(())
}

/// One part of a repository: letters and digits with single separators `.`, `_`, `__` or dashes
/// between them.
fn check_component(part: &str) -> Result<(), &'static str> {
    const REASON: &str = "a repository is parts of a-z and 0-9 with '.', '_', '__' or '-' between \
                          them, joined by '/'";
    let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = part.as_bytes();
    if !bytes.first().copied().is_some_and(word) || !bytes.last().copied().is_some_and(word) {
        return Err(REASON);
    }
    let separators = bytes.split(|&b| word(b)).filter(|run| !run.is_empty());
    for run in separators {
        let dashes = run.iter().all(|&b| b == b'-');
        if !dashes && !matches!(run, b"." | b"_" | b"__") {
            return Err(REASON);
        }
    }
    Ok(())
}

fn check_tag(tag: &str) -> Result<(), &'static str> {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let first = tag.bytes().next().is_some_and(word);
    let rest = tag.bytes().all(|b| word(b) || matches!(b, b'.' | b'-'));
    if first && rest && tag.len() <= TAG_MAX {
        Ok(())
    } else {
        Err("a tag is 1 to 128 of a-z, A-Z, 0-9, '_', '.' and '-', not starting with '.' or '-'")
    }
}

#[cfg(test)]
mod tests;
