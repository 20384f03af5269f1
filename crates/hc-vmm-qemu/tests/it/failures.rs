// SPDX-License-Identifier: Apache-2.0
//! What a caller is told when a VM cannot be.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use hc_vmm::{Driver as _, Error, Exit, Kind};
use hc_vmm_qemu::{Accelerator, Qemu};

use crate::bench;

/// A stand-in for QEMU: a shell script.
fn script(dir: &Path, text: &str) -> PathBuf {
    let path = dir.join("qemu-system-x86_64");
    fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// Starts a VM of the program, whose kernel is no kernel.
async fn start(dir: &Path, program: PathBuf) -> Result<(), Error> {
    let kernel = dir.join("kernel");
    fs::write(&kernel, "no kernel").unwrap();
    let mut spec = bench::spec(dir);
    (spec.kernel, spec.initramfs) = (kernel.clone(), kernel);
    let mut vm = Qemu::at(program, Accelerator::Tcg).create(spec).await?;
    let result = vm.start().await;
    let exit = bench::in_time(vm.wait()).await.unwrap();
    assert!(!matches!(exit, Exit::Stopped), "{exit:?}");
    result
}

#[tokio::test]
async fn missing_kernel_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let mut spec = bench::spec(dir.path());
    spec.kernel = dir.path().join("vmlinux");
    let qemu = Qemu::at("/nonexistent".into(), Accelerator::Tcg);
    let Err(error) = qemu.create(spec).await else { panic!("there is no kernel") };
    assert_eq!(error.kind(), Kind::NotFound);
    assert_eq!(error.to_string(), format!("cannot use kernel {}/vmlinux", dir.path().display()));
}

#[tokio::test]
async fn kernel_that_is_none_is_refused_in_qemus_words() {
    let Ok(qemu) = Qemu::find(Accelerator::Tcg) else {
        return hc_testkit::skip("no QEMU");
    };
    let dir = tempfile::tempdir().unwrap();
    let error = start(dir.path(), qemu.program().to_owned()).await.unwrap_err();
    let Error::Ended { during: "start", last_words, .. } = error else { panic!("{error}") };
    assert!(last_words.contains("kernel"), "{last_words}");
}

#[tokio::test]
async fn program_that_cannot_run_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let error = start(dir.path(), "/nonexistent".into()).await.unwrap_err();
    assert_eq!(error.to_string(), "cannot run hypervisor /nonexistent");
}

#[tokio::test]
async fn old_qemu_is_told_from_a_broken_one() {
    let dir = tempfile::tempdir().unwrap();
    let speaks_of = |version| {
        let text = format!(
            "[ \"$1\" = -version ] && echo QEMU emulator version {version} && exit\n\
             echo invalid option >&2; exit 1"
        );
        script(dir.path(), &text)
    };
    let old = speaks_of("6.2.0");
    let error = start(dir.path(), old.clone()).await.unwrap_err();
    let expected = format!("{} is version 6.2, which is older than 7.2", old.display());
    assert_eq!(error.to_string(), expected);

    let error = start(dir.path(), speaks_of("9.0.0")).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "vm test ended during start; last words: hypervisor failed (exit status: 1): \
         invalid option"
    );
}

#[tokio::test(start_paused = true)]
async fn program_that_never_answers_is_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let (kernel, mut spec) = (dir.path().join("kernel"), bench::spec(dir.path()));
    fs::write(&kernel, "").unwrap();
    (spec.kernel, spec.initramfs) = (kernel.clone(), kernel);
    let silent = script(dir.path(), "exec sleep 1000");
    let mut vm = Qemu::at(silent, Accelerator::Tcg).create(spec).await.unwrap();
    let error = vm.start().await.unwrap_err();
    assert_eq!(error.to_string(), "no answer from vm test to start within 30s");
    assert_eq!(error.kind(), Kind::Timeout);
    // Real time again: from here on somebody else does something.
    tokio::time::resume();
    bench::in_time(vm.kill()).await.unwrap();
    assert_eq!(vm.wait().await.unwrap(), Exit::Killed);
}

#[tokio::test]
async fn too_many_disks_for_the_machine_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let mut spec = bench::spec(dir.path());
    spec.disks = (0..5)
        .map(|number| hc_vmm::Disk {
            id: format!("disk{number}"),
            file: tempfile::tempfile().unwrap(),
            access: hc_vmm::Access::Scratch,
        })
        .collect();
    let qemu = Qemu::at("/nonexistent".into(), Accelerator::Tcg);
    let Err(error) = qemu.create(spec).await else { panic!("made a vm") };
    assert_eq!(error.kind(), Kind::InvalidArgument);
}
