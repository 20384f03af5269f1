// SPDX-License-Identifier: Apache-2.0
//! Kernels other than our own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use hc_testkit::{Host, has_program, skip};

/// Debian's newest kernel for clouds, unpacked and not installed: the folder and the release. Kept
/// for the next time, because it is large.
fn debian_kernel() -> Option<(PathBuf, String)> {
    if !has_program("apt-get") || !has_program("dpkg") {
        skip("no apt-get or dpkg to get Debian's kernel with");
        return None;
    }
    let depends = Command::new("apt-cache").args(["depends", "linux-image-cloud-amd64"]).output();
    let depends = String::from_utf8(depends.unwrap().stdout).unwrap();
    let package = depends.lines().find_map(|line| {
        line.trim().strip_prefix("Depends: ").filter(|name| name.starts_with("linux-image-"))
    });
    let Some(package) = package else {
        skip("apt knows no linux-image-cloud-amd64");
        return None;
    };
    let release = package.strip_prefix("linux-image-").unwrap().to_owned();
    let cache = std::env::var_os("HYPER_CACHE").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache/hyper-build"),
        PathBuf::from,
    );
    let kept = cache.join(format!("test-{package}"));
    if !kept.exists() {
        fs::create_dir_all(&cache).unwrap();
        let dir = tempfile::tempdir_in(&cache).unwrap();
        let mut download = Command::new("apt-get");
        download.args(["download", "--quiet", package]).current_dir(dir.path());
        if !download.output().unwrap().status.success() {
            skip("Debian's kernel cannot be downloaded");
            return None;
        }
        let archive = fs::read_dir(dir.path()).unwrap().next().unwrap().unwrap().path();
        let unpacked = dir.path().join("unpacked");
        let output = Command::new("dpkg").arg("-x").arg(archive).arg(&unpacked).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        // Whoever comes second finds the folder there, and needs no other.
        assert!(fs::rename(unpacked, &kept).is_ok() || kept.exists());
    }
    Some((kept, release))
}

fn kernel_in(dir: &Path, release: &str) -> String {
    dir.join("boot").join(format!("vmlinuz-{release}")).display().to_string()
}

#[test]
fn a_distributions_kernel_runs_a_pod_with_its_modules() {
    let Some(host) = Host::new() else { return };
    let Some((dir, release)) = debian_kernel() else { return };
    host.busybox();
    let kernel = kernel_in(&dir, &release);
    let script = "uname -r; grep -c -e ^virtio_blk -e ^overlay -e ^erofs /proc/modules; \
                  echo written >/root/file; cat /root/file; ip address show eth0 | grep -c 10.0.2";
    let run = ["run", "--name", "c", "--kernel", &kernel, "busybox", "sh", "-c", script];
    assert_eq!(host.hyper(run).ok(), format!("{release}\n3\nwritten\n1"));
    assert_eq!(host.inspect("c")["kernel"], kernel);
    host.hyper(["rm", "c"]).ok();

    // The configuration file names the kernel of every pod that names none.
    let config = host.path().join("config.toml");
    fs::write(&config, format!("kernel = {kernel:?}\n")).unwrap();
    host.kill_daemon();
    assert_eq!(host.hyper(["run", "--rm", "busybox", "uname", "-r"]).ok(), release);
    host.assert_clean();
}

#[test]
fn a_kernel_that_lacks_something_is_refused_by_the_options_name() {
    let Some(host) = Host::new() else { return };
    let Some((dir, release)) = debian_kernel() else { return };
    host.busybox();
    let boot = host.path().join("boot");
    fs::create_dir(&boot).unwrap();
    let name = format!("config-{release}");
    let config = fs::read_to_string(dir.join("boot").join(&name)).unwrap();
    let lacking: Vec<_> = config
        .lines()
        .filter(|line| !line.starts_with("CONFIG_EROFS_FS=") && !line.starts_with("CONFIG_MEMCG="))
        .collect();
    fs::write(boot.join(name), lacking.join("\n")).unwrap();
    let kernel = kernel_in(host.path(), &release);
    fs::copy(kernel_in(&dir, &release), &kernel).unwrap();
    let refused = host.hyper(["run", "--rm", "--kernel", &kernel, "busybox", "true"]);
    refused.fails(125, "CONFIG_EROFS_FS");
    refused.fails(125, "CONFIG_MEMCG");
    host.assert_clean();
}
