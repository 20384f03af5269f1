// SPDX-License-Identifier: Apache-2.0
//! The two folders of a pod and what is in them.
//!
//! ```text
//! DATA/pods/ID/        outlives the host's reboot; removed with the pod
//!   config.json        PodConfig, written by the daemon before each start
//!   status.json        PodStatus, replaced by the pod process at each change
//!   lock               locked by the pod process for as long as it lives
//!   scratch.img        the sparse disk behind the writable layer
//!   memory.guest       the guest of a pod that is paused to disk
//!   logs/              see `log.rs`
//!   pod.log            the pod process's own log
//! RUNTIME/pods/SHORT/  removed by the pod process at its end, or by the next daemon
//!   pod.sock           where the pod process listens
//!   vm/                the driver's own
//! ```
//!
//! # Invariants
//!
//! - Whether a pod process lives is asked of the lock, never of a process id or a socket file.
//! - A record is replaced as a whole: readers see the old one or the new one.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use hc_spec::Id;
use rustix::fs::{FlockOperation, flock};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{PodConfig, PodStatus};

/// A record larger than this is not one of ours.
const MAX_RECORD: u64 = 4 << 20;

/// A pod's folders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodDir {
    data: PathBuf,
    runtime: PathBuf,
}

impl PodDir {
    /// The folders of pod `id` below the system's data and runtime folders.
    pub fn new(data_dir: &Path, runtime_dir: &Path, id: &Id) -> PodDir {
        PodDir {
            data: data_dir.join("pods").join(id.as_str()),
            runtime: runtime_dir.join("pods").join(id.short()),
        }
    }

    /// The folders by their own paths, as a pod process is told them.
    pub fn from_paths(data: PathBuf, runtime: PathBuf) -> PodDir {
        PodDir { data, runtime }
    }

    /// Makes both folders, readable by nobody else. No error if they are there.
    pub fn create(&self) -> io::Result<()> {
        for dir in [self.logs(), self.vm()] {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        }
        Ok(())
    }

    /// Removes both folders and all in them. No error if they are gone.
    pub fn remove(&self) -> io::Result<()> {
        self.remove_runtime()?;
        gone_is_fine(fs::remove_dir_all(&self.data))
    }

    /// Removes the runtime folder alone.
    pub fn remove_runtime(&self) -> io::Result<()> {
        gone_is_fine(fs::remove_dir_all(&self.runtime))
    }

    /// The folder that outlives a reboot.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// The folder with the sockets.
    pub fn runtime(&self) -> &Path {
        &self.runtime
    }

    /// Where the pod process listens.
    pub fn socket(&self) -> PathBuf {
        self.runtime.join("pod.sock")
    }

    /// The driver's folder.
    pub fn vm(&self) -> PathBuf {
        self.runtime.join("vm")
    }

    /// The scratch disk.
    pub fn scratch(&self) -> PathBuf {
        self.data.join("scratch.img")
    }

    /// The guest of a pod that is paused to disk, see `saved.rs`.
    pub fn paused_guest(&self) -> PathBuf {
        self.data.join("memory.guest")
    }

    /// The folder of the container's logs.
    pub fn logs(&self) -> PathBuf {
        self.data.join("logs")
    }

    /// The pod process's own log.
    pub fn own_log(&self) -> PathBuf {
        self.data.join("pod.log")
    }

    /// Writes the record that the next pod process reads.
    pub fn write_config(&self, config: &PodConfig) -> io::Result<()> {
        replace(&self.data.join("config.json"), config)
    }

    /// Reads it.
    pub fn read_config(&self) -> io::Result<PodConfig> {
        read(&self.data.join("config.json"))
    }

    /// Replaces the record of how the pod fares.
    pub fn write_status(&self, status: &PodStatus) -> io::Result<()> {
        replace(&self.data.join("status.json"), status)
    }

    /// Reads it; `None` where no process of this pod ever wrote one, or it cannot be read as one.
    pub fn read_status(&self) -> Option<PodStatus> {
        read(&self.data.join("status.json")).ok()
    }

    /// Forgets how the last run ended, before a new one.
    pub fn forget_status(&self) -> io::Result<()> {
        gone_is_fine(fs::remove_file(self.data.join("status.json")))
    }

    /// Takes the pod's lock, or says `None` where another process holds it. It is held until the
    /// file is dropped; a child that inherits the file holds it too.
    pub fn try_lock(&self) -> io::Result<Option<File>> {
        let path = self.data.join("lock");
        let file =
            File::options().create(true).truncate(false).write(true).mode(0o600).open(path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(file)),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits until no pod process lives; blocks the thread meanwhile.
    pub fn wait_unlocked(&self) -> io::Result<()> {
        let path = self.data.join("lock");
        match File::options().write(true).open(path) {
            Ok(file) => {
                flock(&file, FlockOperation::LockExclusive)?;
                unlock(&file)
            }
            Err(error) => gone_is_fine(Err(error)),
        }
    }

    /// Whether a pod process lives.
    pub fn is_alive(&self) -> bool {
        match self.try_lock() {
            Ok(Some(lock)) => unlock(&lock).is_err(),
            Ok(None) => true,
            Err(_) => false,
        }
    }
}

/// Gives up a lock that was only taken to see whether it is free. Closing the file is not enough: a
/// program that is just being started has a copy of it, up to its exec.
fn unlock(lock: &File) -> io::Result<()> {
    Ok(flock(lock, FlockOperation::Unlock)?)
}

fn gone_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Writes `value` under a temporary name and renames it, so that a kill at any instant leaves the
/// old record or the new one.
///
/// It is not synced: these records describe processes, which a crash of the host ends as well.
fn replace<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    let mut file =
        File::options().create(true).truncate(true).write(true).mode(0o600).open(&temporary)?;
    file.write_all(&serde_json::to_vec(value)?)?;
    fs::rename(&temporary, path)
}

fn read<T: DeserializeOwned>(path: &Path) -> io::Result<T> {
    let length = fs::metadata(path)?.len();
    if length > MAX_RECORD {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{} has {length} bytes, which is no record of ours", path.display()),
        ));
    }
    Ok(serde_json::from_slice(&fs::read(path)?)?)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    fn fixture() -> (tempfile::TempDir, PodDir) {
        let dir = tempfile::tempdir().unwrap();
        let pod =
            PodDir::new(&dir.path().join("d"), &dir.path().join("r"), &Id::from_bytes([1; 32]));
        pod.create().unwrap();
        (dir, pod)
    }

    #[test]
    fn a_status_is_replaced_as_a_whole_and_garbage_is_no_status() {
        let (_dir, pod) = fixture();
        assert_eq!(pod.read_status(), None);

        let first = PodStatus::starting(1, "fake");
        pod.write_status(&first).unwrap();
        let second = first.clone().lost(Timestamp::UNIX_EPOCH);
        pod.write_status(&second).unwrap();
        assert_eq!(pod.read_status(), Some(second));

        fs::write(pod.data().join("status.json"), b"{").unwrap();
        assert_eq!(pod.read_status(), None);
    }

    #[test]
    fn the_lock_tells_who_lives() {
        let (_dir, pod) = fixture();
        assert!(!pod.is_alive());
        let held = pod.try_lock().unwrap();
        assert!(held.is_some());
        assert!(pod.is_alive());
        drop(held);
        assert!(!pod.is_alive());
    }

    #[test]
    fn removing_twice_is_no_error() {
        let (_dir, pod) = fixture();
        pod.remove().unwrap();
        pod.remove().unwrap();
        assert!(!pod.data().exists() && !pod.runtime().exists());
    }
}
