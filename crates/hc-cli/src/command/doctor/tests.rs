// SPDX-License-Identifier: Apache-2.0
use expect_test::{Expect, expect};
use hc_api::KvmState;

use super::*;

const NESTED: &str = "enable nested virtualisation";

fn kvm_report(state: KvmState, hint: Option<&str>) -> KvmReport {
    KvmReport {
        device: KVM.into(),
        state,
        usable: matches!(state, KvmState::Usable | KvmState::NoNestedPaging),
        finding: format!("KVM is {state:?}"),
        hint: hint.map(str::to_owned),
        loops_per_second: None,
        page_table_changes_per_second: None,
        exits_per_second: None,
    }
}

/// A driver that is there.
fn found(name: &str) -> DriverReport {
    DriverReport {
        name: name.into(),
        usable: true,
        finding: format!("{name} was looked for"),
        program: Some(format!("/usr/bin/{name}")),
        transports: Vec::new(),
        hint: None,
    }
}

/// One that cannot be used.
fn unusable(name: &str, finding: &str, hint: &str) -> DriverReport {
    DriverReport {
        usable: false,
        finding: finding.into(),
        program: None,
        hint: Some(hint.into()),
        ..found(name)
    }
}

fn info(driver: &str, kvm: KvmReport, drivers: Vec<DriverReport>) -> Info {
    Info {
        version: "0.1.0".into(),
        containers: 0,
        running: 0,
        images: 0,
        data_dir: "/d".into(),
        runtime_dir: "/r".into(),
        kernel: "/k".into(),
        kvm,
        driver: driver.into(),
        driver_reason: "it is the best that works".into(),
        drivers,
        host_cpus: 2,
        host_memory_bytes: 1 << 30,
        host_kernel: "6.1".into(),
        root: false,
    }
}

#[test]
fn what_was_probed_each_driver_and_the_choice_are_told() {
    let check = |driver, kvm, reports, expected: Expect| {
        expected.assert_eq(&text(&drivers(&info(driver, kvm, reports))));
    };
    check(
        "fast",
        kvm_report(KvmState::Usable, None),
        vec![found("fast"), unusable("slow", "slow is missing", "install slow")],
        expect![[r"
            OK    /dev/kvm     KVM is Usable
            OK    fast         fast was looked for (/usr/bin/fast)
            OFF   slow         slow is missing
                               fix: install slow
            OK    driver       fast: it is the best that works
        "]],
    );
    check(
        "fast",
        kvm_report(KvmState::NoNestedPaging, Some("load with npt=1")),
        vec![found("fast")],
        expect![[r"
            WARN  /dev/kvm     KVM is NoNestedPaging
                               fix: load with npt=1
            OK    fast         fast was looked for (/usr/bin/fast)
            OK    driver       fast: it is the best that works
        "]],
    );
    check(
        "slow",
        kvm_report(KvmState::Emulated, Some(NESTED)),
        vec![unusable("fast", "KVM is Emulated", NESTED), found("slow")],
        expect![[r"
            WARN  /dev/kvm     KVM is Emulated; pods run without it, but slowly
                               fix: enable nested virtualisation
            OFF   fast         it needs KVM
            OK    slow         slow was looked for (/usr/bin/slow)
            OK    driver       slow: it is the best that works
        "]],
    );
    check(
        "none",
        kvm_report(KvmState::Absent, Some(NESTED)),
        vec![
            unusable("fast", "KVM is Absent", NESTED),
            unusable("slow", "slow is missing", "install slow"),
        ],
        expect![[r"
            WARN  /dev/kvm     KVM is Absent
                               fix: enable nested virtualisation
            OFF   fast         it needs KVM
            OFF   slow         slow is missing
                               fix: install slow
            FAIL  driver       it is the best that works
                               fix: install slow
        "]],
    );
}

#[test]
fn every_finding_that_is_not_ok_says_what_to_do() {
    let findings = [
        hypervisor(Some("/usr/bin/qemu".into())),
        hypervisor(None),
        kvm(&Kvm::Opens),
        kvm(&Kvm::Missing),
        kvm(&Kvm::Denied { in_group: false }),
        kvm(&Kvm::Denied { in_group: true }),
        guest_file("kernel", Path::new("/no/such/file")),
        disk(Path::new("/d"), 1 << 20),
        disk(Path::new("/d"), 2 << 30),
        disk(Path::new("/d"), 20 << 30),
        memory(None),
        memory(Some(64 << 20)),
        memory(Some(512 << 20)),
        memory(Some(4 << 30)),
    ];
    expect![[r"
        OK    hypervisor   /usr/bin/qemu
        FAIL  hypervisor   qemu-system-x86_64 is not on PATH
                           fix: install it; on Debian: apt install qemu-system-x86
        OK    /dev/kvm     it opens
        WARN  /dev/kvm     this host has none; pods run without it, but slowly
                           fix: enable virtualisation in the firmware, or nested virtualisation on the outer host
        WARN  /dev/kvm     this user may not open it; pods run without it, but slowly
                           fix: run: sudo usermod -aG kvm $USER, and log in again
        WARN  /dev/kvm     this user may not open it, in spite of its group; pods run without it, but slowly
                           fix: run: sudo chmod g+rw /dev/kvm
        FAIL  kernel       /no/such/file: No such file or directory (os error 2)
                           fix: run make install again, or set HYPER_LIB to where the file is
        FAIL  disk         1MiB free for /d
                           fix: make room, or set HYPER_DATA_DIR to a folder on a larger disk
        WARN  disk         2GiB free for /d
                           fix: make room, or set HYPER_DATA_DIR to a folder on a larger disk
        OK    disk         20GiB free for /d
        WARN  memory       /proc/meminfo does not tell
                           fix: mount /proc
        FAIL  memory       64MiB available
                           fix: stop other programs, or give pods less with --memory
        WARN  memory       512MiB available
                           fix: stop other programs, or give pods less with --memory
        OK    memory       4GiB available
    "]].assert_eq(&text(&findings));
    assert!(findings.iter().all(|f| (f.status == Mark::Ok) == f.fix.is_none()));
}

#[test]
fn programs_are_found_on_the_path() {
    assert!(find_program("sh").is_some());
    assert!(find_program("no-such-program").is_none());
    assert!(available_memory().unwrap() > 0);
}
