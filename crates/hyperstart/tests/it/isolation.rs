// SPDX-License-Identifier: Apache-2.0
//! What a container cannot reach, and what a privileged one can.

use hc_proto::message::{FailureKind, Program};
use hc_spec::{CapabilitySet, ContainerSpec, Exit, Id, ProcessSpec, Tmpfs};

use crate::host::{Host, container, process};
use crate::machine::Devices;

/// Runs each script and expects it to fail with these words.
fn refused(host: &mut Host, id: &Id, scripts: &[(&str, &str)]) {
    for (script, words) in scripts {
        let outcome = host.sh(id, script);
        assert_ne!(outcome.exit, Exit::Code(0), "{script}: {outcome:?}");
        assert!(outcome.stderr.contains(words), "{script}: {outcome:?}");
    }
}

#[test]
fn devices_beyond_the_usual_are_out_of_reach() {
    let Some(mut host) = Host::boot(&Devices::default()) else { return };
    let id = host.sleeper(&container(1));
    let usual = "for d in null zero full random urandom tty ptmx; do test -c /dev/$d || exit 1; done; \
                 head -c 8 /dev/urandom | wc -c; ls /dev";
    let expected = "8\ncore\nfd\nfull\nmqueue\nnull\nptmx\npts\nrandom\nshm\nstderr\nstdin\n\
                    stdout\ntty\nurandom\nzero\n";
    assert_eq!(host.sh(&id, usual).stdout, expected);
    let port = "port=$(grep virtio-portsdev /proc/devices | cut -d ' ' -f 1); \
                disk=$(grep virtblk /proc/devices | cut -d ' ' -f 1); \
                test $port -gt 0 && test $disk -gt 0 && \
                mknod /tmp/port c $port 1 && mknod /tmp/disk b $disk 0 && mknod /tmp/mem c 1 1";
    assert_eq!(host.sh(&id, port).exit, Exit::Code(0));
    let denied = "Operation not permitted";
    refused(
        &mut host,
        &id,
        &[
            ("head -c 1 /tmp/port", denied),
            ("echo >/tmp/port", "Operation not permitted"),
            ("head -c 1 /tmp/disk", denied),
            ("head -c 1 /tmp/mem", denied),
        ],
    );
}

#[test]
fn the_kernel_and_pid_1_are_out_of_reach() {
    let Some(mut host) = Host::boot(&Devices::default()) else { return };
    let id = host.sleeper(&container(1));
    refused(
        &mut host,
        &id,
        &[
            ("ls /proc/1/root/", "Permission denied"),
            ("head -c 1 /proc/1/fd/1", "Permission denied"),
            ("echo 1 >/proc/sys/kernel/panic", "Read-only file system"),
            ("echo 1 >/proc/irq/default_smp_affinity", "Read-only file system"),
            ("echo add >/sys/block/vda/uevent", "Read-only file system"),
            ("echo 9 >/sys/fs/cgroup/pids.max", "Read-only file system"),
            ("mount -t tmpfs none /tmp", "permission denied"),
            ("umount /proc/interrupts", "Operation not permitted"),
            ("ls /run/hyper", "No such file"),
        ],
    );
    let hidden = "cat /proc/interrupts /proc/keys";
    let outcome = host.sh(&id, hidden);
    assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), ("", ""));
    // Nothing of the guest's own mounts is left in the container's list.
    let mounts = host.sh(
        &id,
        "cut -d ' ' -f 5 /proc/self/mountinfo | head -2; \
                               grep -c stage /proc/self/mountinfo; ls -a /",
    );
    assert_eq!(
        mounts.stdout,
        "/\n/proc\n0\n.\n..\nbin\ndata\ndev\nescape\netc\nhome\nproc\nroot\nrun\nsys\ntmp\n"
    );
}

#[test]
fn links_in_an_image_lead_nowhere_else() {
    let Some(mut host) = Host::boot(&Devices::default()) else { return };
    let id = host.sleeper(&container(1));
    // The image's /etc/resolv.conf leads out of the root by `..` and to where nothing is.
    let outcome = host.sh(&id, "cat /run/systemd/resolve/stub.conf");
    assert_eq!(outcome.stdout, "nameserver 10.0.2.3\n");
    // Its /escape leads to PID 1's root by way of /proc.
    let astray = ProcessSpec { cwd: "/escape/evil".into(), ..process(&["true"]) };
    let failure = host.spawn(&id, false, Program::Exec(astray)).unwrap_err();
    assert_eq!(failure.kind, FailureKind::System);
    for program in [
        Program::Stat { path: "/escape/etc".into() },
        Program::Pack { path: "/escape/etc".into(), follow: true },
        Program::Unpack { path: "/escape/etc".into(), keep_owner: false },
    ] {
        let outcome = host.run(&id, program, &[]);
        assert_eq!((outcome.exit, outcome.stdout.as_str()), (Exit::Code(1), ""), "{outcome:?}");
    }
}

#[test]
fn containers_share_a_pod_but_no_files() {
    let Some(mut host) = Host::boot(&Devices::default()) else { return };
    let (one, two) = (host.sleeper(&container(1)), host.sleeper(&container(2)));
    assert_eq!(host.sh(&one, "echo one >/data/file; echo one >/dev/shm/file").exit, Exit::Code(0));
    refused(&mut host, &two, &[("cat /data/file", "No such"), ("cat /dev/shm/file", "No such")]);
    let seen = host.sh(&two, "ps | grep -c 'slee[p] 1000'; hostname");
    assert_eq!(seen.stdout, "2\npod\n");
}

#[test]
fn a_read_only_root_keeps_its_writable_places() {
    let Some(mut host) = Host::boot(&Devices::default()) else { return };
    let tmpfs = |path: &str, options: &str| Tmpfs { path: path.into(), options: options.into() };
    let spec = ContainerSpec {
        read_only: true,
        tmpfs: vec![tmpfs("/run", ""), tmpfs("/made/cache", "size=1m,mode=700,exec")],
        shm_bytes: 1 << 20,
        ..container(1)
    };
    let id = host.sleeper(&spec);
    refused(
        &mut host,
        &id,
        &[
            ("touch /file", "Read-only file system"),
            ("cp /bin/busybox /run/b && /run/b true", "Permission denied"),
        ],
    );
    let script = "cp /bin/true /run/f 2>/dev/null; echo 1.2.3.4 x >>/etc/hosts && \
                  stat -c %a /made/cache && df -k /made/cache /dev/shm | tail -2 | \
                  while read a size b; do echo $size; done";
    let outcome = host.sh(&id, script);
    assert_eq!(outcome.stdout, "700\n1024\n1024\n", "{outcome:?}");
}

#[test]
fn a_privileged_container_has_the_guest_to_itself() {
    let Some(mut host) = Host::boot(&Devices::default()) else { return };
    let spec = ContainerSpec { privileged: true, ..container(1) };
    let id = host.sleeper(&spec);
    let script = "mount -t tmpfs none /tmp && echo 7 >/proc/sys/kernel/panic && \
                  head -c 4 /dev/vda >/dev/null && test ! -e /dev/vport0p1 && mkdir /sys/fs/cgroup/a \
                  && grep CapEff /proc/self/status";
    let args = ["sh", "-c", script].map(String::from).to_vec();
    let all = ProcessSpec { args, capabilities: CapabilitySet::ALL, ..process(&[]) };
    let outcome = host.run(&id, Program::Exec(all), &[]);
    assert_eq!(outcome.stdout, "CapEff:\t000001ffffffffff\n", "{outcome:?}");
}
