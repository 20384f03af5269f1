// SPDX-License-Identifier: Apache-2.0
//! Holes: told by the archive, or found in what it stores.

use std::fmt::Write as _;

use erofs_rs::EroFS;
use erofs_rs::backend::SliceImage;
use erofs_rs::types::Layout;

use crate::archive::{Archive, Header, seal};
use crate::image::{Image, build, disk_bytes, nodes};

const GIB: u64 = 1 << 30;

#[track_caller]
fn check_layout(image: &Image, path: &str, expected: Layout) {
    let fs = EroFS::new(SliceImage::new(&image.bytes)).unwrap();
    let file = fs.walk_dir("/").unwrap().map(Result::unwrap);
    let mut file = file.filter(|entry| entry.dir_entry.file_name() == path.as_bytes());
    assert_eq!(file.next().unwrap().inode.layout(), Some(expected), "{path}");
}

/// The bytes of a file at `at`, read by someone else.
fn read_at(image: &Image, path: &str, at: u64, len: usize) -> Vec<u8> {
    let fs = EroFS::new(SliceImage::new(&image.bytes)).unwrap();
    let file = fs.open(format!("/{path}")).unwrap();
    let mut bytes = vec![0xEE; len];
    let mut done = 0;
    while done < len {
        let read = file.read_at(&mut bytes[done..], at + done as u64).unwrap();
        assert_ne!(read, 0);
        done += read;
    }
    bytes
}

/// A PAX 1.0 sparse file of `size` bytes with `data` at each of `places`.
fn sparse(path: &str, size: u64, places: &[u64], data: &[u8]) -> Archive {
    let mut map = format!("{}\n", places.len());
    for place in places {
        writeln!(map, "{place}\n{}", data.len()).unwrap();
    }
    let mut body = map.into_bytes();
    body.resize(body.len().next_multiple_of(512), 0);
    for _ in places {
        body.extend_from_slice(data);
    }
    let real_size = size.to_string();
    Archive::new()
        .pax(&[
            ("GNU.sparse.major", b"1"),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.name", path.as_bytes()),
            ("GNU.sparse.realsize", real_size.as_bytes()),
        ])
        .entry(
            Header { path: b"GNUSparseFile.0/x", size: body.len() as u64, ..Header::default() },
            &body,
        )
}

#[test]
fn gibibytes_of_zeros_in_an_archive_take_no_space() {
    // The stream is not kept in memory, so that the test itself stays small.
    let size = 4 * GIB + 1000;
    let header = Header { path: b"zeros", size, ..Header::default() };
    let start = Archive::new().entry(header, b"").0;
    let rest = size.next_multiple_of(512) + 1024;
    let layer =
        std::io::Read::chain(start.as_slice(), std::io::Read::take(std::io::repeat(0), rest));
    let file = tempfile::tempfile().unwrap();
    let builder = hc_rootfs::Builder::new(&file, hc_rootfs::Options::default()).unwrap();
    let summary = builder.add_layer(layer).unwrap().finish().unwrap();
    assert!(summary.image_bytes < 1 << 20, "{summary:?}");
    assert!(disk_bytes(&file) < 1 << 16);
}

#[test]
fn a_hole_of_a_tebibyte_is_one_chunk() {
    let layer = sparse("huge", 1 << 40, &[], b"").finish();
    let image = build(&[layer]).unwrap();
    check_layout(&image, "huge", Layout::ChunkBased);
    assert_eq!(nodes(&image.bytes)[b"huge".as_slice()].size, 1 << 40);
    assert_eq!(read_at(&image, "huge", (1 << 40) - 10, 10), [0; 10]);
    assert!(image.bytes.len() < 1 << 20);
}

#[test]
fn data_between_holes_is_found_where_it_was() {
    let places = [0, 5 * GIB / 2 + 77, 5 * GIB - 5];
    let layer = sparse("disk", 5 * GIB, &places, b"hello").finish();
    let image = build(&[layer]).unwrap();
    check_layout(&image, "disk", Layout::ChunkBased);
    for place in places {
        assert_eq!(read_at(&image, "disk", place, 5), b"hello", "at {place}");
    }
    assert_eq!(read_at(&image, "disk", places[1] - 50, 50), [0; 50]);
    assert_eq!(read_at(&image, "disk", places[1] + 5, 50), [0; 50]);
    assert!(disk_bytes(image.file.as_file()) < 3 << 20);
}

#[test]
fn stored_zeros_become_holes() {
    let mut content = vec![0; 3 << 20];
    content[1 << 20] = 1;
    let last = content.len() - 1;
    content[last] = 2;
    let full = vec![3; 200_001];
    let image =
        build(&[Archive::new().file("holes", &content).file("full", &full).finish()]).unwrap();
    check_layout(&image, "holes", Layout::ChunkBased);
    check_layout(&image, "full", Layout::FlatPlain);
    let nodes = nodes(&image.bytes);
    assert_eq!(nodes[b"holes".as_slice()].content, content);
    assert_eq!(nodes[b"full".as_slice()].content, full);
    assert!(disk_bytes(image.file.as_file()) < 1 << 20);
}

#[test]
fn small_sparse_files_are_filled() {
    let image = build(&[sparse("small", 10_000, &[100, 9_995], b"hello").finish()]).unwrap();
    let mut expected = vec![0; 10_000];
    expected[100..105].copy_from_slice(b"hello");
    expected[9_995..].copy_from_slice(b"hello");
    assert_eq!(nodes(&image.bytes)[b"small".as_slice()].content, expected);
}

#[test]
fn the_older_dialects_give_the_same() {
    let data = [b"hello".as_slice(), b"world"].concat();
    let file = || Header { path: b"f", size: 10, ..Header::default() };
    let pax_0_0: &[(&str, &[u8])] = &[
        ("GNU.sparse.size", b"300"),
        ("GNU.sparse.numblocks", b"2"),
        ("GNU.sparse.offset", b"10"),
        ("GNU.sparse.numbytes", b"5"),
        ("GNU.sparse.offset", b"200"),
        ("GNU.sparse.numbytes", b"5"),
    ];
    let pax_0_1: &[(&str, &[u8])] =
        &[("GNU.sparse.size", b"300"), ("GNU.sparse.map", b"10,5,200,5")];
    let mut old = Header { kind: b'S', magic: b"ustar  \0", ..file() }.unsealed();
    old[386..410].copy_from_slice(b"00000000012\x0000000000005\x00");
    old[482] = 1;
    old[483..495].copy_from_slice(b"00000000454\0");
    let mut extension = [0; 512];
    extension[..24].copy_from_slice(b"00000000310\x0000000000005\x00");
    let archives = [
        Archive::new().pax(pax_0_0).entry(file(), &data),
        Archive::new().pax(pax_0_1).entry(file(), &data),
        Archive::new().data(&seal(old)).data(&extension).data(&data),
    ];
    let mut expected = vec![0; 300];
    expected[10..15].copy_from_slice(b"hello");
    expected[200..205].copy_from_slice(b"world");
    for (at, archive) in archives.into_iter().enumerate() {
        // Another file behind it tells whether all of its data was taken.
        let image = build(&[archive.file("next", b"n").finish()]).unwrap();
        let nodes = nodes(&image.bytes);
        assert_eq!(nodes[b"f".as_slice()].content, expected, "dialect {at}");
        assert_eq!(nodes[b"next".as_slice()].content, b"n", "dialect {at}");
    }
}
