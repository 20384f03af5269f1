// SPDX-License-Identifier: Apache-2.0
//! Templates: booted guests with nothing of any user in them, which pods go on from.
//!
//! ```text
//! DATA/templates/KEY.template     one file each, see `hc_pod::saved`
//! ```
//!
//! `KEY` is a hash of all that a template depends on: kernel and init by their content, hypervisor,
//! processor, and the VM's shape. So a template is never out of date; one that nothing asks for any
//! more is removed when there are many.
//!
//! # Invariants
//!
//! - A template is kept only once a pod of ours has run in a VM of it.
//! - A file is used only if its checksum fits, and its label says the key that it is named by.
//! - What hypervisors are given is a copy in memory that nobody can change, so a file may be damaged
//!   or removed at any moment.
//! - There is no error for a pod here: without a template it boots its kernel.

mod key;
mod rehearsal;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use hc_api::ErrorKind;
use hc_pod::job::{Job, Rehearsed, Shape};
use hc_pod::saved::{self, Guest};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

pub(crate) use self::key::Key;
use self::key::Keys;
use crate::failure::{Failure, Result};
use crate::loaded::Loaded;
use crate::process::Processes;

/// How many files are kept. Each has some 40 MB.
const MAX_FILES: usize = 8;
/// How many templates are held in memory.
const MAX_LOADED: usize = 3;
/// How long a template that could not be made is not tried again: something may have ended its VM,
/// and the next attempt costs a boot in the background.
const RETRY_AFTER: Duration = Duration::from_secs(10);
const EXTENSION: &str = "template";

/// All templates of this daemon.
pub(crate) struct Templates {
    dir: PathBuf,
    processes: Processes,
    /// The guest's init, which is also the program that is rehearsed: it ends at once where it is
    /// none.
    init: PathBuf,
    /// Where the rehearsal's root file system is kept.
    rehearsal: PathBuf,
    /// Whether it was made by this daemon; held while it is.
    is_rehearsal_made: tokio::sync::Mutex<bool>,
    keys: Keys,
    loaded: Loaded,
    state: Mutex<State>,
    /// Held while a file is read, so that twenty pods that start at once read it once.
    reading: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    making: HashSet<Key>,
    failed: HashMap<Key, Instant>,
}

/// What is written in a template's file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Label {
    /// The key.
    pub(crate) key: String,
    /// What pods it is for.
    pub(crate) shape: Shape,
    /// When it was made.
    pub(crate) created: Timestamp,
}

/// A template's file.
#[derive(Debug)]
pub(crate) struct Listed {
    pub(crate) label: Label,
    pub(crate) size: u64,
}

impl Templates {
    /// `init` and `rehearsal` are the program that is rehearsed, and where its root file system goes.
    pub(crate) fn new(
        data_dir: &Path,
        processes: Processes,
        (init, rehearsal): (PathBuf, PathBuf),
    ) -> Templates {
        Templates {
            dir: data_dir.join("templates"),
            processes,
            init,
            rehearsal,
            is_rehearsal_made: tokio::sync::Mutex::new(false),
            keys: Keys::default(),
            loaded: Loaded::new(MAX_LOADED),
            state: Mutex::default(),
            reading: tokio::sync::Mutex::default(),
        }
    }

    /// Removes what daemons before us left half-made, where files cannot be made without a name.
    pub(crate) fn tidy(&self) {
        let entries = std::fs::read_dir(&self.dir).into_iter().flatten().flatten();
        for path in entries.map(|entry| entry.path()) {
            if path.extension().is_some_and(|extension| extension != EXTENSION) {
                let _ = std::fs::remove_file(path); // Tried again at the next start.
            }
        }
    }

    /// The key of the template for pods of this shape, whose hypervisor is `program`.
    pub(crate) async fn key(self: &Arc<Self>, shape: &Shape, program: &Path) -> Result<Key> {
        let (templates, shape, program) = (Arc::clone(self), shape.clone(), program.to_owned());
        tokio::task::spawn_blocking(move || templates.keys.of(&shape, &program))
            .await
            .map_err(|error| Failure::host("cannot look at the template's parts", &error))?
            .map_err(|error| Failure::host("cannot look at the template's parts", &error))
    }

    /// The template, from memory or its file; `None` if there is none that can be used.
    pub(crate) async fn get(self: &Arc<Self>, key: &Key) -> Option<Guest> {
        if let Some(guest) = self.loaded.get(key.as_str()) {
            return Some(guest);
        }
        let _reading = self.reading.lock().await;
        if let Some(guest) = self.loaded.get(key.as_str()) {
            return Some(guest);
        }
        let (path, own) = (self.path(key), key.clone());
        let read = tokio::task::spawn_blocking(move || read(&path, &own)).await.ok()?;
        match read {
            Ok(Some(guest)) => self.loaded.keep(key.as_str(), guest),
            Ok(None) => None,
            Err(error) => {
                tracing::warn!(key = key.short(), %error, "template cannot be used");
                // What is not the file's fault may be over the next time.
                if is_damage(&error) {
                    self.remove(key);
                }
                None
            }
        }
    }

    /// The template, made if it is missing; `None` if it is being made, or could not be lately.
    pub(crate) async fn get_or_make(self: &Arc<Self>, key: &Key, shape: &Shape) -> Option<Guest> {
        {
            let mut state = self.state();
            let lately = |at: &Instant| at.elapsed() < RETRY_AFTER;
            if state.failed.get(key).is_some_and(lately) || !state.making.insert(key.clone()) {
                return None;
            }
        }
        let mut guest = self.get(key).await;
        if guest.is_none() {
            match self.make(key, shape).await {
                Ok(made) => guest = made,
                Err(Failure(error)) => {
                    let reason = error.message;
                    tracing::warn!(key = key.short(), reason, "template cannot be made");
                    self.state().failed.insert(key.clone(), Instant::now());
                }
            }
        }
        self.state().making.remove(key);
        guest
    }

    /// Boots a VM of this shape and keeps its guest, in memory and in a file.
    pub(crate) async fn make(self: &Arc<Self>, key: &Key, shape: &Shape) -> Result<Option<Guest>> {
        let cannot = |error: &dyn std::fmt::Display| {
            Failure::new(ErrorKind::Internal, format!("cannot make a template: {error}"))
        };
        let guest = Guest::empty().map_err(|error| cannot(&error))?;
        let process = self.processes.start()?;
        let shared = guest.share().map_err(|error| cannot(&error))?;
        let rehearsed = self.rehearsed(shape).await?;
        process.give(&Job::Template(rehearsed, shared)).map_err(|error| cannot(&error))?;
        process.outcome().await.map_err(|reason| cannot(&reason))?;
        let guest = guest.seal().map_err(|error| cannot(&error))?;
        self.try_out(shape, guest.share().map_err(|error| cannot(&error))?)
            .await
            .map_err(|reason| cannot(&format!("no pod runs in a VM of it: {reason}")))?;
        let label = Label { key: key.to_string(), shape: shape.clone(), created: Timestamp::now() };
        let (dir, path) = (self.dir.clone(), self.path(key));
        let written = tokio::task::spawn_blocking(move || {
            hc_paths::make_private_dir(&dir).map_err(std::io::Error::other)?;
            guest.write(&serde_json::to_vec(&label)?, &path)?;
            Ok::<_, std::io::Error>(guest)
        });
        let guest = written.await.map_err(|error| cannot(&error))?.map_err(|e| cannot(&e))?;
        let shared = self.loaded.keep(key.as_str(), guest);
        self.remove_surplus();
        Ok(shared)
    }

    /// Runs a pod of ours in a VM of a template: whatever went wrong with it shows there.
    async fn try_out(&self, shape: &Shape, guest: Guest) -> Result<(), String> {
        let failed = |failure: Failure| failure.0.message;
        let rehearsed = self.rehearsed(shape).await.map_err(failed)?;
        let process = self.processes.start().map_err(failed)?;
        process.give(&Job::Warm(rehearsed, guest)).map_err(|error| error.to_string())?;
        process.outcome().await
    }

    /// A VM of this shape in which a pod can be rehearsed.
    pub(crate) async fn rehearsed(&self, shape: &Shape) -> Result<Rehearsed> {
        let mut is_made = self.is_rehearsal_made.lock().await;
        // It is in the cache, which anybody may clear.
        if !*is_made || !self.rehearsal.exists() {
            let (init, out) = (self.init.clone(), self.rehearsal.clone());
            let made = tokio::task::spawn_blocking(move || rehearsal::make(&init, &out)).await;
            made.map_err(std::io::Error::other)
                .flatten()
                .map_err(|error| Failure::host("cannot make the rehearsal's disk", &error))?;
            *is_made = true;
        }
        Ok(Rehearsed { shape: shape.clone(), rehearsal: self.rehearsal.clone() })
    }

    /// Every template that has a file, newest first.
    pub(crate) fn list(&self) -> Vec<Listed> {
        let mut all: Vec<Listed> =
            self.files().into_iter().filter_map(|(path, _)| listed(&path)).collect();
        all.sort_by_key(|listed| std::cmp::Reverse(listed.label.created));
        all
    }

    /// Removes a template's file, and forgets it. No error if there is none.
    pub(crate) fn remove(&self, key: &Key) {
        self.loaded.forget(key.as_str());
        if let Err(error) = std::fs::remove_file(self.path(key))
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(key = key.short(), %error, "template cannot be removed");
        }
    }

    /// Removes files that were not used for the longest time.
    fn remove_surplus(&self) {
        let mut files = self.files();
        files.sort_by_key(|(_, used)| std::cmp::Reverse(*used));
        for (path, _) in files.into_iter().skip(MAX_FILES) {
            // Whoever reads it has it open.
            let _ = std::fs::remove_file(path);
        }
    }

    /// Each file, and when it was last used.
    fn files(&self) -> Vec<(PathBuf, SystemTime)> {
        let entries = std::fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let file = |entry: std::fs::DirEntry| {
            let path = entry.path();
            let used = entry.metadata().and_then(|metadata| metadata.modified()).ok()?;
            (path.extension()? == EXTENSION).then_some((path, used))
        };
        entries.filter_map(file).collect()
    }

    fn path(&self, key: &Key) -> PathBuf {
        self.dir.join(format!("{key}.{EXTENSION}"))
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn listed(path: &Path) -> Option<Listed> {
    let label: Label = serde_json::from_slice(&saved::label(path).ok()?).ok()?;
    Some(Listed { label, size: std::fs::metadata(path).ok()?.len() })
}

/// Whether a file is not what it should be, rather than out of reach for now.
fn is_damage(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{InvalidData, Other, UnexpectedEof};
    matches!(error.kind(), InvalidData | UnexpectedEof | Other)
}

/// Reads the file; `None` if there is none.
fn read(path: &Path, key: &Key) -> std::io::Result<Option<Guest>> {
    let (label, guest) = match Guest::read(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        read => read?,
    };
    let label: Label = serde_json::from_slice(&label)?;
    if label.key != key.to_string() {
        return Err(std::io::Error::other(format!("it says that it is {}", label.key)));
    }
    // For `remove_surplus`; a file that cannot be touched just seems older.
    let _ = std::fs::File::open(path).and_then(|file| file.set_modified(SystemTime::now()));
    Ok(Some(guest))
}
