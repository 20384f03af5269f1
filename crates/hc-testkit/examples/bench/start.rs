// SPDX-License-Identifier: Apache-2.0
//! From command to exit, beside a bare hypervisor that boots the same kernel to an init which ends
//! at once.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use hc_testkit::Host;

use crate::table::{figure, group, median, millis};

/// Runs of each; they take turns.
const ROUNDS: usize = 15;
/// `reboot(LINUX_REBOOT_CMD_RESTART)`, without a C library.
const INIT: &str = r#"
void _start(void) {
    __asm__ volatile("syscall" : : "a"(169), "D"(0xfee1dead), "S"(672274793), "d"(0x01234567)
                     : "rcx", "r11", "memory");
    for (;;) {}
}
"#;

pub(crate) fn measure(host: &Host) {
    group("start: hyper run --rm IMAGE true, beside a bare QEMU with the same kernel and machine");
    let dir = tempfile::tempdir().unwrap();
    let initramfs = bare_initramfs(dir.path());
    let kernel = host.dist().join("lib/hyper/vmlinux");
    let ours = || {
        host.hyper(["run", "--rm", "--network", "none", "busybox", "true"]).ok();
    };
    let networked = || {
        host.hyper(["run", "--rm", "busybox", "true"]).ok();
    };
    let bare = || bare_boot(&kernel, &initramfs);
    ours();
    networked();
    bare();
    let mut times = [Vec::new(), Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        times[0].push(time(networked));
        times[1].push(time(ours));
        times[2].push(time(bare));
    }
    let [networked, ours, bare] = times.map(median);
    let ratio = |time: Duration| format!("{:.2}", time.as_secs_f64() / bare.as_secs_f64());
    figure("hyper run, user-mode network", &millis(networked), "");
    figure("hyper run, --network none", &millis(ours), "");
    figure("bare QEMU", &millis(bare), "");
    figure("ratio", &ratio(networked), "at most 1.35");
    figure("ratio, --network none", &ratio(ours), "");
    split(host);
}

/// Where the time of one run goes, as the pod process saw it.
fn split(host: &Host) {
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

fn time(mut run: impl FnMut()) -> Duration {
    let start = Instant::now();
    run();
    start.elapsed()
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
