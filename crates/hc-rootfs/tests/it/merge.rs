// SPDX-License-Identifier: Apache-2.0
//! What layers do to each other.

use expect_test::{Expect, expect};

use crate::archive::{Archive, Header};
use crate::image::{build, chain, listing};

#[track_caller]
fn check(layers: &[Archive], expected: Expect) {
    check_all(&[layers], expected);
}

/// Checks that all of these give the same.
#[track_caller]
fn check_all(variants: &[&[Archive]], expected: Expect) {
    let found = variants.iter().map(|layers| outcome(layers)).collect::<Vec<_>>();
    for other in &found {
        assert_eq!(found[0], *other);
    }
    expected.assert_eq(&found[0]);
}

fn outcome(layers: &[Archive]) -> String {
    let layers = layers.iter().map(|layer| layer.clone().finish()).collect::<Vec<_>>();
    match build(&layers) {
        Ok(image) => listing(&image.bytes),
        Err(error) => format!("error: {}\n", chain(&error)),
    }
}

fn tar() -> Archive {
    Archive::new()
}

#[test]
fn no_layer_gives_an_empty_root() {
    check(
        &[],
        expect![[r#"
        040755 0:0 /
    "#]],
    );
    check(
        &[tar()],
        expect![[r#"
        040755 0:0 /
    "#]],
    );
}

#[test]
fn an_upper_file_replaces_a_lower_one_and_its_attributes() {
    check(
        &[
            tar().file("a", b"old").file("b", b"stays"),
            tar().entry(
                Header {
                    path: b"a",
                    mode: 0o4755,
                    uid: 7,
                    gid: 8,
                    mtime: 9,
                    size: 3,
                    ..Header::default()
                },
                b"new",
            ),
        ],
        expect![[r#"
            040755 0:0 /
            104755 7:8 @9 /a "new"
            100644 0:0 /b "stays"
        "#]],
    );
}

#[test]
fn directories_merge_and_take_the_upper_attributes() {
    check(
        &[
            tar().dir("d/", 0o755).file("d/low", b"").dir("./", 0o700),
            tar().dir("d", 0o1777).file("d/up", b""),
        ],
        expect![[r#"
            040700 0:0 /
            041777 0:0 /d
            100644 0:0 /d/low ""
            100644 0:0 /d/up ""
        "#]],
    );
}

#[test]
fn missing_parents_are_made() {
    check(
        &[tar().file("a/b/c", b"x")],
        expect![[r#"
        040755 0:0 /
        040755 0:0 /a
        040755 0:0 /a/b
        100644 0:0 /a/b/c "x"
    "#]],
    );
}

#[test]
fn kinds_replace_each_other() {
    check(
        &[
            tar().file("a/x", b"").file("a/y/z", b"").file("b", b"").symlink("c", "b"),
            tar().file("a", b"now a file").dir("b/", 0o700).dir("c/", 0o711),
        ],
        expect![[r#"
            040755 0:0 /
            100644 0:0 /a "now a file"
            040700 0:0 /b
            040711 0:0 /c
        "#]],
    );
}

#[test]
fn a_whiteout_hides_lower_files_only() {
    check(
        &[
            tar().file("d/a", b"").file("d/b", b"").file("d/c/x", b"").file("e", b""),
            tar()
                .file("d/.wh.a", b"")
                .file("d/b", b"of this layer")
                .file("d/.wh.b", b"")
                .file("d/.wh.c", b"")
                .file(".wh.never", b"")
                .file("none/.wh.a", b"")
                .file("e/.wh.a", b""),
        ],
        expect![[r#"
            040755 0:0 /
            040755 0:0 /d
            100644 0:0 /d/b "of this layer"
            100644 0:0 /e ""
        "#]],
    );
}

#[test]
fn a_whiteout_means_the_same_before_and_after() {
    let lower = tar().dir("d/", 0o700).file("d/low", b"").file("d/e/low", b"").dir("d/e/", 0o700);
    let before = tar().file(".wh.d", b"").file("d/e/up", b"");
    let after = tar().file("d/e/up", b"").file(".wh.d", b"");
    check_all(
        &[&[lower.clone(), before], &[lower, after]],
        expect![[r#"
        040755 0:0 /
        040755 0:0 /d
        040755 0:0 /d/e
        100644 0:0 /d/e/up ""
    "#]],
    );
}

#[test]
fn an_opaque_directory_hides_all_that_is_lower() {
    let lower = tar().dir("d/", 0o700).file("d/low", b"").file("d/e/low", b"").file("f", b"");
    let mark = |tar: Archive| tar.file("d/.wh..wh..opq", b"");
    let content = |tar: Archive| tar.dir("d/", 0o711).file("d/e/up", b"");
    let variants = [mark(content(tar())), content(mark(tar())), mark(content(mark(tar())))];
    let variants = variants.map(|upper| [lower.clone(), upper]);
    check_all(
        &variants.each_ref().map(<[Archive; 2]>::as_slice),
        expect![[r#"
        040755 0:0 /
        040711 0:0 /d
        040755 0:0 /d/e
        100644 0:0 /d/e/up ""
        100644 0:0 /f ""
    "#]],
    );
}

#[test]
fn an_opaque_root_starts_anew() {
    check(
        &[tar().file("a", b"").dir("./", 0o700), tar().file(".wh..wh..opq", b"").file("b", b"")],
        expect![[r#"
            040700 0:0 /
            100644 0:0 /b ""
        "#]],
    );
}

#[test]
fn remains_of_aufs_are_left_out() {
    check(
        &[tar()
            .file(".wh..wh.aufs", b"")
            .dir(".wh..wh.plnk/", 0o700)
            .file(".wh..wh.plnk/1.2", b"x")],
        expect![[r#"
            040755 0:0 /
        "#]],
    );
}

#[test]
fn within_a_layer_the_last_entry_wins() {
    check(
        &[tar()
            .file("a", b"1")
            .file("a", b"2")
            .symlink("b", "x")
            .file("b/c", b"")
            .dir("b/", 0o700)],
        expect![[r#"
            040755 0:0 /
            100644 0:0 /a "2"
            040700 0:0 /b
            040755 0:0 /x
            100644 0:0 /x/c ""
        "#]],
    );
    check(
        &[tar().file("a", b"1").dir("a/", 0o700).file("./a/b", b"").file("/a//b/", b"")],
        expect![[r#"
            040755 0:0 /
            040700 0:0 /a
            040644 0:0 /a/b
        "#]],
    );
}

#[test]
fn parents_that_are_links_are_followed_inside_the_tree() {
    // Debian's merged /usr, and layers made against it.
    check(
        &[
            tar().dir("usr/lib/", 0o755).symlink("lib", "usr/lib").symlink("abs", "/usr"),
            tar().file("lib/x", b"1").file("abs/lib/y", b"2").file("lib/sub/z", b"3"),
            tar().file("lib/.wh.x", b"").file("abs/lib/sub/.wh..wh..opq", b""),
        ],
        expect![[r#"
            040755 0:0 /
            120777 0:0 /abs "/usr"
            120777 0:0 /lib "usr/lib"
            040755 0:0 /usr
            040755 0:0 /usr/lib
            040755 0:0 /usr/lib/sub
            100644 0:0 /usr/lib/y "2"
        "#]],
    );
}

#[test]
fn a_link_out_of_the_root_ends_at_the_root() {
    check(
        &[tar()
            .symlink("out", "../../../etc")
            .file("out/passwd", b"ours")
            .symlink("d", "none/sub")
            .file("d/x", b"")],
        expect![[r#"
            040755 0:0 /
            120777 0:0 /d "none/sub"
            040755 0:0 /etc
            100644 0:0 /etc/passwd "ours"
            040755 0:0 /none
            040755 0:0 /none/sub
            100644 0:0 /none/sub/x ""
            120777 0:0 /out "../../../etc"
        "#]],
    );
}

#[test]
fn a_directory_replaces_a_link_of_its_name() {
    check(
        &[
            tar().file("usr/lib/x", b"").symlink("lib", "usr/lib"),
            tar().dir("lib/", 0o755).file("lib/y", b""),
        ],
        expect![[r#"
            040755 0:0 /
            040755 0:0 /lib
            100644 0:0 /lib/y ""
            040755 0:0 /usr
            040755 0:0 /usr/lib
            100644 0:0 /usr/lib/x ""
        "#]],
    );
}

#[test]
fn hard_links_share_an_inode_across_layers() {
    check(
        &[
            tar().file("a", b"one").link("b", "a").symlink("s", "a").link("t", "./s"),
            tar().link("d/c", "/b").file("a", b"other").link("b", "d/c"),
            tar().file(".wh.t", b""),
        ],
        expect![[r#"
            040755 0:0 /
            100644 0:0 /a "other"
            100644 0:0 /b "one" links=2
            040755 0:0 /d
            100644 0:0 /d/c = /b links=2
            120777 0:0 /s "a"
        "#]],
    );
}

#[test]
fn a_hard_link_follows_links_to_directories_only() {
    check(
        &[tar().file("usr/x", b"1").symlink("u", "usr").link("y", "u/x").link("z", "u")],
        expect![[r#"
            040755 0:0 /
            120777 0:0 /u "usr" links=2
            040755 0:0 /usr
            100644 0:0 /usr/x "1" links=2
            100644 0:0 /y = /usr/x links=2
            120777 0:0 /z = /u links=2
        "#]],
    );
}

#[test]
fn nodes_of_all_kinds_are_kept() {
    let node = |kind, path, device| Header { path, kind, device, ..Header::default() };
    check(
        &[tar()
            .entry(node(b'3', b"null", (1, 3)), b"")
            .entry(node(b'4', b"nvme", (259, 300)), b"")
            .entry(node(b'6', b"fifo", (0, 0)), b"")
            .entry(Header { path: b"sticky", kind: b'5', mode: 0o1777, ..Header::default() }, b"")
            .entry(
                Header { path: b"su", mode: 0o104_755, uid: 1, gid: 2, ..Header::default() },
                b"",
            )],
        expect![[r#"
            040755 0:0 /
            010644 0:0 /fifo ""
            020644 0:0 /null "1:3"
            060644 0:0 /nvme "259:300"
            041777 0:0 /sticky
            104755 1:2 /su ""
        "#]],
    );
}

#[test]
fn names_may_have_any_bytes() {
    let long = "x".repeat(255);
    let target = "t/".repeat(2047);
    check(
        &[tar()
            .entry(Header { path: b"\xff\xfe\n*", ..Header::default() }, b"")
            .file(".a", b"")
            .file("!", b"")
            .file("-", b"")
            .file(".-", b"")
            .file("...", b"")
            .symlink(&long, "x")
            .symlink("far", &target)],
        expect![[r#"
            040755 0:0 /
            100644 0:0 /! ""
            100644 0:0 /- ""
            100644 0:0 /.- ""
            100644 0:0 /... ""
            100644 0:0 /.a ""
            120777 0:0 /far (4094 bytes)
            120777 0:0 /xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx "x"
            100644 0:0 /\xff\xfe\n* ""
        "#]],
    );
}
