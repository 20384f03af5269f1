// SPDX-License-Identifier: Apache-2.0
//! Archives of every dialect, made by hand and by GNU tar.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use expect_test::{Expect, expect};

use crate::archive::{Archive, Header, pax_body, seal};
use crate::image::{build, listing, nodes};

#[track_caller]
fn check(layer: Vec<u8>, expected: Expect) {
    expected.assert_eq(&listing(&build(&[layer]).unwrap().bytes));
}

#[test]
fn pax_records_override_the_header() {
    let name = "n".repeat(200);
    let tar = Archive::new()
        .pax(&[
            ("path", name.as_bytes()),
            ("uid", b"3000000"),
            ("gid", b"4000000"),
            ("mtime", b"-1.5"),
            ("SCHILY.xattr.user.a", b"1"),
            ("SCHILY.xattr.security.capability", b"\x01\0\0\x02"),
            ("SCHILY.xattr.system.posix_acl_access", b"acl"),
            ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
        ])
        .file("short", b"x")
        .pax(&[("linkpath", b"far/away"), ("path", b"link")])
        .symlink("s", "t")
        .pax(&[("size", b"3")])
        .entry(Header { path: b"sized", size: 0, ..Header::default() }, b"abc")
        .file("after", b"");
    check(
        tar.finish(),
        expect![[r#"
        040755 0:0 /
        100644 0:0 /after ""
        120777 0:0 /link "far/away"
        100644 3000000:4000000 @-2.500000000 /nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn "x" security.capability="\\x01\\x00\\x00\\x02" system.posix_acl_access="acl" user.a="1"
        100644 0:0 /sized "abc"
    "#]],
    );
}

#[test]
fn global_headers_hold_until_overridden() {
    let tar = Archive::new()
        .extension(
            b'g',
            &pax_body(&[("mtime", b"7"), ("SCHILY.xattr.user.g", b"1"), ("comment", b"c")]),
        )
        .file("a", b"")
        .pax(&[("mtime", b"8"), ("SCHILY.xattr.user.g", b"2")])
        .file("b", b"")
        .extension(b'g', &pax_body(&[("mtime", b"")]))
        .file("c", b"");
    check(
        tar.finish(),
        expect![[r#"
        040755 0:0 /
        100644 0:0 @7 /a "" user.g="1"
        100644 0:0 @8 /b "" user.g="2"
        100644 0:0 /c "" user.g="1"
    "#]],
    );
}

#[test]
fn ustar_star_and_v7_headers_are_read() {
    let mut prefixed = Header { path: b"name", ..Header::default() }.unsealed();
    prefixed[345..348].copy_from_slice(b"pre");
    let mut star = Header { path: b"name", ..Header::default() }.unsealed();
    star[345..349].copy_from_slice(b"star");
    star[476..487].copy_from_slice(b"12345670123");
    star[508..512].copy_from_slice(b"tar\0");
    let mut gnu = Header { path: b"gnu", magic: b"ustar  \0", ..Header::default() }.unsealed();
    gnu[345..356].copy_from_slice(b"12345670123"); // An access time, no prefix.
    let v7 = |path| Header { path, kind: 0, magic: &[0; 8], ..Header::default() };
    let tar = Archive::new()
        .data(&seal(prefixed))
        .data(&seal(star))
        .data(&seal(gnu))
        .entry(v7(b"old"), b"")
        .entry(v7(b"olddir/"), b"")
        .entry(Header { path: b"contiguous", kind: b'7', size: 1, ..Header::default() }, b"x")
        .entry(Header { path: b"label", kind: b'V', ..Header::default() }, b"");
    check(
        tar.finish(),
        expect![[r#"
        040755 0:0 /
        100644 0:0 /contiguous "x"
        100644 0:0 /gnu ""
        100644 0:0 /old ""
        040644 0:0 /olddir
        040755 0:0 /pre
        100644 0:0 /pre/name ""
        040755 0:0 /star
        100644 0:0 /star/name ""
    "#]],
    );
}

#[test]
fn sizes_of_what_has_no_data_are_ignored() {
    let tar = Archive::new()
        .file("f", b"x")
        .entry(Header { path: b"l", kind: b'1', link: b"f", size: 99, ..Header::default() }, b"")
        .entry(Header { path: b"d", kind: b'5', size: 99, mode: 0o755, ..Header::default() }, b"")
        .entry(
            Header { path: b"e/", kind: b'0', size: 5, mode: 0o755, ..Header::default() },
            b"12345",
        )
        .file("g", b"");
    check(
        tar.finish(),
        expect![[r#"
        040755 0:0 /
        040755 0:0 /d
        040755 0:0 /e
        100644 0:0 /f "x" links=2
        100644 0:0 /g ""
        100644 0:0 /l = /f links=2
    "#]],
    );
}

#[test]
fn an_end_mark_may_be_missing_short_or_followed_by_anything() {
    let tar = Archive::new().file("a", b"x");
    let expected = expect![[r#"
        040755 0:0 /
        100644 0:0 /a "x"
    "#]];
    for end in [b"".as_slice(), &[0; 512], &[[0; 10240].as_slice(), b"trailing"].concat()] {
        let image = build(&[[tar.0.as_slice(), end].concat()]).unwrap();
        expected.assert_eq(&listing(&image.bytes));
    }
}

/// Packs a tree with GNU tar and looks for everything in the image.
#[track_caller]
fn check_gnu_tar(arguments: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    let long_name = "n".repeat(99);
    let long = format!("{long_name}/{long_name}");
    fs::create_dir(dir.path().join(&long_name)).unwrap();
    fs::write(dir.path().join(&long), b"long").unwrap();
    fs::write(dir.path().join("file"), vec![b'x'; 70_000]).unwrap();
    fs::hard_link(dir.path().join("file"), dir.path().join("hard")).unwrap();
    symlink("file", dir.path().join("soft")).unwrap();
    let sparse = fs::File::create(dir.path().join("sparse")).unwrap();
    sparse.set_len(10 << 20).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"data", 5 << 20).unwrap();

    let output = Command::new("tar").args(arguments).arg("-cC").arg(dir.path()).arg(".").output();
    let Ok(output) = output else {
        eprintln!("skipped: no tar to make archives with");
        return;
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let image = build(&[output.stdout]).unwrap();
    let nodes = nodes(&image.bytes);
    let content = |path: &str| nodes[path.as_bytes()].content.as_slice();
    assert_eq!(content(&long), b"long");
    assert!(content("file") == vec![b'x'; 70_000]);
    assert_eq!(nodes[b"file".as_slice()].nid, nodes[b"hard".as_slice()].nid);
    assert_eq!(nodes[b"file".as_slice()].links, 2);
    assert_eq!(content("soft"), b"file");
    let mut expected = vec![0; 10 << 20];
    expected[5 << 20..][..4].copy_from_slice(b"data");
    assert!(content("sparse") == expected);
    let times = fs::metadata(dir.path().join("file")).unwrap();
    let mtime = std::os::unix::fs::MetadataExt::mtime(&times);
    assert_eq!(nodes[b"file".as_slice()].mtime.0, mtime);
}

#[test]
fn archives_of_gnu_tar_are_read() {
    for format in ["gnu", "oldgnu", "pax", "ustar"] {
        check_gnu_tar(&["--format", format]);
    }
    for format in ["gnu", "oldgnu"] {
        check_gnu_tar(&["--format", format, "--sparse"]);
    }
    for version in ["0.0", "0.1", "1.0"] {
        check_gnu_tar(&["--format", "pax", "--sparse", "--sparse-version", version]);
    }
}
