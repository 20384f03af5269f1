// SPDX-License-Identifier: Apache-2.0
//! Layers made to harm: each gives one clear error.

use std::io::{self, Read};

use expect_test::{Expect, expect};
use hc_rootfs::{Builder, Error, Kind, Limits, Options};

use crate::archive::{Archive, Header, seal};
use crate::image::{build_with, chain};

#[track_caller]
fn check(layer: Vec<u8>, expected: Expect) {
    check_with(Limits::default(), Kind::InvalidArgument, layer, expected);
}

#[track_caller]
fn check_with(limits: Limits, kind: Kind, layer: Vec<u8>, expected: Expect) {
    let options = Options { limits, ..Options::default() };
    let error = build_with(&[layer], options).err().expect("a refusal");
    expected.assert_eq(&chain(&error));
    assert_eq!(error.kind(), kind);
}

fn tar() -> Archive {
    Archive::new()
}

#[test]
fn paths_cannot_leave_the_root() {
    check(
        tar().file("../etc/passwd", b"").finish(),
        expect![[r#"cannot add "../etc/passwd" of layer 0: `..` in a path"#]],
    );
    check(
        tar().file("a/../../b", b"").finish(),
        expect![[r#"cannot add "a/../../b" of layer 0: `..` in a path"#]],
    );
    check(
        tar().dir("..", 0o755).finish(),
        expect![[r#"cannot add ".." of layer 0: `..` in a path"#]],
    );
    check(
        tar().link("a", "../../etc/shadow").finish(),
        expect![[r#"cannot add "a" of layer 0: `..` in a path"#]],
    );
    check(
        tar().pax(&[("path", b"x/../y")]).file("a", b"").finish(),
        expect![[r#"cannot add "x/../y" of layer 0: `..` in a path"#]],
    );
}

#[test]
fn odd_paths_are_refused() {
    check(tar().file("", b"").finish(), expect![[r#"cannot add "" of layer 0: empty path"#]]);
    check(
        tar().pax(&[("path", b"a\0b")]).file("a", b"").finish(),
        expect![[r#"cannot add "a\x00b" of layer 0: NUL byte in a path"#]],
    );
    check(
        tar().file(&"x".repeat(256), b"").finish(),
        expect![[
            r#"cannot add "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx" of layer 0: name of 256 bytes is over the limit of 255"#
        ]],
    );
    check(
        tar().file(&"x/".repeat(2500), b"").finish(),
        expect![[
            r#"cannot add "x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/..." of layer 0: path of 5000 bytes is over the limit of 4096"#
        ]],
    );
    check(
        tar().file("./", b"").symlink(".", "x").finish(),
        expect![[r#"cannot add "." of layer 0: the root must be a directory"#]],
    );
    check(
        tar().file("esc\x1b[31m", b"").link("b\x1b", "b\x1b").finish(),
        expect![[r#"cannot add "b\x1b" of layer 0: no such target of a hard link: b\x1b"#]],
    );
}

#[test]
fn links_in_circles_are_refused() {
    check(
        tar().symlink("a", "b").symlink("b", "a").file("a/x", b"").finish(),
        expect![[r#"cannot add "a/x" of layer 0: too many symbolic links in the path"#]],
    );
    check(
        tar().symlink("a", "a/a").file("a/x", b"").finish(),
        expect![[r#"cannot add "a/x" of layer 0: too many symbolic links in the path"#]],
    );
    let far = "t/".repeat(2047);
    let tower = tar().symlink("a", &far).symlink("b", &format!("{}a", "../".repeat(1300)));
    check(
        tower.file("b/x", b"").finish(),
        expect![[r#"cannot add "b/x" of layer 0: more than 1024 directories deep"#]],
    );
    check(
        tar().symlink("a", "").finish(),
        expect![[r#"cannot add "a" of layer 0: target of a symbolic link has 0 bytes"#]],
    );
    check(
        tar().symlink("a", &"x".repeat(4096)).finish(),
        expect![[r#"cannot add "a" of layer 0: target of a symbolic link has 4096 bytes"#]],
    );
}

#[test]
fn hard_links_need_a_file() {
    check(
        tar().link("a", "b").finish(),
        expect![[r#"cannot add "a" of layer 0: no such target of a hard link: b"#]],
    );
    check(
        tar().file("x", b"").link("a", "x/y").finish(),
        expect![[r#"cannot add "a" of layer 0: no such target of a hard link: x/y"#]],
    );
    check(
        tar().dir("d", 0o755).link("a", "d").finish(),
        expect![[r#"cannot add "a" of layer 0: hard link to a directory: d"#]],
    );
    check(
        tar().link("a", "/").finish(),
        expect![[r#"cannot add "a" of layer 0: hard link to a directory: /"#]],
    );
    check(
        tar().file("a", b"").link("a", "./a").finish(),
        expect![[r#"cannot add "a" of layer 0: hard link to itself"#]],
    );
    check(
        tar().link("a", "a").finish(),
        expect![[r#"cannot add "a" of layer 0: no such target of a hard link: a"#]],
    );
    check(
        tar().file("a", b"").link("a/b", "a").finish(),
        expect![[r#"cannot add "a/b" of layer 0: a parent is not a directory"#]],
    );
}

#[test]
fn devices_must_exist_in_linux() {
    let device = |device| Header { path: b"d", kind: b'3', device, ..Header::default() };
    check(
        tar().entry(device((4096, 0)), b"").finish(),
        expect![[r#"cannot add "d" of layer 0: device number 4096:0 is out of range"#]],
    );
    check(
        tar().entry(device((0, 1 << 20)), b"").finish(),
        expect![[r#"cannot add "d" of layer 0: device number 0:1048576 is out of range"#]],
    );
}

#[test]
fn broken_archives_are_refused() {
    let whole = tar().file("a", &[1; 5000]).file("b", b"x").finish();
    check(
        whole[..1000].to_vec(),
        expect!["layer 0 is broken at byte 0: the archive ends in the middle of an entry"],
    );
    check(
        whole[..5900].to_vec(),
        expect!["layer 0 is broken at byte 5632: the archive ends in the middle of an entry"],
    );
    let mut flipped = whole.clone();
    flipped[0] ^= 1;
    check(flipped, expect!["layer 0 is broken at byte 0: wrong header checksum"]);
    let entries = &whole[..whole.len() - 1024];
    check(
        [entries, &[0; 512], entries].concat(),
        expect!["layer 0 is broken at byte 6656: a single block of zeros between entries"],
    );
    check(
        b"\x1f\x8b\x08 not a tar".repeat(100),
        expect!["layer 0 is broken at byte 0: bad number in field chksum"],
    );
    check(
        tar().entry(Header { path: b"a", kind: b'D', ..Header::default() }, b"").finish(),
        expect!["layer 0 is broken at byte 0: unknown entry type 'D'"],
    );
}

#[test]
fn numbers_out_of_range_are_refused() {
    let edited = |at: usize, bytes: &[u8]| {
        let mut block = Header { path: b"a", ..Header::default() }.unsealed();
        block[at..][..bytes.len()].copy_from_slice(bytes);
        tar().data(&seal(block)).finish()
    };
    check(
        edited(124, &[0xff; 12]),
        expect!["layer 0 is broken at byte 0: bad number in field size"],
    );
    check(
        edited(124, b"\x80\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff"),
        expect!["layer 0 is broken at byte 0: bad number in field size"],
    );
    check(
        edited(124, b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff"),
        expect![[
            r#"cannot add "a" of layer 0: file of 9223372036854775807 bytes is over the limit of 1099511627776"#
        ]],
    );
    // Nobody looks at the size of what is skipped, but skipping it must end.
    let skipped = |path| tar().pax(&[("size", b"18446744073709551615")]).file(path, b"").finish();
    check(
        skipped("d/"),
        expect!["layer 0 is broken at byte 1024: the archive ends in the middle of an entry"],
    );
    check(
        skipped(".wh.x"),
        expect!["layer 0 is broken at byte 1024: the archive ends in the middle of an entry"],
    );
    check(edited(124, b"9"), expect!["layer 0 is broken at byte 0: bad number in field size"]);
    check(
        edited(108, b"\x80\0\0\x01\0\0\0\0"),
        expect!["layer 0 is broken at byte 0: bad number in field uid"],
    );
    check(
        tar().pax(&[("uid", b"4294967295")]).file("a", b"").finish(),
        expect!["layer 0 is broken at byte 0: bad number in field uid"],
    );
    check(
        tar().pax(&[("size", b"99999999999999999999")]).file("a", b"").finish(),
        expect!["layer 0 is broken at byte 0: bad number in field size"],
    );
}

#[test]
fn broken_extension_headers_are_refused() {
    check(
        tar().extension(b'x', b"10 path=\n").file("a", b"").finish(),
        expect!["layer 0 is broken at byte 0: malformed pax record"],
    );
    check(
        tar().pax(&[("path", b"a")]).finish(),
        expect!["layer 0 is broken at byte 1024: extension header without an entry"],
    );
    check(
        tar().extension(b'L', b"name\0").finish(),
        expect!["layer 0 is broken at byte 1024: extension header without an entry"],
    );
    check(
        tar().extension(b'g', b"9 path=a\n").file("a", b"").finish(),
        expect!["layer 0 is broken at byte 0: global pax header sets path"],
    );
    let huge = Header { path: b"x", kind: b'x', size: (1 << 20) + 1, ..Header::default() };
    check(
        tar().entry(huge, b"").finish(),
        expect!["layer 0 is broken at byte 0: extension header of 1048577 bytes"],
    );
}

#[test]
fn attributes_are_bounded() {
    let many = (0..40).map(|at| (format!("SCHILY.xattr.user.{at}"), vec![b'x'; 2000]));
    let many = many.collect::<Vec<_>>();
    let many = many.iter().map(|(name, value)| (name.as_str(), value.as_slice()));
    let many = many.collect::<Vec<_>>();
    check(
        tar().pax(&many).file("a", b"").finish(),
        expect![[
            r#"cannot add "a" of layer 0: extended attributes of 66274 bytes are over the limit of 65536"#
        ]],
    );
    check(
        tar().pax(&[("SCHILY.xattr.", b"x")]).file("a", b"").finish(),
        expect![[r#"cannot add "a" of layer 0: bad name of an extended attribute"#]],
    );
}

#[test]
fn sparse_maps_must_fit() {
    let sparse = |map: &[u8], size: u64| {
        tar()
            .pax(&[("GNU.sparse.size", b"100"), ("GNU.sparse.map", map)])
            .entry(Header { path: b"a", size, ..Header::default() }, &[1; 10])
            .finish()
    };
    check(
        sparse(b"0,10,200,0", 10),
        expect!["layer 0 is broken at byte 1024: bad map of a sparse file"],
    );
    check(
        sparse(b"0,5,3,5", 10),
        expect!["layer 0 is broken at byte 1024: bad map of a sparse file"],
    );
    check(sparse(b"0,9", 10), expect!["layer 0 is broken at byte 1024: bad map of a sparse file"]);
    check(sparse(b"0,10,20", 10), expect!["layer 0 is broken at byte 0: bad map of a sparse file"]);
    check(
        sparse(b"18446744073709551615,10", 10),
        expect!["layer 0 is broken at byte 1024: bad map of a sparse file"],
    );
}

#[test]
fn limits_hold() {
    let limits = Limits { max_entries: 3, ..Limits::default() };
    let few = tar().file("a", b"").file("b", b"").file("c", b"").finish();
    check_with(
        limits,
        Kind::Exhausted,
        few.clone(),
        expect!["the image is over the limit of 3 files"],
    );
    let limits = Limits { max_name_bytes: 2, ..Limits::default() };
    check_with(
        limits,
        Kind::Exhausted,
        few.clone(),
        expect!["the image is over the limit of 2 bytes of names"],
    );
    let limits = Limits { max_layer_bytes: 1024, ..Limits::default() };
    check_with(
        limits,
        Kind::Exhausted,
        few,
        expect!["the image is over the limit of 1024 bytes of uncompressed layers"],
    );

    let limits = Limits { max_depth: 2, ..Limits::default() };
    let deep = tar().file("a/b/x", b"").file("a/b/c/d", b"").finish();
    check_with(
        limits,
        Kind::InvalidArgument,
        deep,
        expect![[r#"cannot add "a/b/c/d" of layer 0: more than 2 directories deep"#]],
    );
    let limits = Limits { max_file_bytes: 10, ..Limits::default() };
    let large = tar().file("a", &[1; 10]).file("b", &[1; 11]).finish();
    check_with(
        limits,
        Kind::InvalidArgument,
        large,
        expect![[r#"cannot add "b" of layer 0: file of 11 bytes is over the limit of 10"#]],
    );

    let limits = Limits { max_image_bytes: 1 << 20, ..Limits::default() };
    let bomb = tar().file("a", &vec![1; 2 << 20]).finish();
    check_with(
        limits,
        Kind::Exhausted,
        bomb,
        expect!["the image is over the limit of 1048576 bytes"],
    );
    let limits = Limits { max_directory_xattr_bytes: 64, ..Limits::default() };
    let value = [b'x'; 60];
    let dir = tar().pax(&[("SCHILY.xattr.user.a", &value)]).dir("d", 0o755).finish();
    check_with(
        limits,
        Kind::Exhausted,
        dir,
        expect!["the image is over the limit of 64 bytes of directories' attributes"],
    );
}

/// A reader that gives bytes and then, in the place of the end, an error.
struct Failing<'a>(&'a [u8]);

impl Read for Failing<'_> {
    fn read(&mut self, target: &mut [u8]) -> io::Result<usize> {
        match self.0.read(target)? {
            0 => Err(io::Error::other("wrong digest")),
            read => Ok(read),
        }
    }
}

#[test]
fn what_the_reader_says_at_its_end_is_heard() {
    let good = tar().file("a", b"x").finish();
    let mut bad = good.clone();
    bad[0] ^= 1;
    for bytes in [good.as_slice(), &bad, &good[..700], b""] {
        let file = tempfile::tempfile().unwrap();
        let builder = Builder::new(&file, Options::default()).unwrap();
        let error = builder.add_layer(Failing(bytes)).err().expect("a failing reader");
        assert_eq!(chain(&error), "cannot read layer 0: wrong digest");
        assert!(matches!(error, Error::Read { .. }));
    }
}

#[test]
fn an_output_that_is_no_file_is_refused() {
    let file = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let error = Builder::new(&file, Options::default()).err().expect("no regular file");
    assert!(matches!(error, Error::Write { .. }), "{error:?}");
}
