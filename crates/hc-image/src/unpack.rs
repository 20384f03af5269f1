// SPDX-License-Identifier: Apache-2.0
//! Unpacks gzip and Zstandard streams, told apart by their first bytes, and stops bombs.
//!
//! # Invariants
//!
//! - What a stream claims about itself is not looked at; only bytes that came out count.
//! - Memory is bounded: gzip has a window of 32 KiB, and Zstandard frames that want more than
//!   [`ZSTD_WINDOW_LOG_MAX`] are refused.

use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::bufread::MultiGzDecoder;

use crate::limits::COPY_BUFFER;
use crate::manifest::Packing;
use crate::{Error, Limits, Result};

/// As a power of two: 64 MiB. The format asks decoders for 8 MiB; builders use up to 8 MiB.
const ZSTD_WINDOW_LOG_MAX: u32 = 26;
/// As many first bytes as tell packings apart.
const MAGIC_LEN: usize = 6;

/// The packing that a stream starting with `head` has.
///
/// What is neither packed in a known way nor refused is taken as plain; whoever parses it finds out.
pub(crate) fn packing(head: &[u8], what: &str) -> Result<Packing> {
    let refused = |name: &str| Error::Unsupported {
        what: format!("{what} packed by {name}"),
        reason: "use gzip, zstd or no compression",
    };
    match head {
        [0x1f, 0x8b, ..] => Ok(Packing::Gzip),
        // The second is a skippable frame, which some builders put first.
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Ok(Packing::Zstd),
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Err(refused("xz")),
        [b'B', b'Z', b'h', ..] => Err(refused("bzip2")),
        _ => Ok(Packing::Plain),
    }
}

/// An unpacked stream within its limits.
pub(crate) struct Unpacked<'r> {
    inner: Box<dyn Read + Send + 'r>,
    packed: Arc<AtomicU64>,
    done: u64,
    bound: Bound,
}

/// How much may come out.
#[derive(Clone, Debug)]
pub(crate) struct Bound {
    /// Names the stream in errors.
    pub(crate) what: String,
    /// Bytes that may come out in any case.
    pub(crate) max: u64,
    /// See [`Limits::bomb_ratio`].
    pub(crate) ratio: u64,
    /// See [`Limits::bomb_floor`].
    pub(crate) floor: u64,
}

impl Bound {
    pub(crate) fn new(what: impl Into<String>, max: u64, limits: &Limits) -> Bound {
        Bound { what: what.into(), max, ratio: limits.bomb_ratio, floor: limits.bomb_floor }
    }
}

impl<'r> Unpacked<'r> {
    /// Looks at the first bytes of `reader` and unpacks what they announce.
    pub(crate) fn new(mut reader: impl Read + Send + 'r, bound: Bound) -> Result<Unpacked<'r>> {
        let input = |source| Error::Input { what: bound.what.clone(), source };
        let mut head = Vec::with_capacity(MAGIC_LEN);
        reader.by_ref().take(MAGIC_LEN as u64).read_to_end(&mut head).map_err(input)?;
        let packing = packing(&head, &bound.what)?;
        let packed = Arc::new(AtomicU64::new(0));
        let whole = Counting { inner: Cursor::new(head).chain(reader), count: Arc::clone(&packed) };
        let inner: Box<dyn Read + Send + 'r> = match packing {
            Packing::Plain => Box::new(whole),
            Packing::Gzip => Box::new(MultiGzDecoder::new(buffered(whole))),
            Packing::Zstd => {
                let mut decoder =
                    zstd::stream::read::Decoder::with_buffer(buffered(whole)).map_err(input)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(input)?;
                Box::new(decoder)
            }
        };
        Ok(Unpacked { inner, packed, done: 0, bound })
    }

    /// Counts the bytes that went in, from another place while reading goes on.
    pub(crate) fn packed(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.packed)
    }

    fn check(&self) -> Result<()> {
        if self.done > self.bound.max {
            return Err(Error::too_large(
                format!("{}, unpacked,", self.bound.what),
                self.bound.max,
            ));
        }
        let packed = self.packed.load(Ordering::Relaxed);
        if self.done > self.bound.floor && self.done / self.bound.ratio > packed {
            return Err(Error::malformed(
                self.bound.what.clone(),
                format!("it unpacks to more than {} times its size", self.bound.ratio),
            ));
        }
        Ok(())
    }
}

impl Read for Unpacked<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.done += n as u64;
        self.check().map_err(io::Error::other)?;
        Ok(n)
    }
}

fn buffered<R: Read>(reader: R) -> impl BufRead {
    BufReader::with_capacity(COPY_BUFFER, reader)
}

/// Counts what passes.
struct Counting<R> {
    inner: R,
    count: Arc<AtomicU64>,
}

impl<R: Read> Read for Counting<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.count.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }
}

/// Takes our own error back out of one that passed through `std::io`.
pub(crate) fn unwrap_io(error: io::Error, what: &str) -> Error {
    match error.downcast::<Error>() {
        Ok(ours) => ours,
        Err(source) => Error::Input { what: what.to_owned(), source },
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn unpack(bytes: &[u8], limits: &Limits) -> Result<Vec<u8>> {
        let bound = Bound::new("test", limits.unpacked_bytes, limits);
        let mut out = Vec::new();
        let mut reader = Unpacked::new(bytes, bound)?;
        reader.read_to_end(&mut out).map_err(|e| unwrap_io(e, "test"))?;
        Ok(out)
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn each_packing_unpacks_to_the_same_bytes() {
        let plain = b"some bytes, some bytes, some bytes".as_slice();
        let limits = Limits::default();
        let two_members = [gzip(&plain[..10]), gzip(&plain[10..])].concat();
        let zstd = zstd::encode_all(plain, 3).unwrap();
        let two_frames = [
            zstd::encode_all(&plain[..10], 3).unwrap(),
            zstd::encode_all(&plain[10..], 3).unwrap(),
        ];
        for packed in [plain, &gzip(plain), &two_members, &zstd, &two_frames.concat()] {
            assert_eq!(unpack(packed, &limits).unwrap(), plain);
        }
        assert_eq!(unpack(b"", &limits).unwrap(), b"");
        assert_eq!(unpack(b"x", &limits).unwrap(), b"x");
    }

    #[test]
    fn cut_streams_fail() {
        let plain = vec![7; 100_000];
        for packed in [gzip(&plain), zstd::encode_all(&plain[..], 3).unwrap()] {
            for cut in [8, packed.len() / 2, packed.len() - 1] {
                let error = unpack(&packed[..cut], &Limits::default());
                assert!(matches!(error, Err(Error::Input { .. })), "{cut}: {error:?}");
            }
        }
    }

    #[test]
    fn bombs_stop_at_the_ratio_and_at_the_total() {
        let zeros = vec![0; 4 << 20];
        let limits = Limits { bomb_floor: 1 << 20, bomb_ratio: 100, ..Limits::default() };
        for packed in [gzip(&zeros), zstd::encode_all(&zeros[..], 3).unwrap()] {
            assert!(matches!(unpack(&packed, &limits), Err(Error::Malformed { .. })));
            assert!(unpack(&packed, &Limits::default()).is_ok());
        }
        let limits = Limits { unpacked_bytes: 1000, ..Limits::default() };
        assert!(matches!(unpack(&zeros, &limits), Err(Error::TooLarge { limit: 1000, .. })));
    }

    #[test]
    fn unknown_packings_are_refused_with_a_way_out() {
        let error = unpack(b"\xfd7zXZ\0rest", &Limits::default()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "test packed by xz is not supported: use gzip, zstd or no compression"
        );
        assert!(matches!(unpack(b"BZh9", &Limits::default()), Err(Error::Unsupported { .. })));
    }

    #[test]
    fn windows_that_want_too_much_memory_are_refused() {
        // A frame header that asks for a window of 2 GiB.
        let frame = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 21 << 3, 0x01, 0x00, 0x00];
        assert!(matches!(unpack(&frame, &Limits::default()), Err(Error::Input { .. })));
    }
}
