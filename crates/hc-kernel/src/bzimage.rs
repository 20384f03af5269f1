// SPDX-License-Identifier: Apache-2.0
//! The header of a bzImage, as `Documentation/x86/boot.rst` of the kernel describes it.

/// The header and the version string lie within this many bytes: 255 set-up sectors at most.
pub(crate) const HEAD_LEN: usize = 256 * SECTOR_LEN;

const SECTOR_LEN: usize = 512;
const MAGIC_AT: usize = 0x202;
const PROTOCOL_AT: usize = 0x206;
const VERSION_POINTER_AT: usize = 0x20e;
const EXTENDED_FLAGS_AT: usize = 0x236;

/// Protocol 2.12, the first whose flags say whether the kernel is a 64-bit one.
const PROTOCOL_WITH_FLAGS: u16 = 0x020c;
/// The kernel has the 64-bit entry point, `XLF_KERNEL_64`.
const FLAG_KERNEL_64: u16 = 1;
/// The kernel limits the string to less than this; more is no version.
const VERSION_MAX_LEN: usize = 512;

/// What the header says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// Whether the kernel runs in 64-bit mode.
    pub(crate) is_64_bit: bool,
    /// The first word of the version string, if it looks like a release.
    pub(crate) release: Option<String>,
}

/// Reads the header from the first bytes of a file, or says `None` when they are no bzImage.
pub(crate) fn parse(head: &[u8]) -> Option<Header> {
    if head.get(MAGIC_AT..MAGIC_AT + 4)? != b"HdrS" {
        return None;
    }
    let has_flags = u16_at(head, PROTOCOL_AT)? >= PROTOCOL_WITH_FLAGS;
    let is_64_bit = has_flags && u16_at(head, EXTENDED_FLAGS_AT)? & FLAG_KERNEL_64 != 0;
    Some(Header { is_64_bit, release: version(head).and_then(release) })
}

/// The version string, which a pointer counts from the second sector.
fn version(head: &[u8]) -> Option<&[u8]> {
    let pointer = usize::from(u16_at(head, VERSION_POINTER_AT)?);
    if pointer == 0 {
        return None;
    }
    let text = head.get(SECTOR_LEN + pointer..)?;
    let len = text.iter().take(VERSION_MAX_LEN).position(|&byte| byte == 0)?;
    text.get(..len)
}

/// The release at the start of a version text, such as `6.1.0-56-cloud-amd64`.
///
/// It becomes part of file names, so only what can never be more than one name is a release.
pub(crate) fn release(version: &[u8]) -> Option<String> {
    /// The kernel's own limit is 64 with the final zero.
    const MAX_LEN: usize = 64;
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"._+~-".contains(byte);
    let len = version.iter().take_while(|byte| allowed(byte)).count();
    let ends = version.get(len).is_none_or(u8::is_ascii_whitespace);
    let word = version.get(..len)?;
    (ends && len <= MAX_LEN && word.first()?.is_ascii_digit())
        .then(|| String::from_utf8_lossy(word).into_owned())
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The smallest file that passes as a bzImage with this version string.
    pub(crate) fn image(version: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 4 * SECTOR_LEN];
        bytes[MAGIC_AT..MAGIC_AT + 4].copy_from_slice(b"HdrS");
        bytes[PROTOCOL_AT..PROTOCOL_AT + 2].copy_from_slice(&0x020f_u16.to_le_bytes());
        bytes[EXTENDED_FLAGS_AT] = 1;
        bytes[VERSION_POINTER_AT..VERSION_POINTER_AT + 2].copy_from_slice(&0x100_u16.to_le_bytes());
        bytes[SECTOR_LEN + 0x100..][..version.len()].copy_from_slice(version);
        bytes
    }

    #[test]
    fn release_is_the_first_word_of_the_version() {
        let header = parse(&image(b"6.1.0-56-cloud-amd64 (debian-kernel@lists.debian.org) #1 SMP"));
        let release = Some("6.1.0-56-cloud-amd64".into());
        assert_eq!(header, Some(Header { is_64_bit: true, release }));
    }

    #[test]
    fn release_that_could_be_a_path_is_none() {
        for version in [&b"../../etc"[..], b"6.1/../..", b"6.1\xff", b"", b".6", b"six"] {
            assert_eq!(parse(&image(version)).map(|header| header.release), Some(None));
        }
        assert_eq!(release(&[b'6'; 65]), None);
    }

    #[test]
    fn version_pointer_past_the_end_is_no_version() {
        let mut bytes = image(b"6.1");
        bytes[VERSION_POINTER_AT..VERSION_POINTER_AT + 2].copy_from_slice(&[0xff, 0xff]);
        assert_eq!(parse(&bytes).map(|header| header.release), Some(None));
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken(bytes in proptest::collection::vec(any::<u8>(), 0..1024)) {
            let mut head = image(b"6.1");
            let at = MAGIC_AT + 4;
            head.truncate(at);
            head.extend_from_slice(&bytes);
            if let Some(Header { release: Some(release), .. }) = parse(&head) {
                prop_assert!(!release.contains('/') && !release.starts_with('.'));
            }
        }
    }
}
