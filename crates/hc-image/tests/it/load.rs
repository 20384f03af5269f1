// SPDX-License-Identifier: Apache-2.0
//! Every kind of archive becomes the same image.

use std::fs;
use std::process::Command;

use hc_image::{Digest, Error, ImportOptions, Reference, Silent};
use serde_json::json;

use crate::support::*;

fn name(text: &str) -> Reference {
    text.parse().unwrap()
}

fn layers() -> Vec<Vec<u8>> {
    let lower = Tar::new().dir("etc/").file("etc/a", "lower").file("etc/b", "gone").finish();
    let upper = Tar::new().dir("etc/").file("etc/a", "upper").file("etc/.wh.b", "").finish();
    vec![lower, upper]
}

/// The merged tree of [`layers`], as another program reads it.
fn assert_merged(test: &TestStore, id: &Digest) {
    let image = test.store.resolve(&id.to_string()).unwrap();
    let rootfs = test.store.ensure_rootfs(&image, &Silent).unwrap();
    let to = test.dir.path().join("tree");
    if extract(&rootfs, &to) {
        assert_eq!(fs::read_to_string(to.join("etc/a")).unwrap(), "upper");
        assert!(!to.join("etc/b").exists());
    }
}

#[test]
fn docker_archive_loads_in_every_packing_and_from_a_slow_pipe() {
    let archive = DockerArchive::new("app:v1", &layers());
    let plain = archive.bytes();
    for bytes in [plain.clone(), gzip(&plain), zstd(&plain)] {
        let test = TestStore::new();
        let loaded = test.store.load(Trickle(&bytes), &Silent).unwrap();
        assert_eq!(loaded.len(), 1);
        assert_eq!(loaded[0].names, [name("app:v1")]);
        assert_eq!(loaded[0].image.id, archive.id());
        assert_eq!(loaded[0].image.config.cmd, ["/bin/sh"]);
        assert_merged(&test, &archive.id());
        // Manifest, configuration, two layers and the root file system; no VERSION, no temporary.
        assert_eq!(test.files().len(), 5, "{:?}", test.files());
    }
}

#[test]
fn packed_layers_are_kept_as_they_are_with_the_right_type() {
    let plain = layers();
    let mut archive = DockerArchive::new("app", &plain);
    archive.layers = vec![gzip(&plain[0]), zstd(&plain[1])];
    let test = TestStore::new();
    let loaded = test.store.load(&archive.bytes()[..], &Silent).unwrap().remove(0);
    let image = loaded.image;
    assert_eq!(image.layers[0].digest, Digest::of(&archive.layers[0]));
    assert_eq!(image.layers[0].diff_id, Digest::of(&plain[0]));
    assert_merged(&test, &image.id);
    let manifest = test.store.root().join("blobs/sha256").join(image.manifest.hex());
    let manifest = fs::read_to_string(manifest).unwrap();
    assert!(manifest.contains("layer.v1.tar+gzip") && manifest.contains("layer.v1.tar+zstd"));
}

#[test]
fn layers_may_be_links_to_one_another() {
    let archive = DockerArchive::new("app", &[layers().remove(0), layers().remove(0)]);
    let tar = Tar::new()
        .symlink("l1/layer.tar", "../l0/layer.tar")
        .hard_link("l0/layer.tar", "real.tar")
        .file("real.tar", &archive.layers[0])
        .file("config.json", archive.config())
        .file("manifest.json", archive.manifest());
    let test = TestStore::new();
    let loaded = test.store.load(&tar.finish()[..], &Silent).unwrap().remove(0);
    assert_eq!(loaded.image.layers[0], loaded.image.layers[1]);
}

#[test]
fn archives_of_new_dockers_load_by_their_manifest() {
    let layers = layers();
    let image = OciImage::new(&layers, &layers);
    let blob = |bytes: &[u8]| format!("blobs/sha256/{}", Digest::of(bytes).hex());
    let manifest = json!([{
        "Config": blob(&image.blobs[2]), "RepoTags": ["app:v2"],
        "Layers": [blob(&layers[0]), blob(&layers[1])],
    }]);
    let mut blobs: Vec<&[u8]> = image.blobs.iter().map(Vec::as_slice).collect();
    blobs.push(&image.manifest);
    let tar = oci_archive(&index(&[image.descriptor()]), &blobs)
        .file("manifest.json", serde_json::to_vec(&manifest).unwrap());
    let test = TestStore::new();
    let loaded = test.store.load(&tar.finish()[..], &Silent).unwrap().remove(0);
    assert_eq!((loaded.image.id, loaded.names), (image.id, vec![name("app:v2")]));
    assert_merged(&test, &image.id);
}

#[test]
fn oci_archive_picks_our_platform_and_keeps_the_manifest() {
    let (plain, packed) = (layers(), vec![gzip(&layers()[0]), zstd(&layers()[1])]);
    let image = OciImage::new(&plain, &packed);
    let mut ours = image.descriptor();
    ours["platform"] = json!({"os": "linux", "architecture": "amd64"});
    let mut arm = descriptor(MANIFEST_TYPE, b"not in the archive");
    arm["platform"] = json!({"os": "linux", "architecture": "arm64"});
    let inner = index(&[arm, ours]);
    for (annotations, names) in [
        (json!({"org.opencontainers.image.ref.name": "app:v3"}), vec![name("app:v3")]),
        (json!({"org.opencontainers.image.ref.name": "latest"}), vec![]),
        (
            json!({
                "org.opencontainers.image.ref.name": "v3",
                "io.containerd.image.name": "quay.io/app:v3",
            }),
            vec![name("quay.io/app:v3")],
        ),
    ] {
        let mut entry = descriptor(INDEX_TYPE, &inner);
        entry["annotations"] = annotations;
        let mut blobs: Vec<&[u8]> = image.blobs.iter().map(Vec::as_slice).collect();
        blobs.extend([&image.manifest[..], &inner[..]]);
        let test = TestStore::new();
        let tar = oci_archive(&index(&[entry]), &blobs).finish();
        let loaded = test.store.load(&tar[..], &Silent).unwrap().remove(0);
        assert_eq!(loaded.names, names);
        assert_eq!(loaded.image.manifest, Digest::of(&image.manifest));
        assert_merged(&test, &image.id);
    }
}

#[test]
fn oci_layout_directory_loads() {
    let layers = layers();
    let image = OciImage::new(&layers, &layers);
    let test = TestStore::new();
    let dir = test.dir.path().join("layout");
    let mut blobs: Vec<&[u8]> = image.blobs.iter().map(Vec::as_slice).collect();
    blobs.push(&image.manifest);
    let tar = oci_archive(&index(&[image.descriptor()]), &blobs).finish();
    tar::Archive::new(&tar[..]).unpack(&dir).unwrap();
    fs::write(dir.join("blobs/sha256/stray"), "not looked at").unwrap();
    let loaded = test.store.load_path(&dir, &Silent).unwrap().remove(0);
    assert_eq!((loaded.image.id, loaded.names.len()), (image.id, 0));
    assert_merged(&test, &image.id);

    // The same directory with a link in the place of a layer.
    let blob = dir.join("blobs/sha256").join(Digest::of(&layers[0]).hex());
    fs::rename(&blob, dir.join("moved")).unwrap();
    std::os::unix::fs::symlink(dir.join("moved"), &blob).unwrap();
    let test = TestStore::new();
    assert!(matches!(test.store.load_path(&dir, &Silent), Err(Error::Input { .. })));
    test.assert_empty();
}

#[test]
fn an_image_without_layers_is_an_image() {
    let test = TestStore::new();
    let archive = DockerArchive::new("scratch", &[]);
    let image = test.store.load(&archive.bytes()[..], &Silent).unwrap().remove(0).image;
    assert_eq!((image.id, image.layers.len()), (archive.id(), 0));
    let to = test.dir.path().join("tree");
    if extract(&test.store.rootfs_path(&image.chain_id), &to) {
        assert_eq!(fs::read_dir(to).unwrap().count(), 0);
    }
}

#[test]
fn all_images_of_an_archive_load_or_none() {
    let (a, b) = (layers(), vec![layer("b", "b")]);
    let (first, second) = (DockerArchive::new("a", &a), DockerArchive::new("b", &b));
    let tar = |second_config: &str| {
        let manifest = json!([
            {"Config": "a.json", "RepoTags": ["a:1", "a:2"], "Layers": ["0", "1"]},
            {"Config": second_config, "RepoTags": null, "Layers": ["2"]},
        ]);
        Tar::new()
            .file("manifest.json", serde_json::to_vec(&manifest).unwrap())
            .file("a.json", first.config())
            .file("b.json", second.config())
            .file("0", &a[0])
            .file("1", &a[1])
            .file("2", &b[0])
            .finish()
    };
    let test = TestStore::new();
    assert_eq!(test.store.load(&tar("b.json")[..], &Silent).unwrap().len(), 2);
    let images = test.store.list().unwrap();
    assert_eq!(images.len(), 2);
    assert_eq!(test.store.resolve("a:1").unwrap().names, [name("a:1"), name("a:2")]);
    assert_eq!(test.store.resolve(&second.id().short()).unwrap().names, []);

    let test = TestStore::new();
    assert!(matches!(
        test.store.load(&tar("missing.json")[..], &Silent),
        Err(Error::Malformed { .. })
    ));
    test.assert_empty();
}

#[test]
fn import_makes_an_image_of_one_layer_whatever_the_packing() {
    let tar = layer("bin/sh", "#!");
    let options = ImportOptions {
        name: Some(name("tiny")),
        cmd: vec!["sh".into()],
        env: vec!["PATH=/bin".into()],
        working_dir: Some("/work".into()),
        user: Some("1000".into()),
        ..ImportOptions::default()
    };
    let mut ids = Vec::new();
    for bytes in [tar.clone(), gzip(&tar), zstd(&tar)] {
        let test = TestStore::new();
        let image = test.store.import(Trickle(&bytes), &options, &Silent).unwrap().image;
        assert_eq!(image.names, [name("tiny")]);
        assert_eq!(image.config.user.as_deref(), Some("1000"));
        assert_eq!(image.layers[0].digest, Digest::of(&tar));
        image.config.check_platform().unwrap();
        assert!(test.store.rootfs_path(&image.chain_id).exists());
        ids.push(image.id);
    }
    assert!(ids.windows(2).all(|pair| pair[0] == pair[1]), "{ids:?}");
}

#[test]
fn import_refuses_what_it_cannot_unpack_or_what_makes_no_sense() {
    let test = TestStore::new();
    let import = |bytes: &[u8], options: &ImportOptions| {
        let result = test.store.import(bytes, options, &Silent);
        let error = result.unwrap_err().to_string();
        test.assert_empty();
        error
    };
    let none = ImportOptions::default();
    assert_eq!(
        import(b"\xfd7zXZ\0...", &none),
        "root file system packed by xz is not supported: use gzip, zstd or no compression"
    );
    let bad = ImportOptions { env: vec!["A".into()], ..ImportOptions::default() };
    assert_eq!(import(b"", &bad), "invalid env: \"A\" is not NAME=value");
    let bad = ImportOptions { working_dir: Some("a".into()), ..ImportOptions::default() };
    assert_eq!(import(b"", &bad), "invalid workdir: \"a\" is no absolute path");
    import(b"this is no tar", &none);
}

#[test]
fn other_tools_read_the_store_and_their_archives_load() {
    let Some(skopeo) = program("skopeo") else { return };
    let plain = layers();
    let mut archive = DockerArchive::new("app:v1", &plain);
    archive.layers[0] = gzip(&plain[0]);
    let test = TestStore::new();
    test.store.load(&archive.bytes()[..], &Silent).unwrap();
    let source = format!("oci:{}:docker.io/library/app:v1", test.store.root().display());
    let inspected = run(Command::new(&skopeo).args(["inspect", &source]));
    assert!(inspected.contains("\"Architecture\": \"amd64\""), "{inspected}");

    for format in ["docker-archive", "oci-archive"] {
        let out = test.dir.path().join(format);
        let target = format!("{format}:{}:quay.io/copy:v1", out.display());
        run(Command::new(&skopeo).args(["copy", "--insecure-policy", &source, &target]));
        let other = TestStore::new();
        let loaded = other.store.load_path(&out, &Silent).unwrap().remove(0);
        assert_eq!(loaded.names, [name("quay.io/copy:v1")], "{format}");
        assert_eq!(loaded.image.chain_id, test.store.resolve("app:v1").unwrap().chain_id);
        assert_merged(&other, &loaded.image.id);
    }
}
