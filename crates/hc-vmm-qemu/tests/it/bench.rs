// SPDX-License-Identifier: Apache-2.0
//! What the tests boot: the project's kernel with the contract's guest.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Duration;

use hc_vmm::contract::{Bench, initramfs};
use hc_vmm::{Transport, VmSpec};
use hc_vmm_qemu::{Accelerator, Qemu};

/// A bench with the quick machine.
pub(crate) fn microvm() -> Option<Bench> {
    bench(Transport::Mmio)
}

/// A bench with the machine that has a PCI bus.
pub(crate) fn q35() -> Option<Bench> {
    bench(Transport::Pci)
}

fn bench(transport: Transport) -> Option<Bench> {
    let (qemu, kernel, initramfs) = match &*PARTS {
        Ok(parts) => parts.clone(),
        Err(reason) => {
            hc_testkit::skip(reason);
            return None;
        }
    };
    Some(Bench {
        driver: Box::new(qemu),
        kernel,
        initramfs,
        transport,
        serve: None,
        skip: hc_testkit::skip,
    })
}

/// Made once, for all tests of the process.
static PARTS: LazyLock<Result<(Qemu, PathBuf, PathBuf), String>> = LazyLock::new(|| {
    let kvm = hc_kvm_probe::probe().is_usable();
    let accelerator = if kvm { Accelerator::Kvm } else { Accelerator::Tcg };
    let qemu = Qemu::find(accelerator).map_err(|error| error.to_string())?;
    let kernel = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../dist/lib/hyper/vmlinux");
    if !kernel.is_file() {
        return Err(format!("no guest kernel at {}", kernel.display()));
    }
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("contract");
    std::fs::create_dir_all(&dir).map_err(|error| error.to_string())?;
    Ok((qemu, kernel, initramfs(&dir)?))
});

/// A small VM of the parts above, or of names that lead nowhere.
pub(crate) fn spec(dir: &Path) -> VmSpec {
    let nowhere = || PathBuf::from("/nonexistent");
    let (kernel, initramfs) = match &*PARTS {
        Ok((_, kernel, initramfs)) => (kernel.clone(), initramfs.clone()),
        Err(_) => (nowhere(), nowhere()),
    };
    VmSpec {
        name: "test".to_owned(),
        run_dir: dir.to_owned(),
        kernel,
        initramfs,
        kernel_parameters: "quiet".to_owned(),
        transport: Transport::Mmio,
        vcpus: 1,
        memory_mib: 96,
        disks: Vec::new(),
        nic: None,
        shares: Vec::new(),
        saved: None,
        confine: None,
    }
}

/// Waits for `future`, but not longer than a boot under emulation takes on a machine that is busy.
pub(crate) async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_mins(1), future).await.expect("in time")
}
