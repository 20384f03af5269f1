// SPDX-License-Identifier: Apache-2.0
//! What a QEMU process may do, as the kernel sees it.

use std::fs;
use std::path::Path;

use hc_testkit::status;
use hc_vmm::{Access, Confinement, Disk, Link, Nic, Vm, VmSpec};

use crate::bench;

/// `nobody`, on every distribution.
const NOBODY: Confinement = Confinement { uid: 65534, gid: 65534 };

/// What the descriptors of a process point at, without those that QEMU made itself.
fn inherited(process: u32) -> Vec<String> {
    let entries = fs::read_dir(format!("/proc/{process}/fd")).unwrap();
    let targets = entries.map(|entry| fs::read_link(entry.unwrap().path()).unwrap());
    let mut targets: Vec<String> = targets
        .map(|target| target.to_string_lossy().into_owned())
        .filter(|target| !target.starts_with("anon_inode:") && target != "/dev/kvm")
        .map(|target| target.split_once(":[").map_or(target.clone(), |(kind, _)| kind.to_owned()))
        .collect();
    targets.sort();
    targets
}

fn spec(dir: &Path, disk: &Path) -> VmSpec {
    let file = fs::File::options().read(true).write(true).open(disk).unwrap();
    let mut spec = bench::spec(dir);
    spec.nic = Some(Nic { mac: [2, 0, 0, 0, 0, 1], link: Link::Owner });
    spec.disks = vec![Disk { id: "root".to_owned(), file, access: Access::ReadOnly }];
    spec
}

/// A running VM of a driver that has one disk and a card.
async fn start(dir: &Path, change: impl FnOnce(&mut VmSpec)) -> Option<(Box<dyn Vm>, u32)> {
    let bench = bench::microvm()?;
    let disk = dir.join("disk");
    fs::write(&disk, [0; 4096]).unwrap();
    let mut spec = spec(dir, &disk);
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
    assert_eq!(status(process, "NoNewPrivs"), "1");
    assert_eq!(status(process, "Seccomp"), "2");
    let limits = fs::read_to_string(format!("/proc/{process}/limits")).unwrap();
    let limit = |name| limits.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
    assert!(limit("Max core file size").contains(" 0 "), "{limits}");
    assert!(limit("Max open files").contains(" 512 "), "{limits}");
    let environment = fs::read(format!("/proc/{process}/environ")).unwrap();
    assert_eq!(environment, b"");
}

#[tokio::test]
async fn it_holds_what_it_was_given_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    // A descriptor that leaks into children unless somebody sees to it.
    let leak = fs::File::open("/etc/hostname").unwrap();
    rustix::io::fcntl_setfd(&leak, rustix::io::FdFlags::empty()).unwrap();
    let Some((_vm, process)) = start(dir.path(), |_| ()).await else { return };
    let disk = dir.path().join("disk").to_string_lossy().into_owned();
    let kernel = bench::spec(dir.path()).kernel.canonicalize().unwrap();
    let initramfs = bench::spec(dir.path()).initramfs.canonicalize().unwrap();
    let mut expected = vec![
        "/dev/null".to_owned(),
        "/dev/null".to_owned(),
        // The disk as it was inherited, and the copy that QEMU's block layer made.
        disk.clone(),
        disk,
        kernel.to_string_lossy().into_owned(),
        initramfs.to_string_lossy().into_owned(),
    ];
    // Control, channel, console, network and standard error.
    expected.extend(vec!["socket".to_owned(); 5]);
    expected.sort();
    assert_eq!(inherited(process), expected);
}

#[tokio::test]
async fn it_cannot_write_a_read_only_disk_even_if_taken_over() {
    let dir = tempfile::tempdir().unwrap();
    let Some((_vm, process)) = start(dir.path(), |_| ()).await else { return };
    let disk = dir.path().join("disk");
    let mut seen = 0;
    for entry in fs::read_dir(format!("/proc/{process}/fd")).unwrap() {
        let entry = entry.unwrap();
        if fs::read_link(entry.path()).unwrap() == disk {
            let number = entry.file_name().into_string().unwrap();
            let about = fs::read_to_string(format!("/proc/{process}/fdinfo/{number}")).unwrap();
            let flags = about.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
            let flags = u32::from_str_radix(flags.trim(), 8).unwrap();
            assert_eq!(flags & 0o3, 0, "{about}");
            seen += 1;
        }
    }
    assert!(seen > 0);
}

#[tokio::test]
async fn root_starts_it_as_somebody_else_who_can_read_no_file_of_root() {
    if !rustix::process::geteuid().is_root() {
        return hc_testkit::skip("only root can become another user");
    }
    let dir = tempfile::tempdir().unwrap();
    let private = dir.path().join("initramfs");
    let started = start(dir.path(), |spec| {
        // A file that only root may read, below a folder that only root may enter.
        fs::copy(&spec.initramfs, &private).unwrap();
        let only_root = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        fs::set_permissions(&private, only_root).unwrap();
        spec.initramfs.clone_from(&private);
        spec.confine = Some(NOBODY);
    });
    let Some((mut vm, process)) = started.await else { return };
    assert_eq!(status(process, "Uid"), "65534\t65534\t65534\t65534");
    assert_eq!(status(process, "Gid"), "65534\t65534\t65534\t65534");
    // Under KVM, that of /dev/kvm.
    assert!(status(process, "Groups").split_whitespace().all(|group| group != "0"));
    assert_eq!(status(process, "CapPrm"), "0000000000000000");
    let mut ready = [0; 6];
    let channel = tokio::net::UnixStream::from_std(vm.channel().unwrap()).unwrap();
    bench::in_time(async {
        let mut channel = channel;
        tokio::io::AsyncReadExt::read_exact(&mut channel, &mut ready).await.unwrap();
    })
    .await;
    assert_eq!(&ready, b"ready\n");
}
