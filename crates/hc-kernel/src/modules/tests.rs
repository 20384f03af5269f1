// SPDX-License-Identifier: Apache-2.0
//! Trees of modules, sound and damaged.

use std::fs;

use expect_test::{Expect, expect};
use proptest::prelude::*;

use super::*;
use crate::modinfo::tests::module;

/// Makes a tree of these files and says what resolving `wanted` gives, one file a line.
#[track_caller]
fn check(files: &[(&str, &[u8])], wanted: &[&str], expected: Expect) {
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    let answer = match ModuleTree::open(dir.path()).and_then(|tree| tree.resolve(wanted)) {
        Ok(modules) => modules.iter().map(|module| line(dir.path(), module)).collect(),
        Err(error) => format!("{error}\n").replace(dir.path().to_str().unwrap(), "TREE"),
    };
    expected.assert_eq(&answer);
}

fn line(dir: &Path, module: &Module) -> String {
    let file = module.file.strip_prefix(dir).unwrap().display();
    let compressed = if module.compressed { " (compressed)" } else { "" };
    format!("{} {file}{compressed}\n", module.name)
}

#[test]
fn dependencies_come_first_and_once() {
    let dep = b"kernel/virtio_ring.ko: kernel/virtio.ko\n\
        kernel/virtio.ko:\n\
        kernel/net/net-failover.ko.xz: kernel/net/failover.ko.xz\n\
        kernel/net/failover.ko.xz:\n\
        kernel/virtio_net.ko: kernel/net/net-failover.ko.xz kernel/net/failover.ko.xz kernel/virtio_ring.ko kernel/virtio.ko\n\
        kernel/virtio_blk.ko: kernel/virtio_ring.ko kernel/virtio.ko\n";
    check(
        &[("modules.dep", dep)],
        &["virtio_net", "virtio_blk"],
        expect![[r"
            virtio kernel/virtio.ko
            virtio_ring kernel/virtio_ring.ko
            failover kernel/net/failover.ko.xz (compressed)
            net_failover kernel/net/net-failover.ko.xz (compressed)
            virtio_net kernel/virtio_net.ko
            virtio_blk kernel/virtio_blk.ko
        "]],
    );
}

#[test]
fn unpacked_package_without_index_asks_the_modules() {
    check(
        &[
            ("modules.order", b"kernel/erofs.ko\nkernel/lib/crc32c.ko\n"),
            ("modules.builtin", b"kernel/ext4.ko\n"),
            ("kernel/erofs.ko", &module(b"depends=crc32c,ext4\0")),
            ("kernel/lib/crc32c.ko", &module(b"depends=\0")),
        ],
        &["erofs", "ext4"],
        expect![[r"
            crc32c kernel/lib/crc32c.ko
            erofs kernel/erofs.ko
        "]],
    );
}

#[test]
fn missing_module_is_named() {
    check(
        &[("modules.dep", b"kernel/a.ko: kernel/b.ko\n")],
        &["a"],
        expect![[r"
            there is no module b in TREE
        "]],
    );
}

#[test]
fn circle_of_dependencies_ends() {
    check(
        &[("modules.dep", b"a.ko: b.ko\nb.ko: a.ko\n")],
        &["a"],
        expect![[r"
            b b.ko
            a a.ko
        "]],
    );
}

#[test]
fn path_out_of_the_tree_is_refused() {
    for dep in ["../a.ko:\n", "/etc/passwd:\n", "a.ko: ../../b.ko\n", "a/../b.ko:\n"] {
        check(
            &[("modules.dep", dep.as_bytes())],
            &["a"],
            expect![[r"
                the module index TREE/modules.dep is damaged: a path leads out of the folder
            "]],
        );
    }
}

#[test]
fn folder_without_any_index_is_an_error() {
    check(
        &[("kernel/a.ko", b"")],
        &["a"],
        expect![[r"
            cannot read TREE/modules.dep
        "]],
    );
}

#[test]
fn file_that_is_no_module_is_named() {
    check(
        &[("modules.order", b"kernel/a.ko\n"), ("kernel/a.ko", b"#!/bin/sh\n")],
        &["a"],
        expect![[r"
            cannot tell what module TREE/kernel/a.ko depends on: it has no .modinfo section
        "]],
    );
}

#[test]
fn chain_deeper_than_any_stack_is_resolved() {
    let links = 200_000;
    let mut dep: Vec<_> = (0..links).map(|i| format!("m{i}.ko: m{}.ko\n", i + 1)).collect();
    dep.push(format!("m{links}.ko:\n"));
    let files = parse_dep(&dep.concat()).unwrap();
    let tree = ModuleTree { dir: PathBuf::from("/t"), built_in: HashSet::new(), files };
    let modules = tree.resolve(&["m0"]).unwrap();
    assert_eq!(modules.len(), links + 1);
    assert_eq!(modules[0].name, format!("m{links}"));
}

proptest! {
    #[test]
    fn any_index_is_taken(text in "\\PC{0,200}") {
        for entries in [parse_dep(&text), parse_order(&text)].into_iter().flatten() {
            for entry in entries.values() {
                prop_assert!(Path::new("/t").join(&entry.file).starts_with("/t"));
                prop_assert!(!entry.file.components().any(|part| part == Component::ParentDir));
            }
        }
    }

    #[test]
    fn every_module_comes_after_what_it_needs(
        edges in proptest::collection::vec((0_usize..12, 0_usize..12), 0..40),
    ) {
        // Only edges to a higher number: no circles, as in every real index.
        let needs = |of: usize| edges.iter().filter(move |(from, to)| *from == of && to > from);
        let line = |of| {
            let needs: Vec<_> = needs(of).map(|(_, to)| format!(" m{to}.ko")).collect();
            format!("m{of}.ko:{}\n", needs.concat())
        };
        let dep: Vec<_> = (0..12).map(line).collect();
        let files = parse_dep(&dep.concat()).unwrap();
        let tree = ModuleTree { dir: PathBuf::new(), built_in: HashSet::new(), files };
        let order = tree.resolve(&["m0"]).unwrap();
        let place = |name: String| order.iter().position(|module| module.name == name);
        for (at, module) in order.iter().enumerate() {
            let of: usize = module.name[1..].parse().unwrap();
            for (_, to) in needs(of) {
                let needed = place(format!("m{to}")).unwrap();
                prop_assert!(needed < at);
            }
        }
    }
}
