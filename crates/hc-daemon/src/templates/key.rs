// SPDX-License-Identifier: Apache-2.0
//! What a template depends on, as one hash.

use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use hc_pod::job::Shape;
use sha2::{Digest as _, Sha256};

/// Changes when templates of older builds are not to be used: with what a parked guest is, or how
/// its copy is written.
const VERSION: u32 = 3;

/// The hash of all that a template depends on, as 64 hex digits.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key(String);

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Key {
    /// All of it.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Enough of it for people.
    pub(crate) fn short(&self) -> &str {
        self.0.get(..12).unwrap_or(&self.0)
    }

    /// The key that a label says.
    pub(crate) fn of_label(text: &str) -> Key {
        Key(text.to_owned())
    }
}

/// Makes keys; reads each file once, and again when it has changed.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    sums: Mutex<HashMap<PathBuf, (Stamp, String)>>,
}

/// What changes with a file's content.
type Stamp = (u64, u64, u64, i64, i64);

impl Keys {
    /// The key of a template of this shape, for the hypervisor `program`.
    pub(crate) fn of(&self, shape: &Shape, program: &Path) -> io::Result<Key> {
        let vm = &shape.vm;
        let parts = [
            VERSION.to_string(),
            self.sum(&vm.kernel)?,
            self.sum(&vm.initramfs)?,
            // Its content is megabytes, and a package that changes it changes this.
            format!("{} {:?}", program.display(), stamp(&program.metadata()?)),
            vm.driver.name().to_owned(),
            format!("{:?}", vm.transport),
            vm.kernel_parameters.clone(),
            vm.vcpus.to_string(),
            vm.memory_mib.to_string(),
            shape.network.to_string(),
            processor(),
        ];
        let mut sum = Sha256::new();
        for part in parts {
            sum.update((part.len() as u64).to_le_bytes());
            sum.update(part);
        }
        Ok(Key(hex(&sum.finalize())))
    }

    /// The hash of a file's content.
    fn sum(&self, path: &Path) -> io::Result<String> {
        let mut file = File::open(path)?;
        let stamp = stamp(&file.metadata()?);
        // Held while it is read: pods that start at once want the same files.
        let mut sums = self.sums.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((then, sum)) = sums.get(path)
            && *then == stamp
        {
            return Ok(sum.clone());
        }
        let mut sum = Sha256::new();
        let mut bytes = vec![0; 1 << 20];
        loop {
            match file.read(&mut bytes)? {
                0 => break,
                length => sum.update(&bytes[..length]),
            }
        }
        let sum = hex(&sum.finalize());
        sums.insert(path.to_owned(), (stamp, sum.clone()));
        Ok(sum)
    }
}

fn stamp(metadata: &std::fs::Metadata) -> Stamp {
    let seconds = metadata.ctime().wrapping_mul(1_000_000_000);
    let changed = seconds.wrapping_add(metadata.ctime_nsec());
    (metadata.dev(), metadata.ino(), metadata.size(), metadata.mtime(), changed)
}

/// The host's processor: a guest has seen what it can do.
fn processor() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let first = text.split("\n\n").next().unwrap_or_default();
    let told = ["vendor_id", "cpu family", "model", "model name", "stepping", "flags"];
    let tells = |line: &&str| told.contains(&line.split(':').next().unwrap_or_default().trim());
    first.lines().filter(tells).collect::<Vec<_>>().join("\n")
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in bytes {
        let _ = write!(text, "{byte:02x}"); // Writing to a String cannot fail.
    }
    text
}

#[cfg(test)]
mod tests {
    use hc_pod::config::{DriverConfig, TransportConfig, VmConfig};

    use super::*;

    fn shape(dir: &Path) -> Shape {
        Shape {
            vm: VmConfig {
                driver: DriverConfig::QemuTcg,
                kernel: dir.join("kernel"),
                initramfs: dir.join("initramfs"),
                kernel_parameters: "quiet".into(),
                transport: TransportConfig::Mmio,
                vcpus: 1,
                memory_mib: 512,
                scratch_template: "/s".into(),
                boot_timeout_seconds: 60,
                confine: None,
            },
            network: true,
        }
    }

    #[test]
    fn whatever_a_template_depends_on_changes_the_key() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["kernel", "initramfs", "program"] {
            std::fs::write(dir.path().join(name), name).unwrap();
        }
        let program = dir.path().join("program");
        let keys = Keys::default();
        let first = shape(dir.path());
        let mut seen = vec![keys.of(&first, &program).unwrap()];
        let mut differs = |shape: &Shape| {
            let key = keys.of(shape, &program).unwrap();
            assert!(!seen.contains(&key), "{shape:?}");
            seen.push(key);
        };
        let mut other = first.clone();
        other.vm.memory_mib = 256;
        differs(&other);
        other = first.clone();
        other.vm.vcpus = 2;
        differs(&other);
        other = first.clone();
        other.network = false;
        differs(&other);
        other = first.clone();
        other.vm.kernel_parameters = "quiet x".into();
        differs(&other);
        other = first.clone();
        other.vm.driver = DriverConfig::QemuKvm;
        differs(&other);
        // The same length, a moment later: another kernel all the same.
        std::fs::write(&first.vm.kernel, "lenrek").unwrap();
        differs(&first);
        std::fs::write(&program, "another").unwrap();
        differs(&first);

        // Whom it runs as and how long it may take matter to nobody.
        let key = keys.of(&first, &program).unwrap();
        other = first.clone();
        other.vm.confine = Some((1, 1));
        other.vm.boot_timeout_seconds = 5;
        assert_eq!(keys.of(&other, &program).unwrap(), key);
    }

    #[test]
    fn a_missing_part_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let error = Keys::default().of(&shape(dir.path()), &dir.path().join("program"));
        assert_eq!(error.unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
