// SPDX-License-Identifier: Apache-2.0
//! Promises about the disks of a VM.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};

use rustix::mount::{MountFlags, UnmountFlags};

use super::{Bench, disk, fill, run_dir};
use crate::{Access, Disk};

const MIB: u64 = 1 << 20;

/// The guest tells disks apart by the ids that the caller gave them.
pub async fn disks_are_found_by_their_id(bench: &Bench) {
    let ids = ["root", "exactly-twenty-bytes", "scratch"];
    let disks = ids.map(|id| disk(id, Access::ReadOnly, MIB, &format!("this-is-{id}\n")));
    let mut running = bench.boot(|spec| spec.disks = disks.into()).await;
    for id in ids {
        assert_eq!(running.ask(&format!("read {id}")).await, format!("ok this-is-{id}"));
    }
}

/// What the guest writes and syncs is in the file.
pub async fn scratch_disk_reaches_its_file(bench: &Bench) {
    for access in [Access::Scratch, Access::Durable] {
        let disk = disk("scratch", access, MIB, "before\n");
        let file = disk.file.try_clone().unwrap();
        let mut running = bench.boot(|spec| spec.disks = vec![disk]).await;
        assert_eq!(running.ask("write scratch after").await, "ok");
        assert_eq!(running.ask("read scratch").await, "ok after");
        assert_eq!(start(&file, 6), b"after\n");
    }
}

/// What the guest trims takes no room on the host any more.
pub async fn trimmed_blocks_are_given_back(bench: &Bench) {
    let disk = disk("scratch", Access::Scratch, 8 * MIB, "");
    let file = disk.file.try_clone().unwrap();
    let used = || file.metadata().unwrap().blocks() * 512;
    let mut running = bench.boot(|spec| spec.disks = vec![disk]).await;
    assert_eq!(running.ask("fill scratch").await, "ok");
    assert!(used() >= 8 * MIB, "{} bytes", used());
    assert_eq!(running.ask("trim scratch").await, "ok");
    assert!(used() < MIB, "{} bytes", used());
}

/// The host keeps a guest from writing, whatever handle it was given and whatever the guest tries.
pub async fn read_only_disk_cannot_be_written(bench: &Bench) {
    let disk = disk("root", Access::ReadOnly, MIB, "kept\n");
    let file = disk.file.try_clone().unwrap();
    let mut running = bench.boot(|spec| spec.disks = vec![disk]).await;
    let answer = running.ask("write root changed").await;
    assert!(answer.starts_with("error "), "{answer}");
    assert_eq!(running.ask("read root").await, "ok kept");
    assert_eq!(start(&file, 5), b"kept\n");
}

/// A host without room is the guest's problem to solve: it gets an error, and lives.
pub async fn full_host_disk_is_an_error_for_the_guest(bench: &Bench) {
    let Some(file) = file_on_full_disk() else {
        return (bench.skip)("only root can make a small file system");
    };
    fill(&file, 16 * MIB, "");
    let disk = Disk { id: "scratch".to_owned(), file, access: Access::Scratch };
    let mut running = bench.boot(|spec| spec.disks = vec![disk]).await;
    let answer = running.ask("fill scratch").await;
    assert!(answer.starts_with("error "), "{answer}");
    assert_eq!(running.ask("cpus").await, "1");
}

/// A file on a file system of two MiB that nobody else sees and that goes with it.
fn file_on_full_disk() -> Option<File> {
    let dir = run_dir();
    let options = c"size=2m";
    match rustix::mount::mount("tmpfs", dir.path(), "tmpfs", MountFlags::empty(), options) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return None,
        Err(error) => panic!("cannot mount a tmpfs: {error}"),
    }
    let path = dir.path().join("disk");
    let file = File::options().read(true).write(true).create_new(true).open(&path);
    rustix::mount::unmount(dir.path(), UnmountFlags::DETACH).unwrap();
    Some(file.unwrap())
}

fn start(file: &File, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}
