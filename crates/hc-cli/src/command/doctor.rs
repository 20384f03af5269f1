// SPDX-License-Identifier: Apache-2.0
//! `doctor`: checks this host and says what to fix.
//!
//! What can be seen without the daemon is looked at here; what only the daemon knows, such as whether
//! KVM is real, is asked of it if it can be had. Judging is apart from looking, so that it is a table.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};

use hc_api::{DriverReport, Info, KvmReport};
use hc_paths::Paths;
use rustix::fs::{Access, access, statvfs};
use serde::Serialize;

use super::Context;
use super::system::{driver_hint, driver_text};
use crate::args::DoctorArgs;
use crate::client::Target;
use crate::failure::{FAILED, Failure, Result};
use crate::show::{human, print, print_line};

/// Below this, images do not fit and writing containers fail.
const DISK_LEAST: u64 = 1 << 30;
/// Below this, a few images fill the disk.
const DISK_LOW: u64 = 5 << 30;
/// The smallest pod with its hypervisor.
const MEMORY_LEAST: u64 = 128 << 20;
/// A pod of the default size with its hypervisor.
const MEMORY_LOW: u64 = 640 << 20;
/// Our own hypervisor, which needs KVM.
const VMM: &str = "hyper-vmm";
/// The one that does not.
const QEMU: &str = "qemu-system-x86_64";
const KVM: &str = "/dev/kvm";
const SLOW: &str = "pods run without it, but slowly";

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
enum Mark {
    Ok,
    /// Not there, and nothing that has to be.
    Off,
    Warn,
    Fail,
}

/// What one look gave.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Verdict {
    check: String,
    status: Mark,
    finding: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    fix: Option<String>,
}

impl Verdict {
    fn ok(check: &str, finding: impl Into<String>) -> Verdict {
        Verdict { check: check.into(), status: Mark::Ok, finding: finding.into(), fix: None }
    }

    fn warn(check: &str, finding: impl Into<String>, fix: impl Into<String>) -> Verdict {
        let fix = Some(fix.into());
        Verdict { check: check.into(), status: Mark::Warn, finding: finding.into(), fix }
    }

    fn fail(check: &str, finding: impl Into<String>, fix: impl Into<String>) -> Verdict {
        let fix = Some(fix.into());
        Verdict { check: check.into(), status: Mark::Fail, finding: finding.into(), fix }
    }

    fn from(check: &str, failure: &Failure, fix: &str) -> Verdict {
        let fix = failure.hint().unwrap_or(fix);
        Verdict::fail(check, failure.to_string(), fix)
    }
}

pub(crate) async fn doctor(context: &Context, args: &DoctorArgs) -> Result<u8> {
    let paths = hc_paths::current()?;
    let info: Result<Info> =
        async { context.client().await?.get(Target::new(&["info"])).await }.await;
    let mut findings = match &info {
        Ok(info) => drivers(info),
        Err(_) => from_outside(),
    };
    findings.extend(guest_files(&paths, info.as_ref().ok()));
    findings.push(runtime_dir(&paths));
    findings.push(data_dir(&paths.data_dir));
    findings.push(memory(available_memory()));
    findings.push(match info {
        Ok(info) => Verdict::ok("daemon", format!("answers, version {}", info.version)),
        Err(failure) => Verdict::from("daemon", &failure, "see hyperd.log in the runtime folder"),
    });
    if args.format.is_some() {
        // Findings are strings and a mark.
        print_line(&serde_json::to_string(&findings).expect("findings are JSON"))?;
    } else {
        print(&text(&findings))?;
    }
    let failed = findings.iter().any(|finding| finding.status == Mark::Fail);
    Ok(if failed { FAILED } else { 0 })
}

fn text(findings: &[Verdict]) -> String {
    let mut out = String::new();
    for Verdict { check, status, finding, fix } in findings {
        let mark = match status {
            Mark::Ok => "OK  ",
            Mark::Off => "OFF ",
            Mark::Warn => "WARN",
            Mark::Fail => "FAIL",
        };
        let _ = writeln!(out, "{mark}  {check:<12} {finding}");
        if let Some(fix) = fix {
            let _ = writeln!(out, "      {:<12} fix: {fix}", "");
        }
    }
    out
}

fn hypervisor(found: Option<PathBuf>) -> Verdict {
    match found {
        Some(path) => Verdict::ok("hypervisor", path.display().to_string()),
        None => Verdict::fail(
            "hypervisor",
            format!("{QEMU} is not on PATH"),
            "install it; on Debian: apt install qemu-system-x86",
        ),
    }
}

fn built_in() -> Option<PathBuf> {
    let program = std::env::current_exe().ok()?.with_file_name(VMM);
    access(&program, Access::EXEC_OK).is_ok().then_some(program)
}

fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os(hc_paths::env::PATH)?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|file| file.is_file() && access(file, Access::EXEC_OK).is_ok())
}

/// The daemon has tried them; what it found counts more than what can be seen from outside.
fn drivers(info: &Info) -> Vec<Verdict> {
    let without = info.drivers.iter().any(|report| report.usable);
    let mut verdicts = vec![probed_kvm(&info.kvm, without)];
    verdicts.extend(info.drivers.iter().map(|report| driver(report, &info.kvm)));
    verdicts.push(if info.drivers.iter().any(|report| report.name == info.driver) {
        Verdict::ok("driver", format!("{}: {}", info.driver, info.driver_reason))
    } else {
        let fix = info.drivers.iter().rev().find_map(|report| report.hint.clone());
        let fix = fix.unwrap_or_else(|| "choose another with --driver".to_owned());
        Verdict::fail("driver", info.driver_reason.clone(), fix)
    });
    verdicts
}

/// `without` says whether pods run all the same where it is not usable.
fn probed_kvm(kvm: &KvmReport, without: bool) -> Verdict {
    let finding = kvm.finding.clone();
    match &kvm.hint {
        None => Verdict::ok(KVM, finding),
        Some(hint) if kvm.usable || !without => Verdict::warn(KVM, finding, hint.clone()),
        Some(hint) => Verdict::warn(KVM, format!("{finding}; {SLOW}"), hint.clone()),
    }
}

/// A driver that cannot be used is no fault where another can.
fn driver(report: &DriverReport, kvm: &KvmReport) -> Verdict {
    let finding = driver_text(report, kvm);
    if report.usable {
        return Verdict::ok(&report.name, finding);
    }
    let fix = driver_hint(report, kvm).map(str::to_owned);
    Verdict { check: report.name.clone(), status: Mark::Off, finding, fix }
}

/// What can be seen of hypervisors without the daemon.
fn from_outside() -> Vec<Verdict> {
    let found = look_at_kvm();
    let program = match found {
        Kvm::Opens => built_in().or_else(|| find_program(QEMU)),
        Kvm::Missing | Kvm::Denied { .. } => find_program(QEMU),
    };
    vec![hypervisor(program), kvm(&found)]
}

/// What can be seen of KVM from outside.
#[derive(Debug)]
enum Kvm {
    Missing,
    Denied { in_group: bool },
    Opens,
}

fn look_at_kvm() -> Kvm {
    match OpenOptions::new().read(true).write(true).open(KVM) {
        Ok(_) => Kvm::Opens,
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            Kvm::Denied { in_group: in_group_of(Path::new(KVM)) }
        }
        Err(_) => Kvm::Missing,
    }
}

fn in_group_of(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let Ok(metadata) = path.metadata() else { return false };
    let groups = rustix::process::getgroups().unwrap_or_default();
    groups.iter().any(|group| group.as_raw() == metadata.gid())
}

fn kvm(found: &Kvm) -> Verdict {
    match found {
        Kvm::Opens => Verdict::ok(KVM, "it opens"),
        Kvm::Missing => Verdict::warn(
            KVM,
            format!("this host has none; {SLOW}"),
            "enable virtualisation in the firmware, or nested virtualisation on the outer host",
        ),
        Kvm::Denied { in_group: false } => Verdict::warn(
            KVM,
            format!("this user may not open it; {SLOW}"),
            "run: sudo usermod -aG kvm $USER, and log in again",
        ),
        Kvm::Denied { in_group: true } => Verdict::warn(
            KVM,
            format!("this user may not open it, in spite of its group; {SLOW}"),
            format!("run: sudo chmod g+rw {KVM}"),
        ),
    }
}

fn guest_files(paths: &Paths, info: Option<&Info>) -> [Verdict; 2] {
    let kernel =
        info.map_or_else(|| paths.lib_dir.join("vmlinux"), |info| info.kernel.clone().into());
    [guest_file("kernel", &kernel), guest_file("guest init", &paths.lib_dir.join("hyperstart"))]
}

fn guest_file(check: &str, path: &Path) -> Verdict {
    let shown = path.display();
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_file() && access(path, Access::READ_OK).is_ok() => {
            Verdict::ok(check, format!("{shown} ({})", human::memory(metadata.len())))
        }
        Ok(_) => Verdict::fail(
            check,
            format!("{shown} cannot be read"),
            format!("run: chmod a+r {shown}"),
        ),
        Err(error) => Verdict::fail(
            check,
            format!("{shown}: {error}"),
            "run make install again, or set HYPER_LIB to where the file is",
        ),
    }
}

fn runtime_dir(paths: &Paths) -> Verdict {
    let usable = hc_paths::make_private_dir(&paths.runtime_dir)
        .and_then(|()| hc_paths::check_socket(&paths.socket()))
        .map_err(Failure::from)
        .and_then(|()| writable(&paths.runtime_dir));
    match usable {
        Ok(()) => Verdict::ok("sockets", paths.runtime_dir.display().to_string()),
        Err(failure) => {
            Verdict::from("sockets", &failure, "set HYPER_RUNTIME_DIR to another folder")
        }
    }
}

fn data_dir(path: &Path) -> Verdict {
    // Where nothing has been run yet, the folder above tells.
    let existing = path.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    if let Err(failure) = writable(existing) {
        return Verdict::from("disk", &failure, "set HYPER_DATA_DIR to another folder");
    }
    match statvfs(existing) {
        Ok(stat) => disk(path, stat.f_bavail.saturating_mul(stat.f_frsize)),
        Err(error) => Verdict::fail(
            "disk",
            format!("{}: {error}", path.display()),
            "set HYPER_DATA_DIR to another folder",
        ),
    }
}

fn disk(path: &Path, free: u64) -> Verdict {
    let finding = format!("{} free for {}", human::memory(free), path.display());
    let fix = "make room, or set HYPER_DATA_DIR to a folder on a larger disk";
    match free {
        0..DISK_LEAST => Verdict::fail("disk", finding, fix),
        DISK_LEAST..DISK_LOW => Verdict::warn("disk", finding, fix),
        _ => Verdict::ok("disk", finding),
    }
}

fn writable(path: &Path) -> Result<()> {
    access(path, Access::WRITE_OK | Access::EXEC_OK)
        .map_err(|error| Failure::system(format_args!("cannot write to {}", path.display()), error))
}

fn available_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

fn memory(available: Option<u64>) -> Verdict {
    let fix = "stop other programs, or give pods less with --memory";
    let Some(bytes) = available else {
        return Verdict::warn("memory", "/proc/meminfo does not tell", "mount /proc");
    };
    let finding = format!("{} available", human::memory(bytes));
    match bytes {
        0..MEMORY_LEAST => Verdict::fail("memory", finding, fix),
        MEMORY_LEAST..MEMORY_LOW => Verdict::warn("memory", finding, fix),
        _ => Verdict::ok("memory", finding),
    }
}

#[cfg(test)]
mod tests;
