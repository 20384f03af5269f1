// SPDX-License-Identifier: Apache-2.0
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;

use super::*;

fn device(path: impl Into<PathBuf>) -> Places {
    Places { device: path.into(), ..Places::default() }
}

#[test]
fn probing_this_host_ends_in_time_with_the_same_answer_twice() {
    let start = Instant::now();
    let first = probe();
    assert!(start.elapsed() < PATIENCE + Duration::from_secs(1), "{first}");
    assert_eq!(first.is_usable(), probe().is_usable());
    // Another hypervisor may hold the processor, but whoever makes a VM can run the loop.
    let broken = matches!(&first, Probe::Broken(reason) if !reason.contains("create a VM"));
    assert!(!broken, "{first}");
}

/// The processor of a host without the instructions for virtualisation can run no guest's kernel,
/// whatever its `/dev/kvm` pretends.
#[test]
fn kvm_on_a_processor_without_virtualisation_is_emulated() {
    let processor = fs::read_to_string("/proc/cpuinfo").unwrap();
    let can = processor.split_ascii_whitespace().any(|flag| flag == "vmx" || flag == "svm");
    if can || !Path::new("/dev/kvm").exists() {
        return hc_testkit::skip("no KVM without a processor behind it here");
    }
    match probe() {
        Probe::Emulated(speed) => assert!(speed.loops_per_second > 1000, "{speed:?}"),
        Probe::NoPermission => hc_testkit::skip("no permission for /dev/kvm"),
        other => panic!("{other}"),
    }
}

#[test]
fn a_missing_device_and_a_node_without_a_driver_are_absent() {
    assert_eq!(probe_at(&device("/nonexistent/kvm")), Probe::Absent);
    let check = |errno| {
        assert_eq!(cannot_open(&io::Error::from_raw_os_error(errno)), Probe::Absent, "{errno}");
    };
    check(6);
    check(19);
}

#[test]
fn a_device_of_another_kind_is_broken() {
    let Probe::Broken(reason) = probe_at(&device("/dev/null")) else { panic!("not broken") };
    assert!(reason.starts_with("cannot create a VM"), "{reason}");
    assert!(matches!(probe_at(&device("/tmp")), Probe::Broken(_)));
    assert!(matches!(probe_at(&device("/tmp/\0")), Probe::Broken(_)));
}

#[test]
fn a_device_of_others_is_refused() {
    /// The user that Debian calls `nobody`.
    const NOBODY: u32 = 65534;
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
    let file = dir.path().join("kvm");
    fs::write(&file, "").unwrap();
    fs::set_permissions(&file, Permissions::from_mode(0o000)).unwrap();
    let places = device(file);
    let probed = thread::spawn(move || {
        if rustix::process::geteuid().is_root() {
            // Of this thread alone, and of the one that the probe starts.
            rustix::thread::set_thread_uid(rustix::process::Uid::from_raw(NOBODY)).unwrap();
        }
        probe_at(&places)
    });
    assert_eq!(probed.join().unwrap(), Probe::NoPermission);
}
