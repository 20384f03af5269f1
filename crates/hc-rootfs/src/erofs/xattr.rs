// SPDX-License-Identifier: Apache-2.0
//! Extended attributes as they stand behind an inode.

use crate::EntryFault;
use crate::tar::Xattr;

/// Bytes in front of the attributes of an inode that has any.
const HEADER_LEN: usize = 12;
/// Bytes in front of each.
const ENTRY_LEN: usize = 4;
/// Names are stored without these, which have numbers.
const PREFIXES: [(&[u8], u8); 5] = [
    (b"user.", 1),
    (b"system.posix_acl_access", 2),
    (b"system.posix_acl_default", 3),
    (b"trusted.", 4),
    (b"security.", 6),
];
/// Longest name with its prefix, in Linux.
const NAME_MAX: usize = 255;
/// Names that overlayfs in the guest would take for its own notes, and act on: a layer could so
/// redirect one directory of the image to another.
const OVERLAY_PREFIXES: [&[u8]; 2] = [b"trusted.overlay.", b"user.overlay."];

/// The attributes of one inode, encoded.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Encoded {
    /// What stands behind the inode; empty if there are none.
    pub(crate) bytes: Vec<u8>,
    /// How many have no place in the format or no business in an image.
    pub(crate) skipped: u64,
}

/// Encodes attributes; they may take `limit` bytes.
pub(crate) fn encode(xattrs: &[Xattr], limit: usize) -> Result<Encoded, EntryFault> {
    let mut encoded = Encoded::default();
    for (name, value) in xattrs {
        if name.is_empty() || name.len() > NAME_MAX || name.contains(&0) {
            return Err(EntryFault::XattrName);
        }
        let Some((suffix, index)) = split(name) else {
            encoded.skipped += 1;
            continue;
        };
        let bytes = &mut encoded.bytes;
        if bytes.is_empty() {
            bytes.resize(HEADER_LEN, 0);
        }
        let len = bytes.len() + ENTRY_LEN + suffix.len() + value.len();
        let too_large = EntryFault::XattrsTooLarge { len, limit };
        let (Ok(name_len), Ok(value_len)) =
            (u8::try_from(suffix.len()), u16::try_from(value.len()))
        else {
            return Err(too_large);
        };
        if len > limit {
            return Err(too_large);
        }
        bytes.extend_from_slice(&[name_len, index]);
        bytes.extend_from_slice(&value_len.to_le_bytes());
        bytes.extend_from_slice(suffix);
        bytes.extend_from_slice(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    Ok(encoded)
}

/// The inode's count for `len` bytes of encoded attributes.
pub(crate) fn count(len: usize) -> u16 {
    let count = if len == 0 { 0 } else { (len - HEADER_LEN) / 4 + 1 };
    u16::try_from(count).expect("the limit on attributes is below 256 KiB")
}

/// A name without its prefix, and the prefix's number.
fn split(name: &[u8]) -> Option<(&[u8], u8)> {
    if OVERLAY_PREFIXES.iter().any(|prefix| name.starts_with(prefix)) {
        return None;
    }
    PREFIXES.iter().find_map(|(prefix, index)| {
        let suffix = name.strip_prefix(*prefix)?;
        // Of a group's prefix alone there is no attribute; of an ACL's nothing else.
        (suffix.is_empty() != prefix.ends_with(b".")).then_some((suffix, *index))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn xattrs(list: &[(&str, &[u8])]) -> Vec<Xattr> {
        list.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.to_vec())).collect()
    }

    #[test]
    fn attributes_are_stored_with_numbered_prefixes() {
        let list = xattrs(&[("security.capability", b"\x01"), ("system.posix_acl_access", b"abc")]);
        let encoded = encode(&list, 1024).unwrap();
        let expected = b"\0\0\0\0\0\0\0\0\0\0\0\0\x0a\x06\x01\0capability\x01\0\x00\x02\x03\0abc\0";
        assert_eq!(encoded.bytes.escape_ascii().to_string(), expected.escape_ascii().to_string());
        assert_eq!(count(encoded.bytes.len()), 7);
    }

    #[test]
    fn what_has_no_place_is_skipped_and_counted() {
        let names = ["system.nfs4_acl", "trusted.overlay.redirect", "user.overlay.opaque", "user."];
        let list = xattrs(&names.map(|name| (name, b"x".as_slice())));
        assert_eq!(encode(&list, 1024), Ok(Encoded { bytes: Vec::new(), skipped: 4 }));
        assert_eq!(count(0), 0);
    }

    #[test]
    fn sizes_and_names_are_bounded() {
        let fault = encode(&xattrs(&[("user.a", &[0; 100])]), 64).unwrap_err();
        assert_eq!(fault, EntryFault::XattrsTooLarge { len: 117, limit: 64 });
        let fault = encode(&xattrs(&[("user.a", &vec![0; 1 << 16])]), 1 << 20).unwrap_err();
        assert!(matches!(fault, EntryFault::XattrsTooLarge { .. }));
        let long = format!("user.{}", "x".repeat(251));
        for name in ["", "user.\0", &long] {
            assert_eq!(encode(&xattrs(&[(name, b"")]), 1024), Err(EntryFault::XattrName));
        }
    }
}
