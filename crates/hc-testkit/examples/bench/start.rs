// SPDX-License-Identifier: Apache-2.0
//! From command to exit, in each of the ways that a pod gets its VM, beside a bare hypervisor that
//! boots the same kernel to an init which ends at once.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use hc_testkit::Host;

use crate::rounds;
use crate::table::{figure, group, median, millis, ratio, row, time};

/// What boots a kernel takes turns with the others in one round of so many.
const COLD_EVERY: usize = 3;
/// VMs that wait for pods.
const POOL: u64 = 4;
/// `reboot(LINUX_REBOOT_CMD_RESTART)`, without a C library.
const INIT: &str = r#"
void _start(void) {
    __asm__ volatile("syscall" : : "a"(169), "D"(0xfee1dead), "S"(672274793), "d"(0x01234567)
                     : "rcx", "r11", "memory");
    for (;;) {}
}
"#;

/// One way to run a pod, and how long it took.
struct Way<'a> {
    what: &'static str,
    bar: &'static str,
    run: Box<dyn Fn() -> Duration + 'a>,
    times: Vec<Duration>,
}

impl<'a> Way<'a> {
    fn new(what: &'static str, bar: &'static str, run: impl Fn() -> Duration + 'a) -> Self {
        run(); // So that what is kept is there.
        Way { what, bar, run: Box::new(run), times: Vec::new() }
    }
}

pub(crate) fn measure(host: &Host) {
    let (Some(cold), Some(pool)) = (Host::new(), Host::new()) else { return };
    cold.configure("templates = \"off\"");
    pool.configure(&format!("pool = {POOL}"));
    cold.busybox();
    pool.busybox();
    host.hyper(["template", "create", "--quiet"]).ok();
    pool.until_waiting(POOL);

    let dir = tempfile::tempdir().unwrap();
    let initramfs = bare_initramfs(dir.path());
    let kernel = host.dist().join("lib/hyper/vmlinux");
    let run = |host: &Host| {
        time(|| {
            host.hyper(["run", "--rm", "busybox", "true"]).ok();
        })
    };
    let ways = vec![
        Way::new("bare QEMU", "", || time(|| bare_boot(&kernel, &initramfs))),
        Way::new("kernel boots, --network none", "", || {
            time(|| {
                cold.hyper(["run", "--rm", "--network", "none", "busybox", "true"]).ok();
            })
        }),
        Way::new("kernel boots", "at most 1.35 of bare QEMU", || run(&cold)),
        Way::new("template", "at most 350 ms, 0.40 of a boot", || run(host)),
        Way::new("template, to the first byte", "at most 250 ms", || first_byte(host)),
        Way::new("VM that waits", "at most 120 ms", || {
            let took = run(&pool);
            pool.until_waiting(POOL); // Before others are measured.
            took
        }),
    ];
    print(measured(ways));
    split("a kernel boots", &cold);
    split("by template", host);
    pool.until_waiting(POOL);
    split("a VM waits", &pool);
}

/// Runs all ways in turns, because the machine drifts.
fn measured(mut ways: Vec<Way<'_>>) -> Vec<Way<'_>> {
    let (rounds, first_fast) = (rounds(), 3);
    for round in 0..rounds {
        for (number, way) in ways.iter_mut().enumerate() {
            if number >= first_fast || round % COLD_EVERY == 0 {
                way.times.push((way.run)());
            }
        }
    }
    ways
}

fn print(ways: Vec<Way<'_>>) {
    group("start: hyper run --rm IMAGE true, beside a bare QEMU with the same kernel and machine");
    row("a pod whose", ["median", "of a boot", "of bare"], "");
    let medians: Vec<_> = ways.iter().map(|way| median(way.times.clone())).collect();
    let (bare, cold) = (medians[0], medians[2]);
    for (way, median) in ways.iter().zip(medians) {
        row(way.what, [&millis(median), &ratio(median, cold), &ratio(median, bare)], way.bar);
    }
}

/// How long it takes until a pod's first output is there.
fn first_byte(host: &Host) -> Duration {
    let start = Instant::now();
    let mut child = host
        .command(["run", "--rm", "busybox", "echo", "x"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdout.take().unwrap().read_exact(&mut [0]).unwrap();
    let took = start.elapsed();
    assert!(child.wait().unwrap().success());
    took
}

/// Where the time of one run goes, as the pod process saw it.
fn split(way: &str, host: &Host) {
    figure(&format!("one run where {way}"), "", "");
    let whole = time(|| {
        host.hyper(["run", "--name", "split", "busybox", "true"]).ok();
    });
    let container = host.inspect("split");
    host.hyper(["rm", "split"]).ok();
    let mut last = 0;
    for point in container["timeline"].as_array().into_iter().flatten() {
        let (what, micros) = (point[0].as_str().unwrap(), point[1].as_u64().unwrap());
        let took = Duration::from_micros(micros - last);
        figure(&format!("  until {what}"), &millis(took), "");
        last = micros;
    }
    let rest = whole.saturating_sub(Duration::from_micros(last));
    figure("  hyper, hyperd and process starts", &millis(rest), "");
}

fn bare_initramfs(dir: &Path) -> PathBuf {
    let (source, init) = (dir.join("init.c"), dir.join("init"));
    std::fs::write(&source, INIT).unwrap();
    let built = Command::new("cc")
        .args(["-static", "-nostdlib", "-O1", "-o"])
        .args([&init, &source])
        .status()
        .unwrap();
    assert!(built.success());
    hc_kernel::initramfs::cached(dir, &init, &[]).unwrap()
}

/// The machine of the QEMU driver, without the devices of a pod.
fn bare_boot(kernel: &Path, initramfs: &Path) {
    let status = Command::new("qemu-system-x86_64")
        .args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"])
        .args(["-machine", "microvm,acpi=off,x-option-roms=off,dump-guest-core=off"])
        .args(["-accel", "tcg", "-cpu", "max", "-smp", "1", "-m", "512M"])
        .arg("-kernel")
        .arg(kernel)
        .arg("-initrd")
        .arg(initramfs)
        .args(["-append", "console=ttyS0 reboot=t panic=-1 quiet", "-serial", "null"])
        .stdin(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
}
