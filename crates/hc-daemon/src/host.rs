// SPDX-License-Identifier: Apache-2.0
//! What this host can do: which drivers work, and what kernels there are to boot.
//!
//! Nothing is guessed: KVM counts as usable when it has run code as fast as a processor does. The
//! probe takes up to a fifth of a second where KVM is emulated, so it runs in the background from
//! the daemon's start on, and the first pod waits for it at most.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use hc_api::{DriverReport, ErrorKind};
use hc_kernel::{Kernel, Requirements, Transport};
use hc_kvm_probe::Probe;
use hc_pod::chain;
use hc_pod::config::{DriverConfig, TransportConfig};
use hc_vmm_qemu::{Accelerator, Qemu};
use tokio::sync::OnceCell;

use crate::config::Config;
use crate::failure::{Failure, Result};

/// The name of our own kernel below the folder of guest files.
const KERNEL: &str = "vmlinux";
/// The name of the guest's init there.
const INIT: &str = "hyperstart";
/// The name of the scratch disk's template there.
const SCRATCH: &str = "scratch.template";

/// The drivers that a user can name.
const DRIVERS: [(&str, DriverConfig); 2] =
    [("qemu-kvm", DriverConfig::QemuKvm), ("qemu-tcg", DriverConfig::QemuTcg)];

/// The host.
pub(crate) struct Host {
    lib_dir: PathBuf,
    cache_dir: PathBuf,
    kernel: PathBuf,
    driver: Option<String>,
    boot_timeout_seconds: u32,
    probe: OnceCell<Probe>,
    /// What was found out about kernels, with the times of kernel and init then.
    boots: Mutex<HashMap<PathBuf, ([SystemTime; 2], Boot)>>,
}

/// What a pod boots.
#[derive(Clone, Debug)]
pub(crate) struct Boot {
    pub(crate) kernel: PathBuf,
    pub(crate) initramfs: PathBuf,
    pub(crate) transport: TransportConfig,
}

/// The driver for a pod, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Choice {
    pub(crate) driver: DriverConfig,
    pub(crate) reason: String,
}

impl Host {
    pub(crate) fn new(lib_dir: &Path, data_dir: &Path, config: &Config) -> Host {
        Host {
            lib_dir: lib_dir.to_owned(),
            cache_dir: data_dir.join("cache"),
            kernel: config.kernel.clone().unwrap_or_else(|| lib_dir.join(KERNEL)),
            driver: config.driver.clone(),
            boot_timeout_seconds: config.boot_timeout_seconds(),
            probe: OnceCell::new(),
            boots: Mutex::default(),
        }
    }

    /// The kernel of pods that name none.
    pub(crate) fn kernel(&self) -> &Path {
        &self.kernel
    }

    /// The template of scratch disks.
    pub(crate) fn scratch_template(&self) -> PathBuf {
        self.lib_dir.join(SCRATCH)
    }

    /// How long a guest may take from power-on to its first word.
    pub(crate) fn boot_timeout_seconds(&self) -> u32 {
        self.boot_timeout_seconds
    }

    /// What was found about KVM.
    pub(crate) async fn probe(&self) -> &Probe {
        let probe = || async {
            tokio::task::spawn_blocking(hc_kvm_probe::probe)
                .await
                .unwrap_or_else(|error| Probe::Broken(error.to_string()))
        };
        self.probe.get_or_init(probe).await
    }

    /// The driver for a pod that asks for `wanted`.
    pub(crate) async fn choose(&self, wanted: Option<&str>) -> Result<Choice> {
        match wanted.or(self.driver.as_deref()) {
            Some(name) => named(name, self.probe().await),
            None => Ok(probed(self.probe().await)),
        }
    }

    /// What was found about every driver.
    pub(crate) async fn reports(&self) -> Vec<DriverReport> {
        let probe = self.probe().await;
        let qemu = Qemu::find(Accelerator::Tcg);
        let (qemu_finding, qemu_hint) = match &qemu {
            Ok(qemu) => (format!("found {}", qemu.program().display()), None),
            Err(error) => (chain(error), error.hint().map(str::to_owned)),
        };
        vec![
            DriverReport {
                name: "qemu-kvm".into(),
                usable: qemu.is_ok() && probe.is_usable(),
                finding: format!("{probe}; {qemu_finding}"),
                hint: probe.hint().map(str::to_owned).or_else(|| qemu_hint.clone()),
            },
            DriverReport {
                name: "qemu-tcg".into(),
                usable: qemu.is_ok(),
                finding: format!("runs anywhere, slowly; {qemu_finding}"),
                hint: qemu_hint,
            },
        ]
    }

    /// What a pod boots that asks for `kernel`. Looks into a kernel once, and again when it or the
    /// init has changed.
    pub(crate) async fn boot(self: &Arc<Self>, kernel: Option<&Path>) -> Result<Boot> {
        let path = kernel.unwrap_or(&self.kernel).to_owned();
        let host = Arc::clone(self);
        tokio::task::spawn_blocking(move || host.inspect(&path))
            .await
            .map_err(|error| Failure::host("cannot look at the kernel", &error))?
    }

    fn inspect(&self, path: &Path) -> Result<Boot> {
        let modified = |path: &Path| std::fs::metadata(path)?.modified();
        let kernel = modified(path).map_err(|error| {
            let failure = Failure::new(
                ErrorKind::Unsupported,
                format!("cannot read kernel {}: {error}", path.display()),
            );
            failure.hint("build it with `make`, or name another with --kernel")
        })?;
        let init = modified(&self.lib_dir.join(INIT)).map_err(|error| {
            let failure = Failure::host("cannot read the guest's init", &error);
            failure.hint(format!("it belongs at {}", self.lib_dir.join(INIT).display()))
        })?;
        // Held while we look: twenty pods that start at once would else read the kernel twenty times.
        let mut boots = self.boots();
        let known = boots.get(path).cloned();
        if let Some((then, boot)) = known
            && then == [kernel, init]
            && boot.initramfs.exists()
        {
            return Ok(boot);
        }
        let boot = self.look(path)?;
        boots.insert(path.to_owned(), ([kernel, init], boot.clone()));
        Ok(boot)
    }

    fn look(&self, path: &Path) -> Result<Boot> {
        let kernel = Kernel::inspect(path)?;
        // What is unknown is taken to be like our own kernel, which finds devices either way.
        let mmio = kernel.transports().is_none_or(|transports| transports.mmio_command_line);
        let (transport, requirement) = if mmio {
            (TransportConfig::Mmio, Transport::MmioCommandLine)
        } else {
            (TransportConfig::Pci, Transport::Pci)
        };
        let requirements = Requirements::pod().with_pvh().with_transport(requirement);
        kernel.require(&requirements)?;
        let modules = kernel.modules(&requirements)?;
        let init = self.lib_dir.join(INIT);
        std::fs::create_dir_all(&self.cache_dir)
            .map_err(|error| Failure::host("cannot make the cache folder", &error))?;
        let initramfs = hc_kernel::initramfs::cached(&self.cache_dir, &init, &modules)?;
        Ok(Boot { kernel: path.to_owned(), initramfs, transport })
    }

    fn boots(&self) -> std::sync::MutexGuard<'_, HashMap<PathBuf, ([SystemTime; 2], Boot)>> {
        self.boots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The best driver there is.
fn probed(probe: &Probe) -> Choice {
    if probe.is_usable() {
        Choice { driver: DriverConfig::QemuKvm, reason: probe.to_string() }
    } else {
        Choice {
            driver: DriverConfig::QemuTcg,
            reason: format!("{probe}, so guests are translated by QEMU"),
        }
    }
}

/// The driver that was named, if it can be used.
fn named(name: &str, probe: &Probe) -> Result<Choice> {
    let name = if name == "qemu" { probed(probe).driver.key() } else { name };
    let Some((_, driver)) = DRIVERS.iter().find(|(known, _)| *known == name) else {
        let known = DRIVERS.map(|(name, _)| name).join(", ");
        return Err(Failure::invalid(format!("unknown driver {name:?}: use one of qemu, {known}")));
    };
    if *driver == DriverConfig::QemuKvm && !probe.is_usable() {
        let failure = Failure::new(
            ErrorKind::Unsupported,
            format!("driver qemu-kvm cannot be used here: {probe}"),
        );
        return Err(match probe.hint() {
            Some(hint) => failure.hint(hint),
            None => failure,
        });
    }
    Ok(Choice { driver: *driver, reason: "it was asked for".into() })
}

trait Key {
    /// The name by which a user asks for it.
    fn key(self) -> &'static str;
}

impl Key for DriverConfig {
    fn key(self) -> &'static str {
        DRIVERS.iter().find(|(_, driver)| *driver == self).map_or("qemu", |(name, _)| name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kvm_is_chosen_only_where_it_is_real_and_the_reason_says_why_not() {
        let real = Probe::Usable { loops_per_second: 3_000_000_000 };
        assert_eq!(probed(&real).driver, DriverConfig::QemuKvm);
        for probe in [
            Probe::Emulated { loops_per_second: 1_000_000 },
            Probe::NoPermission,
            Probe::Absent,
            Probe::Broken("no vCPU".into()),
        ] {
            let choice = probed(&probe);
            assert_eq!(choice.driver, DriverConfig::QemuTcg);
            assert!(choice.reason.contains(&probe.to_string()), "{}", choice.reason);
        }
    }

    #[test]
    fn a_driver_that_cannot_be_used_is_refused_with_the_reason() {
        let error = named("qemu-kvm", &Probe::Absent).unwrap_err();
        assert_eq!(error.0.kind, ErrorKind::Unsupported);
        assert!(error.0.hint.is_some());
        let error = named("bochs", &Probe::Absent).unwrap_err();
        assert!(error.0.message.contains("qemu-tcg"), "{}", error.0.message);
        assert_eq!(named("qemu", &Probe::Absent).unwrap().driver, DriverConfig::QemuTcg);
    }
}
