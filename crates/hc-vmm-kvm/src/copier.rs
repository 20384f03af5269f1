// SPDX-License-Identifier: Apache-2.0
//! How a machine of ours is told to write its guest down, and to change a disk.
//!
//! Files go to it by descriptor, under names that are free again when a command has used them
//! (`hc-monitor`'s `control.rs`). It can open none, so what it gets is all it has.

use std::fs::File;
use std::pin::pin;
use std::time::Instant;

use async_trait::async_trait;
use hc_vmm::{Access, Disk, Error, Result};
use hc_vmm_process::{Command, Dialect, HELD, Remote, files};
use serde_json::json;

const TAKE: &str = "copy";
const REPLACE: &str = "change a disk";

/// The words for a machine with this much memory.
#[derive(Debug)]
pub(crate) struct Copier {
    pub(crate) memory_mib: u32,
}

#[async_trait]
impl Dialect for Copier {
    async fn begin(&self, _remote: &Remote) -> Result<()> {
        // What it goes on from is part of its description.
        Ok(())
    }

    async fn take(&self, remote: &Remote, memory: &File, state: &File) -> Result<Instant> {
        let failed = failed(remote, TAKE);
        // The machine writes what is not zero, and cannot change a file's length.
        memory.set_len(u64::from(self.memory_mib) << 20).map_err(&failed)?;
        pass(remote, TAKE, "memory", memory.try_clone().map_err(&failed)?).await?;
        pass(remote, TAKE, "state", state.try_clone().map_err(&failed)?).await?;
        let names = json!({ "memory": "memory", "state": "state" });
        let (begun, mut progress) = (Instant::now(), remote.progress());
        let mut save = pin!(remote.command(TAKE, Command::with("save", &names)));
        tokio::select! {
            biased;
            word = progress.until(TAKE, &[HELD]) => {
                word?;
                let held = Instant::now();
                save.await.map(|()| held)
            }
            // It was held before.
            done = &mut save => done.map(|()| begun),
        }
    }

    async fn replace(&self, remote: &Remote, disk: Disk) -> Result<()> {
        let Disk { id, file, access } = disk;
        let file = files::narrow(&file, access).map_err(failed(remote, REPLACE))?;
        pass(remote, REPLACE, "disk", file).await?;
        let access = json!({
            "read_only": access == Access::ReadOnly,
            "durable": access == Access::Durable,
        });
        let which = json!({ "disk": id, "file": "disk", "access": access });
        remote.command(REPLACE, Command::with("replace", &which)).await
    }
}

/// Passes a file under a name.
async fn pass(remote: &Remote, what: &'static str, name: &str, file: File) -> Result<()> {
    let keep = Command::with("getfd", &json!({ "fdname": name }));
    remote.command(what, keep.carrying(file)).await
}

fn failed(remote: &Remote, what: &'static str) -> impl Fn(std::io::Error) -> Error {
    let vm = remote.name().to_owned();
    move |source| Error::Host { vm: vm.clone(), what, source }
}
