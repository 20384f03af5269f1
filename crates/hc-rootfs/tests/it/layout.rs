// SPDX-License-Identifier: Apache-2.0
//! Where things lie in the image: sizes at every edge, space given back, the same bytes every time.

use hc_rootfs::{Builder, Options};

use crate::archive::{Archive, Header};
use crate::image::{build, build_with, disk_bytes, nodes};

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| u8::try_from((at * 7 + at / 251) % 255 + 1).unwrap()).collect()
}

#[test]
fn files_of_every_size_come_back() {
    let edges = [0, 4032, 4096, 8128, 8192, 12_288, 131_072, 262_144, 1 << 20];
    let sizes = edges.into_iter().flat_map(|edge: usize| edge.saturating_sub(2)..edge + 3);
    let sizes = sizes.collect::<std::collections::BTreeSet<_>>();
    let mut tar = Archive::new();
    for size in &sizes {
        tar = tar.file(&format!("f{size}"), &pattern(*size));
        tar = tar.pax(&[("SCHILY.xattr.user.name", b"value")]);
        tar = tar.file(&format!("x{size}"), &pattern(*size));
    }
    let image = build(&[tar.finish()]).unwrap();
    let nodes = nodes(&image.bytes);
    for size in &sizes {
        for path in [format!("f{size}"), format!("x{size}")] {
            assert!(nodes[path.as_bytes()].content == pattern(*size), "{path}");
        }
    }
}

#[test]
fn inodes_with_many_attributes_come_back() {
    for len in [3000, 4000, 4050, 9000, 30_000] {
        let value = pattern(len);
        let pax: &[(&str, &[u8])] =
            &[("SCHILY.xattr.user.large", &value), ("SCHILY.xattr.trusted.small", b"s")];
        let tar = Archive::new()
            .pax(pax)
            .dir("./", 0o755)
            .pax(pax)
            .dir("dir", 0o700)
            .pax(pax)
            .file("file", &pattern(100))
            .pax(pax)
            .file("large", &pattern(140_000))
            .pax(pax)
            .symlink("link", "target");
        let image = build(&[tar.finish()]).unwrap();
        let nodes = nodes(&image.bytes);
        for (path, node) in &nodes {
            let path = path.escape_ascii();
            assert_eq!(node.xattrs.len(), 2, "{path}");
            assert!(node.xattrs[b"user.large".as_slice()] == value, "{path}");
        }
        assert!(nodes[b"file".as_slice()].content == pattern(100));
        assert!(nodes[b"large".as_slice()].content == pattern(140_000));
        assert_eq!(nodes[b"link".as_slice()].content, b"target");
    }
}

#[test]
fn large_directories_come_back_in_order() {
    let mut tar = Archive::new();
    for at in 0..3000 {
        tar = tar.file(&format!("d/{at:0>width$}", width = 1 + at % 90), b"");
        tar = tar.file(&format!("{at}"), b"");
    }
    let image = build(&[tar.finish()]).unwrap();
    let nodes = nodes(&image.bytes);
    assert!((0..3000).all(|at| nodes.contains_key(at.to_string().as_bytes())));
    // The kernel finds names by halving: an order that is not the bytes' hides files.
    let fs = erofs_rs::EroFS::new(erofs_rs::backend::SliceImage::new(&image.bytes)).unwrap();
    for at in (0..3000).step_by(7) {
        fs.open(format!("/d/{at:0>width$}", width = 1 + at % 90)).unwrap();
    }
}

#[test]
fn space_of_hidden_files_is_given_back() {
    let data = pattern(8 << 20);
    let lower = Archive::new().file("a", &data).file("b", &data).file("c", &data).finish();
    let upper = Archive::new().file(".wh.a", b"").file("b", b"small").finish();
    let image = build(&[lower, upper]).unwrap();
    assert!(nodes(&image.bytes)[b"c".as_slice()].content == data);
    let used = disk_bytes(image.file.as_file());
    assert!(used < 10 << 20, "{used} bytes used for 8 MiB");
}

#[test]
fn the_same_layers_give_the_same_bytes() {
    let layer = Archive::new().file("a", b"1").dir("d", 0o700).link("b", "a").finish();
    let first = build(std::slice::from_ref(&layer)).unwrap();
    assert!(first.bytes == build(std::slice::from_ref(&layer)).unwrap().bytes);
    let uuid = *b"0123456789abcdef";
    let other = build_with(&[layer], Options { uuid, ..Options::default() }).unwrap();
    assert_eq!(other.bytes[1024 + 48..][..16], uuid);
}

#[test]
fn what_was_in_the_file_is_gone() {
    use std::os::unix::fs::FileExt as _;
    let file = tempfile::tempfile().unwrap();
    file.write_all_at(&vec![0xAA; 1 << 20], 0).unwrap();
    let summary = Builder::new(&file, Options::default()).unwrap().finish().unwrap();
    let mut bytes = vec![0; usize::try_from(summary.image_bytes).unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    assert!(!bytes.contains(&0xAA));
}

#[test]
fn links_are_counted_for_directories_too() {
    let tar = Archive::new().dir("a/b", 0o755).dir("a/c", 0o755).file("a/d", b"");
    let image = build(&[tar.finish()]).unwrap();
    let nodes = nodes(&image.bytes);
    let links = |path: &str| nodes[path.as_bytes()].links;
    assert_eq!((links(""), links("a"), links("a/b"), links("a/d")), (3, 4, 2, 1));
    assert_eq!(image.summary.inodes, 5);
}

#[test]
fn owners_times_and_sizes_beyond_16_and_32_bits_are_kept() {
    let header =
        Header { path: b"a", uid: 4_294_967_294, gid: 70_000, mtime: 1 << 40, ..Header::default() };
    let image = build(&[Archive::new().entry(header, b"").finish()]).unwrap();
    let nodes = nodes(&image.bytes);
    let node = &nodes[b"a".as_slice()];
    assert_eq!((node.uid, node.gid, node.mtime), (4_294_967_294, 70_000, (1 << 40, 0)));
}
