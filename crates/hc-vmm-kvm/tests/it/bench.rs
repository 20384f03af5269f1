// SPDX-License-Identifier: Apache-2.0
//! What a test of the driver needs.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use hc_vmm::Transport;
use hc_vmm::contract::{Bench, initramfs};
use hc_vmm_kvm::Kvm;

/// A bench with a machine of ours.
pub(crate) fn bench() -> Option<Bench> {
    let (kernel, initramfs) = match &*PARTS {
        Ok(parts) => parts.clone(),
        Err(reason) => {
            hc_testkit::skip(reason);
            return None;
        }
    };
    Some(Bench {
        driver: Box::new(Kvm::at(env!("CARGO_BIN_EXE_hyper-vmm").into())),
        kernel,
        initramfs,
        transport: Transport::Mmio,
        serve: Some(serve),
        skip: hc_testkit::skip,
    })
}

/// Serves a folder until the VM hangs up.
fn serve(folder: &Path, read_only: bool) -> UnixStream {
    let access = if read_only { hc_share::Access::ReadOnly } else { hc_share::Access::ReadWrite };
    let folder = hc_share::Folder::open(folder, access).unwrap();
    let (ours, theirs) = UnixStream::pair().unwrap();
    std::thread::spawn(move || folder.serve(ours).unwrap());
    theirs
}

/// Made once, for all tests of the process.
static PARTS: LazyLock<Result<(PathBuf, PathBuf), String>> = LazyLock::new(|| {
    let probe = hc_kvm_probe::probe();
    if !probe.is_usable() {
        return Err(format!("no KVM here: {probe}"));
    }
    let kernel = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../dist/lib/hyper/vmlinux");
    if !kernel.is_file() {
        return Err(format!("no guest kernel at {}", kernel.display()));
    }
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("contract");
    std::fs::create_dir_all(&dir).map_err(|error| error.to_string())?;
    Ok((kernel, initramfs(&dir)?))
});
