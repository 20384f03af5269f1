// SPDX-License-Identifier: Apache-2.0
//! A container's control group (version 2): its limits, what it uses, and its end.

use std::fs;
use std::io::Read as _;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use hc_proto::message::Stats;
use hc_spec::{ContainerLimits, Signal};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::process::Pid;

use crate::boot::CGROUPS;
use crate::error::{Attempt as _, Result};
use crate::sys;

/// The scheduler's period for CPU limits in microseconds, the kernel's own default.
const CPU_PERIOD_USEC: u64 = 100_000;
/// The shortest quota that the kernel accepts, in microseconds.
const CPU_QUOTA_MIN_USEC: u64 = 1_000;
/// What a kernel is taken to hold that does not say: as many processes as it has numbers for.
const PIDS_FALLBACK: u64 = 32768;
/// The most that is read of one file; only a list of processes comes near it.
const FILE_MAX: u64 = 4 << 20;
/// Groups visited below a container's own; a container may make more only when privileged.
const GROUPS_MAX: usize = 4096;
/// Rounds of signalling, each of which may find processes that were born meanwhile.
const SIGNAL_ROUNDS: usize = 4;

/// The control group of one container.
pub(crate) struct Cgroup {
    path: PathBuf,
    fd: OwnedFd,
}

impl Cgroup {
    /// Makes a group without limits. They are numbered, since one may be made before it is known for
    /// which container, and none can be renamed.
    pub(crate) fn create(number: u64) -> Result<Cgroup> {
        let path = PathBuf::from(format!("{CGROUPS}/{number}"));
        fs::create_dir(&path).attempt(|| format!("make control group {number}"))?;
        let fd = rustix::fs::openat(
            CWD,
            &path,
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .attempt(|| format!("open control group {number}"))?;
        Ok(Cgroup { path, fd })
    }

    /// Sets the group's limits.
    pub(crate) fn limit(&self, limits: &ContainerLimits) -> Result<()> {
        let files = limit_files(limits, most_pids());
        files.iter().try_for_each(|(file, value)| self.write(file, value))
    }

    /// The directory.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Kills every process in the group and below it, also those being born.
    pub(crate) fn kill(&self) -> Result<()> {
        self.write("cgroup.kill", "1")
    }

    /// Whether no process is left.
    pub(crate) fn is_empty(&self) -> bool {
        // A group whose directory is gone has no processes either.
        field(&self.read("cgroup.events"), "populated").unwrap_or(0) == 0
    }

    /// Sends `signal` to every process in the group and below it.
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        if signal == Signal::KILL {
            return self.kill();
        }
        let mut told = Vec::new();
        for _ in 0..SIGNAL_ROUNDS {
            let new: Vec<Pid> =
                self.processes().into_iter().filter(|pid| !told.contains(pid)).collect();
            if new.is_empty() {
                break;
            }
            for &pid in &new {
                // It may have ended since the list was read.
                let _ = sys::kill(pid, signal);
            }
            told.extend(new);
        }
        Ok(())
    }

    /// Every process in the group and below it.
    pub(crate) fn processes(&self) -> Vec<Pid> {
        let mut found = Vec::new();
        let mut groups = vec![self.path.clone()];
        let mut visited = 0;
        while let Some(group) = groups.pop() {
            visited += 1;
            if visited > GROUPS_MAX {
                break;
            }
            let list = read(&group.join("cgroup.procs"));
            found.extend(list.lines().filter_map(|line| Pid::from_raw(line.parse().ok()?)));
            let below = fs::read_dir(&group).into_iter().flatten().flatten();
            groups.extend(
                below.filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()),
            );
        }
        found
    }

    /// How many processes the kernel killed for want of memory.
    pub(crate) fn oom_kills(&self) -> u64 {
        field(&self.read("memory.events"), "oom_kill").unwrap_or(0)
    }

    /// What the group uses; network and absent limits are the caller's to add.
    pub(crate) fn stats(&self, guest_memory: u64) -> Stats {
        let memory = number(&self.read("memory.current")).unwrap_or(0);
        let droppable = field(&self.read("memory.stat"), "inactive_file").unwrap_or(0);
        let io = self.read("io.stat");
        Stats {
            cpu_usec: field(&self.read("cpu.stat"), "usage_usec").unwrap_or(0),
            memory_bytes: memory.saturating_sub(droppable),
            memory_limit_bytes: number(&self.read("memory.max")).unwrap_or(guest_memory),
            pids: number(&self.read("pids.current")).unwrap_or(0),
            block_read_bytes: io_sum(&io, "rbytes"),
            block_write_bytes: io_sum(&io, "wbytes"),
            oom_kills: self.oom_kills(),
            ..Stats::default()
        }
    }

    /// Removes the group and those that the container made below it.
    pub(crate) fn remove(&self) {
        let mut groups = vec![self.path.clone()];
        let mut index = 0;
        while let Some(group) = groups.get(index).cloned().filter(|_| index < GROUPS_MAX) {
            let below = fs::read_dir(&group).into_iter().flatten().flatten();
            groups.extend(
                below.filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()),
            );
            index += 1;
        }
        for group in groups.iter().rev() {
            // An empty group that stays costs a little memory and harms nobody.
            let _ = fs::remove_dir(group);
        }
    }

    fn write(&self, file: &str, value: &str) -> Result<()> {
        fs::write(self.path.join(file), value).attempt(|| format!("write {value:?} to {file}"))
    }

    fn read(&self, file: &str) -> String {
        read(&self.path.join(file))
    }
}

impl AsFd for Cgroup {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// How many processes a container may have that has no limit of its own: most of what the kernel
/// can hold, so that a fork bomb leaves room for whoever comes to end it.
fn most_pids() -> u64 {
    ["threads-max", "pid_max"]
        .map(|name| number(&read(&Path::new("/proc/sys/kernel").join(name))))
        .map(|most| most.unwrap_or(PIDS_FALLBACK) / 4 * 3)
        .into_iter()
        .fold(u64::MAX, u64::min)
}

/// The files that hold `limits`, with their contents.
fn limit_files(limits: &ContainerLimits, default_pids: u64) -> Vec<(&'static str, String)> {
    let mut files = Vec::new();
    if let Some(millis) = limits.cpu_millis {
        let quota = (u64::from(millis) * CPU_PERIOD_USEC / 1000).max(CPU_QUOTA_MIN_USEC);
        files.push(("cpu.max", format!("{quota} {CPU_PERIOD_USEC}")));
    }
    if let Some(bytes) = limits.memory_bytes {
        files.push(("memory.max", bytes.to_string()));
        files.push(("memory.swap.max", "0".to_owned()));
    }
    let pids = limits.pids.map_or(default_pids, u64::from);
    files.push(("pids.max", pids.to_string()));
    files
}

/// A file's text, cut at [`FILE_MAX`]; empty where it cannot be read, as when a controller lacks.
fn read(path: &Path) -> String {
    let mut text = String::new();
    if let Ok(file) = fs::File::open(path) {
        let _ = file.take(FILE_MAX).read_to_string(&mut text);
    }
    text
}

/// The number of a file that holds one; `None` for `max`.
fn number(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// The number behind `key` in a file of `key number` lines.
fn field(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

/// Reads `text` as each of the files, for the fuzzer.
pub(crate) fn parse(text: &str) {
    let _ = (number(text), field(text, "oom_kill"), io_sum(text, "rbytes"));
}

/// The sum over all devices of `key=number` in `io.stat`.
fn io_sum(text: &str, key: &str) -> u64 {
    text.split_ascii_whitespace()
        .filter_map(|word| word.strip_prefix(key)?.strip_prefix('=')?.parse::<u64>().ok())
        .fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn limits_become_files() {
        let limits = |cpu_millis, memory_bytes, pids| {
            limit_files(&ContainerLimits { cpu_millis, memory_bytes, pids }, 77)
        };
        assert_eq!(limits(None, None, None), [("pids.max", "77".into())]);
        assert_eq!(limits(Some(1500), None, None)[0], ("cpu.max", "150000 100000".into()));
        assert_eq!(limits(Some(1), None, None)[0], ("cpu.max", "1000 100000".into()));
        assert_eq!(
            limits(None, Some(1 << 20), Some(9)),
            [
                ("memory.max", "1048576".into()),
                ("memory.swap.max", "0".into()),
                ("pids.max", "9".into())
            ]
        );
    }

    #[test]
    fn files_are_read_as_the_kernel_writes_them() {
        assert_eq!(number("max\n"), None);
        assert_eq!(number("4096\n"), Some(4096));
        let events = "low 0\noom 2\noom_kill 1\noom_group_kill 0\n";
        assert_eq!(field(events, "oom_kill"), Some(1));
        assert_eq!(field(events, "oom"), Some(2));
        let io = "254:0 rbytes=100 wbytes=7 rios=1\n254:16 rbytes=23 wbytes=0\n";
        assert_eq!((io_sum(io, "rbytes"), io_sum(io, "wbytes")), (123, 7));
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text: String, key in "[a-z_]{0,8}") {
            let _ = (number(&text), field(&text, &key), io_sum(&text, &key));
        }
    }
}
