// SPDX-License-Identifier: Apache-2.0
//! How much a layer may ask for.

/// Bounds on what layers may make the builder read, hold and write.
///
/// The defaults admit every image that we know of and keep a hostile one from filling memory. The
/// disk is the caller's to know: lower [`max_image_bytes`](Limits::max_image_bytes) to what may be
/// used of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Names in the merged tree, directories that are only implied included. Each costs a few
    /// hundred bytes of memory; the largest images in use have some 500,000.
    pub max_entries: u64,
    /// Bytes of the names in the tree and of the targets of symbolic links, which are held in
    /// memory. 500,000 files have some 15 MB of names.
    pub max_name_bytes: u64,
    /// Bytes of one path in a layer; Linux takes at most 4,096.
    pub max_path_len: usize,
    /// Directories above an entry. Symbolic links in the path of an entry can lead deeper than its
    /// length tells, and programs that walk such a tree by recursion fail.
    pub max_depth: u32,
    /// Bytes of a single file, holes included.
    pub max_file_bytes: u64,
    /// Bytes of the file system image. Data that a later layer hides counts as well, because it is
    /// on disk while its layer is merged.
    pub max_image_bytes: u64,
    /// Bytes of uncompressed tar in all layers together: bounds the time that an archive of
    /// nothing but zeros takes.
    pub max_layer_bytes: u64,
    /// Bytes of the extended attributes of one entry; Linux keeps at most 64 KiB a value.
    pub max_xattr_bytes: usize,
    /// Bytes of the different attribute sets of directories, which are held in memory until the
    /// end. Equal sets count once.
    pub max_directory_xattr_bytes: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            max_entries: 1 << 21,
            max_name_bytes: 256 << 20,
            max_path_len: 4096,
            max_depth: 1024,
            max_file_bytes: 1 << 40,
            max_image_bytes: 64 << 30,
            max_layer_bytes: 128 << 30,
            max_xattr_bytes: 64 << 10,
            max_directory_xattr_bytes: 16 << 20,
        }
    }
}
