// SPDX-License-Identifier: Apache-2.0
//! Looking at processes, and ending those that a test started.

use std::fs;
use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};

/// Sends SIGKILL to a process that the test's own programs started. No error if it is gone.
pub fn kill(pid: u32) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).expect("a process id is not 0");
    match kill_process(pid, Signal::KILL) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => {}
        Err(error) => panic!("cannot kill {pid:?}: {error}"),
    }
}

/// Whether a process exists and has not ended: a thread that is still ending keeps its files open.
pub fn is_alive(pid: u32) -> bool {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let mut states = threads.filter_map(|thread| stat(&thread.path().join("stat")));
    states.any(|(_, state)| state != 'Z' && state != 'X')
}

/// The processes whose parent is `pid`.
pub fn children_of(pid: u32) -> Vec<u32> {
    all()
        .filter(|child| {
            stat(Path::new(&format!("/proc/{child}/stat"))).is_some_and(|(parent, _)| parent == pid)
        })
        .collect()
}

/// The processes whose command line contains `text`.
pub fn processes_naming(text: &str) -> Vec<u32> {
    let names = |pid: &u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(text) && is_alive(*pid)
    };
    all().filter(names).collect()
}

/// The processes that have a file or folder below `dir` open, removed ones too.
pub fn processes_using(dir: &str) -> Vec<u32> {
    let uses = |pid: &u32| {
        let files = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten();
        let mut paths = files.filter_map(|file| fs::read_link(file.ok()?.path()).ok());
        paths.any(|path| path.starts_with(dir))
    };
    all().filter(uses).collect()
}

/// Sends SIGINT, as ctrl-C does.
pub fn interrupt(pid: u32) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).expect("a process id is not 0");
    match kill_process(pid, Signal::INT) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => {}
        Err(error) => panic!("cannot interrupt {pid:?}: {error}"),
    }
}

/// A number of KiB from a file of a process in `/proc`, such as `VmHWM` of `status`; `None` once the
/// process has ended.
pub fn memory_kib(pid: u32, file: &str, key: &str) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/{file}")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

/// A piece of a process's memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// What may be done with it, such as `rw-p`.
    pub permissions: String,
    /// The file, or nothing.
    pub path: String,
    /// Its own pages and its share of those that it shares, in KiB.
    pub pss_kib: u64,
}

/// All memory of a process, a piece each.
pub fn mappings(pid: u32) -> Vec<Mapping> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap();
    let mut all: Vec<Mapping> = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let first = words.next().unwrap_or_default();
        if let Some(kib) = line.strip_prefix("Pss:") {
            let kib = kib.trim().strip_suffix(" kB").unwrap().parse().unwrap();
            all.last_mut().unwrap().pss_kib = kib;
        } else if !first.ends_with(':') {
            let permissions = words.next().unwrap().to_owned();
            let path = words.skip(3).collect::<Vec<_>>().join(" ");
            all.push(Mapping { permissions, path, pss_kib: 0 });
        }
    }
    all
}

fn all() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").unwrap();
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

/// Parent and state of a process or thread.
fn stat(file: &Path) -> Option<(u32, char)> {
    let text = fs::read_to_string(file).ok()?;
    // The name in parentheses may contain anything.
    let mut fields = text.rsplit_once(") ")?.1.split(' ');
    let state = fields.next()?.chars().next()?;
    Some((fields.next()?.parse().ok()?, state))
}

/// A field of `/proc/PID/status`, as the kernel sees a process.
pub fn status(pid: u32, field: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let mut fields = text.lines().filter_map(|line| line.split_once(':'));
    let (_, value) = fields.find(|(name, _)| *name == field).unwrap();
    value.trim().to_owned()
}
