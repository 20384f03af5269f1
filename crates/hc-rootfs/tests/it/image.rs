// SPDX-License-Identifier: Apache-2.0
//! Builds images and reads them back with other people's code.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::path::Path;
use std::process::Command;

use erofs_rs::backend::SliceImage;
use erofs_rs::{EroFS, types::Inode};
use hc_rootfs::{Builder, Error, Options, Summary};
use tempfile::NamedTempFile;

/// A finished image.
pub(crate) struct Image {
    pub(crate) file: NamedTempFile,
    pub(crate) bytes: Vec<u8>,
    pub(crate) summary: Summary,
}

/// Merges layers with the default limits; the image is checked by `fsck.erofs` as well.
pub(crate) fn build(layers: &[Vec<u8>]) -> Result<Image, Error> {
    build_with(layers, Options::default())
}

/// Merges layers with other options.
pub(crate) fn build_with(layers: &[Vec<u8>], options: Options) -> Result<Image, Error> {
    let mut file = NamedTempFile::new().unwrap();
    let mut builder = Builder::new(file.as_file(), options)?;
    for layer in layers {
        builder = builder.add_layer(layer.as_slice())?;
    }
    let summary = builder.finish()?;
    let mut bytes = Vec::new();
    file.as_file_mut().rewind().unwrap();
    file.as_file_mut().read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes.len() as u64, summary.image_bytes);
    fsck(file.path());
    Ok(Image { file, bytes, summary })
}

/// Lets the format's own checker look at an image.
pub(crate) fn fsck(image: &Path) {
    match Command::new("fsck.erofs").arg("--extract").arg(image).output() {
        Ok(output) => assert!(
            output.status.success(),
            "fsck.erofs: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        ),
        Err(_) => eprintln!("skipped: no fsck.erofs to check with"),
    }
}

/// What an independent reader finds at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) nid: u64,
    /// File type and permissions.
    pub(crate) mode: u16,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: (i64, u32),
    pub(crate) links: u32,
    pub(crate) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(crate) size: u64,
    /// A file's content, a link's target, a device's numbers as text.
    pub(crate) content: Vec<u8>,
}

/// Files from here on are not read whole.
const MAX_READ: u64 = 16 << 20;

/// Everything in an image by its path; the root's is empty.
pub(crate) fn nodes(image: &[u8]) -> BTreeMap<Vec<u8>, Node> {
    let fs = EroFS::new(SliceImage::new(image)).unwrap();
    let root = fs.get_inode(fs.super_block().root_inode_id()).unwrap();
    let mut found = BTreeMap::from([(Vec::new(), node(&fs, root, 2))]);
    for entry in fs.walk_dir("/").unwrap() {
        let entry = entry.unwrap();
        let path = entry.dir_entry.path().as_bytes().to_vec();
        let path = path.strip_prefix(b"/").unwrap_or(&path).to_vec();
        let bits = u16::from(entry.dir_entry.file_type() as u8);
        let old = found.insert(path, node(&fs, entry.inode, bits));
        assert!(old.is_none(), "a name twice in one directory");
    }
    assert_eq!(inode_count(&found), fs.super_block().inos);
    found
}

fn inode_count(nodes: &BTreeMap<Vec<u8>, Node>) -> u64 {
    let nids = nodes.values().map(|node| node.nid).collect::<std::collections::BTreeSet<_>>();
    nids.len() as u64
}

fn node(fs: &EroFS<SliceImage<'_>>, inode: Inode, dirent_type: u16) -> Node {
    let kind = [1, 2, 3, 4, 5, 7].into_iter().find(|kind| *kind == dirent_type).unwrap();
    let type_bits = [0, 0o10, 0o4, 0o2, 0o6, 0o1, 0, 0o12][usize::from(kind)] << 12;
    let mut content = Vec::new();
    if inode.is_file() && inode.data_size() <= MAX_READ {
        let file = fs.open_inode_file(inode).unwrap();
        let size = usize::try_from(inode.data_size()).unwrap();
        content.resize(size, 0xEE);
        let mut at = 0;
        while at < size {
            let read = file.read_at(&mut content[at..], at as u64).unwrap();
            assert_ne!(read, 0, "file ends early");
            at += read;
        }
    } else if inode.is_symlink() {
        content = fs.read_link_inode(inode).unwrap().into_vec();
    } else if let Some((major, minor)) = inode.device() {
        content = format!("{major}:{minor}").into_bytes();
    }
    Node {
        nid: inode.id(),
        mode: type_bits | (inode.permissions() & 0o7777),
        uid: inode.uid(),
        gid: inode.gid(),
        mtime: inode.modified_unix(),
        links: inode.nlink(),
        xattrs: fs.xattrs_inode(inode).unwrap(),
        size: inode.data_size(),
        content,
    }
}

/// An image as text, a line for each path.
pub(crate) fn listing(image: &[u8]) -> String {
    let mut names: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
    let mut text = String::new();
    for (path, node) in nodes(image) {
        let shown = |bytes: &[u8]| bytes.escape_ascii().to_string();
        write!(text, "{:06o} {}:{}", node.mode, node.uid, node.gid).unwrap();
        match node.mtime {
            (0, 0) => {}
            (secs, 0) => write!(text, " @{secs}").unwrap(),
            (secs, nanos) => write!(text, " @{secs}.{nanos:09}").unwrap(),
        }
        write!(text, " /{}", shown(&path)).unwrap();
        if node.mode >> 12 != 0o4 {
            match names.get(&node.nid) {
                Some(first) => write!(text, " = /{}", shown(first)).unwrap(),
                None if node.content.len() > 64 => {
                    write!(text, " ({} bytes)", node.content.len()).unwrap();
                }
                None => write!(text, " {:?}", shown(&node.content)).unwrap(),
            }
            if node.links != 1 {
                write!(text, " links={}", node.links).unwrap();
            }
            names.entry(node.nid).or_insert(path);
        }
        for (name, value) in &node.xattrs {
            write!(text, " {}={:?}", shown(name), shown(value)).unwrap();
        }
        text.push('\n');
    }
    text
}

/// The whole chain of an error on one line, as it is shown to people.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        write!(text, ": {error}").unwrap();
        source = error.source();
    }
    text
}

/// Bytes that a file takes on the host's disk.
pub(crate) fn disk_bytes(file: &File) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    file.metadata().unwrap().blocks() * 512
}
