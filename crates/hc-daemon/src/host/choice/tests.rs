// SPDX-License-Identifier: Apache-2.0
use std::fmt::Write as _;

use TransportConfig::{Mmio, Pci};
use expect_test::{Expect, expect};
use hc_kvm_probe::Speed;

use super::*;

fn speed(loops_per_second: u64) -> Speed {
    Speed { loops_per_second, switches_per_second: 600_000, exits_per_second: 1_000_000 }
}

fn usable() -> Probe {
    Probe::Usable(speed(3_000_000_000))
}

fn hypervisor(program: &str, transports: &[TransportConfig]) -> Hypervisor {
    Hypervisor { program: program.into(), transports: transports.to_vec() }
}

/// A host on which everything is installed.
fn found(kvm: Probe) -> Findings {
    Findings {
        kvm,
        built_in: Ok(hypervisor("/bin/hyper-vmm", &[Mmio])),
        others_may_open: Ok(()),
        qemu: Ok(hypervisor("/bin/qemu", &[Mmio, Pci])),
    }
}

fn missing(what: &str) -> Result<Hypervisor, Obstacle> {
    let hint = Some(format!("install {what}"));
    Err(Obstacle { reason: format!("cannot find {what}"), hint })
}

/// Writes down what is chosen for each name, or for none, and why.
#[track_caller]
fn check(findings: Findings, transport: TransportConfig, expected: Expect) {
    let mut table = String::new();
    for name in [None, Some("kvm"), Some("qemu"), Some("qemu-kvm"), Some("qemu-tcg")] {
        let wanted = name.map(|name| Wanted::try_from(name.to_owned()).unwrap());
        let choice = match findings.choose(wanted, transport) {
            Ok(Choice { driver, reason }) => format!("{}: {reason}", driver.name()),
            Err(Failure(error)) => {
                assert_eq!(error.kind, ErrorKind::Unsupported);
                format!("error: {}\n  hint: {}", error.message, error.hint.unwrap())
            }
        };
        let _ = writeln!(table, "{} -> {choice}", name.unwrap_or("-"));
    }
    expected.assert_eq(&table);
}

#[test]
fn real_kvm_is_used_by_the_driver_that_is_built_in() {
    check(
        found(usable()),
        Mmio,
        expect![[r"
        - -> kvm: KVM works: 3.0 billion loop turns a second
        kvm -> kvm: it was asked for
        qemu -> qemu-kvm: KVM works: 3.0 billion loop turns a second
        qemu-kvm -> qemu-kvm: it was asked for
        qemu-tcg -> qemu-tcg: it was asked for
    "]],
    );
}

#[test]
fn a_kernel_that_needs_pci_gets_qemu_and_the_reason() {
    check(
        found(usable()),
        Pci,
        expect![[r"
        - -> qemu-kvm: KVM works: 3.0 billion loop turns a second; not by kvm: it has no PCI bus, on which the kernel finds its devices
        kvm -> error: driver kvm cannot be used here: it has no PCI bus, on which the kernel finds its devices
          hint: use a kernel with virtio-mmio built in, or another driver
        qemu -> qemu-kvm: KVM works: 3.0 billion loop turns a second
        qemu-kvm -> qemu-kvm: it was asked for
        qemu-tcg -> qemu-tcg: it was asked for
    "]],
    );
}

#[test]
fn kvm_without_nested_paging_is_used_and_its_sentence_says_what_is_slow() {
    check(
        found(Probe::Shadowed(speed(3_000_000_000))),
        Mmio,
        expect![[r"
        - -> kvm: KVM works without nested paging: 3.0 billion loop turns a second, but only 600.0 thousand changes of page tables
        kvm -> kvm: it was asked for
        qemu -> qemu-kvm: KVM works without nested paging: 3.0 billion loop turns a second, but only 600.0 thousand changes of page tables
        qemu-kvm -> qemu-kvm: it was asked for
        qemu-tcg -> qemu-tcg: it was asked for
    "]],
    );
}

#[test]
fn each_kvm_that_cannot_be_used_is_replaced_only_where_nobody_named_it() {
    let check = |kvm, expected| check(found(kvm), Mmio, expected);
    check(
        Probe::Emulated(speed(1_000_000)),
        expect![[r"
        - -> qemu-tcg: KVM only emulates guest kernels here: 1.0 million loop turns a second, so guests are translated by QEMU
        kvm -> error: driver kvm cannot be used here: KVM only emulates guest kernels here: 1.0 million loop turns a second
          hint: enable nested virtualisation on the outer host
        qemu -> qemu-tcg: KVM only emulates guest kernels here: 1.0 million loop turns a second, so guests are translated by QEMU
        qemu-kvm -> error: driver qemu-kvm cannot be used here: KVM only emulates guest kernels here: 1.0 million loop turns a second
          hint: enable nested virtualisation on the outer host
        qemu-tcg -> qemu-tcg: it was asked for
    "]],
    );
    check(
        Probe::NoPermission,
        expect![[r"
        - -> qemu-tcg: this user may not open /dev/kvm, so guests are translated by QEMU
        kvm -> error: driver kvm cannot be used here: this user may not open /dev/kvm
          hint: add yourself to the group of /dev/kvm, often kvm
        qemu -> qemu-tcg: this user may not open /dev/kvm, so guests are translated by QEMU
        qemu-kvm -> error: driver qemu-kvm cannot be used here: this user may not open /dev/kvm
          hint: add yourself to the group of /dev/kvm, often kvm
        qemu-tcg -> qemu-tcg: it was asked for
    "]],
    );
    check(
        Probe::Absent,
        expect![[r"
        - -> qemu-tcg: this host has no /dev/kvm, so guests are translated by QEMU
        kvm -> error: driver kvm cannot be used here: this host has no /dev/kvm
          hint: enable virtualisation in the firmware, or on the outer host, and load kvm_intel or kvm_amd
        qemu -> qemu-tcg: this host has no /dev/kvm, so guests are translated by QEMU
        qemu-kvm -> error: driver qemu-kvm cannot be used here: this host has no /dev/kvm
          hint: enable virtualisation in the firmware, or on the outer host, and load kvm_intel or kvm_amd
        qemu-tcg -> qemu-tcg: it was asked for
    "]],
    );
    check(
        Probe::Busy,
        expect![[r"
        - -> qemu-tcg: another hypervisor has the processor's virtualisation, so guests are translated by QEMU
        kvm -> error: driver kvm cannot be used here: another hypervisor has the processor's virtualisation
          hint: end the VMs of VirtualBox or VMware, or unload their modules
        qemu -> qemu-tcg: another hypervisor has the processor's virtualisation, so guests are translated by QEMU
        qemu-kvm -> error: driver qemu-kvm cannot be used here: another hypervisor has the processor's virtualisation
          hint: end the VMs of VirtualBox or VMware, or unload their modules
        qemu-tcg -> qemu-tcg: it was asked for
    "]],
    );
    check(
        Probe::Broken("no vCPU".into()),
        expect![[r"
        - -> qemu-tcg: KVM does not work: no vCPU, so guests are translated by QEMU
        kvm -> error: driver kvm cannot be used here: KVM does not work: no vCPU
          hint: look for kvm in the kernel's log
        qemu -> qemu-tcg: KVM does not work: no vCPU, so guests are translated by QEMU
        qemu-kvm -> error: driver qemu-kvm cannot be used here: KVM does not work: no vCPU
          hint: look for kvm in the kernel's log
        qemu-tcg -> qemu-tcg: it was asked for
    "]],
    );
}

#[test]
fn what_is_not_installed_is_passed_over_or_named() {
    let no_vmm = |kvm| Findings { built_in: missing("hyper-vmm"), ..found(kvm) };
    let no_qemu = |kvm| Findings { qemu: missing("QEMU"), ..found(kvm) };
    check(
        no_vmm(usable()),
        Mmio,
        expect![[r"
        - -> qemu-kvm: KVM works: 3.0 billion loop turns a second; not by kvm: cannot find hyper-vmm
        kvm -> error: driver kvm cannot be used here: cannot find hyper-vmm
          hint: install hyper-vmm
        qemu -> qemu-kvm: KVM works: 3.0 billion loop turns a second
        qemu-kvm -> qemu-kvm: it was asked for
        qemu-tcg -> qemu-tcg: it was asked for
    "]],
    );
    check(
        no_qemu(usable()),
        Mmio,
        expect![[r"
        - -> kvm: KVM works: 3.0 billion loop turns a second
        kvm -> kvm: it was asked for
        qemu -> error: driver qemu cannot be used here: not by qemu-kvm or qemu-tcg: cannot find QEMU
          hint: install QEMU
        qemu-kvm -> error: driver qemu-kvm cannot be used here: cannot find QEMU
          hint: install QEMU
        qemu-tcg -> error: driver qemu-tcg cannot be used here: cannot find QEMU
          hint: install QEMU
    "]],
    );
    check(
        no_qemu(usable()),
        Pci,
        expect![[r"
        - -> error: no driver can run this pod here: not by kvm: it has no PCI bus, on which the kernel finds its devices; not by qemu-kvm or qemu-tcg: cannot find QEMU
          hint: install QEMU
        kvm -> error: driver kvm cannot be used here: it has no PCI bus, on which the kernel finds its devices
          hint: use a kernel with virtio-mmio built in, or another driver
        qemu -> error: driver qemu cannot be used here: not by qemu-kvm or qemu-tcg: cannot find QEMU
          hint: install QEMU
        qemu-kvm -> error: driver qemu-kvm cannot be used here: cannot find QEMU
          hint: install QEMU
        qemu-tcg -> error: driver qemu-tcg cannot be used here: cannot find QEMU
          hint: install QEMU
    "]],
    );
}

#[test]
fn where_no_driver_is_left_every_reason_is_given() {
    let no_qemu = |kvm| Findings { qemu: missing("QEMU"), ..found(kvm) };
    check(
        no_qemu(Probe::Absent),
        Mmio,
        expect![[r"
        - -> error: no driver can run this pod here: this host has no /dev/kvm; not by qemu-tcg: cannot find QEMU
          hint: install QEMU
        kvm -> error: driver kvm cannot be used here: this host has no /dev/kvm
          hint: enable virtualisation in the firmware, or on the outer host, and load kvm_intel or kvm_amd
        qemu -> error: driver qemu cannot be used here: this host has no /dev/kvm; not by qemu-tcg: cannot find QEMU
          hint: install QEMU
        qemu-kvm -> error: driver qemu-kvm cannot be used here: this host has no /dev/kvm
          hint: enable virtualisation in the firmware, or on the outer host, and load kvm_intel or kvm_amd
        qemu-tcg -> error: driver qemu-tcg cannot be used here: cannot find QEMU
          hint: install QEMU
    "]],
    );
    check(
        Findings { built_in: missing("hyper-vmm"), ..no_qemu(usable()) },
        Mmio,
        expect![[r"
        - -> error: no driver can run this pod here: not by kvm: cannot find hyper-vmm; not by qemu-kvm or qemu-tcg: cannot find QEMU
          hint: install QEMU
        kvm -> error: driver kvm cannot be used here: cannot find hyper-vmm
          hint: install hyper-vmm
        qemu -> error: driver qemu cannot be used here: not by qemu-kvm or qemu-tcg: cannot find QEMU
          hint: install QEMU
        qemu-kvm -> error: driver qemu-kvm cannot be used here: cannot find QEMU
          hint: install QEMU
        qemu-tcg -> error: driver qemu-tcg cannot be used here: cannot find QEMU
          hint: install QEMU
    "]],
    );
}

#[test]
fn a_device_for_root_alone_is_in_the_way_of_qemu_only() {
    let obstacle = Obstacle { reason: "only root may open it".into(), hint: Some("chmod".into()) };
    let closed = || Findings { others_may_open: Err(obstacle.clone()), ..found(usable()) };
    check(
        closed(),
        Mmio,
        expect![[r"
        - -> kvm: KVM works: 3.0 billion loop turns a second
        kvm -> kvm: it was asked for
        qemu -> qemu-tcg: not by qemu-kvm: only root may open it, so guests are translated by QEMU
        qemu-kvm -> error: driver qemu-kvm cannot be used here: only root may open it
          hint: chmod
        qemu-tcg -> qemu-tcg: it was asked for
    "]],
    );
    check(
        closed(),
        Pci,
        expect![[r"
        - -> qemu-tcg: not by kvm: it has no PCI bus, on which the kernel finds its devices; not by qemu-kvm: only root may open it, so guests are translated by QEMU
        kvm -> error: driver kvm cannot be used here: it has no PCI bus, on which the kernel finds its devices
          hint: use a kernel with virtio-mmio built in, or another driver
        qemu -> qemu-tcg: not by qemu-kvm: only root may open it, so guests are translated by QEMU
        qemu-kvm -> error: driver qemu-kvm cannot be used here: only root may open it
          hint: chmod
        qemu-tcg -> qemu-tcg: it was asked for
    "]],
    );
}

#[test]
fn a_qemu_without_mmio_is_told_from_a_missing_one() {
    // The Red Hat family's build.
    let qemu = Ok(hypervisor("/usr/libexec/qemu-kvm", &[Pci]));
    check(
        Findings { qemu, ..found(Probe::Absent) },
        Mmio,
        expect![[r"
        - -> error: no driver can run this pod here: this host has no /dev/kvm; not by qemu-tcg: it has no virtio-mmio, by which the kernel finds its devices
          hint: use a kernel with PCI, or another driver
        kvm -> error: driver kvm cannot be used here: this host has no /dev/kvm
          hint: enable virtualisation in the firmware, or on the outer host, and load kvm_intel or kvm_amd
        qemu -> error: driver qemu cannot be used here: this host has no /dev/kvm; not by qemu-tcg: it has no virtio-mmio, by which the kernel finds its devices
          hint: use a kernel with PCI, or another driver
        qemu-kvm -> error: driver qemu-kvm cannot be used here: this host has no /dev/kvm
          hint: enable virtualisation in the firmware, or on the outer host, and load kvm_intel or kvm_amd
        qemu-tcg -> error: driver qemu-tcg cannot be used here: it has no virtio-mmio, by which the kernel finds its devices
          hint: use a kernel with PCI, or another driver
    "]],
    );
}

#[test]
fn an_unknown_name_is_refused_with_the_known_ones() {
    let error = Wanted::try_from("bochs".to_owned()).unwrap_err();
    expect![[r#"unknown driver "bochs": use one of kvm, qemu-kvm, qemu-tcg, qemu"#]]
        .assert_eq(&error.to_string());
    for driver in DriverConfig::ALL {
        let wanted = Wanted::try_from(driver.name().to_owned()).unwrap();
        assert_eq!(wanted, Wanted::One(driver));
    }
}
