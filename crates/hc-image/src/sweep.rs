// SPDX-License-Identifier: Apache-2.0
//! Removes what no image needs: blobs and root file systems that no entry of the catalog leads to,
//! and temporary files of the dead.
//!
//! A sweep only ever runs alone (see `layout.rs`): while anyone writes it is put off to the end of
//! that operation, so nothing that an operation has written can vanish under it, whatever its age.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::Path;

use crate::layout::Lock;
use crate::{Error, Result, Store};

impl Store {
    /// Sweeps unless someone is writing. Failing to is no failure of the operation before it: what
    /// is left costs only space, and the next sweep tries again.
    pub(crate) fn sweep_if_quiet(&self) {
        let swept = self.layout.try_alone().and_then(|alone| match alone {
            Some(alone) => self.sweep(&alone),
            None => Ok(()),
        });
        if let Err(error) = swept {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "cannot sweep the image store"
            );
        }
    }

    fn sweep(&self, _alone: &Lock) -> Result<()> {
        remove_except(&self.layout.tmp(), &HashSet::new())?;
        let mut blobs = HashSet::new();
        let mut roots = HashSet::new();
        for entry in self.catalog()?.groups() {
            // A damaged image stops the sweep: nobody knows which blobs it needs.
            let image = self.load_image(&entry)?;
            blobs.insert(image.manifest.hex());
            blobs.insert(image.id.hex());
            blobs.extend(image.layers.iter().map(|layer| layer.digest.hex()));
            roots.insert(format!("{}.erofs", image.chain_id.hex()));
        }
        let names = |set: HashSet<String>| set.into_iter().map(OsString::from).collect();
        remove_except(&self.layout.blobs(), &names(blobs))?;
        remove_except(&self.layout.rootfs_dir(), &names(roots))
    }
}

/// Removes every file of `dir` whose name is not in `keep`.
fn remove_except(dir: &Path, keep: &HashSet<OsString>) -> Result<()> {
    let entries = fs::read_dir(dir).map_err(|e| Error::store("list", dir, e))?;
    for entry in entries {
        let entry = entry.map_err(|e| Error::store("list", dir, e))?;
        if keep.contains(&entry.file_name()) {
            continue;
        }
        match fs::remove_file(entry.path()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::store("remove", &entry.path(), error));
            }
            _ => {}
        }
    }
    Ok(())
}
