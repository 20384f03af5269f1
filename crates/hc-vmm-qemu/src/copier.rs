// SPDX-License-Identifier: Apache-2.0
//! Copying the guest of a QEMU that runs, and changing its disks.
//!
//! A guest is copied as it is for a migration: its memory while it runs, again what it changed
//! meanwhile, and the rest with the guest held. What QEMU sends is taken apart on the way
//! (`stream.rs`), so that nothing is stored twice.
//!
//! An emulated guest is held before, and stands still for all of it: of those copied while they ran,
//! on a busy host, some lacked a page that they had changed.

use std::fs::File;
use std::io::BufReader;
use std::net::Shutdown;
use std::os::fd::RawFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use hc_vmm::{Access, Disk, Error, Result, VmSpec};
use hc_vmm_process::{Command, Dialect, HELD, Progress, Remote, files};
use serde_json::json;
use tokio::time::timeout;

use crate::command::{Accelerator, Layers, MEMORY};
use crate::stream;

const COPY: &str = "copy";
const RESTORE: &str = "restore";
/// The last words of a copy.
const COMPLETED: &str = "completed";
const FAILED: &str = "failed";
const CANCELLED: &str = "cancelled";
const REPLACE: &str = "change a disk";

/// What QEMU calls the socket that it copies to.
const SOCKET: &str = "copy";
/// Bytes a second that QEMU may send: as much as there is.
const BANDWIDTH: u64 = 1 << 40;
/// How long the guest may stand still, in milliseconds, as QEMU estimates it.
const DOWNTIME: u32 = 30;
/// How long a guest may go on changing its memory faster than it is copied. Then it is held.
const PATIENCE: Duration = Duration::from_secs(2);
/// What the reader takes at once.
const BUFFER: usize = 256 << 10;

/// What must be known of a machine to copy it.
#[derive(Debug)]
pub(crate) struct Copier {
    /// The descriptor of the state that the guest goes on from, if it does not boot.
    saved: Option<RawFd>,
    /// Whether QEMU misses none of the pages that a running guest changes.
    tracks_changes: bool,
    memory_len: u64,
    disks: Vec<(String, Access)>,
    /// The descriptor set behind each disk, and the next that is free.
    sets: Vec<AtomicUsize>,
    next_set: AtomicUsize,
}

impl Copier {
    pub(crate) fn new(spec: &VmSpec, saved: Option<RawFd>, accelerator: Accelerator) -> Copier {
        let disks = spec.disks.iter().map(|disk| (disk.id.clone(), disk.access));
        Copier {
            saved,
            tracks_changes: accelerator == Accelerator::Kvm,
            memory_len: u64::from(spec.memory_mib) << 20,
            disks: disks.collect(),
            sets: (0..spec.disks.len()).map(AtomicUsize::new).collect(),
            next_set: AtomicUsize::new(spec.disks.len()),
        }
    }
}

#[async_trait]
impl Dialect for Copier {
    async fn begin(&self, remote: &Remote) -> Result<()> {
        let Some(state) = self.saved else { return Ok(()) };
        let mut progress = remote.progress();
        let load = Command::with("migrate-incoming", &json!({ "uri": format!("fd:{state}") }));
        remote.command(RESTORE, tell_progress()).await?;
        remote.command(RESTORE, load).await?;
        end(RESTORE, &mut progress).await?;
        // One that was copied while it was held comes held.
        remote.command(RESTORE, Command::new("cont")).await
    }

    async fn take(&self, remote: &Remote, memory: &File, state: &File) -> Result<Instant> {
        let failed =
            |source| Error::Host { vm: remote.name().to_owned(), what: "copy its guest", source };
        let clones = || Ok((memory.try_clone()?, state.try_clone()?));
        let (memory, state) = clones().map_err(failed)?;
        memory.set_len(self.memory_len).map_err(failed)?;
        let (ours, theirs) = UnixStream::pair().map_err(failed)?;
        let hang_up = ours.try_clone().map_err(failed)?;
        let reader = tokio::task::spawn_blocking(move || {
            stream::split(BufReader::with_capacity(BUFFER, ours), MEMORY, &memory, &state)
        });
        let begun = Instant::now();
        if !self.tracks_changes {
            remote.command(COPY, Command::new("stop")).await?;
        }
        let sent = send(remote, theirs, begun).await;
        if sent.is_err() {
            // Nothing more comes, and what came is thrown away; or QEMU has gone.
            let _ = remote.command(COPY, Command::new("migrate_cancel")).await;
            let _ = hang_up.shutdown(Shutdown::Both);
        }
        let read = reader.await.map_err(|error| failed(error.into()))?;
        let held = sent?;
        read.map_err(failed)?;
        Ok(held)
    }

    async fn replace(&self, remote: &Remote, disk: Disk) -> Result<()> {
        let Some(number) = self.disks.iter().position(|(id, _)| *id == disk.id) else {
            return Err(remote.refused(REPLACE, format!("there is no disk {}", disk.id)));
        };
        let access = self.disks[number].1;
        let failed =
            |source| Error::Host { vm: remote.name().to_owned(), what: "open disk", source };
        let file = files::narrow(&disk.file, access).map_err(failed)?;
        let layers = Layers { number, access };
        let set = self.next_set.fetch_add(1, Ordering::Relaxed);
        let add = Command::with("add-fd", &json!({ "fdset-id": set })).carrying(file);
        let open = Command::with("blockdev-add", &layers.file(set));
        let change = Command::with("blockdev-reopen", &json!({ "options": [layers.disk(set)] }));
        for command in [add, open, change] {
            remote.command(REPLACE, command).await?;
        }
        let before = self.sets[number].swap(set, Ordering::Relaxed);
        let close = json!({ "node-name": Layers::file_name(before) });
        let forget = json!({ "fdset-id": before });
        remote.command(REPLACE, Command::with("blockdev-del", &close)).await?;
        remote.command(REPLACE, Command::with("remove-fd", &forget)).await
    }
}

/// Makes QEMU copy its guest to `socket`, and waits until it has; since when the guest is held.
///
/// A guest that is held already has been since `begun`.
async fn send(remote: &Remote, socket: UnixStream, begun: Instant) -> Result<Instant> {
    let mut progress = remote.progress();
    let parameters = json!({ "max-bandwidth": BANDWIDTH, "downtime-limit": DOWNTIME });
    let commands = [
        tell_progress(),
        Command::with("migrate-set-parameters", &parameters),
        Command::with("getfd", &json!({ "fdname": SOCKET })).carrying(socket),
        Command::with("migrate", &json!({ "uri": format!("fd:{SOCKET}") })),
    ];
    for command in commands {
        remote.command(COPY, command).await?;
    }
    let held = progress.until(COPY, &[HELD, COMPLETED, FAILED, CANCELLED]);
    let held = match timeout(PATIENCE, held).await {
        Ok(word) if word.as_deref().is_ok_and(|word| word == HELD) => Instant::now(),
        // It was held before, and QEMU has nothing to say of that.
        Ok(word) => return ended(COPY, &progress, &word?).map(|()| begun),
        Err(_) => {
            remote.command(COPY, Command::new("stop")).await?;
            Instant::now()
        }
    };
    end(COPY, &mut progress).await.map(|()| held)
}

/// Makes QEMU tell how far it is.
fn tell_progress() -> Command {
    let capabilities = json!([{ "capability": "events", "state": true }]);
    Command::with("migrate-set-capabilities", &json!({ "capabilities": capabilities }))
}

async fn end(what: &'static str, progress: &mut Progress) -> Result<()> {
    let word = progress.until(what, &[COMPLETED, FAILED, CANCELLED]).await?;
    ended(what, progress, &word)
}

fn ended(what: &'static str, progress: &Progress, word: &str) -> Result<()> {
    if word == COMPLETED { Ok(()) } else { Err(progress.remote().refused(what, word)) }
}
