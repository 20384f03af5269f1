// SPDX-License-Identifier: Apache-2.0
//! Documents that must parse, documents that must not, and that none of them panics.

use proptest::prelude::*;

use super::*;

const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn parse(json: &str) -> Result<Document> {
    Document::parse(json.as_bytes(), &Limits::default())
}

fn manifest(config_type: &str, layer_type: &str) -> String {
    format!(
        r#"{{"schemaVersion":2,"config":{{"mediaType":"{config_type}","digest":"{DIGEST}","size":2}},
        "layers":[{{"mediaType":"{layer_type}","digest":"{DIGEST}","size":3,"urls":["http://x"]}}]}}"#
    )
}

#[test]
fn oci_and_docker_manifests_parse() {
    for (config, layer) in [
        (OCI_CONFIG, "application/vnd.oci.image.layer.v1.tar"),
        (OCI_CONFIG, "application/vnd.oci.image.layer.v1.tar+zstd"),
        (DOCKER_CONFIG, "application/vnd.docker.image.rootfs.diff.tar.gzip"),
    ] {
        let Ok(Document::Manifest(parsed)) = parse(&manifest(config, layer)) else {
            panic!("{config} {layer}")
        };
        assert_eq!(parsed.layers[0].size, 3);
    }
}

#[test]
fn what_is_no_image_is_refused_with_the_reason() {
    for (json, reason) in [
        (r#"{"schemaVersion":1,"fsLayers":[]}"#.to_owned(), "schema 1"),
        (r#"{"schemaVersion":3,"layers":[]}"#.to_owned(), "schemaVersion is not 2"),
        (r#"{"schemaVersion":2}"#.to_owned(), "neither layers nor manifests"),
        (r#"{"schemaVersion":2,"layers":[],"manifests":[]}"#.to_owned(), "both"),
        (manifest("application/vnd.cncf.helm.config.v1+json", "x"), "no container image"),
        (manifest(OCI_CONFIG, "application/pdf"), "no tar, gzip or zstd"),
        (
            manifest(OCI_CONFIG, "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"),
            "its content is elsewhere",
        ),
        (manifest(OCI_CONFIG, "x").replace("sha256", "sha512"), "manifest is not usable"),
        (manifest(OCI_CONFIG, "x").replace("\"size\":2", "\"size\":-2"), "manifest is not usable"),
        ("[]".to_owned(), "manifest is not usable"),
    ] {
        let error = parse(&json).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    }
}

#[test]
fn limits_hold() {
    let limits = Limits { manifest_bytes: 10, ..Limits::default() };
    let big = manifest(OCI_CONFIG, "application/vnd.oci.image.layer.v1.tar");
    assert!(matches!(Document::parse(big.as_bytes(), &limits), Err(Error::TooLarge { .. })));
    assert!(matches!(DockerEntry::parse_all(big.as_bytes(), &limits), Err(Error::TooLarge { .. })));
    let limits = Limits { layers: 0, ..Limits::default() };
    assert!(matches!(Document::parse(big.as_bytes(), &limits), Err(Error::TooLarge { .. })));
    let limits = Limits { layer_bytes: 2, ..Limits::default() };
    assert!(matches!(Document::parse(big.as_bytes(), &limits), Err(Error::TooLarge { .. })));
    let limits = Limits { images: 0, ..Limits::default() };
    let entries = br#"[{"Config":"c","RepoTags":null,"Layers":[]}]"#;
    assert!(matches!(DockerEntry::parse_all(entries, &limits), Err(Error::TooLarge { .. })));
    assert_eq!(DockerEntry::parse_all(entries, &Limits::default()).unwrap()[0].repo_tags, None);
}

fn entry(os: &str, architecture: &str) -> Descriptor {
    let platform = Platform { architecture: architecture.into(), os: os.into(), variant: None };
    let digest = Digest::of(format!("{os}/{architecture}").as_bytes());
    Descriptor { platform: Some(platform), ..Descriptor::new(OCI_MANIFEST, digest, 1) }
}

#[test]
fn an_index_gives_our_platform_or_names_those_it_has() {
    let index = Index::new(vec![entry("linux", "arm64"), entry("linux", "amd64")]);
    assert_eq!(index.pick().unwrap(), &entry("linux", "amd64"));
    let index = Index::new(vec![entry("linux", "arm64"), entry("unknown", "unknown")]);
    let error = index.pick().unwrap_err().to_string();
    assert!(error.contains("linux/arm64, unknown/unknown"), "{error}");
    let bare = Descriptor::new(OCI_MANIFEST, Digest::of(b"x"), 1);
    assert_eq!(Index::new(vec![bare.clone()]).pick().unwrap(), &bare);
    assert!(Index::new(vec![bare.clone(), bare]).pick().is_err());
    assert!(Index::new(vec![]).pick().is_err());
}

#[test]
fn our_own_manifest_reads_back_the_same() {
    let layer = Descriptor::new(Packing::Zstd.layer_type(), Digest::of(b"l"), 7);
    let ours = Manifest::new(Descriptor::new(OCI_CONFIG, Digest::of(b"c"), 5), vec![layer]);
    let parsed = Document::parse(&ours.to_json(), &Limits::default()).unwrap();
    assert_eq!(parsed, Document::Manifest(ours));
}

#[test]
fn documents_are_recognised_by_what_is_in_them() {
    let limits = Limits::default();
    let manifest = manifest(OCI_CONFIG, "application/vnd.oci.image.layer.v1.tar");
    for (json, kind) in [
        (manifest.as_str(), Some(DocumentKind::Manifest)),
        (r#"{"schemaVersion":2,"manifests":[]}"#, Some(DocumentKind::Index)),
        (r#"[{"Config":"c","Layers":[]}]"#, Some(DocumentKind::DockerArchive)),
        (r#"{"os":"linux"}"#, Some(DocumentKind::Config)),
        ("17", None),
    ] {
        assert_eq!(recognise(json.as_bytes(), &limits), kind, "{json}");
    }
}

#[test]
fn foreign_text_cannot_drive_a_terminal() {
    assert_eq!(printable("a\x1b[2Jb\n"), "a\u{fffd}[2Jb\u{fffd}");
    assert_eq!(printable(&"x".repeat(1000)).len(), 200);
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Document::parse(&bytes, &Limits::default());
        let _ = DockerEntry::parse_all(&bytes, &Limits::default());
    }

    #[test]
    fn a_broken_manifest_never_panics(at in 0usize..300, byte in any::<u8>()) {
        let mut json = manifest(OCI_CONFIG, "application/vnd.oci.image.layer.v1.tar").into_bytes();
        let at = at % json.len();
        json[at] = byte;
        if let Ok(Document::Manifest(parsed)) = Document::parse(&json, &Limits::default()) {
            prop_assert!(parsed.layers.len() <= Limits::default().layers);
        }
    }
}
