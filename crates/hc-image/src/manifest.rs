// SPDX-License-Identifier: Apache-2.0
//! Manifests and indexes: which blobs an image is made of.
//!
//! Pure: bytes in, checked data out. Reads OCI's documents, Docker's (schema 2) and the
//! `manifest.json` of a docker-archive; says why Docker's schema 1 is refused.
//!
//! # Invariants
//!
//! - Every digest in a parsed document is a [`Digest`], so no path can be made of anything else.
//! - Nothing here follows `urls` of a descriptor: content comes from where the manifest came from.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Digest, Error, Limits, Result};

pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";

/// What we ask a registry for, best first.
pub(crate) const ACCEPTED: [&str; 4] = [OCI_MANIFEST, DOCKER_MANIFEST, OCI_INDEX, DOCKER_LIST];

/// The annotation that names an image in an index; skopeo and others select by it.
pub(crate) const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// The annotation with the complete name that containerd and Docker add to their archives.
pub(crate) const CONTAINERD_NAME: &str = "io.containerd.image.name";

/// How a layer's tar is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Packing {
    /// Not at all.
    Plain,
    /// By gzip.
    Gzip,
    /// By Zstandard.
    Zstd,
}

impl Packing {
    /// The media type of a layer that is packed so.
    pub(crate) fn layer_type(self) -> String {
        match self {
            Packing::Plain => OCI_LAYER.to_owned(),
            Packing::Gzip => format!("{OCI_LAYER}+gzip"),
            Packing::Zstd => format!("{OCI_LAYER}+zstd"),
        }
    }
}

/// A blob as a manifest or an index points to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    pub(crate) media_type: String,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) platform: Option<Platform>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) annotations: Option<BTreeMap<String, String>>,
}

impl Descriptor {
    pub(crate) fn new(media_type: impl Into<String>, digest: Digest, size: u64) -> Self {
        Self { media_type: media_type.into(), digest, size, platform: None, annotations: None }
    }

    pub(crate) fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations.as_ref()?.get(key).map(String::as_str)
    }

    pub(crate) fn is_manifest(&self) -> bool {
        matches!(self.media_type.as_str(), OCI_MANIFEST | DOCKER_MANIFEST)
    }

    pub(crate) fn is_index(&self) -> bool {
        matches!(self.media_type.as_str(), OCI_INDEX | DOCKER_LIST)
    }
}

/// For which machine an entry of an index is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Platform {
    pub(crate) architecture: String,
    pub(crate) os: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) variant: Option<String>,
}

/// One image: its configuration and its layers, lowest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Manifest {
    pub(crate) schema_version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) media_type: Option<String>,
    pub(crate) config: Descriptor,
    pub(crate) layers: Vec<Descriptor>,
}

impl Manifest {
    pub(crate) fn new(config: Descriptor, layers: Vec<Descriptor>) -> Self {
        Self { schema_version: 2, media_type: Some(OCI_MANIFEST.to_owned()), config, layers }
    }

    pub(crate) fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("strings and numbers always serialise")
    }

    fn check(&self, limits: &Limits) -> Result<()> {
        let what = || "manifest".to_owned();
        if !matches!(self.config.media_type.as_str(), OCI_CONFIG | DOCKER_CONFIG) {
            return Err(Error::Unsupported {
                what: format!("an artifact of type {}", printable(&self.config.media_type)),
                reason: "it is no container image",
            });
        }
        if self.layers.len() > limits.layers {
            return Err(Error::too_large("number of layers", limits.layers as u64));
        }
        if self.config.size > limits.config_bytes {
            return Err(Error::too_large("image configuration", limits.config_bytes));
        }
        for layer in &self.layers {
            check_layer_type(&layer.media_type)?;
            if layer.size > limits.layer_bytes {
                return Err(Error::too_large(
                    format!("layer {:?}", layer.digest),
                    limits.layer_bytes,
                ));
            }
        }
        if self.media_type.as_deref().is_some_and(|t| !matches!(t, OCI_MANIFEST | DOCKER_MANIFEST))
        {
            return Err(Error::malformed(what(), "it calls itself something else"));
        }
        Ok(())
    }
}

/// Packing is read from the content, so the type only has to be that of a layer we know.
fn check_layer_type(media_type: &str) -> Result<()> {
    let docker = media_type.strip_prefix("application/vnd.docker.image.rootfs.");
    let oci = media_type.strip_prefix("application/vnd.oci.image.layer.");
    let reason = match (docker, oci) {
        (Some("diff.tar" | "diff.tar.gzip" | "diff.tar.zstd"), _)
        | (_, Some("v1.tar" | "v1.tar+gzip" | "v1.tar+zstd")) => return Ok(()),
        (Some("foreign.diff.tar.gzip" | "foreign.diff.tar"), _) => {
            "its content is elsewhere and may not be copied"
        }
        (_, Some(rest)) if rest.starts_with("nondistributable") => {
            "its content is elsewhere and may not be copied"
        }
        _ => "it is no tar, gzip or zstd layer",
    };
    Err(Error::Unsupported { what: format!("layer type {}", printable(media_type)), reason })
}

/// Several images under one name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Index {
    pub(crate) schema_version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) media_type: Option<String>,
    pub(crate) manifests: Vec<Descriptor>,
}

impl Index {
    pub(crate) fn new(manifests: Vec<Descriptor>) -> Self {
        Self { schema_version: 2, media_type: Some(OCI_INDEX.to_owned()), manifests }
    }

    /// The entry for the machine that pods are.
    pub(crate) fn pick(&self) -> Result<&Descriptor> {
        let images = || self.manifests.iter().filter(|entry| entry.is_manifest());
        let fits = |entry: &&Descriptor| {
            entry.platform.as_ref().is_some_and(|p| p.os == "linux" && p.architecture == "amd64")
        };
        // An index with a single image and no platform can only mean that one.
        images()
            .find(fits)
            .or_else(|| {
                let mut all = images();
                all.next().filter(|only| only.platform.is_none() && all.next().is_none())
            })
            .ok_or_else(|| Error::Unsupported {
                what: format!("an image for {}", self.platforms()),
                reason: "pods run linux/amd64",
            })
    }

    fn platforms(&self) -> String {
        let names: Vec<String> = self
            .manifests
            .iter()
            .filter_map(|entry| {
                let platform = entry.platform.as_ref()?;
                Some(printable(&format!("{}/{}", platform.os, platform.architecture)))
            })
            .take(8)
            .collect();
        if names.is_empty() { "no platform at all".to_owned() } else { names.join(", ") }
    }
}

/// A document that may be either.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Document {
    Manifest(Manifest),
    Index(Index),
}

impl Document {
    /// Reads and checks a manifest or an index, told apart by what is in it.
    pub(crate) fn parse(bytes: &[u8], limits: &Limits) -> Result<Document> {
        let what = || "manifest".to_owned();
        if bytes.len() as u64 > limits.manifest_bytes {
            return Err(Error::too_large(what(), limits.manifest_bytes));
        }
        let probe: Probe = from_json(bytes, what())?;
        if probe.schema_version == 1 {
            return Err(Error::Unsupported {
                what: "Docker's manifest schema 1".to_owned(),
                reason: "it has no digests of unpacked layers to check; push the image again with \
                         any tool of this decade",
            });
        }
        if probe.schema_version != 2 {
            return Err(Error::malformed(what(), "its schemaVersion is not 2"));
        }
        match (probe.manifests, probe.layers) {
            (Some(_), None) => {
                let index: Index = from_json(bytes, "index".to_owned())?;
                if index.manifests.len() > limits.images {
                    return Err(Error::too_large(
                        "number of images in index",
                        limits.images as u64,
                    ));
                }
                Ok(Document::Index(index))
            }
            (None, Some(_)) => {
                let manifest: Manifest = from_json(bytes, what())?;
                manifest.check(limits)?;
                Ok(Document::Manifest(manifest))
            }
            // One document that is both could be read differently by two programs.
            (Some(_), Some(_)) => Err(Error::malformed(what(), "it has both layers and manifests")),
            (None, None) => Err(Error::malformed(what(), "it has neither layers nor manifests")),
        }
    }
}

/// Just enough to tell documents apart.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Probe {
    schema_version: u32,
    #[serde(default)]
    manifests: Option<serde::de::IgnoredAny>,
    #[serde(default)]
    layers: Option<serde::de::IgnoredAny>,
}

/// One image of a docker-archive, as its `manifest.json` lists it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct DockerEntry {
    /// The path of the configuration within the archive.
    pub(crate) config: String,
    /// Names, or `null`.
    #[serde(default)]
    pub(crate) repo_tags: Option<Vec<String>>,
    /// The paths of the layers within the archive, lowest first.
    pub(crate) layers: Vec<String>,
}

impl DockerEntry {
    /// Reads the `manifest.json` of a docker-archive.
    pub(crate) fn parse_all(bytes: &[u8], limits: &Limits) -> Result<Vec<DockerEntry>> {
        let what = || "manifest.json".to_owned();
        if bytes.len() as u64 > limits.manifest_bytes {
            return Err(Error::too_large(what(), limits.manifest_bytes));
        }
        let entries: Vec<DockerEntry> = from_json(bytes, what())?;
        if entries.is_empty() {
            return Err(Error::malformed(what(), "it lists no image"));
        }
        if entries.len() > limits.images {
            return Err(Error::too_large(
                "number of images in manifest.json",
                limits.images as u64,
            ));
        }
        if entries.iter().any(|entry| entry.layers.len() > limits.layers) {
            return Err(Error::too_large("number of layers", limits.layers as u64));
        }
        Ok(entries)
    }
}

/// What a document that came from outside is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DocumentKind {
    /// One image.
    Manifest,
    /// Several images under one name.
    Index,
    /// The table of contents of a docker-archive.
    DockerArchive,
    /// What an image says about itself.
    Config,
}

/// Reads bytes as every kind of document that comes from outside, and says as what they pass.
///
/// This is the door through which fuzzing reaches the parsers; it does what they do.
pub fn recognise(bytes: &[u8], limits: &Limits) -> Option<DocumentKind> {
    match Document::parse(bytes, limits) {
        Ok(Document::Manifest(_)) => return Some(DocumentKind::Manifest),
        Ok(Document::Index(index)) => {
            // Choosing reads what parsing did not.
            let _ = index.pick();
            return Some(DocumentKind::Index);
        }
        Err(_) => {}
    }
    if DockerEntry::parse_all(bytes, limits).is_ok() {
        return Some(DocumentKind::DockerArchive);
    }
    crate::ImageConfig::parse(bytes, limits).is_ok().then_some(DocumentKind::Config)
}

fn from_json<'a, T: Deserialize<'a>>(bytes: &'a [u8], what: String) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|source| Error::Json { what, source })
}

/// Foreign text cut short and without control characters, fit for a message.
pub(crate) fn printable(text: &str) -> String {
    text.chars().take(200).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests;
