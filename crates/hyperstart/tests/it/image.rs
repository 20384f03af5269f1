// SPDX-License-Identifier: Apache-2.0
//! The image that the tests run: busybox, a few users, and traps.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;

const APPLETS: &str = "sh cat cp cut date dd df dmesg echo env false grep head hostname id kill ln ls \
                       mkdir mknod mount nc nproc printf ps pwd readlink rm setsid sha256sum sleep \
                       stat stty tail test touch true tty umount wc yes";

const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n";
const GROUP: &str = "root:x:0:\napp:x:1000:\nwheel:x:10:app\naudio:x:29:app\n";

/// Fills `root` and makes an EROFS image of it.
pub(crate) fn build(busybox: &Path, root: &Path, image: &Path) -> Result<(), String> {
    for directory in ["bin", "etc", "home/app", "root", "tmp", "data"] {
        fs::create_dir_all(root.join(directory)).unwrap();
    }
    fs::copy(busybox, root.join("bin/busybox")).unwrap();
    for applet in APPLETS.split_whitespace() {
        symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
    fs::write(root.join("etc/passwd"), PASSWD).unwrap();
    fs::write(root.join("etc/group"), GROUP).unwrap();
    // Links that a host must not follow: out of the root, and to where nothing is.
    symlink("../../../../run/systemd/resolve/stub.conf", root.join("etc/resolv.conf")).unwrap();
    symlink("/proc/1/root/run/hyper", root.join("escape")).unwrap();
    write(root, "bin/plain", "not a program\n", 0o644);
    write(root, "bin/orphan", "#!/bin/absent\n", 0o755);
    write(root, "bin/garbage", "\u{1}\u{2}", 0o755);
    let mut mkfs = Command::new("mkfs.erofs");
    let made = mkfs.args(["--quiet", "--all-root"]).args([image, root]).status();
    if made.is_ok_and(|status| status.success()) { Ok(()) } else { Err("mkfs.erofs failed".into()) }
}

fn write(root: &Path, path: &str, text: &str, mode: u32) {
    let path = root.join(path);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
}
