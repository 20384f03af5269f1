// SPDX-License-Identifier: Apache-2.0

use expect_test::{Expect, expect};

use super::*;

/// A machine with one of everything.
fn machine(accelerator: Accelerator, transport: Transport) -> Machine<'static> {
    Machine {
        name: "web,1",
        accelerator,
        transport,
        vcpus: 2,
        memory_mib: 256,
        origin: Origin::Boot {
            kernel: 10,
            initramfs: 11,
            parameters: "quiet hyper=1,2",
            counter_khz: Some(2_600_000),
        },
        wires: Wires { control: 12, channel: 13, console: 14, network: Some(15) },
        card: Some(Card { mac: [2, 0, 0, 0xab, 0, 1], backend: Backend::Stream(15) }),
        disks: vec![
            Drive { file: 16, id: "root", access: Access::ReadOnly },
            Drive { file: 17, id: "scratch", access: Access::Scratch },
            Drive { file: 18, id: "volume", access: Access::Durable },
        ],
    }
}

/// Compares the command line, an option to a line.
fn check(machine: &Machine<'_>, expected: Expect) {
    let mut lines = String::new();
    for argument in machine.arguments() {
        if argument.starts_with('-') && !lines.is_empty() {
            lines.push('\n');
        } else if !lines.is_empty() {
            lines.push(' ');
        }
        lines.push_str(&argument);
    }
    lines.push('\n');
    expected.assert_eq(&lines);
}

#[test]
fn saved_guest_has_no_kernel_of_its_own() {
    let mut machine = machine(Accelerator::Tcg, Transport::Mmio);
    machine.origin = Origin::Saved { memory: 10, state: 11 };
    let arguments = machine.arguments().join(" ");
    assert!(arguments.contains(" -incoming defer "), "{arguments}");
    assert!(arguments.contains("/proc/self/fd/10"), "{arguments}");
    assert!(!arguments.contains("-append") && !arguments.contains("-kernel"), "{arguments}");
}

#[test]
fn microvm_under_emulation() {
    check(
        &machine(Accelerator::Tcg, Transport::Mmio),
        expect![[r#"
            -nodefaults
            -no-user-config
            -no-reboot
            -display none
            -sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny
            -name guest=web,,1
            -machine microvm,acpi=off,x-option-roms=off,memory-backend=memory
            -accel tcg,tb-size=256
            -cpu max,vendor=GenuineIntel,family=6,model=85,stepping=7,-erms,-fsrm
            -smp 2
            -m 256M
            -object {"dump":false,"id":"memory","qom-type":"memory-backend-ram","size":268435456}
            -kernel /proc/self/fd/10
            -initrd /proc/self/fd/11
            -append console=ttyS0 reboot=t panic=-1 acpi=off no_timer_check lapic_timer_khz=1000000 mitigations=off tsc_early_khz=2600000 tsc=reliable quiet hyper=1,2
            -chardev socket,id=control,fd=12
            -mon chardev=control,mode=control
            -chardev socket,id=console,fd=14
            -serial chardev:console
            -device {"driver":"virtio-serial-device","max_ports":2}
            -chardev socket,id=channel,fd=13
            -device {"chardev":"channel","driver":"virtserialport","name":"org.hyper.channel.0"}
            -device {"driver":"virtio-rng-device"}
            -device {"driver":"virtio-balloon-device","free-page-reporting":true}
            -netdev stream,id=card,addr.type=fd,addr.str=15
            -device {"driver":"virtio-net-device","guest_announce":false,"mac":"02:00:00:ab:00:01","netdev":"card"}
            -add-fd fd=16,set=0
            -blockdev {"cache":{"no-flush":false},"discard":"unmap","driver":"file","filename":"/dev/fdset/0","locking":"off","node-name":"file0","read-only":true}
            -blockdev {"cache":{"no-flush":false},"discard":"unmap","driver":"raw","file":"file0","node-name":"disk0","read-only":true}
            -device {"drive":"disk0","driver":"virtio-blk-device","rerror":"report","serial":"root","werror":"report"}
            -add-fd fd=17,set=1
            -blockdev {"cache":{"no-flush":true},"discard":"unmap","driver":"file","filename":"/dev/fdset/1","locking":"off","node-name":"file1","read-only":false}
            -blockdev {"cache":{"no-flush":true},"discard":"unmap","driver":"raw","file":"file1","node-name":"disk1","read-only":false}
            -device {"drive":"disk1","driver":"virtio-blk-device","rerror":"report","serial":"scratch","werror":"report"}
            -add-fd fd=18,set=2
            -blockdev {"cache":{"no-flush":false},"discard":"unmap","driver":"file","filename":"/dev/fdset/2","locking":"off","node-name":"file2","read-only":false}
            -blockdev {"cache":{"no-flush":false},"discard":"unmap","driver":"raw","file":"file2","node-name":"disk2","read-only":false}
            -device {"drive":"disk2","driver":"virtio-blk-device","rerror":"report","serial":"volume","werror":"report"}
        "#]],
    );
}

#[test]
fn q35_under_kvm() {
    let mut machine = machine(Accelerator::Kvm, Transport::Pci);
    machine.disks.truncate(1);
    machine.card = None;
    check(
        &machine,
        expect![[r#"
            -nodefaults
            -no-user-config
            -no-reboot
            -display none
            -sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny
            -name guest=web,,1
            -machine q35,usb=off,memory-backend=memory
            -accel kvm
            -cpu host
            -smp 2
            -m 256M
            -object {"dump":false,"id":"memory","qom-type":"memory-backend-ram","size":268435456}
            -kernel /proc/self/fd/10
            -initrd /proc/self/fd/11
            -append console=ttyS0 reboot=t panic=-1 quiet hyper=1,2
            -chardev socket,id=control,fd=12
            -mon chardev=control,mode=control
            -chardev socket,id=console,fd=14
            -serial chardev:console
            -device {"driver":"virtio-serial-pci","max_ports":2}
            -chardev socket,id=channel,fd=13
            -device {"chardev":"channel","driver":"virtserialport","name":"org.hyper.channel.0"}
            -device {"driver":"virtio-rng-pci"}
            -device {"driver":"virtio-balloon-pci","free-page-reporting":true}
            -add-fd fd=16,set=0
            -blockdev {"cache":{"no-flush":false},"discard":"unmap","driver":"file","filename":"/dev/fdset/0","locking":"off","node-name":"file0","read-only":true}
            -blockdev {"cache":{"no-flush":false},"discard":"unmap","driver":"raw","file":"file0","node-name":"disk0","read-only":true}
            -device {"drive":"disk0","driver":"virtio-blk-pci","rerror":"report","serial":"root","werror":"report"}
        "#]],
    );
}

#[test]
fn card_may_be_a_tap_device() {
    let card = Some(Card { mac: [2, 0, 0, 0, 0, 1], backend: Backend::Tap(15) });
    let machine = Machine { card, ..machine(Accelerator::Kvm, Transport::Mmio) };
    assert!(machine.arguments().contains(&"tap,id=card,fd=15,vhost=off".to_owned()));
}

#[test]
fn a_single_emulated_processor_keeps_its_locks() {
    let check = |accelerator, vcpus, expected| {
        let machine = Machine { vcpus, ..machine(accelerator, Transport::Mmio) };
        assert_eq!(machine.parameters("", None).contains("noreplace-smp"), expected);
    };
    check(Accelerator::Tcg, 1, true);
    check(Accelerator::Tcg, 2, false);
    check(Accelerator::Kvm, 1, false);
}
