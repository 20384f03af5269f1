// SPDX-License-Identifier: Apache-2.0
//! What the tests boot: the project's kernel with the contract's guest.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use hc_vmm::Transport;
use hc_vmm::contract::{Bench, initramfs};
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
            eprintln!("skipped: {reason}");
            return None;
        }
    };
    Some(Bench { driver: Box::new(qemu), kernel, initramfs, transport })
}

/// Made once, for all tests of the process.
static PARTS: LazyLock<Result<(Qemu, PathBuf, PathBuf), String>> = LazyLock::new(|| {
    let qemu = Qemu::find(Accelerator::Tcg).map_err(|error| error.to_string())?;
    let kernel = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../dist/lib/hyper/vmlinux");
    if !kernel.is_file() {
        return Err(format!("no guest kernel at {}", kernel.display()));
    }
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("contract");
    std::fs::create_dir_all(&dir).map_err(|error| error.to_string())?;
    Ok((qemu, kernel, initramfs(&dir)?))
});
