// SPDX-License-Identifier: Apache-2.0
use expect_test::expect;
use hc_api::DriverReport;

use super::*;

fn info(driver: &str) -> Info {
    let report = |name: &str, usable, hint: Option<&str>| DriverReport {
        name: name.into(),
        usable,
        finding: format!("{name} was tried"),
        hint: hint.map(str::to_owned),
    };
    Info {
        version: "0.1.0".into(),
        containers: 0,
        running: 0,
        images: 0,
        data_dir: "/d".into(),
        runtime_dir: "/r".into(),
        kernel: "/k".into(),
        driver: driver.into(),
        driver_reason: "it is the fastest that works".into(),
        drivers: vec![
            report("qemu-kvm", driver == "qemu-kvm", Some("enable nested virtualisation")),
            report("qemu-tcg", true, None),
            report("broken", false, None),
        ],
        host_cpus: 2,
        host_memory_bytes: 1 << 30,
        host_kernel: "6.1".into(),
        root: false,
    }
}

#[test]
fn every_finding_that_is_not_ok_says_what_to_do() {
    let findings = [
        hypervisor(Some("/usr/bin/qemu".into())),
        hypervisor(None),
        drivers(&info("qemu-kvm")),
        drivers(&info("qemu-tcg")),
        drivers(&info("broken")),
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
        OK    driver       qemu-kvm: it is the fastest that works
        WARN  driver       qemu-tcg: it is the fastest that works; pods run, but slowly
                           fix: enable nested virtualisation
        FAIL  driver       broken: broken was tried
                           fix: choose another with --driver
        OK    kvm          /dev/kvm opens
        WARN  kvm          there is no /dev/kvm; pods run without it, but slowly
                           fix: enable virtualisation in the firmware, or nested virtualisation on the outer host
        WARN  kvm          no permission for /dev/kvm; pods run without it, but slowly
                           fix: run: sudo usermod -aG kvm $USER, and log in again
        WARN  kvm          no permission for /dev/kvm in spite of its group; pods run without it, but slowly
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
