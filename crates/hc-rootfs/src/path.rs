// SPDX-License-Identifier: Apache-2.0
//! What the path of an entry means in a layer: a file, or one that hides files of lower layers.

use crate::{EntryFault, Limits};

/// Hides the file whose name follows.
const WHITEOUT: &[u8] = b".wh.";
/// Starts the names that aufs keeps for itself; only the next one means anything in an image.
const RESERVED: &[u8] = b".wh..wh.";
/// Hides everything that lower layers have in the directory.
const OPAQUE: &[u8] = b".wh..wh..opq";

/// Longest name of a file, of Linux and of EROFS.
pub(crate) const NAME_MAX: usize = 255;

/// The path of an entry, its directories in order.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Meaning<'a> {
    /// The root directory itself.
    Root,
    /// A file, directory or other node.
    Node { parents: Vec<&'a [u8]>, name: &'a [u8] },
    /// What lower layers have under this name is gone.
    Whiteout { parents: Vec<&'a [u8]>, name: &'a [u8] },
    /// What lower layers have in this directory is gone.
    Opaque { directory: Vec<&'a [u8]> },
    /// Remains of a storage driver.
    Reserved,
}

/// Interprets the path of an entry by the rules of OCI layers.
pub(crate) fn meaning<'a>(path: &'a [u8], limits: &Limits) -> Result<Meaning<'a>, EntryFault> {
    let mut parents = components(path, limits)?;
    let Some(name) = parents.pop() else {
        return Ok(Meaning::Root);
    };
    if name == OPAQUE && !parents.iter().any(|parent| parent.starts_with(WHITEOUT)) {
        return Ok(Meaning::Opaque { directory: parents });
    }
    if name.starts_with(RESERVED) || parents.iter().any(|parent| parent.starts_with(RESERVED)) {
        return Ok(Meaning::Reserved);
    }
    if parents.iter().any(|parent| parent.starts_with(WHITEOUT)) {
        return Err(EntryFault::Whiteout);
    }
    match name.strip_prefix(WHITEOUT) {
        None => Ok(Meaning::Node { parents, name: checked_name(name)? }),
        Some(b"" | b"." | b"..") => Err(EntryFault::Whiteout),
        Some(name) => Ok(Meaning::Whiteout { parents, name: checked_name(name)? }),
    }
}

/// The components of a path below the root; leading, doubled and trailing slashes and single dots
/// mean nothing.
pub(crate) fn components<'a>(path: &'a [u8], limits: &Limits) -> Result<Vec<&'a [u8]>, EntryFault> {
    if path.is_empty() {
        return Err(EntryFault::EmptyPath);
    }
    if path.len() > limits.max_path_len {
        return Err(EntryFault::PathTooLong { len: path.len(), limit: limits.max_path_len });
    }
    if path.contains(&0) {
        return Err(EntryFault::NulInPath);
    }
    let components = split(path).collect::<Vec<_>>();
    if components.contains(&b"..".as_slice()) {
        return Err(EntryFault::DotDot);
    }
    if let Some((_, parents)) = components.split_last() {
        for parent in parents {
            checked_name(parent)?;
        }
    }
    Ok(components)
}

/// Splits a path, or a symbolic link's target, into what is worth following.
pub(crate) fn split(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".")
}

fn checked_name(name: &[u8]) -> Result<&[u8], EntryFault> {
    if name.len() <= NAME_MAX { Ok(name) } else { Err(EntryFault::NameTooLong { len: name.len() }) }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    #[track_caller]
    fn check(path: &str, expected: Expect) {
        let show = |parts: &[&[u8]]| parts.join(&b'/').escape_ascii().to_string();
        let found = match meaning(path.as_bytes(), &Limits::default()) {
            Ok(Meaning::Root) => "root".to_owned(),
            Ok(Meaning::Node { parents, name }) => {
                format!("node {} in /{}", name.escape_ascii(), show(&parents))
            }
            Ok(Meaning::Whiteout { parents, name }) => {
                format!("no {} in /{}", name.escape_ascii(), show(&parents))
            }
            Ok(Meaning::Opaque { directory }) => format!("nothing in /{}", show(&directory)),
            Ok(Meaning::Reserved) => "reserved".to_owned(),
            Err(fault) => format!("error: {fault}"),
        };
        expected.assert_eq(&found);
    }

    #[test]
    fn slashes_and_dots_mean_nothing() {
        check("./", expect!["root"]);
        check("/", expect!["root"]);
        check("//a/./b//", expect!["node b in /a"]);
        check("./a", expect!["node a in /"]);
        check("..a/b..", expect!["node b.. in /..a"]);
    }

    #[test]
    fn whiteouts_are_told_from_files() {
        check("a/.wh.b", expect!["no b in /a"]);
        check(".wh..b", expect!["no .b in /"]);
        check("a/.wh..wh..opq", expect!["nothing in /a"]);
        check(".wh..wh..opq", expect!["nothing in /"]);
        check("a/.wh..wh.aufs", expect!["reserved"]);
        check(".wh..wh.plnk/12.34", expect!["reserved"]);
        check("a.wh.b", expect!["node a.wh.b in /"]);
    }

    #[test]
    fn hostile_paths_are_refused() {
        check("", expect!["error: empty path"]);
        check("a/../b", expect!["error: `..` in a path"]);
        check("/..", expect!["error: `..` in a path"]);
        check("a\0b", expect!["error: NUL byte in a path"]);
        check(".wh.", expect!["error: malformed whiteout"]);
        check(".wh..", expect!["error: malformed whiteout"]);
        check("a/.wh...", expect!["error: malformed whiteout"]);
        check(".wh.a/b", expect!["error: malformed whiteout"]);
        check(".wh.a/.wh..wh..opq", expect!["reserved"]);
        check(&"x".repeat(256), expect!["error: name of 256 bytes is over the limit of 255"]);
        check(
            &format!("{}/a", "x".repeat(256)),
            expect!["error: name of 256 bytes is over the limit of 255"],
        );
        check(&"x/".repeat(2049), expect!["error: path of 4098 bytes is over the limit of 4096"]);
    }

    #[test]
    fn a_whiteout_may_hide_the_longest_name() {
        let name = format!(".wh.{}", "x".repeat(255));
        let path = meaning(name.as_bytes(), &Limits::default());
        assert!(matches!(path, Ok(Meaning::Whiteout { name, .. }) if name.len() == 255));
    }
}
