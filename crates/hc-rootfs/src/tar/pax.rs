// SPDX-License-Identifier: Apache-2.0
//! PAX extended headers: `LENGTH KEYWORD=VALUE\n` records that override header fields.

use super::header;
use super::sparse::{self, SparseKeys};
use crate::TarFault;

/// The prefix under which GNU tar, star, podman and Docker store extended attributes as they are.
const XATTR_PREFIX: &[u8] = b"SCHILY.xattr.";
/// Bytes of attributes that global headers may add to every entry; one header may have 1 MiB, and
/// there can be any number of them.
const MAX_GLOBAL_XATTR_BYTES: usize = 64 << 10;

/// A point in time as EROFS keeps it; `nanos` counts forward also before 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Time {
    pub(crate) secs: i64,
    pub(crate) nanos: u32,
}

/// An extended attribute: its full name and its value.
pub(crate) type Xattr = (Vec<u8>, Vec<u8>);

/// What extended headers say of an entry.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pax {
    pub(crate) path: Option<Vec<u8>>,
    pub(crate) link_path: Option<Vec<u8>>,
    pub(crate) size: Option<u64>,
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
    pub(crate) mtime: Option<Time>,
    pub(crate) xattrs: Vec<Xattr>,
    pub(crate) sparse: SparseKeys,
}

impl Pax {
    /// Applies the records of one header body; later ones win over earlier ones.
    pub(crate) fn apply(&mut self, mut body: &[u8]) -> Result<(), TarFault> {
        while !body.is_empty() {
            let (record, rest) = split_record(body)?;
            self.apply_record(record)?;
            body = rest;
        }
        // Sorting keeps a million repeated names from taking quadratic time, and is stable: the
        // last value of a name is the one to keep.
        self.xattrs.sort_by(|a, b| a.0.cmp(&b.0));
        self.xattrs.dedup_by(|later, kept| {
            let same = later.0 == kept.0;
            if same {
                std::mem::swap(&mut later.1, &mut kept.1);
            }
            same
        });
        Ok(())
    }

    /// Applies a global header's body, which holds for all entries after it.
    pub(crate) fn apply_global(&mut self, body: &[u8]) -> Result<(), TarFault> {
        self.apply(body)?;
        // These can only be meant for one entry; a file that takes its path from far away is a
        // trick.
        let keyword = if self.path.is_some() {
            "path"
        } else if self.link_path.is_some() {
            "linkpath"
        } else if self.size.is_some() {
            "size"
        } else if !self.sparse.is_empty() {
            "GNU.sparse"
        } else {
            let len: usize = self.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum();
            return if len <= MAX_GLOBAL_XATTR_BYTES {
                Ok(())
            } else {
                Err(TarFault::ExtensionTooLarge { len: len as u64 })
            };
        };
        Err(TarFault::PaxGlobal { keyword })
    }

    fn apply_record(&mut self, record: &[u8]) -> Result<(), TarFault> {
        let equals = record.iter().position(|byte| *byte == b'=').ok_or(TarFault::Pax)?;
        let (keyword, value) = (&record[..equals], &record[equals + 1..]);
        if let Some(name) = keyword.strip_prefix(XATTR_PREFIX) {
            self.xattrs.push((name.to_vec(), value.to_vec()));
            return Ok(());
        }
        if let Some(name) = keyword.strip_prefix(b"GNU.sparse.") {
            return self.sparse.apply(name, value);
        }
        // An empty value takes back what was said before.
        let given = !value.is_empty();
        match keyword {
            b"path" => self.path = given.then(|| value.to_vec()),
            b"linkpath" => self.link_path = given.then(|| value.to_vec()),
            b"size" => self.size = given.then(|| sparse::decimal(value, "size")).transpose()?,
            b"uid" => self.uid = given.then(|| id(value, "uid")).transpose()?,
            b"gid" => self.gid = given.then(|| id(value, "gid")).transpose()?,
            b"mtime" => self.mtime = given.then(|| time(value)).transpose()?,
            // Names, other times, comments and vendors' words do not concern a file system.
            _ => {}
        }
        Ok(())
    }
}

/// Cuts the first record off: what stands between its length and its newline, and the rest.
fn split_record(body: &[u8]) -> Result<(&[u8], &[u8]), TarFault> {
    let space = body.iter().position(|byte| *byte == b' ').ok_or(TarFault::Pax)?;
    let len = sparse::decimal(&body[..space], "pax length").map_err(|_| TarFault::Pax)?;
    let len = usize::try_from(len).map_err(|_| TarFault::Pax)?;
    match (body.get(space + 1..len), body.get(len..)) {
        (Some([record @ .., b'\n']), Some(rest)) => Ok((record, rest)),
        _ => Err(TarFault::Pax),
    }
}

fn id(value: &[u8], field: &'static str) -> Result<u32, TarFault> {
    let number = i64::try_from(sparse::decimal(value, field)?);
    header::id(number.map_err(|_| TarFault::Number { field })?, field)
}

/// Reads `[-]SECONDS[.FRACTION]`; digits beyond nanoseconds are dropped.
fn time(value: &[u8]) -> Result<Time, TarFault> {
    const FIELD: &str = "mtime";
    let bad = TarFault::Number { field: FIELD };
    let (negative, value) = match value {
        [b'-', rest @ ..] => (true, rest),
        _ => (false, value),
    };
    let mut parts = value.splitn(2, |byte| *byte == b'.');
    let secs = sparse::decimal(parts.next().unwrap_or_default(), FIELD)?;
    let secs = i64::try_from(secs).map_err(|_| bad.clone())?;
    let fraction = parts.next().unwrap_or_default();
    if !fraction.iter().all(u8::is_ascii_digit) {
        return Err(bad);
    }
    let digits = fraction.iter().copied().chain(std::iter::repeat(b'0')).take(9);
    let nanos = digits.fold(0, |nanos, digit| nanos * 10 + u32::from(digit - b'0'));
    Ok(match (negative, nanos) {
        (false, _) => Time { secs, nanos },
        (true, 0) => Time { secs: -secs, nanos },
        (true, _) => Time { secs: -secs - 1, nanos: 1_000_000_000 - nanos },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(keyword: &str, value: &str) -> String {
        let rest = format!(" {keyword}={value}\n");
        let len = (1..1000_usize).find(|len| len.to_string().len() + rest.len() == *len).unwrap();
        format!("{len}{rest}")
    }

    #[test]
    fn records_override_and_take_back() {
        let mut pax = Pax::default();
        let body = [
            record("path", "a\nb=c"),
            record("uid", "70000"),
            record("linkpath", "x"),
            record("linkpath", ""),
            record("SCHILY.xattr.user.a", "1"),
            record("SCHILY.xattr.user.a", ""),
            record("comment", "ignored"),
        ];
        pax.apply(body.concat().as_bytes()).unwrap();
        assert_eq!(pax.path.unwrap(), b"a\nb=c");
        assert_eq!(pax.uid, Some(70000));
        assert_eq!(pax.link_path, None);
        assert_eq!(pax.xattrs, [(b"user.a".to_vec(), Vec::new())]);
    }

    #[test]
    fn malformed_records_are_refused() {
        for bad in
            ["5", "x a=b\n", "6 a=b\n1", "99 a=b\n", "6 a=bc", "5 abc\n", "0 a=b\n", "-6 a=b\n"]
        {
            assert!(Pax::default().apply(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn times_before_1970_count_forward() {
        let table = [
            ("0", Some((0, 0))),
            ("12.5", Some((12, 500_000_000))),
            ("1.1234567899", Some((1, 123_456_789))),
            ("-1.25", Some((-2, 750_000_000))),
            ("-3", Some((-3, 0))),
            ("1.x", None),
            ("", None),
            ("99999999999999999999", None),
        ];
        for (text, expected) in table {
            let found = time(text.as_bytes()).ok().map(|time| (time.secs, time.nanos));
            assert_eq!(found, expected, "{text:?}");
        }
    }

    #[test]
    fn a_global_header_cannot_name_files() {
        let fault = Pax::default().apply_global(record("path", "a").as_bytes()).unwrap_err();
        assert_eq!(fault, TarFault::PaxGlobal { keyword: "path" });
        Pax::default().apply_global(record("mtime", "1").as_bytes()).unwrap();
    }
}
