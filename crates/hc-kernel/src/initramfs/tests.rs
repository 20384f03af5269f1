// SPDX-License-Identifier: Apache-2.0
//! Archives, read back by an independent reader: the `cpio` program.

use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use expect_test::expect;
use proptest::prelude::*;

use super::*;

struct Inputs {
    dir: tempfile::TempDir,
    init: PathBuf,
    modules: Vec<Module>,
}

fn inputs() -> Inputs {
    let dir = tempfile::tempdir().unwrap();
    let init = dir.path().join("hyperstart");
    fs::write(&init, b"\x7fELF init").unwrap();
    let module = |name: &str, ending: &str| {
        let file = dir.path().join(format!("{}{ending}", name.replace('_', "-")));
        fs::write(&file, name).unwrap();
        Module { name: name.into(), file, compressed: ending != ".ko" }
    };
    let modules = vec![module("virtio_ring", ".ko"), module("erofs", ".ko.xz")];
    Inputs { dir, init, modules }
}

fn build_to_vec(init: &Path, modules: &[Module]) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    build(&mut bytes, Path::new("archive"), init, modules)?;
    Ok(bytes)
}

/// Runs `cpio` on the archive; `None`, with a word to the tester, where there is no `cpio`.
fn cpio(arguments: &[&str], archive: &[u8]) -> Option<String> {
    let child = Command::new("cpio")
        .args(["--quiet"])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) => {
            eprintln!("skipped: cannot run cpio: {error}");
            return None;
        }
    };
    child.stdin.take().unwrap().write_all(archive).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    Some(String::from_utf8(output.stdout).unwrap())
}

#[test]
fn archive_holds_init_console_and_modules_in_order() {
    let inputs = inputs();
    let archive = build_to_vec(&inputs.init, &inputs.modules).unwrap();
    let Some(listing) = cpio(&["-itv", "--numeric-uid-gid"], &archive) else { return };
    let lines: Vec<String> = listing
        .lines()
        .map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            [words[0], words[words.len() - 1]].join(" ") + "\n"
        })
        .collect();
    expect![[r"
        drwxr-xr-x dev
        crw------- dev/console
        -rwxr-xr-x init
        drwxr-xr-x modules
        -rw-r--r-- modules/00-virtio_ring.ko
        -rw-r--r-- modules/01-erofs.ko.xz
        -rw-r--r-- modules.list
    "]]
    .assert_eq(&lines.concat());
    assert!(listing.contains("5,   1"), "{listing}");
    let list = cpio(&["-i", "--to-stdout", "modules.list"], &archive).unwrap();
    assert_eq!(list, "00-virtio_ring.ko\n01-erofs.ko.xz\n");
    let init = cpio(&["-i", "--to-stdout", "init"], &archive).unwrap();
    assert_eq!(init.as_bytes(), b"\x7fELF init");
}

#[test]
fn archive_without_modules_has_no_list() {
    let archive = build_to_vec(&inputs().init, &[]).unwrap();
    assert!(!archive.windows(7).any(|window| window == b"modules"));
    assert_eq!(archive.len() % 4, 0);
}

#[test]
fn same_inputs_give_the_same_archive() {
    let inputs = inputs();
    let build = || build_to_vec(&inputs.init, &inputs.modules).unwrap();
    assert_eq!(build(), build());
}

#[test]
fn missing_input_is_named() {
    let inputs = inputs();
    fs::remove_file(&inputs.modules[1].file).unwrap();
    let error =
        cached(&inputs.dir.path().join("cache"), &inputs.init, &inputs.modules).unwrap_err();
    assert!(error.to_string().contains("erofs.ko.xz"), "{error}");
    assert_eq!(error.kind(), crate::Kind::NotFound);
}

#[test]
fn cache_is_hit_until_an_input_changes() {
    let inputs = inputs();
    let cache = inputs.dir.path().join("cache");
    let first = cached(&cache, &inputs.init, &inputs.modules).unwrap();
    let made = fs::metadata(&first).unwrap();
    assert_eq!(fs::read(&first).unwrap(), build_to_vec(&inputs.init, &inputs.modules).unwrap());

    let again = cached(&cache, &inputs.init, &inputs.modules).unwrap();
    assert_eq!(again, first);
    assert_eq!(fs::metadata(&again).unwrap().ino(), made.ino());

    // Same length, other contents, and a time that differs even on a file system of coarse times.
    fs::write(&inputs.init, b"\x7fELF tini").unwrap();
    let later = SystemTime::now() + Duration::from_secs(5);
    File::options().write(true).open(&inputs.init).unwrap().set_modified(later).unwrap();
    let changed = cached(&cache, &inputs.init, &inputs.modules).unwrap();
    assert_ne!(changed, first);

    // No temporary file is left behind.
    assert_eq!(fs::read_dir(&cache).unwrap().count(), 2);
}

#[test]
fn failed_build_leaves_nothing_in_the_cache() {
    let mut inputs = inputs();
    let cache = inputs.dir.path().join("cache");
    // A directory can be looked at but not read.
    inputs.modules[0].file = inputs.dir.path().to_owned();
    cached(&cache, &inputs.init, &inputs.modules).unwrap_err();
    assert_eq!(fs::read_dir(&cache).unwrap().count(), 0);
}

#[test]
fn file_that_shrinks_while_it_is_packed_is_noticed() {
    let mut archive = Archive { out: Vec::new(), path: Path::new("archive"), inode: 0 };
    let entry = Entry { len: 10, ..Entry::new("init", PROGRAM) };
    assert_eq!(archive.copy(entry, &b"short"[..], Path::new("init")).unwrap(), 5);
}

proptest! {
    #[test]
    fn every_entry_starts_on_a_multiple_of_four(lens in proptest::collection::vec(0_usize..40, 1..6)) {
        let dir = tempfile::tempdir().unwrap();
        let module = |(number, len): (usize, &usize)| {
            let file = dir.path().join(format!("m{number}.ko"));
            fs::write(&file, vec![b'x'; *len]).unwrap();
            Module { name: "m".repeat(number + 1), file, compressed: false }
        };
        let modules: Vec<Module> = lens.iter().enumerate().map(module).collect();
        let archive = build_to_vec(&modules[0].file, &modules).unwrap();
        let starts: Vec<usize> =
            (0..archive.len() - 6).filter(|&at| archive[at..].starts_with(b"070701")).collect();
        // dev, dev/console, init, modules, modules.list and the trailer.
        prop_assert_eq!(starts.len(), lens.len() + 6);
        prop_assert!(starts.iter().all(|start| start % 4 == 0));
    }
}
