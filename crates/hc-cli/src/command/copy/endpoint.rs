// SPDX-License-Identifier: Apache-2.0
//! The two sides of a copy, and where things go: pure, so that Docker's rules are a table.

use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

use crate::failure::{Failure, Result};

/// One side of a copy.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    /// A path in a container.
    Container { container: String, path: String },
    /// A path on this host.
    Host(PathBuf),
    /// A tar archive on standard input or output.
    Stream,
}

impl Endpoint {
    /// Reads `CONTAINER:PATH`, `PATH` or `-`. A path with a colon in it is written `./a:b`.
    pub(super) fn parse(text: &str) -> Result<Endpoint> {
        if text == "-" {
            return Ok(Endpoint::Stream);
        }
        if text.is_empty() {
            return Err(Failure::argument("a path to copy is empty"));
        }
        match text.split_once(':') {
            Some((container, path)) if !text.starts_with(['.', '/']) => {
                if container.is_empty() || path.is_empty() {
                    return Err(Failure::argument(format!("{text:?} is no CONTAINER:PATH")));
                }
                Ok(Endpoint::Container { container: container.into(), path: path.into() })
            }
            _ => Ok(Endpoint::Host(text.into())),
        }
    }
}

/// What a path says by its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ending {
    /// `/.`: what is in the folder, without itself.
    pub(super) content: bool,
    /// `/` or `/.`: it must be a folder.
    pub(super) folder: bool,
}

impl Ending {
    pub(super) fn of(path: &str) -> Ending {
        let content = path == "." || path.ends_with("/.");
        Ending { content, folder: content || path.ends_with('/') }
    }
}

/// An absolute path in a container, without `.`, `..` and what stands before it.
pub(super) fn in_container(path: &str) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for component in Path::new(path).components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                clean.pop();
            }
            _ => {}
        }
    }
    clean
}

/// What is found at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    Nothing,
    File,
    Folder,
}

/// Where a copy lands.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Landing {
    /// The folder to put it into; it exists, or it is an error that it does not.
    pub(super) folder: PathBuf,
    /// The name it gets there; `None` where the source's content goes right into the folder.
    pub(super) name: Option<OsString>,
}

/// Applies Docker's rules.
///
/// `name` is the source's own name; a root folder has none, and is copied as its content.
pub(super) fn land(
    source: Found,
    source_ending: Ending,
    name: Option<OsString>,
    target: &Path,
    target_found: Found,
    target_ending: Ending,
) -> Result<Landing, &'static str> {
    let beside = || Landing {
        folder: match target.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        },
        name: target.file_name().map(ToOwned::to_owned),
    };
    match (source, target_found) {
        (Found::Nothing, _) => Err("there is nothing to copy"),
        (_, Found::Folder) => {
            let name = name.filter(|_| !source_ending.content);
            Ok(Landing { folder: target.to_owned(), name })
        }
        (Found::Folder, Found::File) => Err("a folder cannot be copied onto a file"),
        (Found::File, Found::File) if target_ending.folder => Err("the target is not a folder"),
        (Found::File, Found::Nothing) if target_ending.folder => {
            Err("the target folder does not exist")
        }
        (Found::File | Found::Folder, _) => Ok(beside()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_colon_makes_a_container_unless_the_path_begins_as_one() {
        let container = |container: &str, path: &str| Endpoint::Container {
            container: container.into(),
            path: path.into(),
        };
        let parse = |text| Endpoint::parse(text).unwrap();
        assert_eq!(parse("web:/etc/x"), container("web", "/etc/x"));
        assert_eq!(parse("web:a:b"), container("web", "a:b"));
        assert_eq!(parse("./a:b"), Endpoint::Host("./a:b".into()));
        assert_eq!(parse("/a:b"), Endpoint::Host("/a:b".into()));
        assert_eq!(parse("a/b"), Endpoint::Host("a/b".into()));
        assert_eq!(parse("-"), Endpoint::Stream);
        for wrong in ["", ":/x", "web:"] {
            assert!(Endpoint::parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn container_paths_are_absolute_and_clean() {
        for (path, clean) in [
            ("/a/b", "/a/b"),
            ("a", "/a"),
            ("/a/../../b/.", "/b"),
            ("/", "/"),
            ("..", "/"),
            ("/a/", "/a"),
        ] {
            assert_eq!(in_container(path), Path::new(clean), "{path}");
        }
    }

    #[track_caller]
    fn check(source: (Found, &str), target: (Found, &str), expected: &str) {
        let name = Path::new(source.1).file_name().map(ToOwned::to_owned);
        let result = land(
            source.0,
            Ending::of(source.1),
            name,
            Path::new(target.1),
            target.0,
            Ending::of(target.1),
        );
        let shown = match result {
            Ok(Landing { folder, name }) => {
                let name = name.map_or("*".into(), |name| name.to_string_lossy().into_owned());
                format!("{} {name}", folder.display())
            }
            Err(why) => format!("error: {why}"),
        };
        assert_eq!(shown, expected, "{source:?} to {target:?}");
    }

    #[test]
    fn copies_land_where_docker_puts_them() {
        use Found::{File, Folder, Nothing};
        check((File, "/a/f"), (Folder, "/d"), "/d f");
        check((File, "/a/f"), (File, "/d/g"), "/d g");
        check((File, "/a/f"), (Nothing, "/d/g"), "/d g");
        check((File, "/a/f"), (Nothing, "g"), ". g");
        check((File, "/a/f"), (Nothing, "/d/g/"), "error: the target folder does not exist");
        check((File, "/a/f"), (File, "/d/g/"), "error: the target is not a folder");
        check((Folder, "/a/d"), (Folder, "/e"), "/e d");
        check((Folder, "/a/d/."), (Folder, "/e"), "/e *");
        check((Folder, "/"), (Folder, "/e"), "/e *");
        check((Folder, "/a/d"), (Nothing, "/e/n"), "/e n");
        check((Folder, "/a/d/."), (Nothing, "/e/n"), "/e n");
        check((Folder, "/a/d"), (Nothing, "/e/n/"), "/e n");
        check((Folder, "/a/d"), (File, "/e/f"), "error: a folder cannot be copied onto a file");
        check((Nothing, "/a"), (Folder, "/e"), "error: there is nothing to copy");
    }
}
