// SPDX-License-Identifier: Apache-2.0
//! Makes archives, good and bad, and looks into stores.

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

pub(crate) use hc_testkit::skip;

use hc_image::{Digest, Limits, Store};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A store in a directory of its own.
pub(crate) struct TestStore {
    pub(crate) store: Store,
    pub(crate) dir: TempDir,
}

impl TestStore {
    pub(crate) fn new() -> TestStore {
        TestStore::with(Limits::default())
    }

    pub(crate) fn with(limits: Limits) -> TestStore {
        let dir = TempDir::new().unwrap();
        let store = Store::open_with(dir.path().join("store"), limits).unwrap();
        TestStore { store, dir }
    }

    /// Every file of blobs, root file systems and temporary ones, by relative path.
    pub(crate) fn files(&self) -> Vec<String> {
        files_in(self.store.root())
    }

    pub(crate) fn assert_empty(&self) {
        assert_eq!(self.files(), Vec::<String>::new());
        assert_eq!(self.store.list().unwrap(), []);
    }
}

pub(crate) fn files_in(root: &Path) -> Vec<String> {
    let mut files = Vec::new();
    for dir in ["blobs/sha256", "rootfs", "tmp"] {
        for entry in fs::read_dir(root.join(dir)).unwrap() {
            files.push(format!("{dir}/{}", entry.unwrap().file_name().to_str().unwrap()));
        }
    }
    files.sort();
    files
}

/// A tar under construction.
#[derive(Default)]
pub(crate) struct Tar(Vec<u8>);

impl Tar {
    pub(crate) fn new() -> Tar {
        Tar::default()
    }

    pub(crate) fn file(self, path: &str, content: impl AsRef<[u8]>) -> Tar {
        self.entry(path, tar::EntryType::Regular, content.as_ref(), None)
    }

    pub(crate) fn dir(self, path: &str) -> Tar {
        self.entry(path, tar::EntryType::Directory, b"", None)
    }

    pub(crate) fn symlink(self, path: &str, target: &str) -> Tar {
        self.entry(path, tar::EntryType::Symlink, b"", Some(target))
    }

    pub(crate) fn hard_link(self, path: &str, target: &str) -> Tar {
        self.entry(path, tar::EntryType::Link, b"", Some(target))
    }

    /// An entry whose names go into the header as they are, which a polite builder would refuse.
    pub(crate) fn entry(
        mut self,
        path: &str,
        kind: tar::EntryType,
        content: &[u8],
        target: Option<&str>,
    ) -> Tar {
        let mut header = tar::Header::new_gnu();
        let gnu = header.as_gnu_mut().unwrap();
        gnu.name[..path.len()].copy_from_slice(path.as_bytes());
        if let Some(target) = target {
            gnu.linkname[..target.len()].copy_from_slice(target.as_bytes());
        }
        header.set_entry_type(kind);
        header.set_mode(0o755);
        header.set_size(content.len() as u64);
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    /// The archive with its end mark.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }

    /// The archive as far as it goes.
    pub(crate) fn cut(self) -> Vec<u8> {
        self.0
    }
}

/// A small layer that holds one file.
pub(crate) fn layer(path: &str, content: &str) -> Vec<u8> {
    Tar::new().file(path, content).finish()
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub(crate) fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 3).unwrap()
}

/// The configuration of an image with these plain layers.
pub(crate) fn config(layers: &[Vec<u8>]) -> Value {
    let diff_ids: Vec<Digest> = layers.iter().map(|layer| Digest::of(layer)).collect();
    json!({
        "architecture": "amd64", "os": "linux", "created": "2024-05-06T07:08:09Z",
        "config": {"Cmd": ["/bin/sh"], "Env": ["A=b"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    })
}

/// A docker-archive with one image.
pub(crate) struct DockerArchive {
    pub(crate) config: Value,
    pub(crate) layers: Vec<Vec<u8>>,
    pub(crate) tags: Vec<String>,
}

impl DockerArchive {
    pub(crate) fn new(tag: &str, layers: &[Vec<u8>]) -> DockerArchive {
        let config = config(layers);
        DockerArchive { config, layers: layers.to_vec(), tags: vec![tag.to_owned()] }
    }

    pub(crate) fn manifest(&self) -> Vec<u8> {
        let layers: Vec<String> =
            (0..self.layers.len()).map(|i| format!("l{i}/layer.tar")).collect();
        let manifest = json!([{"Config": "config.json", "RepoTags": self.tags, "Layers": layers}]);
        serde_json::to_vec(&manifest).unwrap()
    }

    pub(crate) fn config(&self) -> Vec<u8> {
        serde_json::to_vec(&self.config).unwrap()
    }

    /// Layers first, as `docker save` has them, so that only the end tells what they are.
    pub(crate) fn parts(&self) -> Tar {
        let mut tar = Tar::new();
        for (i, layer) in self.layers.iter().enumerate() {
            tar = tar
                .dir(&format!("l{i}/"))
                .file(&format!("l{i}/VERSION"), "1.0")
                .file(&format!("l{i}/layer.tar"), layer);
        }
        tar.file("config.json", self.config()).file("manifest.json", self.manifest())
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.parts().finish()
    }

    pub(crate) fn id(&self) -> Digest {
        Digest::of(&self.config())
    }
}

/// An image as blobs, the way OCI layouts and registries have it.
pub(crate) struct OciImage {
    pub(crate) blobs: Vec<Vec<u8>>,
    pub(crate) manifest: Vec<u8>,
    pub(crate) id: Digest,
}

pub(crate) const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";

impl OciImage {
    /// An image whose layers are stored as the second of each pair.
    pub(crate) fn new(plain: &[Vec<u8>], stored: &[Vec<u8>]) -> OciImage {
        OciImage::with_config(&config(plain), stored)
    }

    pub(crate) fn with_config(config: &Value, stored: &[Vec<u8>]) -> OciImage {
        let config = serde_json::to_vec(config).unwrap();
        let layers: Vec<Value> = stored
            .iter()
            .map(|layer| descriptor("application/vnd.oci.image.layer.v1.tar+gzip", layer))
            .collect();
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST_TYPE,
            "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
            "layers": layers,
        });
        let manifest = serde_json::to_vec(&manifest).unwrap();
        let id = Digest::of(&config);
        let mut blobs = stored.to_vec();
        blobs.push(config);
        OciImage { blobs, manifest, id }
    }

    pub(crate) fn descriptor(&self) -> Value {
        descriptor(MANIFEST_TYPE, &self.manifest)
    }
}

pub(crate) fn descriptor(media_type: &str, blob: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": Digest::of(blob), "size": blob.len()})
}

pub(crate) fn index(manifests: &[Value]) -> Vec<u8> {
    let index = json!({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": manifests});
    serde_json::to_vec(&index).unwrap()
}

/// An OCI archive of these blobs, `index.json` first.
pub(crate) fn oci_archive(index: &[u8], blobs: &[&[u8]]) -> Tar {
    let mut tar = Tar::new()
        .file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)
        .file("index.json", index)
        .dir("blobs/")
        .dir("blobs/sha256/");
    for blob in blobs {
        tar = tar.file(&format!("blobs/sha256/{}", Digest::of(blob).hex()), blob);
    }
    tar
}

/// Gives a few bytes at a time, as a slow pipe does.
pub(crate) struct Trickle<'a>(pub(crate) &'a [u8]);

impl Read for Trickle<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = buf.len().min(7);
        self.0.read(&mut buf[..n])
    }
}

/// How often a condition is looked at that something else makes true.
pub(crate) const POLL: Duration = Duration::from_millis(2);

/// The program, if it is installed; else says that the test is skipped.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .chain([PathBuf::from("/usr/sbin"), PathBuf::from("/sbin")])
        .map(|dir| dir.join(name))
        .find(|path| path.is_file());
    if found.is_none() {
        skip(&format!("{name} is not installed"));
    }
    found
}

/// Runs a command that must succeed; gives what it printed.
pub(crate) fn run(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

/// Lets an independent reader check the root file system and unpack it.
pub(crate) fn extract(rootfs: &Path, to: &Path) -> bool {
    let Some(fsck) = program("fsck.erofs") else { return false };
    let extract = format!("--extract={}", to.display());
    run(Command::new(fsck).arg(extract).arg(rootfs));
    true
}
