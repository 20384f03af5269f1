// SPDX-License-Identifier: Apache-2.0
//! One 512-byte header block: its fields as bytes and numbers, in whichever dialect it is.

use std::ops::Range;

use crate::TarFault;

/// Everything in an archive comes in blocks of this size.
pub(crate) const BLOCK_LEN: usize = 512;

/// One block of an archive.
pub(crate) type Block = [u8; BLOCK_LEN];

const NAME: Range<usize> = 0..100;
const MODE: Range<usize> = 100..108;
const UID: Range<usize> = 108..116;
const GID: Range<usize> = 116..124;
const SIZE: Range<usize> = 124..136;
const MTIME: Range<usize> = 136..148;
const CHECKSUM: Range<usize> = 148..156;
const TYPE: usize = 156;
const LINK_NAME: Range<usize> = 157..257;
const MAGIC: Range<usize> = 257..263;
const DEV_MAJOR: Range<usize> = 329..337;
const DEV_MINOR: Range<usize> = 337..345;
const PREFIX: Range<usize> = 345..500;
/// In star's dialect the prefix is shorter, because times follow it.
const STAR_PREFIX: Range<usize> = 345..476;
const STAR_TRAILER: Range<usize> = 508..512;
/// Where GNU's old sparse files keep the first entries of their map.
pub(crate) const SPARSE_MAP: Range<usize> = 386..482;
/// Whether blocks with more of the map follow.
pub(crate) const SPARSE_IS_EXTENDED: usize = 482;
const SPARSE_REAL_SIZE: Range<usize> = 483..495;

/// A header block whose checksum is right.
pub(crate) struct Header(Block);

impl Header {
    /// Takes a block for a header if its checksum says so.
    pub(crate) fn parse(block: &Block) -> Result<Header, TarFault> {
        let stored = number(&block[CHECKSUM], "chksum")?;
        // The checksum counts its own field as spaces. Some old writers summed signed bytes.
        let sums = block.iter().enumerate().map(|(at, byte)| {
            let byte = if CHECKSUM.contains(&at) { b' ' } else { *byte };
            (i64::from(byte), i64::from(byte.cast_signed()))
        });
        let (unsigned, signed) = sums.fold((0, 0), |sum, byte| (sum.0 + byte.0, sum.1 + byte.1));
        if stored == unsigned || stored == signed {
            Ok(Header(*block))
        } else {
            Err(TarFault::Checksum)
        }
    }

    /// The block itself, for what only one dialect has.
    pub(crate) fn block(&self) -> &Block {
        &self.0
    }

    /// The type of the entry.
    pub(crate) fn entry_type(&self) -> u8 {
        self.0[TYPE]
    }

    /// The path, put together from its two fields where the dialect has two.
    pub(crate) fn path(&self) -> Vec<u8> {
        let name = text(&self.0[NAME]);
        let prefix = match &self.0[MAGIC] {
            b"ustar\0" if &self.0[STAR_TRAILER] == b"tar\0" => text(&self.0[STAR_PREFIX]),
            b"ustar\0" => text(&self.0[PREFIX]),
            _ => b"",
        };
        if prefix.is_empty() { name.to_vec() } else { [prefix, name].join(&b'/') }
    }

    /// Where a link leads.
    pub(crate) fn link_name(&self) -> Vec<u8> {
        text(&self.0[LINK_NAME]).to_vec()
    }

    /// Permission bits with setuid, setgid and sticky; the file type some writers add is cut off.
    pub(crate) fn mode(&self) -> Result<u16, TarFault> {
        let mode = number(&self.0[MODE], "mode")? & 0o7777;
        u16::try_from(mode).map_err(|_| TarFault::Number { field: "mode" })
    }

    /// The owner's number.
    pub(crate) fn uid(&self) -> Result<u32, TarFault> {
        id(number(&self.0[UID], "uid")?, "uid")
    }

    /// The group's number.
    pub(crate) fn gid(&self) -> Result<u32, TarFault> {
        id(number(&self.0[GID], "gid")?, "gid")
    }

    /// Bytes of data after the header.
    pub(crate) fn size(&self) -> Result<u64, TarFault> {
        unsigned(&self.0[SIZE], "size")
    }

    /// Seconds since 1970.
    pub(crate) fn mtime(&self) -> Result<i64, TarFault> {
        number(&self.0[MTIME], "mtime")
    }

    /// Major and minor number of a device.
    pub(crate) fn device(&self) -> Result<(u64, u64), TarFault> {
        Ok((unsigned(&self.0[DEV_MAJOR], "devmajor")?, unsigned(&self.0[DEV_MINOR], "devminor")?))
    }

    /// The size of a GNU sparse file with its holes.
    pub(crate) fn sparse_real_size(&self) -> Result<u64, TarFault> {
        unsigned(&self.0[SPARSE_REAL_SIZE], "realsize")
    }
}

/// A user or group number; the all-ones one means "none" to Linux and can own nothing.
pub(crate) fn id(number: i64, field: &'static str) -> Result<u32, TarFault> {
    match u32::try_from(number) {
        Ok(id) if id != u32::MAX => Ok(id),
        _ => Err(TarFault::Number { field }),
    }
}

/// A number field that cannot be negative.
pub(crate) fn unsigned(field: &[u8], name: &'static str) -> Result<u64, TarFault> {
    u64::try_from(number(field, name)?).map_err(|_| TarFault::Number { field: name })
}

/// A number field: octal text, or big-endian two's complement marked by its top bit.
fn number(field: &[u8], name: &'static str) -> Result<i64, TarFault> {
    let bad = TarFault::Number { field: name };
    match field {
        [first, rest @ ..] if first & 0x80 != 0 => {
            // The top bit is the mark, the next one the sign.
            let start = i128::from((first << 1).cast_signed() >> 1);
            let wide = rest.iter().try_fold(start, |value, byte| {
                value.checked_mul(256)?.checked_add(i128::from(*byte))
            });
            wide.and_then(|value| i64::try_from(value).ok()).ok_or(bad)
        }
        _ => octal(field).ok_or(bad),
    }
}

/// Octal digits, padded in front and ended by spaces or NULs; a blank field counts as 0.
fn octal(field: &[u8]) -> Option<i64> {
    let is_padding = |byte: &u8| matches!(byte, b' ' | 0);
    let start = field.iter().position(|byte| !is_padding(byte)).unwrap_or(field.len());
    let digits = field[start..].split(is_padding).next().unwrap_or_default();
    digits.iter().try_fold(0_i64, |value, digit| match digit {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(i64::from(digit - b'0')),
        _ => None,
    })
}

/// A text field up to its NUL.
pub(crate) fn text(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_in_octal_and_base_256() {
        let table: [(&[u8], Option<i64>); 12] = [
            (b"0000644\0", Some(0o644)),
            (b"   644 \0", Some(0o644)),
            (b"644\0junk", Some(0o644)),
            (b"\0\0\0\0\0\0\0\0", Some(0)),
            (b"        ", Some(0)),
            (b"77777777", Some(0o77_777_777)),
            (b"00000648", None),
            (b"-1      ", None),
            (b"\x80\0\0\0\0\0\x01\0", Some(256)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xfe", Some(-2)),
            (b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff", Some(i64::MAX)),
            (b"\x80\0\0\0\x80\0\0\0\0\0\0\0", None),
        ];
        for (field, expected) in table {
            assert_eq!(number(field, "x").ok(), expected, "{}", field.escape_ascii());
        }
    }

    #[test]
    fn ids_fit_linux() {
        assert_eq!(id(0xffff_fffe, "uid"), Ok(0xffff_fffe));
        for bad in [-1, 0xffff_ffff, 1 << 32] {
            assert!(id(bad, "uid").is_err(), "{bad}");
        }
    }
}
