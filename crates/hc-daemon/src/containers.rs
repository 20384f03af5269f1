// SPDX-License-Identifier: Apache-2.0
//! Every container there is, and what is being done to each.
//!
//! ```text
//!            start              watch says            pod process ends
//! created ----------> started (starting, running, paused) ----------> ended
//!    |                   ^                                              |
//!    |                   +-------------------- start -------------------+
//!    +--------------------------> removing <----------------------------+
//! ```
//!
//! # Invariants
//!
//! - A pod process is started by whoever holds the entry's `work` lock, with the pod's own lock
//!   already taken, after `started` is in the database. Killed at any instant, the next daemon finds
//!   a `started` row and asks the pod's lock whether there is a process.
//! - The daemon never decides that a pod has ended: the pod's lock does.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use hc_api::{ContainerState, ErrorKind};
use hc_pod::{Phase, PodDir, PodStatus};
use hc_spec::{Id, Name};
use tokio::sync::watch;

use crate::database::{Database, Row, Stored};
use crate::failure::{Failure, Result};
use crate::record::Record;

/// Made-up names that are tried before we give up: far more than containers fit on a host.
const MAX_NAMES: u32 = 10_000;

/// A container and the pod around it.
pub(crate) struct Entry {
    pub(crate) id: Id,
    pub(crate) name: Name,
    pub(crate) record: Record,
    pub(crate) dir: PodDir,
    /// Held by whoever starts or removes it.
    pub(crate) work: tokio::sync::Mutex<()>,
    view: watch::Sender<View>,
}

/// What is known of a container at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct View {
    pub(crate) state: ContainerState,
    /// The present run, or the last one.
    pub(crate) run: Option<PodStatus>,
    /// Whether it is gone.
    pub(crate) removed: bool,
}

impl View {
    /// A container that was never started.
    pub(crate) const CREATED: View =
        View { state: ContainerState::Created, run: None, removed: false };

    fn is_active(&self) -> bool {
        matches!(
            self.state,
            ContainerState::Starting | ContainerState::Running | ContainerState::Paused
        )
    }
}

impl Entry {
    pub(crate) fn view(&self) -> View {
        self.view.borrow().clone()
    }

    pub(crate) fn watch(&self) -> watch::Receiver<View> {
        self.view.subscribe()
    }

    /// Takes note of what the pod process tells.
    pub(crate) fn observe(&self, status: PodStatus) {
        self.view.send_modify(|view| {
            view.state = match status.phase {
                Phase::Starting => ContainerState::Starting,
                Phase::Running => ContainerState::Running,
                Phase::Paused => ContainerState::Paused,
                // The process that says so still lives; the end comes when it is gone.
                Phase::Exited => view.state,
            };
            view.run = Some(status);
        });
    }

    /// Waits for a start or removal under way, so that what is asked next finds its outcome.
    pub(crate) async fn steady(&self) {
        drop(self.work.lock().await);
    }

    /// Waits until no pod process lives, as far as the records know.
    pub(crate) async fn inactive(&self) {
        // An error means that the entry is gone, and with it the pod.
        let _ = self.watch().wait_for(|view| view.removed || !view.is_active()).await;
    }

    /// Waits until what is known of a run is what its pod says, or the run is over.
    pub(crate) async fn knows(&self, phase: Phase) {
        let known = |view: &View| view.run.as_ref().is_some_and(|run| run.phase == phase);
        let _ =
            self.watch().wait_for(|view| view.removed || !view.is_active() || known(view)).await;
    }

    fn set(&self, state: ContainerState, run: Option<PodStatus>) {
        self.view.send_modify(|view| {
            view.state = state;
            view.run = run;
        });
    }

    /// Whether a pod process lives or is about to.
    pub(crate) fn is_active(&self) -> bool {
        self.view.borrow().is_active()
    }
}

/// All containers.
pub(crate) struct Containers {
    database: Database,
    data_dir: PathBuf,
    runtime_dir: PathBuf,
    entries: RwLock<BTreeMap<Id, Arc<Entry>>>,
    /// Held while a name is looked for and taken.
    naming: Mutex<()>,
}

impl Containers {
    /// All containers of the database.
    pub(crate) fn load(
        database: Database,
        data_dir: PathBuf,
        runtime_dir: PathBuf,
    ) -> Result<Containers> {
        let containers = Containers {
            database,
            data_dir,
            runtime_dir,
            entries: RwLock::default(),
            naming: Mutex::new(()),
        };
        for row in containers.database.rows()? {
            let entry = Arc::new(containers.entry(row));
            containers.write().insert(entry.id.clone(), entry);
        }
        Ok(containers)
    }

    fn entry(&self, row: Row) -> Entry {
        let (state, run) = match row.stored {
            Stored::Created => (ContainerState::Created, None),
            Stored::Started => (ContainerState::Starting, None),
            Stored::Ended(status) => (ContainerState::Exited, Some(*status)),
            Stored::Removing => (ContainerState::Removing, None),
        };
        Entry {
            dir: PodDir::new(&self.data_dir, &self.runtime_dir, &row.record.pod),
            id: row.id,
            name: row.name,
            record: row.record,
            work: tokio::sync::Mutex::new(()),
            view: watch::Sender::new(View { state, run, removed: false }),
        }
    }

    /// Every container, oldest first.
    pub(crate) fn all(&self) -> Vec<Arc<Entry>> {
        let mut all: Vec<_> = self.read().values().cloned().collect();
        all.sort_by_key(|entry| entry.record.created);
        all
    }

    /// The container that `text` means: a name, an id, or the start of one id.
    pub(crate) fn find(&self, text: &str) -> Result<Arc<Entry>> {
        let entries = self.read();
        if let Some(entry) = entries.values().find(|entry| entry.name.as_str() == text) {
            return Ok(Arc::clone(entry));
        }
        let mut fitting = entries.values().filter(|entry| entry.id.as_str().starts_with(text));
        match (fitting.next(), fitting.next()) {
            (Some(entry), None) if !text.is_empty() => Ok(Arc::clone(entry)),
            (Some(_), Some(_)) if !text.is_empty() => {
                Err(Failure::invalid(format!("id {text} is not unique: give more digits")))
            }
            _ => Err(Failure::not_found("container", text)),
        }
    }

    /// Adds a container under `name`, or under the first of `made_up` that is free.
    pub(crate) fn create(
        &self,
        name: Option<Name>,
        mut made_up: impl FnMut(u32) -> Name,
        record: impl FnOnce() -> Result<(Id, Record)>,
    ) -> Result<Arc<Entry>> {
        let _naming = self.naming.lock().unwrap_or_else(PoisonError::into_inner);
        let name = match name {
            Some(name) => {
                if let Some(holder) = self.named(&name) {
                    return Err(Failure::new(
                        ErrorKind::Exists,
                        format!("name {name} is in use by container {}", holder.id.short()),
                    )
                    .hint(format!("remove it with `hyper rm {name}`, or choose another name")));
                }
                name
            }
            None => (0..MAX_NAMES)
                .map(&mut made_up)
                .find(|name| self.named(name).is_none())
                .ok_or_else(|| Failure::new(ErrorKind::Exhausted, "no name is free"))?,
        };
        let (id, record) = record()?;
        let row = Row { id, name, record, stored: Stored::Created };
        self.database.insert(&row)?;
        let entry = Arc::new(self.entry(row));
        self.write().insert(entry.id.clone(), Arc::clone(&entry));
        Ok(entry)
    }

    fn named(&self, name: &Name) -> Option<Arc<Entry>> {
        self.read().values().find(|entry| entry.name == *name).cloned()
    }

    /// Takes note, for good, that a pod process is about to be started.
    pub(crate) fn started(&self, entry: &Entry) -> Result<()> {
        self.database.set(&entry.id, &Stored::Started)?;
        entry.set(ContainerState::Starting, None);
        Ok(())
    }

    /// Takes note, for good, that the pod process could not be started after all.
    pub(crate) fn not_started(&self, entry: &Entry, before: &View) -> Result<()> {
        let stored = match (&before.state, &before.run) {
            (ContainerState::Exited, Some(run)) => Stored::Ended(Box::new(run.clone())),
            _ => Stored::Created,
        };
        let result = self.database.set(&entry.id, &stored);
        entry.set(before.state, before.run.clone());
        Ok(result?)
    }

    /// Takes note, for good, how a run ended.
    pub(crate) fn ended(&self, entry: &Entry, status: PodStatus) -> Result<()> {
        let result = self.database.set(&entry.id, &Stored::Ended(Box::new(status.clone())));
        entry.set(ContainerState::Exited, Some(status));
        Ok(result?)
    }

    /// Removes a container that does not run, files first. Repeated after a kill, it goes on.
    pub(crate) fn remove(&self, entry: &Entry) -> Result<()> {
        let marked = self.database.set(&entry.id, &Stored::Removing);
        if let Err(error) = marked {
            // A full disk takes no mark, and removing the files is what makes room on it.
            tracing::warn!(id = %entry.id, %error, "removal cannot be recorded before it is done");
        }
        entry.set(ContainerState::Removing, entry.view().run);
        entry
            .dir
            .remove()
            .map_err(|error| Failure::host("cannot remove the container's files", &error))?;
        self.database.delete(&entry.id)?;
        self.write().remove(&entry.id);
        entry.view.send_modify(|view| view.removed = true);
        Ok(())
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<Id, Arc<Entry>>> {
        self.entries.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, BTreeMap<Id, Arc<Entry>>> {
        self.entries.write().unwrap_or_else(PoisonError::into_inner)
    }
}
