// SPDX-License-Identifier: Apache-2.0
//! Bounds on everything that an archive, a registry or an image can make us hold.

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// How much of everything we accept. The defaults fit every image in common use with room to spare.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a manifest, an index or a docker-archive `manifest.json`. Registries refuse to store
    /// manifests over 4 MiB, so none needs more.
    pub manifest_bytes: u64,
    /// Bytes of an image configuration. It lists history and labels, and is held in memory.
    pub config_bytes: u64,
    /// Layers of one image. Docker stops at 127, the overlay of other engines near 500.
    pub layers: usize,
    /// Images in one archive or index. Each costs a manifest in memory and a root file system.
    pub images: usize,
    /// Entries in an archive around an image, where a layer takes at most four.
    pub archive_entries: usize,
    /// Bytes of one layer as it is stored or sent.
    pub layer_bytes: u64,
    /// Bytes of all layers of one image together, unpacked. The largest images in use (machine
    /// learning) stay below 64 GiB.
    pub unpacked_bytes: u64,
    /// Once past `bomb_floor`, a layer may unpack to this many times its packed bytes. Real layers
    /// reach about 20; gzip ends near 1,000 and zstd near 30,000, which only bombs need.
    pub bomb_ratio: u64,
    /// Unpacked bytes below which the ratio is not looked at, so that a sparse file of zeros passes.
    pub bomb_floor: u64,
    /// Free space that is left to others: this share of the file system, in per cent ...
    pub reserve_percent: u64,
    /// ... but never more than this many bytes, or large disks could not be used.
    pub reserve_max_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            manifest_bytes: 4 * MIB,
            config_bytes: 4 * MIB,
            layers: 512,
            images: 256,
            archive_entries: 16 * 1024,
            layer_bytes: 64 * GIB,
            unpacked_bytes: 128 * GIB,
            bomb_ratio: 256,
            bomb_floor: GIB,
            reserve_percent: 5,
            reserve_max_bytes: GIB,
        }
    }
}

/// Buffer for copying: large enough to amortise system calls, small enough to stay in the cache.
pub(crate) const COPY_BUFFER: usize = 256 << 10;
/// How many bytes pass between two signs of life, looks at the disk and looks at cancellation.
pub(crate) const CHECK_EVERY: u64 = 4 * MIB;
