// SPDX-License-Identifier: Apache-2.0

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, symlink};

use proptest::prelude::*;
use rustix::fs::{CWD, Mode};
use tempfile::TempDir;

use super::format::{Entry, Kind, Reader, encode};
use super::*;

fn entry(path: &[u8], kind: Kind) -> Entry {
    Entry {
        path: path.to_vec(),
        kind,
        mode: 0o640,
        uid: 0,
        gid: 0,
        size: 0,
        modified: (1_600_000_000, 0),
        link: Vec::new(),
        device: (0, 0),
        xattrs: Vec::new(),
    }
}

/// A directory as a root, with `to` in it to unpack into.
fn root() -> (TempDir, Root) {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("to")).unwrap();
    let root = Root::open(directory.path().to_str().unwrap()).unwrap();
    (directory, root)
}

/// Unpacks into `/to`, keeping the owner, which is ours, so that no right is needed.
fn unpack(root: &Root, archive: &[u8]) -> io::Result<()> {
    unpack::unpack(root, Path::new("/to"), true, archive)
}

fn own(mut entry: Entry) -> Entry {
    entry.uid = rustix::process::getuid().as_raw();
    entry.gid = rustix::process::getgid().as_raw();
    entry
}

fn pack(root: &Root, path: &str) -> Vec<u8> {
    let mut archive = Vec::new();
    pack::pack(root, Path::new(path), false, &mut archive).unwrap();
    archive
}

#[test]
fn a_tree_survives_packing_and_unpacking() {
    let (directory, root) = root();
    let from = directory.path().join("from");
    fs::create_dir_all(from.join("sub/empty")).unwrap();
    fs::write(from.join("sub/file"), "contents").unwrap();
    fs::set_permissions(from.join("sub/file"), fs::Permissions::from_mode(0o4751)).unwrap();
    fs::hard_link(from.join("sub/file"), from.join("sub/twin")).unwrap();
    symlink("/absolute/nowhere", from.join("link")).unwrap();
    let long = "n".repeat(200);
    fs::write(from.join(&long), "long").unwrap();
    rustix::fs::mkfifoat(CWD, from.join("pipe"), Mode::RUSR).unwrap();
    fs::File::open(from.join("sub/file"))
        .unwrap()
        .set_modified(std::time::UNIX_EPOCH + std::time::Duration::new(1_500_000_000, 123_456_789))
        .unwrap();

    unpack(&root, &pack(&root, "/from")).unwrap();
    let to = directory.path().join("to/from");
    assert_eq!(fs::read(to.join("sub/file")).unwrap(), b"contents");
    let stat = fs::metadata(to.join("sub/file")).unwrap();
    assert_eq!(stat.permissions().mode() & 0o7777, 0o4751);
    assert_eq!((stat.mtime(), stat.mtime_nsec()), (1_500_000_000, 123_456_789));
    assert_eq!(stat.ino(), fs::metadata(to.join("sub/twin")).unwrap().ino());
    assert_eq!(fs::read_link(to.join("link")).unwrap(), Path::new("/absolute/nowhere"));
    assert_eq!(fs::read(to.join(&long)).unwrap(), b"long");
    assert!(to.join("sub/empty").is_dir());
    assert!(fs::metadata(to.join("pipe")).unwrap().file_type().is_fifo());
    let before = fs::metadata(from.join("sub")).unwrap();
    let after = fs::metadata(to.join("sub")).unwrap();
    assert_eq!((before.mtime(), before.mtime_nsec()), (after.mtime(), after.mtime_nsec()));
}

#[test]
fn extended_attributes_survive_with_any_bytes() {
    let (directory, root) = root();
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    let value = b"line\nbreak=\0\xff";
    let flags = rustix::fs::XattrFlags::empty();
    match rustix::fs::setxattr(&file, "user.hyper", value, flags) {
        Err(rustix::io::Errno::OPNOTSUPP) => {
            return hc_testkit::skip("the file system for temporary files has no attributes");
        }
        done => done.unwrap(),
    }
    unpack(&root, &pack(&root, "/file")).unwrap();
    let mut found = [0; 64];
    let copy = directory.path().join("to/file");
    let length = rustix::fs::getxattr(copy, "user.hyper", &mut found[..]).unwrap();
    assert_eq!(&found[..length], value);
}

#[test]
fn links_lead_neither_packing_nor_unpacking_astray() {
    let (directory, root) = root();
    let outside = tempfile::tempdir().unwrap();
    symlink(outside.path(), directory.path().join("to/out")).unwrap();
    symlink("/to", directory.path().join("to/in")).unwrap();
    let file = own(Entry { size: 2, ..entry(b"out/file", Kind::File) });
    let mut archive = encode(&file);
    archive.extend(b"hi");
    archive.resize(archive.len().next_multiple_of(512), 0);
    unpack(&root, &archive).unwrap();
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    let inside = outside.path().strip_prefix("/").unwrap();
    assert_eq!(fs::read(directory.path().join(inside).join("file")).unwrap(), b"hi");

    let packed = pack(&root, "/to/out");
    let top = Reader::new(&packed[..]).next().unwrap().unwrap();
    assert_eq!((top.kind, top.path.as_slice()), (Kind::Symlink, &b"out"[..]));
}

#[test]
fn paths_that_climb_out_are_refused() {
    let (_directory, root) = root();
    for path in ["../up", "a/../../up"] {
        let error = unpack(&root, &encode(&own(entry(path.as_bytes(), Kind::File)))).unwrap_err();
        assert!(error.to_string().ends_with("leads out of it"), "{error}");
    }
}

#[test]
fn a_file_is_replaced_and_a_directory_is_not() {
    let (directory, root) = root();
    let to = directory.path().join("to");
    symlink("target", to.join("name")).unwrap();
    fs::create_dir(to.join("directory")).unwrap();
    unpack(&root, &encode(&own(entry(b"name", Kind::File)))).unwrap();
    assert!(fs::symlink_metadata(to.join("name")).unwrap().is_file());
    assert!(!to.join("target").exists());
    unpack(&root, &encode(&own(entry(b"directory", Kind::File)))).unwrap_err();
    unpack(&root, &encode(&own(entry(b"directory/", Kind::Directory)))).unwrap();
}

#[test]
fn stat_tells_a_link_to_a_directory() {
    let (directory, root) = root();
    symlink("/to", directory.path().join("link")).unwrap();
    symlink("/none", directory.path().join("dangling")).unwrap();
    let found = stat(&root, Path::new("/link")).unwrap();
    assert_eq!((found.name.as_str(), found.link_to_directory), ("link", true));
    assert!(!stat(&root, Path::new("/dangling")).unwrap().link_to_directory);
    assert_eq!(stat(&root, Path::new("/")).unwrap().name, "/");
    let error = stat(&root, Path::new("/absent")).unwrap_err();
    assert_eq!(error.to_string(), "/absent: no such file or directory");
}

#[test]
fn another_implementation_reads_what_is_written() {
    let (directory, root) = root();
    let long = "d".repeat(150);
    fs::create_dir_all(directory.path().join("to").join(&long)).unwrap();
    fs::write(directory.path().join("to").join(&long).join("f"), "x".repeat(1000)).unwrap();
    let packed = pack(&root, "/to");
    let mut archive = tar::Archive::new(&packed[..]);
    let mut found = Vec::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        found.push((String::from_utf8(entry.path_bytes().into_owned()).unwrap(), bytes.len()));
    }
    let expected = [("to/".into(), 0), (format!("to/{long}/"), 0), (format!("to/{long}/f"), 1000)];
    assert_eq!(found, expected);
}

#[test]
fn what_another_implementation_writes_is_read() {
    let mut builder = tar::Builder::new(Vec::new());
    let long = "p/".repeat(80) + "f";
    let mut header = tar::Header::new_gnu();
    header.set_size(3);
    header.set_mode(0o600);
    header.set_uid(1 << 30);
    header.set_cksum();
    builder.append_data(&mut header, &long, &b"abc"[..]).unwrap();
    let archive = builder.into_inner().unwrap();
    let mut reader = Reader::new(&archive[..]);
    let entry = reader.next().unwrap().unwrap();
    assert_eq!((entry.path, entry.size, entry.uid), (long.into_bytes(), 3, 1 << 30));
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes, b"abc");
    assert_eq!(reader.next().unwrap(), None);
}

#[test]
fn a_cut_archive_is_an_error() {
    let mut archive = encode(&Entry { size: 600, ..entry(b"f", Kind::File) });
    archive.extend([1; 599]);
    let (_directory, root) = root();
    let error = unpack(&root, &archive).unwrap_err();
    assert!(error.to_string().ends_with("it is cut short"), "{error}");
}

proptest! {
    #[test]
    fn any_entry_reads_back(
        path in prop::collection::vec(1_u8.., 1..300),
        link in prop::collection::vec(1_u8.., 0..300),
        mode in 0_u32..0o10000,
        uid: u32,
        gid: u32,
        seconds in 0_u64..1 << 40,
        nanos in 0_u32..1_000_000_000,
        device in (0_u32..1 << 20, 0_u32..1 << 20),
        value in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        let written = Entry {
            path: [&path[..], b"."].concat(),
            kind: Kind::Character,
            mode,
            uid,
            gid,
            size: 0,
            modified: (seconds, nanos),
            link,
            device,
            xattrs: vec![(b"user.a".to_vec(), value)],
        };
        let read = Reader::new(&encode(&written)[..]).next().unwrap().unwrap();
        prop_assert_eq!(read, written);
    }

    #[test]
    fn any_bytes_are_read_without_panic(bytes: Vec<u8>, at in 0_usize..2048, noise: u8) {
        list(&bytes);
        let mut archive = encode(&Entry {
            xattrs: vec![(b"user.a".to_vec(), bytes)],
            ..entry(&[b'a'; 150], Kind::File)
        });
        if let Some(byte) = archive.get_mut(at) {
            *byte = noise;
        }
        list(&archive);
    }
}
