// SPDX-License-Identifier: Apache-2.0
//! What a machine's process may do, as the kernel sees it.

use std::fs;
use std::path::Path;

use hc_testkit::status;
use hc_vmm::{Access, Confinement, Disk, Vm, VmSpec};

use crate::bench;

/// `nobody`, on every distribution.
const NOBODY: Confinement = Confinement { uid: 65534, gid: 65534 };

/// A running VM with one disk that can only be read, and its process.
async fn start(dir: &Path, change: impl FnOnce(&mut VmSpec)) -> Option<(Box<dyn Vm>, u32)> {
    let bench = bench::bench()?;
    let disk = dir.join("disk");
    fs::write(&disk, [0; 4096]).unwrap();
    let file = fs::File::options().read(true).write(true).open(disk).unwrap();
    let mut spec = bench.spec(dir);
    spec.disks = vec![Disk { id: "root".to_owned(), file, access: Access::ReadOnly }];
    change(&mut spec);
    let mut vm = bench.driver.create(spec).await.unwrap();
    vm.start().await.unwrap();
    let process = vm.process_id().unwrap();
    Some((vm, process))
}

#[tokio::test]
async fn it_can_gain_no_privilege_and_is_filtered() {
    let dir = tempfile::tempdir().unwrap();
    let Some((_vm, process)) = start(dir.path(), |_| ()).await else { return };
    for task in fs::read_dir(format!("/proc/{process}/task")).unwrap() {
        let task = task.unwrap().file_name().into_string().unwrap().parse().unwrap();
        assert_eq!(status(task, "NoNewPrivs"), "1");
        assert_eq!(status(task, "Seccomp"), "2");
        for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
            assert_eq!(status(task, set), "0000000000000000", "{set} of {task}");
        }
    }
    let limits = fs::read_to_string(format!("/proc/{process}/limits")).unwrap();
    let limit = |name| limits.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
    assert!(limit("Max core file size").contains(" 0 "), "{limits}");
    assert!(limit("Max open files").contains(" 512 "), "{limits}");
    assert_eq!(fs::read(format!("/proc/{process}/environ")).unwrap(), b"");
}

#[tokio::test]
async fn it_sees_no_file_of_the_host() {
    if !rustix::process::geteuid().is_root() {
        return hc_testkit::skip("only root can look into another process's root");
    }
    let dir = tempfile::tempdir().unwrap();
    let Some((_vm, process)) = start(dir.path(), |spec| spec.confine = Some(NOBODY)).await else {
        return;
    };
    assert_eq!(fs::read_dir(format!("/proc/{process}/root/")).unwrap().count(), 0);
    let mounts = fs::read_to_string(format!("/proc/{process}/mounts")).unwrap();
    assert_eq!(mounts.lines().count(), 1, "{mounts}");
    assert!(mounts.starts_with("none / tmpfs ro,nosuid,nodev,noexec"), "{mounts}");
    let namespace = |process: &str| fs::read_link(format!("/proc/{process}/ns/mnt")).unwrap();
    assert_ne!(namespace(&process.to_string()), namespace("self"));
}

#[tokio::test]
async fn root_starts_it_as_somebody_else() {
    if !rustix::process::geteuid().is_root() {
        return hc_testkit::skip("only root can become another user");
    }
    let dir = tempfile::tempdir().unwrap();
    let Some((_vm, process)) = start(dir.path(), |spec| spec.confine = Some(NOBODY)).await else {
        return;
    };
    assert_eq!(status(process, "Uid"), "65534\t65534\t65534\t65534");
    assert_eq!(status(process, "Gid"), "65534\t65534\t65534\t65534");
    assert_eq!(status(process, "Groups"), "");
}

#[tokio::test]
async fn it_holds_what_it_was_given_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    // A descriptor that leaks into children unless somebody sees to it.
    let leak = fs::File::open("/etc/hostname").unwrap();
    rustix::io::fcntl_setfd(&leak, rustix::io::FdFlags::empty()).unwrap();
    let Some((_vm, process)) = start(dir.path(), |_| ()).await else { return };
    let mut files = Vec::new();
    for entry in fs::read_dir(format!("/proc/{process}/fd")).unwrap() {
        let entry = entry.unwrap();
        let target = fs::read_link(entry.path()).unwrap().to_string_lossy().into_owned();
        if target.starts_with('/') {
            let number = entry.file_name().into_string().unwrap();
            let about = fs::read_to_string(format!("/proc/{process}/fdinfo/{number}")).unwrap();
            let flags = about.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
            let flags = u32::from_str_radix(flags.trim(), 8).unwrap();
            files.push((target, flags & 0o3));
        }
    }
    files.sort();
    let disk = dir.path().join("disk").to_string_lossy().into_owned();
    // The kernel and the initramfs are in memory by now, their files closed. The disk's descriptor
    // cannot write, so neither can whoever takes the process over. The table of pages is its own.
    let expected = [
        ("/dev/kvm".to_owned(), 2),
        ("/dev/null".to_owned(), 0),
        ("/dev/null".to_owned(), 1),
        ("/memfd:machine (deleted)".to_owned(), 2),
        (format!("/proc/{process}/pagemap"), 0),
        (disk, 0),
    ];
    for file in &expected {
        assert!(files.contains(file), "{file:?} in {files:?}");
    }
    assert_eq!(files.len(), expected.len(), "{files:?}");
}
