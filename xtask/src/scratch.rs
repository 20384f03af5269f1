// SPDX-License-Identifier: Apache-2.0
//! The template of pods' scratch disks: an empty ext4 file system, made once by `mke2fs`.

use std::fs::File;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

/// Bytes of a scratch disk. It is sparse: what a pod does not write takes no room on the host.
const SIZE: u64 = 64 << 30;

/// Everything that would make the empty file system larger than it must be is off or put off: the
/// inode tables and the journal are zero, and so is the sparse file. Few, packed groups of metadata
/// make the mount quick.
const OPTIONS: [&str; 12] = [
    "-q",
    "-F",
    "-t",
    "ext4",
    "-m",
    "0",
    "-O",
    "metadata_csum,sparse_super2,^resize_inode,^64bit",
    "-J",
    "size=8",
    "-E",
    "lazy_itable_init=1,lazy_journal_init=1,packed_meta_blocks=1,root_owner=0:0",
];

/// Makes the template `file`.
pub(crate) fn make(file: &Path) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let disk = dir.path().join("scratch.img");
    File::create(&disk)?.set_len(SIZE)?;
    let mut mke2fs = Command::new("mke2fs");
    // Debian keeps it where ordinary users do not look.
    mke2fs.env("PATH", format!("{}:/sbin:/usr/sbin", std::env::var("PATH").unwrap_or_default()));
    let status = mke2fs
        .args(OPTIONS)
        .args(["-N", "4194304"])
        .arg(&disk)
        .status()
        .context("cannot run mke2fs: install the package e2fsprogs")?;
    ensure!(status.success(), "mke2fs failed: {status}");
    hc_pod::scratch::write_template(&disk, file)
        .with_context(|| format!("cannot write {}", file.display()))
}
