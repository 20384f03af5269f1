// SPDX-License-Identifier: Apache-2.0
//! Snapshots: pods that were copied while they ran, for others to go on from.
//!
//! ```text
//! DATA/snapshots/NAME/    or DATA/pods/ID/origin/, of a container that goes on from a copy of its own
//!   guest                 memory and devices, see `hc_pod::saved`
//!   scratch.img           the disk behind the writable layer, of the same instant
//!   snapshot.json         Meta
//! ```
//!
//! # Invariants
//!
//! - A folder gets its name when everything is in it; what begins with a dot is from a daemon that
//!   was killed, and goes at the next start.
//! - A container goes on from a copy once, at its first start. Later its program begins anew, on the
//!   disk that it has by then: memory and disk of different moments never meet.

use std::path::{Path, PathBuf};

use axum::body::Body;
use axum::http::Request;
use hc_api::ErrorKind;
use hc_pod::config::Copied;
use hc_pod::saved::Guest;
use hc_pod::{Taken, scratch};
use hc_spec::Name;
use http_body_util::BodyExt as _;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::containers::Entry;
use crate::failure::{Failure, Result};
use crate::forward;
use crate::loaded::Loaded;
use crate::record::Record;

/// How many are held in memory.
const MAX_LOADED: usize = 2;
const GUEST: &str = "guest";
const SCRATCH: &str = "scratch.img";
const META: &str = "snapshot.json";
/// What folders begin with that are not whole.
const PARTIAL: &str = ".";

/// All snapshots.
pub(crate) struct Snapshots {
    dir: PathBuf,
    loaded: Loaded,
    /// Held while a guest is read, so that twenty clones that start at once read it once.
    reading: tokio::sync::Mutex<()>,
}

/// What a container goes on from at its first start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Origin {
    /// The snapshot of this name.
    Snapshot(String),
    /// A copy of its own.
    Own,
}

/// What is written beside a copy.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Meta {
    /// The container's name.
    pub(crate) container: String,
    /// What it was made of.
    pub(crate) record: Record,
    /// The driver it ran with.
    pub(crate) driver: String,
    /// What a pod has to know to go on.
    pub(crate) copied: Copied,
    /// When.
    pub(crate) created: Timestamp,
    /// How long it stood still, in microseconds.
    pub(crate) held_micros: u64,
}

impl Snapshots {
    pub(crate) fn new(data_dir: &Path) -> Snapshots {
        let dir = data_dir.join("snapshots");
        Snapshots { dir, loaded: Loaded::new(MAX_LOADED), reading: tokio::sync::Mutex::default() }
    }

    /// Removes what daemons before us left half-made.
    pub(crate) fn tidy(&self) {
        for (name, path) in self.folders() {
            if name.starts_with(PARTIAL) {
                let _ = std::fs::remove_dir_all(path); // Tried again at the next start.
            }
        }
    }

    /// Copies a running container under this name.
    pub(crate) async fn create(&self, entry: &Entry, name: &Name) -> Result<Meta> {
        let path = self.path(name.as_str());
        let exists = || {
            Failure::new(ErrorKind::Exists, format!("snapshot {name} exists"))
                .hint(format!("remove it with `hyper snapshot rm {name}`, or choose another name"))
        };
        if path.exists() {
            return Err(exists());
        }
        let partial = self.dir.join(format!("{PARTIAL}{name}-{}", entry.id.short()));
        let taken = take(entry, &partial).await;
        let named = match taken {
            // Refused where another has got the name meanwhile: that one is not empty.
            Ok(meta) => match std::fs::rename(&partial, &path) {
                Ok(()) => return Ok(meta),
                Err(_) if path.exists() => exists(),
                Err(error) => Failure::host("cannot name the snapshot", &error),
            },
            Err(failure) => failure,
        };
        let _ = std::fs::remove_dir_all(&partial); // Else at the next start.
        Err(named)
    }

    /// Every snapshot by its name, with the bytes of its files; newest first.
    pub(crate) fn list(&self) -> Vec<(String, Meta, u64)> {
        let whole = self.folders().into_iter().filter(|(name, _)| !name.starts_with(PARTIAL));
        let mut all: Vec<_> =
            whole.filter_map(|(name, path)| Some((name, meta(&path).ok()?, size(&path)))).collect();
        all.sort_by_key(|(_, meta, _)| std::cmp::Reverse(meta.created));
        all
    }

    /// Tells of one.
    pub(crate) fn find(&self, name: &str) -> Result<Meta> {
        // A name that is none cannot be a path either.
        let known = name.parse::<Name>().is_ok() && self.path(name).exists();
        if !known {
            return Err(Failure::not_found("snapshot", name));
        }
        meta(&self.path(name))
    }

    /// Removes one. Containers that went on from it are not concerned.
    pub(crate) fn remove(&self, name: &str) -> Result<()> {
        self.find(name)?;
        let path = self.path(name);
        self.loaded.forget(&path.to_string_lossy());
        // Out of sight first: half a snapshot must not be found.
        let gone = self.dir.join(format!("{PARTIAL}{name}-removed"));
        std::fs::rename(&path, &gone)
            .and_then(|()| std::fs::remove_dir_all(&gone))
            .map_err(|error| Failure::host("cannot remove the snapshot", &error))
    }

    /// What a container goes on from: puts its disk in place, and gives the guest.
    pub(crate) async fn go_on(&self, entry: &Entry, origin: &Origin) -> Result<(Guest, Meta)> {
        let path = match origin {
            Origin::Snapshot(name) => {
                self.find(name).map_err(|Failure(error)| {
                    Failure::new(ErrorKind::InvalidState, error.message).hint(
                        "the container goes on from it at its first start; remove the container",
                    )
                })?;
                self.path(name)
            }
            Origin::Own => own(entry),
        };
        let meta = meta(&path)?;
        let guest = self.load(&path).await?;
        let dir = entry.dir.clone();
        let copied = tokio::task::spawn_blocking(move || {
            dir.create()?;
            scratch::copy(&path.join(SCRATCH), &dir.scratch())
        });
        copied
            .await
            .map_err(std::io::Error::other)
            .flatten()
            .map_err(|error| Failure::host("cannot copy the snapshot's disk", &error))?;
        Ok((guest, meta))
    }

    async fn load(&self, path: &Path) -> Result<Guest> {
        let name = path.to_string_lossy();
        if let Some(guest) = self.loaded.get(&name) {
            return Ok(guest);
        }
        let _reading = self.reading.lock().await;
        if let Some(guest) = self.loaded.get(&name) {
            return Ok(guest);
        }
        let file = path.join(GUEST);
        let read = tokio::task::spawn_blocking(move || Guest::read(&file)).await;
        let (_, guest) = read
            .map_err(std::io::Error::other)
            .flatten()
            .map_err(|error| Failure::host("cannot read the snapshot", &error))?;
        let none = || Failure::new(ErrorKind::Exhausted, "no descriptor is free for a snapshot");
        self.loaded.keep(&name, guest).ok_or_else(none)
    }

    fn folders(&self) -> Vec<(String, PathBuf)> {
        let entries = std::fs::read_dir(&self.dir).into_iter().flatten().flatten();
        entries.map(|e| (e.file_name().to_string_lossy().into_owned(), e.path())).collect()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

/// Where the copy is that a container alone goes on from.
pub(crate) fn own(entry: &Entry) -> PathBuf {
    entry.dir.data().join("origin")
}

/// Copies a running container to the folder `dir`, which is made.
pub(crate) async fn take(entry: &Entry, dir: &Path) -> Result<Meta> {
    let host = |error: &std::io::Error| Failure::host("cannot write the snapshot", error);
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(host(&error)),
        _ => {}
    }
    hc_paths::make_private_dir(dir)
        .map_err(|error| Failure::host("cannot make the snapshot's folder", &error))?;
    let Taken { copied, held_micros } = ask(entry, dir).await?;
    let run = entry.view().run;
    let meta = Meta {
        container: entry.name.to_string(),
        record: entry.record.clone(),
        driver: run.map(|run| run.driver).unwrap_or_default(),
        copied,
        created: Timestamp::now(),
        held_micros,
    };
    let json = serde_json::to_vec(&meta).map_err(|error| host(&error.into()))?;
    std::fs::write(dir.join(META), json).map_err(|error| host(&error))?;
    Ok(meta)
}

/// Asks the pod to copy itself.
async fn ask(entry: &Entry, dir: &Path) -> Result<Taken> {
    let broke = |error: &dyn std::error::Error| Failure::host("cannot copy the pod", error);
    let path = |name| dir.join(name).to_string_lossy().into_owned();
    let query = [("guest", path(GUEST)), ("scratch", path(SCRATCH))];
    let query = serde_urlencoded::to_string(query).map_err(|error| broke(&error))?;
    let request = Request::post(format!("/copy?{query}")).body(Body::empty());
    let request = request.map_err(|error| broke(&error))?;
    let response = forward::forward(&entry.dir.socket(), "/copy", request).await?;
    let succeeded = response.status().is_success();
    let bytes = response.into_body().collect().await.map_err(|error| broke(&error))?.to_bytes();
    if !succeeded {
        return Err(Failure(serde_json::from_slice(&bytes).map_err(|error| broke(&error))?));
    }
    serde_json::from_slice(&bytes).map_err(|error| broke(&error))
}

fn meta(dir: &Path) -> Result<Meta> {
    let read = std::fs::read(dir.join(META)).and_then(|json| Ok(serde_json::from_slice(&json)?));
    read.map_err(|error| Failure::host("cannot read the snapshot", &error))
}

fn size(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.metadata().ok()).map(|file| file.blocks() * 512).sum()
}
