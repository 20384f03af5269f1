// SPDX-License-Identifier: Apache-2.0
//! How many instructions a guest executes from reset to an init that is ready for its host, by phase.
//!
//! QEMU can make its count of executed instructions the guest's clock, one nanosecond each. Then the
//! times in the kernel's log are counts, and the time stamp counter counts since the reset. They
//! repeat within one in a hundred, on any machine under any load.
//!
//! # Limits
//!
//! While all of the guest waits for a device or a timer, the clock runs on: a few parts in a hundred
//! of a start. Repeated string instructions count once for each repetition.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{File, Metadata};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use hc_testkit::Host;

use crate::table::{figure, group};

/// A kernel that tells when it is reached, to count what comes before.
const FIRMWARE_PROBE: &str = include_str!("instructions/firmware.S");
/// An init that tells when it is reached, and what was logged before.
const INIT: &str = include_str!("instructions/init.c");

/// What the driver says to a kernel under emulation, with the rate of this clock.
const PARAMETERS: &str = "console=ttyS0 reboot=t panic=-1 acpi=off no_timer_check \
     lapic_timer_khz=1000000 mitigations=off tsc_early_khz=1000000 tsc=reliable noreplace-smp";
const PROCESSOR: &str = "max,vendor=GenuineIntel,family=6,model=85,stepping=7,-erms,-fsrm";
/// Logged by the kernel before it runs the init.
const INIT_RUNS: &str = "Run /init as init process";
/// Said by `hyperstart` when it has nothing left to do before the host speaks.
const READY: &str = "ready for the host";
/// A start takes a second in this mode, on a machine that is busy ten.
const PATIENCE: Duration = Duration::from_mins(1);
/// How many of the kernel's initialisers are listed.
const LISTED: usize = 10;

/// Phases of the kernel, each with a word from the line of the log that ends it.
const PHASES: [(&str, &str); 4] = [
    ("kernel: memory is found and mapped", "Memory: "),
    ("kernel: scheduler, interrupts, processors", "smp: Bringing up secondary CPUs"),
    ("kernel: initialisers", "Freeing unused kernel image (initmem)"),
    ("kernel: its memory is protected", INIT_RUNS),
];

pub(crate) fn measure(host: &Host) {
    group("instructions from reset to a guest that is ready, 128 MiB, in millions");
    let dir = tempfile::tempdir().unwrap();
    let kernel = host.dist().join("lib/hyper/vmlinux");
    let probe = firmware_probe(dir.path());
    let hyperstart = host.dist().join("lib/hyper/hyperstart");
    let probe_init = |len| {
        let program = init(dir.path(), len);
        hc_kernel::initramfs::cached(dir.path(), &program, &[]).unwrap()
    };
    let (small_init, probe_init) = (probe_init(None), probe_init(hyperstart.metadata().ok()));
    let real_init = hc_kernel::initramfs::cached(dir.path(), &hyperstart, &[]).unwrap();
    let boot = |kernel, initramfs, parameters| {
        Boot { dir: dir.path(), kernel, initramfs, parameters }.output()
    };

    let digits = boot(&probe, &probe_init, "");
    let firmware = digits.bytes().fold(0, |count, digit| count << 4 | u64::from(digit - b'A'));
    let log = boot(&kernel, &probe_init, "quiet");
    let (reached, counted) = counts(&log);
    let log = Log::parse(&log);
    let (reached_small, _) = counts(&boot(&kernel, &small_init, "quiet"));
    let shown = Log::parse(&boot(&kernel, &real_init, "loglevel=7"));
    let init = shown.at(READY) - shown.at(INIT_RUNS);

    // The log's clock starts when the kernel has found the counter.
    let clock_start = counted - log.at("init: counted");
    let exec = reached - clock_start - log.at(INIT_RUNS);
    millions("firmware", firmware);
    millions("kernel: up to its clock", clock_start - firmware);
    let mut before = 0;
    for (phase, end) in PHASES {
        let at = log.at(end);
        millions(phase, at - before);
        before = at;
    }
    millions("hyperstart: up to ready", init);
    millions("total", clock_start + before + init);
    millions("  of it, the exec of an init of one page", exec);
    millions("  of it, unpacking an init of that size", reached.saturating_sub(reached_small));

    let traced = boot(&kernel, &small_init, "quiet initcall_debug log_buf_len=1M");
    for (name, count) in Log::parse(&traced).initialisers().into_iter().take(LISTED) {
        millions(&format!("  of it, {name}"), count);
    }
}

/// When the init of ours was reached, and when it wrote into the log.
fn counts(output: &str) -> (u64, u64) {
    let mut numbers = output.lines().filter_map(|line| line.trim().parse().ok());
    (numbers.next().unwrap(), numbers.next().unwrap())
}

fn millions(what: &str, instructions: u64) {
    let hundredths = (instructions + 5_000) / 10_000;
    figure(what, &format!("{}.{:02}", hundredths / 100, hundredths % 100), "");
}

/// A run of the driver's machine, with the devices of a pod, in which instructions are the time.
struct Boot<'a> {
    dir: &'a Path,
    kernel: &'a Path,
    initramfs: &'a Path,
    parameters: &'a str,
}

impl Boot<'_> {
    /// What the guest wrote to its serial port, up to its end or to an init that is ready.
    fn output(&self) -> String {
        let serial = self.dir.join("serial");
        let _ = std::fs::remove_file(&serial);
        let mut qemu = Command::new("qemu-system-x86_64")
            .args(self.arguments(&serial))
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let start = Instant::now();
        loop {
            let ended = qemu.try_wait().unwrap();
            let output = std::fs::read_to_string(&serial).unwrap_or_default();
            if ended.is_some() {
                return output;
            }
            let ready = output.contains(READY);
            if ready || start.elapsed() > PATIENCE {
                qemu.kill().unwrap();
                qemu.wait().unwrap();
                assert!(ready, "the guest is not ready in time; it said {output}");
                return output;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn arguments(&self, serial: &Path) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = [
            "-nodefaults -no-user-config -no-reboot -display none -smp 1 -m 128M",
            "-machine microvm,acpi=off,x-option-roms=off,dump-guest-core=off",
            "-accel tcg -icount shift=0,sleep=off -cpu",
            PROCESSOR,
            "-device virtio-serial-device,max_ports=2 -chardev null,id=channel",
            "-device virtserialport,chardev=channel,name=org.hyper.channel.0",
            "-device virtio-rng-device -device virtio-balloon-device,free-page-reporting=on",
            "-netdev user,id=card,restrict=on -device virtio-net-device,netdev=card",
        ]
        .iter()
        .flat_map(|words| words.split(' ').map(OsString::from))
        .collect();
        let mut serial_option = OsString::from("file:");
        serial_option.push(serial);
        arguments.extend(["-serial".into(), serial_option]);
        arguments.extend(["-kernel".into(), self.kernel.into()]);
        arguments.extend(["-initrd".into(), self.initramfs.into()]);
        arguments.extend(["-append".into(), format!("{PARAMETERS} {}", self.parameters).into()]);
        arguments
    }
}

/// The kernel's log: each line with its time, in instructions.
struct Log(Vec<(u64, String)>);

impl Log {
    /// Takes the lines that have a time: `<6>[    0.012345] text`, with or without a level.
    ///
    /// Until the kernel trusts the counter, it keeps the log's clock within the tick, and loses up to
    /// a tick now and then. Then it says how much that was in all, and goes on from there; here the
    /// clock goes on as if nothing had been lost.
    fn parse(text: &str) -> Log {
        let mut lost = 0;
        let mut lines = Vec::new();
        for line in text.lines() {
            let Some((at, text)) = Log::line(line) else { continue };
            if let Some((_, nanos)) = text.rsplit_once(", -")
                && text.starts_with("sched_clock: Marking stable")
            {
                lost = nanos.trim_end_matches(')').parse().unwrap_or(0);
            }
            lines.push((at + lost, text.to_owned()));
        }
        Log(lines)
    }

    fn line(line: &str) -> Option<(u64, &str)> {
        let (_, rest) = line.split_once('[')?;
        let (time, text) = rest.split_once("] ")?;
        let (seconds, micros) = time.trim().split_once('.')?;
        let micros = seconds.parse::<u64>().ok()? * 1_000_000 + micros.parse::<u64>().ok()?;
        Some((micros * 1_000, text.trim_end()))
    }

    /// When the first line with `words` was logged.
    fn at(&self, words: &str) -> u64 {
        let found = self.0.iter().find(|(_, text)| text.contains(words));
        found.unwrap_or_else(|| panic!("the guest's log lacks '{words}'")).0
    }

    /// The initialisers and what each took, the largest first.
    ///
    /// The kernel's own figures are in ticks until it takes its time from the counter; for those
    /// before, the distance of the lines has to do.
    fn initialisers(&self) -> Vec<(String, u64)> {
        let mut begun = BTreeMap::new();
        let mut is_precise = false;
        let mut took = Vec::new();
        for (at, text) in &self.0 {
            is_precise |= text.contains("Switched to clocksource tsc");
            let mut words = text.split([' ', '+']).filter(|word| !word.is_empty());
            match (words.next(), words.next()) {
                (Some("calling"), Some(name)) => {
                    begun.insert(name, (at, is_precise));
                }
                (Some("initcall"), Some(name)) => {
                    let Some((start, was_precise)) = begun.remove(name) else { continue };
                    let micros =
                        text.split(" after ").nth(1).and_then(|rest| rest.split(' ').next());
                    let count = match micros.and_then(|micros| micros.parse::<u64>().ok()) {
                        Some(micros) if was_precise => micros * 1_000,
                        _ => at - start,
                    };
                    took.push((name.to_owned(), count));
                }
                _ => {}
            }
        }
        took.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        took
    }
}

/// Builds the kernel that counts the firmware.
fn firmware_probe(dir: &Path) -> PathBuf {
    let options = ["-m32", "-Wl,--build-id=none", "-Wl,-Ttext-segment=0x200000"];
    compile(dir, "firmware.S", FIRMWARE_PROBE, &options)
}

/// Builds the init that counts: as long as the real one, so that unpacking it takes as many, or as
/// short as it is.
fn init(dir: &Path, real: Option<Metadata>) -> PathBuf {
    let name = if real.is_some() { "init.c" } else { "small.c" };
    let program = compile(dir, name, INIT, &["-O1", "-fno-stack-protector"]);
    if let Some(real) = real {
        File::options().write(true).open(&program).unwrap().set_len(real.len()).unwrap();
    }
    program
}

/// Builds a program without a C library.
fn compile(dir: &Path, name: &str, source: &str, options: &[&str]) -> PathBuf {
    let (path, program) = (dir.join(name), dir.join(name).with_extension("out"));
    std::fs::write(&path, source).unwrap();
    let mut compiler = Command::new("cc");
    compiler.args(["-static", "-nostdlib"]).args(options).arg("-o").args([&program, &path]);
    assert!(compiler.status().unwrap().success());
    program
}
