// SPDX-License-Identifier: Apache-2.0
//! Several users of one store at once, and users that die.

use std::io::{self, Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use hc_image::{ImportOptions, RemoveOptions, Silent, Store};

use crate::support::*;

/// How long a condition may take to come true on a busy machine.
const DEADLINE: Duration = Duration::from_mins(1);

/// Gives what comes through a channel, so that a test decides how far a load gets.
struct Fed {
    pieces: Receiver<Vec<u8>>,
    current: io::Cursor<Vec<u8>>,
}

impl Read for Fed {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.current.read(buf)? {
                0 => match self.pieces.recv() {
                    Ok(piece) => self.current = io::Cursor::new(piece),
                    Err(_) => return Ok(0),
                },
                n => return Ok(n),
            }
        }
    }
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < deadline, "{what} did not happen in time");
        std::thread::park_timeout(POLL);
    }
}

#[test]
fn a_removal_meanwhile_takes_nothing_from_a_load() {
    let test = TestStore::new();
    let base = layer("base", "base");
    let old = DockerArchive::new("old", &[base.clone(), layer("x", "x")]);
    test.store.load(&old.bytes()[..], &Silent).unwrap();
    let removed_blobs = test.files();

    // The new image brings the shared layer, then pauses.
    let new = DockerArchive::new("new", &[base.clone(), layer("y", "y")]);
    let bytes = new.bytes();
    let (feed, pieces) = channel();
    let store = test.store.clone();
    let load = std::thread::spawn(move || {
        store.load(Fed { pieces, current: io::Cursor::default() }, &Silent)
    });
    let name = b"config.json\0";
    let half = bytes.windows(name.len()).position(|window| window == name).unwrap();
    feed.send(bytes[..half].to_vec()).unwrap();
    let layer_of_new = format!("blobs/sha256/{}", hc_image::Digest::of(&new.layers[1]).hex());
    wait_until("the second layer", || test.files().contains(&layer_of_new));

    test.store.remove("old", &RemoveOptions::default()).unwrap();
    assert!(test.store.resolve("old").is_err());
    assert!(removed_blobs.iter().all(|file| test.files().contains(file)), "swept under a load");

    feed.send(bytes[half..].to_vec()).unwrap();
    drop(feed);
    let image = load.join().unwrap().unwrap().remove(0).image;
    assert_eq!(test.store.resolve("new").unwrap(), image);
    // The end of the load made up for the sweep: only the new image is left.
    assert_eq!(test.files().len(), 5, "{:?}", test.files());
}

#[test]
fn many_at_once_get_what_each_asked_for() {
    let test = TestStore::new();
    let base = layer("base", "base");
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (store, base) = (Store::open(test.store.root()).unwrap(), base.clone());
            scope.spawn(move || {
                for round in 0..6 {
                    let tag = format!("t{thread}:r{round}");
                    let shared = DockerArchive::new("shared", &[base.clone(), layer("s", "s")]);
                    store.load(&shared.bytes()[..], &Silent).unwrap();
                    let own = layer("own", &tag);
                    let archive = DockerArchive::new(&tag, &[base.clone(), own]);
                    store.load(&archive.bytes()[..], &Silent).unwrap();
                    assert_eq!(store.resolve(&tag).unwrap().id, archive.id());
                    assert!(store.list().unwrap().len() >= 2);
                    if round % 2 == 0 {
                        store.remove(&tag, &RemoveOptions::default()).unwrap();
                    }
                }
            });
        }
    });
    let images = test.store.list().unwrap();
    assert_eq!(images.len(), 4 * 3 + 1);
    for image in images {
        let image = test.store.resolve(&image.id.hex()).unwrap();
        assert!(test.store.rootfs_path(&image.chain_id).exists());
    }
    // One shared layer; each image has a manifest, a configuration, a layer and a root file system.
    Store::open(test.store.root()).unwrap();
    assert_eq!(test.files().len(), 13 * 4 + 1, "{:?}", test.files());
}

/// The example program that loads from its standard input, in a process of its own.
fn loader(store: &Store) -> Option<Child> {
    let mut path = std::env::current_exe().unwrap();
    path.pop();
    path.pop();
    path.push("examples/load");
    if !path.exists() {
        skip("the example `load` is not built; run all tests of the crate");
        return None;
    }
    let mut command = Command::new(path);
    command.arg(store.root()).arg("/dev/stdin");
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    Some(command.spawn().unwrap())
}

#[test]
fn a_killed_load_leaves_nothing_once_the_store_is_opened_again() {
    let layers: Vec<Vec<u8>> =
        (0..3).map(|i| Tar::new().file(&format!("f{i}"), vec![i; 3 << 20]).finish()).collect();
    let bytes = DockerArchive::new("app", &layers).bytes();
    let test = TestStore::new();
    for tenth in 1..10 {
        let Some(mut child) = loader(&test.store) else { return };
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(&bytes[..bytes.len() * tenth / 10]).unwrap();
        wait_until("the first file", || !test.files().is_empty());
        child.kill().unwrap();
        child.wait().unwrap();
        Store::open(test.store.root()).unwrap();
        test.assert_empty();
    }
    // Killed while the archive is whole and the root file system is being built, or just before.
    for delay_files in 3..6 {
        let Some(mut child) = loader(&test.store) else { return };
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(&bytes).unwrap();
        drop(stdin);
        wait_until("the load", || {
            test.files().len() >= delay_files || test.store.resolve("app").is_ok()
        });
        child.kill().unwrap();
        child.wait().unwrap();
        Store::open(test.store.root()).unwrap();
        if let Ok(image) = test.store.resolve("app") {
            test.store.ensure_rootfs(&image, &Silent).unwrap();
            test.store.remove("app", &RemoveOptions::default()).unwrap();
        }
        test.assert_empty();
    }
}

#[test]
fn leftovers_of_the_dead_go_when_a_store_is_opened_but_not_those_of_the_living() {
    let test = TestStore::new();
    let leftover = test.store.root().join("tmp/1-1");
    std::fs::write(&leftover, "half").unwrap();
    let (feed, pieces) = channel();
    let store = test.store.clone();
    let import = std::thread::spawn(move || {
        let reader = Fed { pieces, current: io::Cursor::default() };
        store.import(reader, &ImportOptions::default(), &Silent)
    });
    let tar = layer("a", "b");
    feed.send(tar[..700].to_vec()).unwrap();
    wait_until("the import's file", || test.files().len() == 2);
    Store::open(test.store.root()).unwrap();
    assert_eq!(test.files().len(), 2, "the import still runs");
    feed.send(tar[700..].to_vec()).unwrap();
    drop(feed);
    import.join().unwrap().unwrap();
    assert!(!leftover.exists());
    assert_eq!(test.files().len(), 4, "{:?}", test.files());
}
