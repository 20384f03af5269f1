// SPDX-License-Identifier: Apache-2.0
//! Random layers against a model of what they mean.
//!
//! The model merges in another way than the builder: it first takes away what a layer hides, then
//! adds what the layer has, on trees that hold everything. Entries that either order of hiding and
//! adding would refuse are left out of the layer.

use std::collections::BTreeMap;
use std::rc::Rc;

use proptest::prelude::*;

use crate::archive::{Archive, Header};
use crate::image::{Node, build, nodes};

/// One thing that a layer does.
#[derive(Clone, Debug)]
enum Step {
    File { path: Path, seed: u8, size: usize },
    Dir { path: Path, mode: u32 },
    Symlink { path: Path, target: u8 },
    Fifo { path: Path },
    Device { path: Path, minor: u8 },
    Link { path: Path, target: Path },
    Whiteout { path: Path },
    Opaque { path: Path },
}

/// Up to four names from a small set, so that layers meet.
type Path = Vec<u8>;

/// The names; the last two are links in the lowest layer, and stay.
const NAMES: [&str; 6] = ["a", "b", "-", "n\u{e9}", "to-b", "to-a-a"];
const LINKS: [(&str, &str); 2] = [("to-b", "b"), ("to-a-a", "/a/./a")];

fn path() -> impl Strategy<Value = Path> {
    // Links stand only in front, where they are.
    (prop::option::weighted(0.2, 4..6_u8), prop::collection::vec(0..4_u8, 1..4))
        .prop_map(|(link, names)| link.into_iter().chain(names).collect())
}

fn step() -> impl Strategy<Value = Step> {
    let sizes = [0, 1, 50, 4031, 4032, 4033, 4095, 4096, 4097, 9000, 131_071, 131_072, 140_000];
    prop_oneof![
        4 => (path(), 0..4_u8, prop::sample::select(sizes.to_vec()))
            .prop_map(|(path, seed, size)| Step::File { path, seed, size }),
        3 => (path(), 0..0o10000_u32).prop_map(|(path, mode)| Step::Dir { path, mode }),
        1 => (path(), 1..20_u8).prop_map(|(path, target)| Step::Symlink { path, target }),
        1 => path().prop_map(|path| Step::Fifo { path }),
        1 => (path(), any::<u8>()).prop_map(|(path, minor)| Step::Device { path, minor }),
        3 => (path(), path()).prop_map(|(path, target)| Step::Link { path, target }),
        2 => path().prop_map(|path| Step::Whiteout { path }),
        1 => path().prop_map(|path| Step::Opaque { path }),
    ]
}

/// What is no directory, shared by its names: attributes and content.
type Leaf = Rc<(Meta, Vec<u8>)>;

/// A tree that holds all there is.
#[derive(Clone)]
enum Tree {
    Dir(Meta, BTreeMap<Vec<u8>, Tree>),
    Leaf(Leaf),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Meta {
    mode: u16,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Meta {
    fn implied() -> Meta {
        Meta { mode: 0o040_755, xattrs: BTreeMap::new() }
    }
}

impl Tree {
    fn empty() -> Tree {
        Tree::Dir(Meta::implied(), BTreeMap::new())
    }

    /// The directory at a path, made if need be; `None` where something else is in the way.
    fn dir(&mut self, path: &[Vec<u8>], make: bool) -> Option<&mut BTreeMap<Vec<u8>, Tree>> {
        let Tree::Dir(_, children) = self else { return None };
        let Some((name, rest)) = path.split_first() else { return Some(children) };
        if make {
            children.entry(name.clone()).or_insert_with(Tree::empty);
        }
        children.get_mut(name)?.dir(rest, make)
    }

    fn leaf(&mut self, path: &[Vec<u8>]) -> Option<Leaf> {
        let (name, parents) = path.split_last()?;
        match self.dir(parents, false)?.get(name)? {
            Tree::Leaf(leaf) => Some(Rc::clone(leaf)),
            Tree::Dir(..) => None,
        }
    }

    fn hide(&mut self, step: &Step) {
        match step {
            Step::Whiteout { path } => {
                let path = resolve(path);
                if let Some((name, parents)) = path.split_last()
                    && let Some(dir) = self.dir(parents, false)
                {
                    dir.remove(name);
                }
            }
            Step::Opaque { path } => {
                if let Some(dir) = self.dir(&resolve(path), false) {
                    dir.clear();
                }
            }
            _ => {}
        }
    }

    /// Adds what a step adds; false if it is refused.
    fn add(&mut self, step: &Step) -> bool {
        let new = match step {
            Step::Whiteout { .. } | Step::Opaque { .. } => return true,
            Step::Link { path, target } => {
                let (path, target) = (resolve(path), resolve(target));
                match self.leaf(&target) {
                    // The target may not lie below what the link replaces, for then it is gone
                    // before it is linked in one order, and not in another.
                    Some(leaf) if !target.starts_with(&path) => Tree::Leaf(leaf),
                    _ => return false,
                }
            }
            _ => match leaf(step) {
                Some(leaf) => Tree::Leaf(Rc::new(leaf)),
                None => Tree::Dir(dir_meta(step), BTreeMap::new()),
            },
        };
        let path = resolve(step.path());
        let Some((name, parents)) = path.split_last() else { return false };
        let Some(dir) = self.dir(parents, true) else { return false };
        match (dir.get_mut(name), new) {
            (Some(Tree::Dir(meta, _)), Tree::Dir(new, _)) => *meta = new,
            (_, new) => {
                dir.insert(name.clone(), new);
            }
        }
        true
    }
}

impl Step {
    fn path(&self) -> &Path {
        match self {
            Step::File { path, .. }
            | Step::Dir { path, .. }
            | Step::Symlink { path, .. }
            | Step::Fifo { path }
            | Step::Device { path, .. }
            | Step::Link { path, .. }
            | Step::Whiteout { path }
            | Step::Opaque { path } => path,
        }
    }

    /// The step as an entry of an archive.
    fn entry(&self, archive: Archive) -> Archive {
        let path = shown(self.path());
        let name = path.as_bytes();
        match self {
            Step::File { .. } => {
                let (_, content) = leaf(self).unwrap();
                let xattrs = xattrs(self);
                let records = xattrs.iter().map(|(name, value)| {
                    (format!("SCHILY.xattr.{}", name.escape_ascii()), value.as_slice())
                });
                let records = records.collect::<Vec<_>>();
                let records = records.iter().map(|(name, value)| (name.as_str(), *value));
                archive.pax(&records.collect::<Vec<_>>()).file(&path, &content)
            }
            Step::Dir { mode, .. } => archive.dir(&path, *mode),
            Step::Symlink { target, .. } => archive.symlink(&path, &symlink_target(*target)),
            Step::Fifo { .. } => {
                archive.entry(Header { path: name, kind: b'6', ..Header::default() }, b"")
            }
            Step::Device { minor, .. } => {
                let device = (7, u64::from(*minor));
                archive.entry(Header { path: name, kind: b'3', device, ..Header::default() }, b"")
            }
            Step::Link { target, .. } => archive.link(&path, &shown(target)),
            Step::Whiteout { .. } => {
                let (parents, name) = path.rsplit_once('/').unwrap_or(("", &path));
                archive.file(&format!("{parents}/.wh.{name}"), b"")
            }
            Step::Opaque { .. } => archive.file(&format!("{path}/.wh..wh..opq"), b""),
        }
    }
}

fn shown(path: &Path) -> String {
    path.iter().map(|name| NAMES[usize::from(*name)]).collect::<Vec<_>>().join("/")
}

/// The path with the link that it may start with followed.
fn resolve(path: &Path) -> Vec<Vec<u8>> {
    let names = path.iter().flat_map(|name| match name {
        4 => vec!["b"],
        5 => vec!["a", "a"],
        name => vec![NAMES[usize::from(*name)]],
    });
    names.map(|name| name.as_bytes().to_vec()).collect()
}

fn symlink_target(target: u8) -> String {
    "somewhere/".repeat(target.into())
}

fn xattrs(step: &Step) -> BTreeMap<Vec<u8>, Vec<u8>> {
    match step {
        Step::File { seed, .. } => (0..*seed)
            .map(|at| (format!("user.{at}").into_bytes(), vec![*seed; usize::from(at) * 9]))
            .collect(),
        _ => BTreeMap::new(),
    }
}

fn leaf(step: &Step) -> Option<(Meta, Vec<u8>)> {
    let (mode, content) = match step {
        Step::File { seed, size, .. } => {
            let mut content = vec![*seed; *size];
            if let Some(last) = content.last_mut().filter(|_| size % 2 == 0) {
                *last = 1;
            }
            (0o100_644, content)
        }
        Step::Symlink { target, .. } => (0o120_777, symlink_target(*target).into_bytes()),
        Step::Fifo { .. } => (0o010_644, Vec::new()),
        Step::Device { minor, .. } => (0o020_644, format!("7:{minor}").into_bytes()),
        Step::Dir { .. } | Step::Link { .. } | Step::Whiteout { .. } | Step::Opaque { .. } => {
            return None;
        }
    };
    Some((Meta { mode, xattrs: xattrs(step) }, content))
}

fn dir_meta(step: &Step) -> Meta {
    match step {
        Step::Dir { mode, .. } => {
            Meta { mode: 0o040_000 | u16::try_from(*mode).unwrap(), ..Meta::implied() }
        }
        _ => Meta::implied(),
    }
}

/// The layers as archives, and the tree that they mean.
fn merge(layers: &[Vec<Step>]) -> (Vec<Vec<u8>>, Tree) {
    let mut tree = Tree::empty();
    let mut archives = Vec::new();
    for (at, steps) in layers.iter().enumerate() {
        let mut archive = Archive::new();
        if at == 0 {
            let Tree::Dir(_, root) = &mut tree else { unreachable!("the root is a directory") };
            for (name, target) in LINKS {
                archive = archive.symlink(name, target);
                let meta = Meta { mode: 0o120_777, xattrs: BTreeMap::new() };
                let leaf = Rc::new((meta, target.as_bytes().to_vec()));
                root.insert(name.as_bytes().to_vec(), Tree::Leaf(leaf));
            }
        }
        let mut unhidden = tree.clone();
        for step in steps {
            tree.hide(step);
        }
        for step in steps {
            let (mut with, mut without) = (tree.clone(), unhidden.clone());
            if with.add(step) && without.add(step) {
                (tree, unhidden) = (with, without);
                archive = step.entry(archive);
            }
        }
        archives.push(archive.finish());
    }
    (archives, tree)
}

fn flatten(tree: &Tree, path: Vec<u8>, into: &mut BTreeMap<Vec<u8>, Tree>) {
    if let Tree::Dir(_, children) = tree {
        for (name, child) in children {
            let below =
                if path.is_empty() { name.clone() } else { [&path, name.as_slice()].join(&b'/') };
            flatten(child, below, into);
        }
    }
    into.insert(path, tree.clone());
}

#[track_caller]
fn check_node(path: &[u8], expected: &Tree, found: &Node, links: &[(&Leaf, u64)]) {
    let path = path.escape_ascii();
    let meta = Meta { mode: found.mode, xattrs: found.xattrs.clone() };
    match expected {
        Tree::Dir(expected, children) => {
            assert_eq!(meta, *expected, "/{path}");
            let dirs = children.values().filter(|child| matches!(child, Tree::Dir(..))).count();
            assert_eq!(found.links as usize, 2 + dirs, "links of /{path}");
        }
        Tree::Leaf(leaf) => {
            assert_eq!(meta, leaf.0, "/{path}");
            assert!(found.content == leaf.1, "content of /{path}");
            let same = links.iter().filter(|(other, _)| Rc::ptr_eq(other, leaf));
            let nids = same.map(|(_, nid)| *nid).collect::<Vec<_>>();
            assert!(nids.iter().all(|nid| *nid == found.nid), "inodes of /{path}: {nids:?}");
            assert_eq!(found.links as usize, nids.len(), "links of /{path}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn layers_mean_what_the_model_says(
        layers in prop::collection::vec(prop::collection::vec(step(), 0..16), 1..4)
    ) {
        let (archives, tree) = merge(&layers);
        let image = build(&archives).unwrap();
        let found = nodes(&image.bytes);
        let mut expected = BTreeMap::new();
        flatten(&tree, Vec::new(), &mut expected);
        assert_eq!(
            found.keys().map(|path| path.escape_ascii().to_string()).collect::<Vec<_>>(),
            expected.keys().map(|path| path.escape_ascii().to_string()).collect::<Vec<_>>(),
        );
        let links = expected.iter().filter_map(|(path, node)| match node {
            Tree::Leaf(leaf) => Some((leaf, found[path].nid)),
            Tree::Dir(..) => None,
        });
        let links = links.collect::<Vec<_>>();
        for (path, node) in &expected {
            check_node(path, node, &found[path], &links);
        }
    }
}
