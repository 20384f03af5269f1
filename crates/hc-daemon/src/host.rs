// SPDX-License-Identifier: Apache-2.0
//! What this host can do: which drivers work, and what kernels there are to boot.
//!
//! Nothing is guessed: KVM counts as usable when it has run code as fast as a processor does. The
//! probe takes up to a fifth of a second where KVM is emulated, so it runs in the background from
//! the daemon's start on, and the first pod waits for it at most.

mod choice;
mod report;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use hc_api::{DriverReport, ErrorKind, KvmReport};
use hc_kernel::{Kernel, Requirements, Transport};
use hc_kvm_probe::Probe;
use hc_pod::chain;
use hc_pod::config::{DriverConfig, TransportConfig};
use hc_vmm::{Ability, Driver};
use hc_vmm_kvm::Kvm;
use hc_vmm_qemu::{Accelerator, Qemu};
use tokio::sync::OnceCell;

pub(crate) use self::choice::{Choice, Wanted};
use self::choice::{Findings, Hypervisor, Obstacle};
use crate::config::Config;
use crate::failure::{Failure, Result};

/// The name of our own kernel below the folder of guest files.
const KERNEL: &str = "vmlinux";
/// The name of the guest's init there.
const INIT: &str = "hyperstart";
/// The name of the scratch disk's template there.
const SCRATCH: &str = "scratch.template";

/// The program of the driver that is built in.
const VMM: &str = "hyper-vmm";

/// The host.
pub(crate) struct Host {
    lib_dir: PathBuf,
    cache_dir: PathBuf,
    kernel: PathBuf,
    driver: Option<Wanted>,
    /// The driver that is built in.
    vmm: PathBuf,
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

impl Host {
    /// `programs` is the folder of our own programs.
    pub(crate) fn new(lib_dir: &Path, data_dir: &Path, programs: &Path, config: &Config) -> Host {
        Host {
            lib_dir: lib_dir.to_owned(),
            cache_dir: data_dir.join("cache"),
            kernel: config.kernel.clone().unwrap_or_else(|| lib_dir.join(KERNEL)),
            driver: config.driver,
            vmm: programs.join(VMM),
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

    /// The program that is rehearsed in VMs of nobody's, and where its root file system is kept.
    pub(crate) fn rehearsal(&self) -> (PathBuf, PathBuf) {
        (self.lib_dir.join(INIT), self.cache_dir.join("rehearsal.erofs"))
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

    /// The driver for a pod that asks for `wanted` and whose kernel finds its devices by `transport`.
    pub(crate) async fn choose(
        &self,
        wanted: Option<&str>,
        transport: TransportConfig,
    ) -> Result<Choice> {
        let wanted = match wanted {
            Some(name) => Some(Wanted::try_from(name.to_owned())?),
            None => self.driver,
        };
        self.findings().await.choose(wanted, transport)
    }

    /// What was found about KVM and each driver, and the choice for a pod that names nothing.
    pub(crate) async fn report(self: &Arc<Self>) -> (KvmReport, Vec<DriverReport>, Result<Choice>) {
        // What is wrong with the kernel is told when it is used; it says nothing about drivers.
        let boot = self.boot(None).await;
        let transport = boot.map_or(TransportConfig::Mmio, |boot| boot.transport);
        let findings = self.findings().await;
        let choice = findings.choose(self.driver, transport);
        (report::kvm(&findings.kvm), report::drivers(&findings), choice)
    }

    /// The hypervisor of a driver, if it can copy guests and change their disks.
    pub(crate) fn copying_hypervisor(&self, driver: DriverConfig) -> Option<PathBuf> {
        let (program, abilities) = match driver {
            DriverConfig::Kvm => {
                let kvm = Kvm::at(self.vmm.clone());
                (self.vmm.clone(), kvm.abilities().clone())
            }
            DriverConfig::QemuKvm | DriverConfig::QemuTcg => {
                let qemu = Qemu::find(Accelerator::Tcg).ok()?;
                (qemu.program().to_owned(), qemu.abilities().clone())
            }
        };
        let copies = [Ability::Snapshot, Ability::Replace];
        copies.iter().all(|ability| abilities.contains(ability)).then_some(program)
    }

    /// Programs are looked for each time, so that one that is installed later is found.
    async fn findings(&self) -> Findings {
        let qemu =
            Qemu::find(Accelerator::Kvm).map(|qemu| hypervisor(qemu.program(), &qemu)).map_err(
                |error| Obstacle { reason: chain(&error), hint: error.hint().map(str::to_owned) },
            );
        let kvm = self.probe().await.clone();
        Findings { kvm, built_in: self.built_in(), others_may_open: others_may_open(), qemu }
    }

    fn built_in(&self) -> Result<Hypervisor, Obstacle> {
        match rustix::fs::access(&self.vmm, rustix::fs::Access::EXEC_OK) {
            Ok(()) => Ok(hypervisor(&self.vmm, &Kvm::at(self.vmm.clone()))),
            Err(error) => Err(Obstacle {
                reason: format!("cannot run {}: {error}", self.vmm.display()),
                hint: Some(format!("install {VMM} beside hyperd, as `make install` does")),
            }),
        }
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

/// As root we run QEMU as a user of its own, with no group but that of KVM's device.
fn others_may_open() -> Result<(), Obstacle> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    hc_vmm_process::files::kvm_groups().map(drop).map_err(|error| Obstacle {
        reason: chain(&error),
        hint: Some("run: chgrp kvm /dev/kvm && chmod g+rw /dev/kvm".into()),
    })
}

fn hypervisor(program: &Path, driver: &dyn Driver) -> Hypervisor {
    let transports = [
        (TransportConfig::Mmio, hc_vmm::Transport::Mmio),
        (TransportConfig::Pci, hc_vmm::Transport::Pci),
    ];
    let can = |transport| driver.abilities().contains(&Ability::Transport(transport));
    let transports = transports.into_iter().filter(|(_, transport)| can(*transport));
    Hypervisor {
        program: program.to_owned(),
        transports: transports.map(|(transport, _)| transport).collect(),
    }
}
