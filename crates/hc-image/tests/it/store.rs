// SPDX-License-Identifier: Apache-2.0
//! Names, IDs, removal: what a person does with images that are there.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use hc_image::{Error, Image, ImportOptions, Kind, Reference, RemoveOptions, Silent, Store};

use crate::support::*;

fn name(text: &str) -> Reference {
    text.parse().unwrap()
}

fn import(test: &TestStore, tag: &str, content: &str) -> Image {
    let options = ImportOptions { name: Some(name(tag)), ..ImportOptions::default() };
    test.store.import(&layer("file", content)[..], &options, &Silent).unwrap().image
}

fn remove(test: &TestStore, image: &str) -> Result<hc_image::Removed, Error> {
    test.store.remove(image, &RemoveOptions::default())
}

#[test]
fn images_are_found_by_name_id_and_start_of_id() {
    let test = TestStore::new();
    let image = import(&test, "app:v1", "x");
    for text in ["app:v1", "docker.io/library/app:v1", &image.id.to_string(), &image.id.hex()] {
        assert_eq!(test.store.resolve(text).unwrap(), image, "{text}");
    }
    assert_eq!(test.store.resolve(&image.id.hex()[..5]).unwrap(), image);
    for text in ["app", "app:v2", "", "sha256:", "UPPER", "zz", &"f".repeat(64)] {
        let error = test.store.resolve(text).unwrap_err();
        assert_eq!(error.kind(), Kind::NotFound, "{text}: {error}");
    }
}

#[test]
fn a_start_that_fits_several_ids_is_refused_but_a_name_goes_first() {
    let test = TestStore::new();
    // Of 17 images two share their first digit.
    let images: Vec<Image> =
        (0..17).map(|i| import(&test, &format!("i{i}"), &format!("{i}"))).collect();
    let mut seen = HashSet::new();
    let shared =
        images.iter().map(|i| i.id.hex()[..1].to_owned()).find(|d| !seen.insert(d.clone()));
    let digit = shared.unwrap();
    match test.store.resolve(&digit) {
        Err(Error::Ambiguous { count, .. }) => assert!(count > 1),
        other => panic!("{other:?}"),
    }
    test.store.tag("i3", &name(&digit)).unwrap();
    assert_eq!(test.store.resolve(&digit).unwrap().id, images[3].id);
}

#[test]
fn a_name_that_moves_leaves_a_nameless_image() {
    let test = TestStore::new();
    let old = import(&test, "app", "old");
    let new = import(&test, "app", "new");
    assert_eq!(test.store.resolve("app").unwrap().id, new.id);
    assert_eq!(test.store.resolve(&old.id.hex()).unwrap().names, []);
    assert_eq!(test.store.list().unwrap().len(), 2);
    let removed = remove(&test, &old.id.hex()).unwrap();
    assert_eq!(removed.deleted, Some(old.id));
    assert_eq!(test.store.list().unwrap().len(), 1);
}

#[test]
fn the_last_name_takes_the_image_with_it() {
    let test = TestStore::new();
    let image = import(&test, "app", "x");
    test.store.tag("app", &name("other:v2")).unwrap();
    assert_eq!(test.store.resolve("app").unwrap().names, [name("app"), name("other:v2")]);

    let error = remove(&test, &image.id.short()).unwrap_err();
    assert!(matches!(error, Error::ManyNames { count: 2, .. }), "{error}");
    let removed = remove(&test, "app").unwrap();
    assert_eq!((removed.untagged, removed.deleted), (vec![name("app")], None));
    let removed = remove(&test, "other:v2").unwrap();
    assert_eq!((removed.untagged, removed.deleted), (vec![name("other:v2")], Some(image.id)));
    test.assert_empty();
    assert_eq!(remove(&test, "app").unwrap_err().kind(), Kind::NotFound);
}

#[test]
fn by_id_and_force_every_name_goes() {
    let test = TestStore::new();
    let image = import(&test, "app", "x");
    test.store.tag("app", &name("other")).unwrap();
    let options = RemoveOptions { force: true, ..RemoveOptions::default() };
    let removed = test.store.remove(&image.id.hex(), &options).unwrap();
    assert_eq!(removed.untagged.len(), 2);
    test.assert_empty();
}

#[test]
fn an_image_in_use_stays_unless_forced_and_an_open_rootfs_stays_readable() {
    let test = TestStore::new();
    let image = import(&test, "app", "x");
    let path = test.store.rootfs_path(&image.chain_id);
    let mut options = RemoveOptions { force: false, in_use: HashSet::from([image.chain_id]) };
    let error = test.store.remove("app", &options).unwrap_err();
    assert_eq!(error.to_string(), "image app is used by a pod");
    assert_eq!(error.kind(), Kind::InvalidState);
    assert!(path.exists());

    let open = fs::File::open(&path).unwrap();
    let len = open.metadata().unwrap().len();
    options.force = true;
    test.store.remove("app", &options).unwrap();
    test.assert_empty();
    assert_eq!(std::io::copy(&mut &open, &mut std::io::sink()).unwrap(), len);
}

#[test]
fn layers_that_another_image_needs_stay() {
    let base = layer("base", "base");
    let (a, b) = (
        DockerArchive::new("a", &[base.clone(), layer("a", "a")]),
        DockerArchive::new("b", &[base.clone(), layer("b", "b")]),
    );
    let test = TestStore::new();
    test.store.load(&a.bytes()[..], &Silent).unwrap();
    test.store.load(&b.bytes()[..], &Silent).unwrap();
    assert_eq!(test.files().len(), 2 * 3 + 1 + 2);
    remove(&test, "a").unwrap();
    assert_eq!(test.files().len(), 5);
    let image = test.store.resolve("b").unwrap();
    fs::remove_file(test.store.rootfs_path(&image.chain_id)).unwrap();
    test.store.ensure_rootfs(&image, &Silent).unwrap();
}

#[test]
fn a_missing_rootfs_is_rebuilt_the_same_and_read_only() {
    let test = TestStore::new();
    let image = import(&test, "app", "x");
    let path = test.store.rootfs_path(&image.chain_id);
    let before = fs::read(&path).unwrap();
    fs::remove_file(&path).unwrap();
    assert_eq!(test.store.list().unwrap()[0].rootfs_size, None);
    assert_eq!(test.store.ensure_rootfs(&image, &Silent).unwrap(), path);
    assert_eq!(fs::read(&path).unwrap(), before);
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o444);
    assert!(test.store.list().unwrap()[0].rootfs_size.is_some());
}

#[test]
fn a_layer_that_rotted_is_found_before_it_is_used() {
    let test = TestStore::new();
    let image = import(&test, "app", "x");
    let blob = test.store.root().join("blobs/sha256").join(image.layers[0].digest.hex());
    fs::remove_file(test.store.rootfs_path(&image.chain_id)).unwrap();
    let mut bytes = fs::read(&blob).unwrap();
    bytes[512] ^= 1;
    fs::remove_file(&blob).unwrap();
    fs::write(&blob, bytes).unwrap();
    let error = test.store.ensure_rootfs(&image, &Silent).unwrap_err();
    assert!(matches!(error, Error::WrongDigest { .. }), "{error}");
    assert!(!test.store.rootfs_path(&image.chain_id).exists());
}

#[test]
fn a_damaged_image_hides_no_other_and_can_be_removed() {
    let test = TestStore::new();
    import(&test, "good", "good");
    let bad = import(&test, "bad", "bad");
    fs::remove_file(test.store.root().join("blobs/sha256").join(bad.id.hex())).unwrap();
    let names: Vec<_> = test.store.list().unwrap().into_iter().flat_map(|i| i.names).collect();
    assert_eq!(names, [name("good")]);
    assert!(matches!(test.store.resolve("bad"), Err(Error::Malformed { .. })));
    remove(&test, "bad").unwrap();
    assert_eq!(test.files().len(), 4, "{:?}", test.files());
}

#[test]
fn usage_counts_what_is_there() {
    let test = TestStore::new();
    assert_eq!(test.store.usage().unwrap().blob_bytes, 0);
    let image = import(&test, "app", "x");
    let usage = test.store.usage().unwrap();
    assert_eq!((usage.images, usage.blob_bytes), (1, image.size));
    assert!(usage.rootfs_bytes > 0);
}

#[test]
fn a_store_opens_again_with_all_it_had() {
    let test = TestStore::new();
    let image = import(&test, "app", "x");
    let again = Store::open(test.store.root()).unwrap();
    assert_eq!(again.resolve("app").unwrap(), image);
    let layout = fs::read_to_string(test.store.root().join("oci-layout")).unwrap();
    assert_eq!(layout, r#"{"imageLayoutVersion":"1.0.0"}"#);
}
