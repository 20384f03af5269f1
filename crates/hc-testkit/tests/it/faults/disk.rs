// SPDX-License-Identifier: Apache-2.0
//! The host's disk is full.

use std::fs::{self, File};
use std::io::Read as _;
use std::process::Command;

use hc_testkit::{Host, has_program, is_root, skip};

/// The size of the disk, and of what does not fit on it.
const DISK_MIB: u32 = 48;
const LARGE: u64 = 64 << 20;

/// An installation on a small disk with the image `busybox`.
fn small_host() -> Option<Host> {
    let mut host = Host::new()?;
    if !is_root() {
        skip("mounting needs root");
        return None;
    }
    host.limit_disk(DISK_MIB);
    host.busybox();
    Some(host)
}

/// Bytes in use below the data folder, as the file system counts them.
fn used_kib(host: &Host) -> u64 {
    let output = Command::new("df").args(["--output=used", "-k"]).arg(host.data_dir()).output();
    let text = String::from_utf8(output.unwrap().stdout).unwrap();
    text.lines().nth(1).unwrap().trim().parse().unwrap()
}

#[test]
fn an_import_that_fills_the_disk_fails_and_leaves_nothing() {
    let Some(host) = small_host() else { return };
    if !has_program("tar") {
        return skip("no tar");
    }
    let root = tempfile::tempdir().unwrap();
    let noise = root.path().join("noise");
    let mut random = File::open("/dev/urandom").unwrap().take(LARGE);
    std::io::copy(&mut random, &mut File::create(&noise).unwrap()).unwrap();
    let archive = root.path().join("root.tar");
    let mut tar = Command::new("tar");
    tar.arg("-C").arg(root.path()).arg("-cf").arg(&archive).arg("noise");
    assert!(tar.status().unwrap().success());

    let before = used_kib(&host);
    let output = host.hyper(["import".as_ref(), archive.as_os_str(), "large".as_ref()]);
    output.fails(1, "No space left");
    assert_eq!(host.hyper(["images", "--quiet"]).ok().lines().count(), 1);
    let left = used_kib(&host).saturating_sub(before);
    assert!(left < 512, "{left} KiB are left of what failed");
    // What was there works on.
    assert_eq!(host.hyper(["run", "--rm", "busybox", "echo", "ok"]).ok(), "ok");
    host.assert_clean();
}

#[test]
fn a_container_that_fills_the_disk_gets_an_error_and_keeps_its_exit_code() {
    let Some(host) = small_host() else { return };
    let script = "echo before; dd if=/dev/urandom of=/large bs=1M count=64 conv=fsync; \
                  echo dd $?; echo after >&2; exit 4";
    let output = host.hyper(["run", "--name", "x", "busybox", "sh", "-c", script]);
    assert_eq!(output.status, 4, "{output:?}");
    assert_eq!(output.stdout, "before\ndd 1\n", "{output:?}");
    let x = host.inspect("x");
    assert_eq!((x["state"].as_str(), x["exit_status"].as_u64()), (Some("exited"), Some(4)), "{x}");
    assert!(host.hyper(["logs", "x"]).ok().starts_with("before"));
    host.hyper(["rm", "x"]).ok();
    assert_eq!(host.hyper(["run", "--rm", "busybox", "echo", "ok"]).ok(), "ok");
    host.assert_clean();
}

#[test]
fn a_full_disk_refuses_new_containers_and_lets_old_ones_be_removed() {
    let Some(host) = small_host() else { return };
    host.hyper(["run", "-d", "--name", "x", "busybox", "sleep", "600"]).ok();
    let filler = host.data_dir().join("filler");
    let mut zeros = File::open("/dev/zero").unwrap().take(LARGE);
    std::io::copy(&mut zeros, &mut File::create(&filler).unwrap()).unwrap_err();

    let refused = host.hyper(["run", "--name", "y", "busybox", "true"]);
    assert_eq!(refused.status, 125, "{refused:?}");
    assert_eq!(host.hyper(["exec", "x", "echo", "ok"]).ok(), "ok");
    host.hyper(["rm", "--force", "x"]).ok();
    // It may have been created before its disk could be.
    host.hyper(["rm", "--force", "y"]);
    host.assert_clean();
    fs::remove_file(filler).unwrap();
}
