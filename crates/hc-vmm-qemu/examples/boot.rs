// SPDX-License-Identifier: Apache-2.0
//! Boots a kernel and waits for the end: `cargo run -p hc-vmm-qemu --example boot KERNEL INITRAMFS`.
//!
//! What the guest says on its console goes to standard error. It is also the way to measure what the
//! driver adds to a boot.
#![expect(clippy::print_stderr, reason = "printing is what it is for")]

use std::io::Write as _;

use hc_vmm::{Driver as _, Transport, VmSpec};
use hc_vmm_qemu::{Accelerator, Qemu};
use tokio::io::AsyncReadExt as _;
use tokio::net::UnixStream;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [kernel, initramfs] = arguments.as_slice() else {
        return Err("usage: boot KERNEL INITRAMFS".into());
    };
    let accelerator =
        if hc_kvm_probe::probe().is_usable() { Accelerator::Kvm } else { Accelerator::Tcg };
    let spec = VmSpec {
        name: "boot".to_owned(),
        run_dir: std::env::temp_dir(),
        kernel: kernel.into(),
        initramfs: initramfs.into(),
        kernel_parameters: "quiet".to_owned(),
        transport: Transport::Mmio,
        vcpus: 1,
        memory_mib: 128,
        disks: Vec::new(),
        nic: None,
        shares: Vec::new(),
        saved: None,
        confine: None,
    };
    let mut vm = Qemu::find(accelerator)?.create(spec).await?;
    let console = vm.console().ok_or("a new vm has a console")?;
    vm.start().await?;
    let mut said = Vec::new();
    // Ends with the VM.
    UnixStream::from_std(console)?.read_to_end(&mut said).await?;
    std::io::stderr().write_all(&said)?;
    eprintln!("{:?}", vm.wait().await?);
    Ok(())
}
