// SPDX-License-Identifier: Apache-2.0
//! A distribution's kernel modules: which are there, and in which order they can be loaded.
//!
//! A tree is the folder `lib/modules/RELEASE`. Its index is `modules.dep`, which `depmod` writes when
//! a kernel is installed. A package that was only unpacked has none; then the list that the kernel
//! build wrote, `modules.order`, gives the names, and each module says what it depends on.
//!
//! Nothing is loaded here, and nothing is unpacked: a compressed module keeps its name, and the
//! guest's kernel unpacks it.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use crate::error::Error;
use crate::modinfo;

/// A distribution with every driver there is lists about 4,500 modules in 1 MiB.
const INDEX_MAX_LEN: u64 = 16 << 20;
/// The largest modules, graphics drivers, have about 10 MiB; with debug information ten times that.
const MODULE_MAX_LEN: u64 = 128 << 20;

/// A module to load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    /// Its name as the kernel says it, such as `virtio_blk`.
    pub name: String,
    /// Its file.
    pub file: PathBuf,
    /// Whether the file is compressed, so that the kernel has to unpack it.
    pub compressed: bool,
}

/// Whether and how a kernel has a module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// Part of the kernel: nothing to load.
    BuiltIn,
    /// A file.
    File,
    /// Not there.
    Absent,
}

/// The modules of one kernel.
#[derive(Debug)]
pub struct ModuleTree {
    dir: PathBuf,
    built_in: HashSet<String>,
    files: HashMap<String, Entry>,
}

/// One line of the index.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    /// The file, below the tree.
    file: PathBuf,
    /// What has to be loaded before; `None` when only the module itself knows.
    needs: Option<Vec<String>>,
}

impl ModuleTree {
    /// Opens the folder `lib/modules/RELEASE` at `dir`.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        let built_in = match read_index(&dir.join("modules.builtin"))? {
            Some(text) => text.lines().map(|line| name_of(Path::new(line))).collect(),
            None => HashSet::new(),
        };
        let dep = dir.join("modules.dep");
        let order = dir.join("modules.order");
        let damaged = |path| move |what| Error::DamagedIndex { path, what };
        let files = if let Some(text) = read_index(&dep)? {
            parse_dep(&text).map_err(damaged(dep))?
        } else if let Some(text) = read_index(&order)? {
            parse_order(&text).map_err(damaged(order))?
        } else {
            return Err(Error::read(dep)(io::ErrorKind::NotFound.into()));
        };
        Ok(Self { dir: dir.to_owned(), built_in, files })
    }

    /// The folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Whether and how the module `name` is there.
    #[must_use]
    pub fn presence(&self, name: &str) -> Presence {
        if self.files.contains_key(name) {
            Presence::File
        } else if self.built_in.contains(name) {
            Presence::BuiltIn
        } else {
            Presence::Absent
        }
    }

    /// The files of the modules `wanted` and of all they depend on, in an order in which they load.
    ///
    /// What is built in needs no file. A circle of dependencies, which no real kernel has, is cut.
    pub fn resolve(&self, wanted: &[&str]) -> Result<Vec<Module>, Error> {
        let mut resolved = Vec::new();
        let mut seen = HashSet::new();
        // What is to be done, last first. A stack of our own: a hostile index may be deeper than
        // the thread's.
        let mut stack: Vec<Step> =
            wanted.iter().rev().map(|name| Step::Visit((*name).to_owned())).collect();
        while let Some(step) = stack.pop() {
            let name = match step {
                Step::Emit(module) => {
                    resolved.push(module);
                    continue;
                }
                Step::Visit(name) => name,
            };
            if !seen.insert(name.clone()) || self.presence(&name) == Presence::BuiltIn {
                continue;
            }
            let Some(entry) = self.files.get(&name) else {
                return Err(Error::NoModule { name, tree: self.dir.clone() });
            };
            let file = self.dir.join(&entry.file);
            let needs = match &entry.needs {
                Some(needs) => needs.clone(),
                None => needs_of(&file)?,
            };
            stack.push(Step::Emit(Module { name, compressed: is_compressed(&file), file }));
            // `modules.dep` names the nearest first, so the last has to be loaded first.
            stack.extend(needs.into_iter().map(Step::Visit));
        }
        Ok(resolved)
    }
}

enum Step {
    Visit(String),
    Emit(Module),
}

/// Reads an index, or says `None` when there is none.
fn read_index(path: &Path) -> Result<Option<String>, Error> {
    match read_bounded(path, INDEX_MAX_LEN) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(Error::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Reads a file of at most `limit` bytes.
pub(crate) fn read_bounded(path: &Path, limit: u64) -> Result<Vec<u8>, Error> {
    let file = File::open(path).map_err(Error::read(path))?;
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes).map_err(Error::read(path))?;
    if bytes.len() as u64 > limit {
        return Err(Error::TooLarge { path: path.to_owned(), limit });
    }
    Ok(bytes)
}

/// Asks the module itself what it needs.
fn needs_of(file: &Path) -> Result<Vec<String>, Error> {
    let damaged = |what| Error::DamagedModule { path: file.to_owned(), what };
    if is_compressed(file) {
        return Err(damaged("it is compressed, and there is no modules.dep"));
    }
    let bytes = read_bounded(file, MODULE_MAX_LEN)?;
    modinfo::depends(&bytes).ok_or_else(|| damaged("it has no .modinfo section"))
}

/// Reads `modules.dep`: lines of `FILE: FILE ...`.
fn parse_dep(text: &str) -> Result<HashMap<String, Entry>, &'static str> {
    let entry = |line: &str| {
        let (file, needs) = line.split_once(':').ok_or("a line has no colon")?;
        let file = below(file)?;
        let needs = needs.split_ascii_whitespace().map(|need| Ok(name_of(&below(need)?)));
        let needs = Some(needs.collect::<Result<_, &'static str>>()?);
        Ok((name_of(&file), Entry { file, needs }))
    };
    lines(text).map(entry).collect()
}

/// Reads `modules.order`: one file a line.
fn parse_order(text: &str) -> Result<HashMap<String, Entry>, &'static str> {
    let entry = |line: &str| {
        let file = below(line)?;
        Ok((name_of(&file), Entry { file, needs: None }))
    };
    lines(text).map(entry).collect()
}

fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty())
}

/// The path, if it cannot lead out of the tree.
fn below(path: &str) -> Result<PathBuf, &'static str> {
    let path = Path::new(path);
    let plain = path.components().all(|part| matches!(part, Component::Normal(_)));
    if plain && path.file_name().is_some() && !path.as_os_str().as_encoded_bytes().contains(&0) {
        Ok(path.to_owned())
    } else {
        Err("a path leads out of the folder")
    }
}

/// The name under which the kernel knows the module in `file`: no ending, and `_` for `-`.
fn name_of(file: &Path) -> String {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    name.split_once(".ko").map_or(&*name, |(stem, _)| stem).replace('-', "_")
}

fn is_compressed(file: &Path) -> bool {
    file.extension().is_some_and(|ending| ending != "ko")
}

#[cfg(test)]
mod tests;
