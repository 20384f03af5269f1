// SPDX-License-Identifier: Apache-2.0
//! Bad archives: each gives one clear error and leaves nothing behind.

use std::io::{self, Read};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use hc_image::{Digest, Error, Event, ImportOptions, Kind, Limits, Progress, Silent, Store};
use proptest::prelude::*;
use serde_json::json;
use tar::EntryType;

use crate::support::*;

fn good() -> DockerArchive {
    DockerArchive::new("app", &[layer("a", "one"), layer("b", "two")])
}

/// Loads into a new store; the error's words, chain and all, and its kind.
fn refuse_with(limits: Limits, bytes: &[u8]) -> (String, Kind) {
    let test = TestStore::with(limits);
    let error = test.store.load(bytes, &Silent).expect_err("the archive is bad");
    test.assert_empty();
    let kind = error.kind();
    (chain(&error), kind)
}

fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(source) = next {
        text = format!("{text}: {source}");
        next = source.source();
    }
    text
}

#[track_caller]
fn check(bytes: &[u8], expected: &str) {
    let (text, kind) = refuse_with(Limits::default(), bytes);
    assert!(text.contains(expected), "{text}");
    assert_eq!(kind, Kind::InvalidArgument, "{text}");
}

#[test]
fn names_that_leave_the_archive() {
    let out = "it leads out of the archive";
    for path in ["../../etc/cron.d/x", "/etc/passwd", "a/../../b"] {
        check(&good().parts().file(path, "x").finish(), out);
    }
    for target in ["/etc/passwd", "../../../etc/passwd"] {
        check(&good().parts().symlink("l0/link", target).finish(), out);
        check(&good().parts().hard_link("l0/link", target).finish(), out);
    }
}

#[test]
fn links_that_lead_in_a_circle() {
    let archive = good();
    let tar = Tar::new()
        .symlink("l0/layer.tar", "../l1/layer.tar")
        .symlink("l1/layer.tar", "../l0/layer.tar")
        .file("config.json", archive.config())
        .file("manifest.json", archive.manifest());
    check(&tar.finish(), "too many links");
}

#[test]
fn two_files_of_one_name() {
    check(
        &good().parts().file("config.json", "{}").finish(),
        "\"config.json\" is not usable: the archive has it twice",
    );
    check(&good().parts().symlink("./manifest.json", "x").finish(), "twice");
}

#[test]
fn entries_that_are_no_files() {
    check(
        &good().parts().entry("dev", EntryType::Char, b"", None).finish(),
        "neither a file nor a link",
    );
    check(
        &good().parts().entry("fifo", EntryType::Fifo, b"", None).finish(),
        "neither a file nor a link",
    );
}

#[test]
fn parts_that_are_missing() {
    let archive = good();
    let tar = Tar::new().file("manifest.json", archive.manifest());
    check(&tar.finish(), "it lacks \"config.json\"");
    let tar =
        Tar::new().file("manifest.json", archive.manifest()).file("config.json", archive.config());
    check(&tar.finish(), "it lacks \"l0/layer.tar\"");
    check(&Tar::new().file("x", "y").finish(), "neither manifest.json nor index.json");
    check(&Tar::new().file("etc/passwd", "y").finish(), "import it instead");
    check(&Tar::new().finish(), "it is empty");
    check(b"", "it is empty");
}

#[test]
fn documents_that_are_broken() {
    let archive = good();
    let with = |manifest: &[u8], config: &[u8]| {
        Tar::new()
            .file("manifest.json", manifest)
            .file("config.json", config)
            .file("l0/layer.tar", &archive.layers[0])
            .file("l1/layer.tar", &archive.layers[1])
            .finish()
    };
    check(&with(b"[]", b"{}"), "it lists no image");
    check(&with(b"{", b"{}"), "manifest.json is not usable");
    check(&with(&archive.manifest(), b"nonsense"), "image configuration is not usable");
    check(&with(&archive.manifest(), b"{}"), "its manifest has 2 layers, its configuration 0");
    let mut bad = good();
    bad.tags = vec!["UPPER CASE".to_owned()];
    check(&bad.bytes(), "invalid image name");
}

#[test]
fn layers_that_are_not_what_they_claim() {
    let mut bad = good();
    bad.layers[1] = layer("b", "changed");
    check(&bad.bytes(), "has digest");
    bad.layers[1] = gzip(&layer("b", "changed"));
    check(&bad.bytes(), "has digest");
    bad.layers[1] = gzip(&good().layers[1]);
    let len = bad.layers[1].len();
    bad.layers[1].truncate(len - 9);
    let (text, _) = refuse_with(Limits::default(), &bad.bytes());
    assert!(text.contains("cannot read layer"), "{text}");
}

#[test]
fn layers_that_hide_behind_an_honest_image() {
    let test = TestStore::new();
    test.store.load(&good().bytes()[..], &Silent).unwrap();
    let before = test.files();
    // The same diff IDs, so the root file system is there already; but the layer is another one.
    let mut bad = good();
    bad.config["config"]["Cmd"] = json!(["evil"]);
    bad.layers[1] = gzip(&layer("b", "changed"));
    let error = test.store.load(&bad.bytes()[..], &Silent).unwrap_err();
    assert!(matches!(error, Error::WrongDigest { .. }), "{error}");
    assert_eq!(test.files(), before);
    // Packed differently but honest, it is welcome.
    bad.layers[1] = gzip(&good().layers[1]);
    test.store.load(&bad.bytes()[..], &Silent).unwrap();
    assert_eq!(test.store.list().unwrap().len(), 2);
}

#[test]
fn layers_that_do_not_merge() {
    let layer = Tar::new().file("../../escape", "x").finish();
    check(&DockerArchive::new("app", &[layer]).bytes(), "`..` in a path");
    check(&DockerArchive::new("app", &[b"no tar at all".repeat(100)]).bytes(), "cannot build");
}

#[test]
fn blobs_whose_name_lies() {
    let layers = [layer("a", "one")];
    let image = OciImage::new(&layers, &layers);
    let tar = oci_archive(&index(&[image.descriptor()]), &[&image.blobs[0], &image.manifest])
        .file(&format!("blobs/sha256/{}", image.id.hex()), "something else");
    check(&tar.finish(), "a blob in the archive has digest");
    let tar = oci_archive(&index(&[image.descriptor()]), &[&image.blobs[0], &image.manifest]);
    check(&tar.finish(), "it lacks image configuration");
    let mut longer = image.descriptor();
    longer["size"] = json!(image.manifest.len() + 1);
    let tar = oci_archive(&index(&[longer]), &[&image.manifest]);
    check(&tar.finish(), "bytes that it should have");
    let tar = oci_archive(&index(&[]), &[]).file("blobs/sha256/../../x", "x");
    check(&tar.finish(), "index.json is not usable: it lists no image");
    let tar = oci_archive(&index(&[]), &[]).file("blobs/sha256/short", "x");
    check(&tar.finish(), "not named by a SHA-256 digest");
}

#[test]
fn indexes_that_hold_nothing_for_us() {
    let mut arm = descriptor(MANIFEST_TYPE, b"x");
    arm["platform"] = json!({"os": "linux", "architecture": "arm64"});
    let tar = oci_archive(&index(&[arm]), &[]).finish();
    let (text, kind) = refuse_with(Limits::default(), &tar);
    assert_eq!(text, "an image for linux/arm64 is not supported: pods run linux/amd64");
    assert_eq!(kind, Kind::Unsupported);

    // Seven indexes, each holding nothing but the next.
    let mut inner = index(&[]);
    let mut blobs = Vec::new();
    for _ in 0..7 {
        blobs.push(inner.clone());
        inner = index(&[descriptor(INDEX_TYPE, &inner)]);
    }
    let blobs: Vec<&[u8]> = blobs.iter().map(Vec::as_slice).collect();
    check(&oci_archive(&inner, &blobs).finish(), "too many indexes");
}

#[test]
fn archives_that_end_too_early() {
    let whole = good().bytes();
    let packed = gzip(&whole);
    for cut in [100, 512 + 700, whole.len() / 2 + 10] {
        let test = TestStore::new();
        assert!(test.store.load(&whole[..cut], &Silent).is_err(), "{cut}");
        test.assert_empty();
        let cut = cut * packed.len() / whole.len();
        assert!(test.store.load(&packed[..cut], &Silent).is_err(), "packed {cut}");
        test.assert_empty();
    }
    let mut archive = good();
    archive.layers[0] = Tar::new().file("a", "no end mark").cut();
    archive.config = config(&archive.layers);
    // A layer without an end mark is common and harmless; one that stops in a file is not.
    let test = TestStore::new();
    test.store.load(&archive.bytes()[..], &Silent).unwrap();
    archive.layers[0].truncate(600);
    archive.config = config(&archive.layers);
    check(&archive.bytes(), "ends in the middle");
}

#[test]
fn bombs() {
    let zeros = Tar::new().file("zeros", vec![0; 8 << 20]).finish();
    let mut archive = DockerArchive::new("bomb", std::slice::from_ref(&zeros));
    let limits = || Limits { bomb_floor: 1 << 20, bomb_ratio: 50, ..Limits::default() };
    for packed in [gzip(&zeros), zstd(&zeros)] {
        archive.layers = vec![packed];
        let (text, _) = refuse_with(limits(), &archive.bytes());
        assert!(text.contains("it unpacks to more than 50 times its size"), "{text}");
        // The same image is fine where such a ratio is.
        TestStore::new().store.load(&archive.bytes()[..], &Silent).unwrap();
        let (text, kind) =
            refuse_with(Limits { unpacked_bytes: 1 << 20, ..Limits::default() }, &archive.bytes());
        assert!(text.contains("is over the limit of"), "{text}");
        assert_eq!(kind, Kind::Exhausted);
    }
    archive.layers = vec![zeros];
    let (text, _) = refuse_with(limits(), &gzip(&archive.bytes()));
    assert!(text.contains("the archive is not usable: it unpacks to more"), "{text}");
}

#[test]
fn more_of_anything_than_fits() {
    let tar = (0..50).fold(Tar::new(), |tar, i| tar.file(&format!("{i}"), ""));
    let few = Limits { archive_entries: 20, ..Limits::default() };
    let (text, kind) = refuse_with(few, &tar.finish());
    assert_eq!(text, "number of entries in the archive is over the limit of 20");
    assert_eq!(kind, Kind::Exhausted);

    let small = Limits { layer_bytes: 100, ..Limits::default() };
    let (text, _) = refuse_with(small, &good().bytes());
    assert!(text.contains("is over the limit of 100"), "{text}");

    let small = Limits { manifest_bytes: 10, ..Limits::default() };
    let (text, _) = refuse_with(small, &good().bytes());
    assert!(text.contains("is over the limit of 10"), "{text}");

    let small = Limits { layers: 1, ..Limits::default() };
    let (text, _) = refuse_with(small, &good().bytes());
    assert_eq!(text, "number of layers is over the limit of 1");
}

/// An endless archive that starts with `head`.
struct Endless(io::Cursor<Vec<u8>>);

impl Read for Endless {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buf)? {
            0 => {
                buf.fill(b'x');
                Ok(buf.len())
            }
            n => Ok(n),
        }
    }
}

#[test]
fn a_name_of_gigabytes_costs_no_memory() {
    for kind in [EntryType::GNULongName, EntryType::GNULongLink, EntryType::XHeader] {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(7 << 30);
        header.set_cksum();
        let reader = Endless(io::Cursor::new(header.as_bytes().to_vec()));
        let test = TestStore::new();
        let error = chain(&test.store.load(reader, &Silent).unwrap_err());
        assert!(error.contains("a header in the archive is over the limit"), "{kind:?}: {error}");
        test.assert_empty();
    }
}

#[test]
fn a_million_empty_entries_stop_at_the_limit() {
    let one = Tar::new().file("same", "").cut();
    let (text, _) = refuse_with(Limits::default(), &one.repeat(1_000_000)[..]);
    assert!(text.contains("the archive has it twice"), "{text}");
    let many: Vec<u8> =
        (0..20_000).flat_map(|i| Tar::new().file(&format!("{i}"), "").cut()).collect();
    let (text, _) = refuse_with(Limits::default(), &many);
    assert!(text.contains("number of entries in the archive is over the limit"), "{text}");
}

#[test]
fn a_disk_that_is_nearly_full_is_left_alone() {
    let all = Limits { reserve_percent: 100, reserve_max_bytes: u64::MAX, ..Limits::default() };
    let (text, kind) = refuse_with(all.clone(), &good().bytes());
    assert!(text.starts_with("not enough disk space in"), "{text}");
    assert_eq!(kind, Kind::Exhausted);
    let full = TestStore::with(all);
    let big = vec![1; 16 << 20];
    let error = full.store.import(&big[..], &ImportOptions::default(), &Silent).unwrap_err();
    assert!(matches!(error, Error::DiskFull { .. }), "{error}");
    full.assert_empty();
}

/// A file system of a few megabytes, gone with the value.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount(mib: u32) -> Option<SmallDisk> {
        let dir = tempfile::TempDir::new().unwrap();
        let size = format!("size={mib}m");
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(dir.path())
            .output();
        if mount.is_ok_and(|output| output.status.success()) {
            return Some(SmallDisk(dir));
        }
        skip("mounting a tmpfs is not allowed");
        None
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        run(Command::new("umount").arg(self.0.path()));
    }
}

#[test]
fn a_disk_that_fills_while_we_write() {
    let Some(disk) = SmallDisk::mount(8) else { return };
    // Without a reserve the kernel is the one who says stop: in a blob, then in a root file system.
    let limits = Limits { reserve_percent: 0, ..Limits::default() };
    let store = Store::open_with(disk.0.path().join("store"), limits).unwrap();
    for mib in [5, 12] {
        let content: Vec<u8> =
            (0..mib << 20).map(|i: u32| (i.wrapping_mul(0x9e37_79b9) >> 24) as u8).collect();
        let tar = Tar::new().file("big", &content).finish();
        let error = store.import(&gzip(&tar)[..], &ImportOptions::default(), &Silent).unwrap_err();
        assert!(matches!(error, Error::DiskFull { .. }), "{}", chain(&error));
        assert_eq!(files_in(store.root()), Vec::<String>::new());
    }
    // And a small image still fits.
    store.load(&good().bytes()[..], &Silent).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn any_damage_gives_an_image_or_nothing(
        at in any::<prop::sample::Index>(),
        damage in prop::collection::vec(any::<u8>(), 1..12),
        packing in 0..3,
    ) {
        let mut bytes = good().bytes();
        if packing == 0 {
            bytes = gzip(&bytes);
        } else if packing == 1 {
            let layers = [layer("a", "one")];
            let image = OciImage::new(&layers, &layers);
            let blobs = [&image.blobs[0], &image.blobs[1], &image.manifest];
            bytes = oci_archive(&index(&[image.descriptor()]), &blobs.map(Vec::as_slice)).finish();
        }
        let at = at.index(bytes.len());
        for (byte, damage) in bytes[at..].iter_mut().zip(damage) {
            *byte = damage;
        }
        let test = TestStore::new();
        match test.store.load(&bytes[..], &Silent) {
            Ok(loaded) => prop_assert_eq!(test.store.list().unwrap().len(), loaded.len()),
            Err(_) => test.assert_empty(),
        }
    }
}

/// Cancels at the n-th look.
struct CancelAt(AtomicUsize);

impl Progress for CancelAt {
    fn report(&self, _event: Event<'_>) {}

    fn is_cancelled(&self) -> bool {
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).is_err()
    }
}

#[test]
fn cancelling_at_any_point_leaves_nothing() {
    let layers: Vec<Vec<u8>> =
        (0..3).map(|i| Tar::new().file(&format!("f{i}"), vec![i; 9 << 20]).finish()).collect();
    let bytes = DockerArchive::new("app", &layers).bytes();
    let mut looks = 0;
    loop {
        let test = TestStore::new();
        let result = test.store.load(&bytes[..], &CancelAt(AtomicUsize::new(looks)));
        match result {
            Ok(_) => break,
            Err(error) => assert!(matches!(error, Error::Cancelled), "{error}"),
        }
        test.assert_empty();
        looks += 1;
    }
    assert!(looks > 10, "only {looks} looks in 27 MiB");
}

#[test]
fn an_image_of_another_machine_loads_but_says_so() {
    let mut archive = good();
    archive.config["architecture"] = json!("arm64");
    let test = TestStore::new();
    let image = test.store.load(&archive.bytes()[..], &Silent).unwrap().remove(0).image;
    assert_eq!(image.config.check_platform().unwrap_err().kind(), Kind::Unsupported);
    assert_eq!(image.id, Digest::of(&archive.config()));
}
