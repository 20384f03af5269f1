// SPDX-License-Identifier: Apache-2.0
//! Many pods, one after the other, leave nothing behind.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use hc_testkit::{Host, children_of, memory_kib, until};

/// Rounds before what is there is counted: caches are filled by then.
const WARM_UP: usize = 20;
const ROUNDS: usize = 200;
/// How much the daemon's memory may grow meanwhile, in KiB: what an allocator keeps, and far less
/// than a leak of a connection's buffers in each round.
const MAX_GROWTH_KIB: u64 = 4 * 1024;

/// What an installation has at a moment at which nothing runs.
#[derive(Debug, PartialEq, Eq)]
struct Belongings {
    files: BTreeSet<PathBuf>,
    children: usize,
    descriptors: usize,
}

impl Belongings {
    fn of(host: &Host) -> Belongings {
        let daemon = host.daemon_pid();
        let mut files = BTreeSet::new();
        collect(&host.data_dir(), &mut files);
        collect(&host.runtime_dir(), &mut files);
        Belongings {
            files,
            children: children_of(daemon).len(),
            descriptors: fs::read_dir(format!("/proc/{daemon}/fd")).unwrap().count(),
        }
    }
}

fn collect(dir: &Path, files: &mut BTreeSet<PathBuf>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().unwrap().is_dir() {
            collect(&entry.path(), files);
        }
        files.insert(entry.path());
    }
}

#[test]
fn two_hundred_pods_leave_no_file_process_descriptor_or_memory() {
    let Some(host) = Host::new() else { return };
    host.busybox();
    host.hyper(["template", "create", "--quiet"]).ok();
    let run = || {
        host.hyper(["run", "--rm", "busybox", "true"]).ok();
    };
    (0..WARM_UP).for_each(|_| run());
    host.assert_clean();
    let before = Belongings::of(&host);
    let memory = || memory_kib(host.daemon_pid(), "status", "RssAnon").unwrap();
    let memory_before = memory();
    (0..ROUNDS).for_each(|_| run());
    host.assert_clean();
    let mut after = Belongings::of(&host);
    until("all is as it was", || {
        after = Belongings::of(&host);
        after.descriptors <= before.descriptors && after.children <= before.children
    });
    assert_eq!(after.files, before.files);
    let growth = memory().saturating_sub(memory_before);
    println!("hyperd: {memory_before} KiB, and {growth} KiB more after {ROUNDS} pods");
    assert!(growth <= MAX_GROWTH_KIB, "{memory_before} KiB, and {growth} KiB more");
}
