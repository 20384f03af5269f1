// SPDX-License-Identifier: Apache-2.0
//! Makes an image of one layer from the tar of a root file system.

use std::collections::{BTreeMap, HashSet};
use std::io::Read;

use crate::load::{Candidate, LoadedImage};
use crate::manifest::{Descriptor, Manifest, OCI_CONFIG, OCI_MANIFEST, Packing};
use crate::store::Inserter;
use crate::unpack::{Bound, Unpacked};
use crate::{Error, ImageConfig, Progress, Reference, Result, Store};

/// What the new image shall be called and say about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImportOptions {
    /// Its name, if it shall have one.
    pub name: Option<Reference>,
    /// The command, or the arguments of the entry point.
    pub cmd: Vec<String>,
    /// What always runs.
    pub entrypoint: Vec<String>,
    /// `NAME=value` each.
    pub env: Vec<String>,
    /// Where processes start.
    pub working_dir: Option<String>,
    /// As whom they run.
    pub user: Option<String>,
    /// Free-form notes.
    pub labels: BTreeMap<String, String>,
    /// Ports that it listens on, such as `80/tcp`.
    pub exposed_ports: Vec<String>,
    /// The signal that asks it to stop.
    pub stop_signal: Option<String>,
    /// When it was made, as RFC 3339. Part of the image's ID, so leave it out for equal IDs.
    pub created: Option<String>,
}

impl ImportOptions {
    fn check(&self) -> Result<()> {
        let invalid = |what, reason: String| Err(Error::InvalidOption { what, reason });
        for variable in &self.env {
            match variable.split_once('=') {
                Some((name, _)) if !name.is_empty() => {}
                _ => return invalid("env", format!("{variable:?} is not NAME=value")),
            }
        }
        match &self.working_dir {
            Some(dir) if !dir.starts_with('/') => {
                invalid("workdir", format!("{dir:?} is no absolute path"))
            }
            _ => Ok(()),
        }
    }
}

impl Store {
    /// Imports the tar of a root file system, plain, gzip or Zstandard, as an image.
    ///
    /// The layer is kept unpacked: its digest is then its diff ID, so one pass tells both.
    pub fn import(
        &self,
        reader: impl Read + Send,
        options: &ImportOptions,
        progress: &dyn Progress,
    ) -> Result<LoadedImage> {
        options.check()?;
        let operation = self.operation()?;
        let lease = operation.lease();
        let inserter = Inserter::new(self, lease, progress)?;
        let bound = Bound::new("root file system", self.limits.layer_bytes, &self.limits);
        let (layer, size) = inserter.insert(Unpacked::new(reader, bound)?, "rootfs.tar", None)?;
        let config = ImageConfig {
            created: options.created.clone(),
            user: options.user.clone(),
            env: options.env.clone(),
            entrypoint: options.entrypoint.clone(),
            cmd: options.cmd.clone(),
            working_dir: options.working_dir.clone(),
            labels: options.labels.clone(),
            exposed_ports: options.exposed_ports.clone(),
            stop_signal: options.stop_signal.clone(),
            diff_ids: vec![layer],
            ..ImageConfig::native()
        };
        let config = config.to_json();
        let id = self.layout.put_blob(lease, &config)?;
        let manifest = Manifest::new(
            Descriptor::new(OCI_CONFIG, id, config.len() as u64),
            vec![Descriptor::new(Packing::Plain.layer_type(), layer, size)],
        );
        let manifest = manifest.to_json();
        let digest = self.layout.put_blob(lease, &manifest)?;
        let candidate = Candidate {
            manifest: Descriptor::new(OCI_MANIFEST, digest, manifest.len() as u64),
            names: options.name.iter().cloned().collect(),
        };
        let mut loaded = self.admit(lease, vec![candidate], &HashSet::from([layer]), progress)?;
        Ok(loaded.remove(0))
    }
}
