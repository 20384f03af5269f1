// SPDX-License-Identifier: Apache-2.0
//! The configuration of an image: what to run in it, and for which machine it was made.
//!
//! Docker's and OCI's documents differ only in fields that nobody here reads, so one type reads
//! both. It is lenient where engines are (`null` for an absent list), strict where we rely on it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{Digest, Error, Limits, Result};

/// The architecture that pods run, in Go's words, as images write it.
const ARCHITECTURE: &str = "amd64";
/// The system that pods run.
const OS: &str = "linux";

/// What an image says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageConfig {
    /// For which processor, in Go's words: `amd64`.
    pub architecture: String,
    /// For which system: `linux`.
    pub os: String,
    /// When it was made, as RFC 3339, if it says.
    pub created: Option<String>,
    /// Who made it.
    pub author: Option<String>,
    /// `user`, `uid`, `user:group` or `uid:gid`; names count within the image.
    pub user: Option<String>,
    /// `NAME=value` each.
    pub env: Vec<String>,
    /// What always runs.
    pub entrypoint: Vec<String>,
    /// Its arguments, or the command where there is no entry point.
    pub cmd: Vec<String>,
    /// Where it starts.
    pub working_dir: Option<String>,
    /// Ports that it listens on: `80/tcp`.
    pub exposed_ports: Vec<String>,
    /// Paths that should outlive the container.
    pub volumes: Vec<String>,
    /// Free-form notes.
    pub labels: BTreeMap<String, String>,
    /// The signal that asks it to stop.
    pub stop_signal: Option<String>,
    /// The health check, as the image has it.
    pub healthcheck: Option<Value>,
    /// The digest of each layer's tar, lowest first.
    pub diff_ids: Vec<Digest>,
}

/// The document as images carry it.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Document {
    #[serde(skip_serializing_if = "Option::is_none")]
    created: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    author: Option<String>,
    architecture: String,
    os: String,
    config: Option<Settings>,
    rootfs: Rootfs,
    #[serde(skip_deserializing, skip_serializing_if = "Vec::is_empty")]
    history: Vec<Value>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Settings {
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exposed_ports: Option<BTreeMap<String, Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    env: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    entrypoint: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cmd: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    volumes: Option<BTreeMap<String, Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    working_dir: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    labels: Option<BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stop_signal: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    healthcheck: Option<Value>,
}

#[derive(Serialize, Deserialize)]
#[serde(default)]
struct Rootfs {
    #[serde(rename = "type")]
    kind: String,
    diff_ids: Vec<Digest>,
}

impl Default for Rootfs {
    fn default() -> Self {
        Self { kind: "layers".to_owned(), diff_ids: Vec::new() }
    }
}

impl ImageConfig {
    /// Reads the document that an image carries.
    pub fn parse(bytes: &[u8], limits: &Limits) -> Result<ImageConfig> {
        let what = || "image configuration".to_owned();
        if bytes.len() as u64 > limits.config_bytes {
            return Err(Error::too_large(what(), limits.config_bytes));
        }
        let document: Document =
            serde_json::from_slice(bytes).map_err(|source| Error::Json { what: what(), source })?;
        if document.rootfs.kind != "layers" {
            return Err(Error::malformed(what(), "its root file system is not made of layers"));
        }
        if document.rootfs.diff_ids.len() > limits.layers {
            return Err(Error::too_large("number of layers", limits.layers as u64));
        }
        let Document { created, author, architecture, os, config, rootfs, .. } = document;
        let settings = config.unwrap_or_default();
        let filled = |text: Option<String>| text.filter(|text| !text.is_empty());
        let keys = |map: Option<BTreeMap<String, Value>>| {
            map.unwrap_or_default().into_keys().collect::<Vec<_>>()
        };
        Ok(ImageConfig {
            architecture,
            os,
            created,
            author,
            user: filled(settings.user),
            env: settings.env.unwrap_or_default(),
            entrypoint: settings.entrypoint.unwrap_or_default(),
            cmd: settings.cmd.unwrap_or_default(),
            working_dir: filled(settings.working_dir),
            exposed_ports: keys(settings.exposed_ports),
            volumes: keys(settings.volumes),
            labels: settings.labels.unwrap_or_default(),
            stop_signal: filled(settings.stop_signal),
            healthcheck: settings.healthcheck,
            diff_ids: rootfs.diff_ids,
        })
    }

    /// Refuses an image that was made for another machine than a pod is.
    pub fn check_platform(&self) -> Result<()> {
        if self.os == OS && self.architecture == ARCHITECTURE {
            return Ok(());
        }
        Err(Error::Unsupported {
            what: format!("an image for {}/{}", self.os, self.architecture),
            reason: "pods run linux/amd64",
        })
    }

    /// The document of an image that we make ourselves.
    pub(crate) fn to_json(&self) -> Vec<u8> {
        let list = |list: &Vec<String>| Some(list.clone()).filter(|list| !list.is_empty());
        let set = |keys: &Vec<String>| {
            let map = keys.iter().map(|key| (key.clone(), Value::Object(Map::new())));
            Some(map.collect::<BTreeMap<_, _>>()).filter(|map| !map.is_empty())
        };
        let document = Document {
            created: self.created.clone(),
            author: self.author.clone(),
            architecture: self.architecture.clone(),
            os: self.os.clone(),
            config: Some(Settings {
                user: self.user.clone(),
                exposed_ports: set(&self.exposed_ports),
                env: list(&self.env),
                entrypoint: list(&self.entrypoint),
                cmd: list(&self.cmd),
                volumes: set(&self.volumes),
                working_dir: self.working_dir.clone(),
                labels: Some(self.labels.clone()).filter(|labels| !labels.is_empty()),
                stop_signal: self.stop_signal.clone(),
                healthcheck: self.healthcheck.clone(),
            }),
            rootfs: Rootfs { diff_ids: self.diff_ids.clone(), ..Rootfs::default() },
            history: Vec::new(),
        };
        serde_json::to_vec(&document).expect("strings and maps always serialise")
    }

    /// An empty configuration for the machine that pods are.
    pub(crate) fn native() -> ImageConfig {
        ImageConfig { architecture: ARCHITECTURE.into(), os: OS.into(), ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_docker_writes_nulls_and_strangers_included() {
        let json = br#"{"architecture":"amd64","os":"linux","created":"2024-01-02T03:04:05Z",
            "container_config":{"Hostname":"x"},"config":{"Hostname":"","User":"","Env":null,
            "Cmd":["/bin/sh"],"ExposedPorts":{"80/tcp":{}},"Volumes":null,"Entrypoint":null,
            "Labels":{"a":"b"},"Healthcheck":{"Test":["NONE"]},"StopSignal":"SIGQUIT"},
            "rootfs":{"type":"layers","diff_ids":[]},"history":[{"created_by":"x"}]}"#;
        let config = ImageConfig::parse(json, &Limits::default()).unwrap();
        assert_eq!(config.cmd, ["/bin/sh"]);
        assert_eq!((config.user, config.env.len()), (None, 0));
        assert_eq!(config.exposed_ports, ["80/tcp"]);
        assert_eq!(config.labels["a"], "b");
        assert_eq!(config.healthcheck.unwrap()["Test"][0], "NONE");
    }

    #[test]
    fn our_own_document_reads_back_the_same() {
        let config = ImageConfig {
            user: Some("1:2".into()),
            env: vec!["A=b".into()],
            cmd: vec!["sh".into()],
            volumes: vec!["/data".into()],
            labels: [("k".to_owned(), "v".to_owned())].into(),
            diff_ids: vec![Digest::of(b"x")],
            ..ImageConfig::native()
        };
        assert_eq!(ImageConfig::parse(&config.to_json(), &Limits::default()).unwrap(), config);
    }

    #[test]
    fn other_machines_are_refused_by_name() {
        let config = ImageConfig { architecture: "arm64".into(), ..ImageConfig::native() };
        let error = config.check_platform().unwrap_err().to_string();
        assert_eq!(error, "an image for linux/arm64 is not supported: pods run linux/amd64");
        assert!(ImageConfig::native().check_platform().is_ok());
    }

    #[test]
    fn too_many_layers_and_other_roots_are_refused() {
        let limits = Limits { layers: 1, ..Limits::default() };
        let id = Digest::of(b"x");
        let two = format!(r#"{{"rootfs":{{"type":"layers","diff_ids":["{id}","{id}"]}}}}"#);
        assert!(matches!(
            ImageConfig::parse(two.as_bytes(), &limits),
            Err(Error::TooLarge { limit: 1, .. })
        ));
        let other = br#"{"rootfs":{"type":"disk","diff_ids":[]}}"#;
        assert!(matches!(ImageConfig::parse(other, &limits), Err(Error::Malformed { .. })));
    }
}
