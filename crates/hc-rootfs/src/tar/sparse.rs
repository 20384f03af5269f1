// SPDX-License-Identifier: Apache-2.0
//! Maps of sparse files: which parts of a file an archive stores, in all four GNU dialects.

use super::header::{self, Block};
use crate::TarFault;

/// Parts of one file; more is no honest archive but an attempt to fill memory. A disk image of
/// 1 TiB that alternates data and holes every 8 MiB has as many.
const MAX_SEGMENTS: usize = 1 << 17;
/// Descriptors in a block that continues the map of an old GNU sparse file.
const EXTENSION_MAP_LEN: usize = 21 * 24;

/// A part of a file that has data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    /// Where it starts in the file.
    pub(crate) start: u64,
    /// Its length, never 0 in a finished map.
    pub(crate) len: u64,
}

/// A map under construction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SparseMap(Vec<Segment>);

impl SparseMap {
    pub(crate) fn push(&mut self, start: u64, len: u64) -> Result<(), TarFault> {
        if self.0.len() == MAX_SEGMENTS {
            return Err(TarFault::SparseMap);
        }
        self.0.push(Segment { start, len });
        Ok(())
    }

    /// Checks the map of a file of `size` bytes, `stored` of which the archive has.
    pub(crate) fn finish(mut self, size: u64, stored: u64) -> Result<Vec<Segment>, TarFault> {
        let (mut end, mut sum) = (0, 0_u64);
        for segment in &self.0 {
            let next = segment.start.checked_add(segment.len).ok_or(TarFault::SparseMap)?;
            if segment.start < end || next > size {
                return Err(TarFault::SparseMap);
            }
            end = next;
            sum += segment.len; // Segments do not overlap, so this is at most `size`.
        }
        if sum != stored {
            return Err(TarFault::SparseMap);
        }
        self.0.retain(|segment| segment.len != 0);
        Ok(self.0)
    }

    /// Adds the descriptors in the header of an old GNU sparse file; true if more blocks follow.
    pub(crate) fn apply_header(&mut self, block: &Block) -> Result<bool, TarFault> {
        self.apply_descriptors(&block[header::SPARSE_MAP])?;
        Ok(block[header::SPARSE_IS_EXTENDED] != 0)
    }

    /// Adds those in a block after the header; true if another follows.
    pub(crate) fn apply_extension(&mut self, block: &Block) -> Result<bool, TarFault> {
        self.apply_descriptors(&block[..EXTENSION_MAP_LEN])?;
        Ok(block[EXTENSION_MAP_LEN] != 0)
    }

    fn apply_descriptors(&mut self, table: &[u8]) -> Result<(), TarFault> {
        for descriptor in table.chunks_exact(24) {
            let (start, len) = descriptor.split_at(12);
            if start[0] == 0 || len[0] == 0 {
                break; // Unused ones are blank.
            }
            self.push(
                header::unsigned(start, "sparse offset")?,
                header::unsigned(len, "sparse length")?,
            )?;
        }
        Ok(())
    }
}

/// The PAX keywords of a sparse file; which are there tells the dialect.
#[derive(Clone, Debug, Default)]
pub(crate) struct SparseKeys {
    pub(crate) name: Option<Vec<u8>>,
    major: Option<u64>,
    minor: Option<u64>,
    real_size: Option<u64>,
    map: Option<SparseMap>,
    /// Dialect 0.0 repeats two keywords; this is an offset that waits for its length.
    offset: Option<u64>,
}

/// How the map of a file is stored.
pub(crate) enum SparseDialect {
    /// In the extended header.
    Header {
        /// The map.
        map: SparseMap,
        /// The size of the file.
        real_size: u64,
    },
    /// As text in front of the data.
    Data {
        /// The size of the file.
        real_size: u64,
    },
}

impl SparseKeys {
    pub(crate) fn is_empty(&self) -> bool {
        self.name.is_none()
            && self.major.is_none()
            && self.real_size.is_none()
            && self.map.is_none()
    }

    /// Takes one record, its keyword without the common prefix.
    pub(crate) fn apply(&mut self, keyword: &[u8], value: &[u8]) -> Result<(), TarFault> {
        let number = || decimal(value, "GNU.sparse");
        match keyword {
            b"name" => self.name = Some(value.to_vec()),
            b"major" => self.major = Some(number()?),
            b"minor" => self.minor = Some(number()?),
            b"size" | b"realsize" => self.real_size = Some(number()?),
            b"offset" => self.offset = Some(number()?),
            b"numbytes" => {
                let offset = self.offset.take().ok_or(TarFault::SparseMap)?;
                self.map.get_or_insert_default().push(offset, number()?)?;
            }
            b"map" => self.map = Some(map_from_text(value)?),
            // The count of the map, which its length tells as well, and unknown words.
            _ => {}
        }
        Ok(())
    }

    /// What the keywords say together; `None` for a file that is not sparse.
    pub(crate) fn dialect(self) -> Result<Option<SparseDialect>, TarFault> {
        let Some(real_size) = self.real_size else {
            return if self.is_empty() { Ok(None) } else { Err(TarFault::SparseMap) };
        };
        match (self.major, self.minor, self.map) {
            (Some(1), Some(0), None) => Ok(Some(SparseDialect::Data { real_size })),
            (None, None, map) | (Some(0), Some(0 | 1), map) => {
                Ok(Some(SparseDialect::Header { map: map.unwrap_or_default(), real_size }))
            }
            _ => Err(TarFault::SparseMap),
        }
    }
}

/// Dialect 0.1: `OFFSET,LENGTH,OFFSET,LENGTH...`.
fn map_from_text(text: &[u8]) -> Result<SparseMap, TarFault> {
    let mut map = SparseMap::default();
    if text.is_empty() {
        return Ok(map);
    }
    let mut numbers = text.split(|byte| *byte == b',');
    while let Some(start) = numbers.next() {
        let len = numbers.next().ok_or(TarFault::SparseMap)?;
        map.push(decimal(start, "GNU.sparse.map")?, decimal(len, "GNU.sparse.map")?)?;
    }
    Ok(map)
}

/// Dialect 1.0: the map stands in front of the data, one number a line, its count first. Takes it
/// byte by byte, so that it needs no bound but its own.
#[derive(Default)]
pub(crate) struct TextMap {
    count: Option<usize>,
    start: Option<u64>,
    number: Option<u64>,
    map: SparseMap,
}

impl TextMap {
    /// Takes the next block of the text; true once the map is whole.
    pub(crate) fn apply(&mut self, block: &Block) -> Result<bool, TarFault> {
        for byte in block {
            match byte {
                b'0'..=b'9' => {
                    let digit = u64::from(byte - b'0');
                    let tens = self.number.unwrap_or_default().checked_mul(10);
                    let number = tens.and_then(|tens| tens.checked_add(digit));
                    self.number = Some(number.ok_or(TarFault::SparseMap)?);
                }
                b'\n' => {
                    let number = self.number.take().ok_or(TarFault::SparseMap)?;
                    if self.end_number(number)? {
                        return Ok(true);
                    }
                }
                _ => return Err(TarFault::SparseMap),
            }
        }
        Ok(false)
    }

    fn end_number(&mut self, number: u64) -> Result<bool, TarFault> {
        let count = match self.count {
            None => {
                let count = usize::try_from(number).map_err(|_| TarFault::SparseMap)?;
                *self.count.insert(count)
            }
            Some(count) => {
                match self.start.take() {
                    None => self.start = Some(number),
                    Some(start) => self.map.push(start, number)?,
                }
                count
            }
        };
        Ok(self.start.is_none() && self.map.0.len() == count)
    }

    /// The whole map.
    pub(crate) fn into_map(self) -> SparseMap {
        self.map
    }
}

/// A number in plain decimal digits.
pub(crate) fn decimal(text: &[u8], field: &'static str) -> Result<u64, TarFault> {
    let value = text.iter().try_fold(0_u64, |value, digit| match digit {
        b'0'..=b'9' => value.checked_mul(10)?.checked_add(u64::from(digit - b'0')),
        _ => None,
    });
    value.filter(|_| !text.is_empty()).ok_or(TarFault::Number { field })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(segments: &[(u64, u64)], size: u64, stored: u64, fits: bool) {
        let mut map = SparseMap::default();
        for (start, len) in segments {
            map.push(*start, *len).unwrap();
        }
        assert_eq!(map.finish(size, stored).is_ok(), fits, "{segments:?} {size} {stored}");
    }

    #[test]
    fn a_map_must_be_in_order_within_the_file_and_fit_its_data() {
        check(&[(0, 5), (10, 5), (20, 0)], 20, 10, true);
        check(&[], 1 << 62, 0, true);
        check(&[(10, 5), (0, 5)], 20, 10, false);
        check(&[(0, 5), (4, 5)], 20, 10, false);
        check(&[(0, 5)], 4, 5, false);
        check(&[(0, 5)], 20, 6, false);
        check(&[(u64::MAX, 2)], u64::MAX, 2, false);
    }

    #[test]
    fn a_map_in_text_ends_where_its_count_says() {
        let mut block = [b'9'; 512];
        block[..12].copy_from_slice(b"2\n0\n5\n10\n55\n");
        assert_eq!(TextMap::default().apply(&block), Ok(true));
        block[..12].copy_from_slice(b"2\n0\n5\n10\n\n5\n");
        assert_eq!(TextMap::default().apply(&block), Err(TarFault::SparseMap));
        block[..2].copy_from_slice(b"0\n");
        assert_eq!(TextMap::default().apply(&block), Ok(true));
    }

    #[test]
    fn too_many_segments_are_refused() {
        let mut map = SparseMap::default();
        let fault = (0..).find_map(|at| map.push(at, 0).err());
        assert_eq!(fault, Some(TarFault::SparseMap));
        assert_eq!(map.0.len(), MAX_SEGMENTS);
    }
}
