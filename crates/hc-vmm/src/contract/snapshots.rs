// SPDX-License-Identifier: Apache-2.0
//! Promises about copies of a running guest, and about disks that get other files.

use std::fs::File;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::time::Instant;

use super::links::{card, owner_gets_the_frames};
use super::{Bench, Running, disk, in_time, run_dir};
use crate::{Ability, Access, Link, Saved, VmSpec};

const MIB: u64 = 1 << 20;

/// How far apart the clocks of two guests may be of which one went on from the other a moment ago.
const MOMENT_NANOS: u64 = 60_000_000_000;

/// A copied guest goes on, and each VM that is made of the copy goes on by itself.
pub async fn snapshot_goes_on_many_times(bench: &Bench) {
    if !has(bench, Ability::Snapshot) {
        return;
    }
    let mut original = bench.boot(|_| ()).await;
    assert_eq!(original.ask("keep before").await, "ok");
    let clock: u64 = original.ask("clock").await.parse().unwrap();
    let files = Files::of(&mut original).await;
    assert_eq!(original.ask("kept").await, "before");
    assert_eq!(original.ask("keep original").await, "ok");

    let mut first = files.restore(bench, |_| ()).await;
    assert_eq!(first.ask("kept").await, "before");
    assert_eq!(first.ask("keep first").await, "ok");
    let mut second = files.restore(bench, |_| ()).await;
    assert_eq!(second.ask("kept").await, "before");

    assert_eq!(first.ask("kept").await, "first");
    assert_eq!(original.ask("kept").await, "original");
    for running in [&mut original, &mut first, &mut second] {
        let now: u64 = running.ask("clock").await.parse().unwrap();
        assert!(now >= clock && now - clock < MOMENT_NANOS, "{clock} {now}");
    }
}

/// A VM that was made of a copy can be copied itself, also while it is held.
pub async fn snapshot_of_a_restored_vm(bench: &Bench) {
    if !has(bench, Ability::Snapshot) {
        return;
    }
    let mut original = bench.boot(|_| ()).await;
    assert_eq!(original.ask("keep one").await, "ok");
    let first = Files::of(&mut original).await;
    drop(original);
    let mut restored = first.restore(bench, |_| ()).await;
    drop(first);
    assert_eq!(restored.ask("keep two").await, "ok");
    restored.vm.pause().unwrap().hold().await.unwrap();
    let second = Files::of(&mut restored).await;
    let mut again = second.restore(bench, |_| ()).await;
    assert_eq!(again.ask("kept").await, "two");
    assert_eq!(restored.ask("kept").await, "two");
}

/// What was never touched takes no room in a copy.
pub async fn snapshot_is_sparse(bench: &Bench) {
    if !has(bench, Ability::Snapshot) {
        return;
    }
    let mut original = bench.boot(|spec| spec.memory_mib = 256).await;
    let files = Files::of(&mut original).await;
    let memory = files.memory.metadata().unwrap();
    assert_eq!(memory.len(), 256 * MIB);
    assert!(memory.blocks() * 512 < 128 * MIB, "{} blocks", memory.blocks());
    assert!(files.state.metadata().unwrap().len() < 16 * MIB);
}

/// A restored guest has the disks that the new VM was given, as soon as its driver has looked.
pub async fn restored_guest_gets_its_own_disks(bench: &Bench) {
    if !has(bench, Ability::Snapshot) {
        return;
    }
    let disks = || {
        let placeholder = |id| disk(id, Access::ReadOnly, 4096, "nothing\n");
        vec![placeholder("one"), disk("two", Access::Scratch, 4096, "nothing\n")]
    };
    let mut original = bench.boot(|spec| spec.disks = disks()).await;
    assert_eq!(original.ask("unbind").await, "ok");
    let files = Files::of(&mut original).await;
    for name in ["first", "second"] {
        let root = disk("root", Access::ReadOnly, 3 * MIB, &format!("{name}\n"));
        let scratch = disk("scratch", Access::Scratch, 2 * MIB, "");
        let file = scratch.file.try_clone().unwrap();
        let mut running = files.restore(bench, |spec| spec.disks = vec![root, scratch]).await;
        assert_eq!(running.ask("bind").await, "ok");
        assert_eq!(running.ask("read root").await, format!("ok {name}"));
        assert_eq!(running.ask("size root").await, (3 * MIB).to_string());
        assert_eq!(running.ask("write scratch text").await, "ok");
        let mut start = [0; 5];
        file.read_exact_at(&mut start, 0).unwrap();
        assert_eq!(&start, b"text\n");
    }
}

/// The card of a restored guest leads to the new VM's owner.
pub async fn restored_guest_has_a_network(bench: &Bench) {
    if !has(bench, Ability::Snapshot) || !has(bench, Ability::Network) {
        return;
    }
    let mut original = bench.boot(|spec| spec.nic = Some(card(Link::Owner))).await;
    let files = Files::of(&mut original).await;
    drop(original);
    let running = files.restore(bench, |spec| spec.nic = Some(card(Link::Owner))).await;
    owner_gets_the_frames(running).await;
}

/// A copy that is damaged or half-written makes no VM that pretends to run.
pub async fn damaged_snapshot_is_no_vm(bench: &Bench) {
    if !has(bench, Ability::Snapshot) {
        return;
    }
    let mut original = bench.boot(|_| ()).await;
    let files = Files::of(&mut original).await;
    let len = files.state.metadata().unwrap().len();
    for left in [0, len / 2] {
        files.state.set_len(left).unwrap();
        let dir = run_dir();
        let mut spec = bench.spec(dir.path());
        spec.saved = Some(files.saved());
        // Whether `create` sees it, or `start`, or the VM ends at once, is the driver's own affair.
        let Ok(mut vm) = bench.driver.create(spec).await else { continue };
        if vm.start().await.is_ok() {
            in_time("wait for the end of a damaged vm", vm.wait()).await.unwrap();
        }
    }
}

/// A disk gets another file, of another size, and nothing more is written to the one before.
pub async fn replaced_disk_has_the_new_content(bench: &Bench) {
    if !has(bench, Ability::Replace) {
        return;
    }
    let disks = vec![
        disk("root", Access::ReadOnly, 4096, "old\n"),
        disk("scratch", Access::Scratch, 4096, "old\n"),
    ];
    let before = disks[1].file.try_clone().unwrap();
    let mut running = bench.boot(|spec| spec.disks = disks).await;
    assert_eq!(running.ask("unbind").await, "ok");
    let root = disk("root", Access::ReadOnly, 3 * MIB, "new\n");
    let scratch = disk("scratch", Access::Scratch, 2 * MIB, "new\n");
    let after = scratch.file.try_clone().unwrap();
    for disk in [root, scratch] {
        running.vm.replace().unwrap().replace(disk).await.unwrap();
    }
    assert_eq!(running.ask("bind").await, "ok");
    assert_eq!(running.ask("read root").await, "ok new");
    assert_eq!(running.ask("size root").await, (3 * MIB).to_string());
    assert!(running.ask("write root changed").await.starts_with("error "));
    assert_eq!(running.ask("write scratch text").await, "ok");
    let mut start = [0; 4];
    after.read_exact_at(&mut start, 0).unwrap();
    assert_eq!(&start, b"text");
    before.read_exact_at(&mut start, 0).unwrap();
    assert_eq!(&start, b"old\n");
    let unknown = disk("unknown", Access::ReadOnly, 4096, "");
    assert!(running.vm.replace().unwrap().replace(unknown).await.is_err());
    assert_eq!(running.ask("read root").await, "ok new");
}

/// The handles are there exactly if the abilities are.
pub async fn snapshot_handles_match_abilities(bench: &Bench) {
    let dir = run_dir();
    let mut vm = bench.driver.create(bench.spec(dir.path())).await.unwrap();
    assert_eq!(vm.snapshot().is_some(), has(bench, Ability::Snapshot));
    assert_eq!(vm.replace().is_some(), has(bench, Ability::Replace));
}

fn has(bench: &Bench, ability: Ability) -> bool {
    bench.driver.abilities().contains(&ability)
}

/// The two files of a copy.
struct Files {
    memory: File,
    state: File,
}

impl Files {
    /// Copies the guest and lets it go on.
    async fn of(running: &mut Running) -> Files {
        let files =
            Files { memory: tempfile::tempfile().unwrap(), state: tempfile::tempfile().unwrap() };
        let snapshot = running.vm.snapshot().unwrap();
        let begun = Instant::now();
        let taken = in_time("take a snapshot", snapshot.take(&files.memory, &files.state)).await;
        assert!(taken.unwrap() >= begun);
        running.vm.pause().unwrap().release().await.unwrap();
        assert_eq!(running.ask("cpus").await, "1");
        files
    }

    fn saved(&self) -> Saved {
        let clone = |file: &File| file.try_clone().unwrap();
        Saved { memory: clone(&self.memory), state: clone(&self.state) }
    }

    async fn restore(&self, bench: &Bench, change: impl FnOnce(&mut VmSpec)) -> Running {
        bench
            .launch(|spec| {
                spec.saved = Some(self.saved());
                change(spec);
            })
            .await
    }
}
