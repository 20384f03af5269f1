// SPDX-License-Identifier: Apache-2.0
//! The processes of a container as `ps` shows them, read from `/proc`.

use std::fs;
use std::io::Read as _;

use hc_proto::message::ProcessRow;
use rustix::process::Pid;

/// Rows in one answer; nobody reads more.
const ROWS_MAX: usize = 1024;
/// Bytes of one command line, as the protocol has it.
const COMMAND_MAX: usize = 4096;
/// Bytes of all command lines together: JSON escapes may make six of one, and the answer has to
/// fit into one message.
const COMMANDS_MAX: usize = 128 * 1024;
/// The most that is read of one file.
const FILE_MAX: u64 = 8192;
/// The kernel's unit of time in `/proc`: `USER_HZ`, the same on every machine.
const TICK_MILLIS: u64 = 10;

/// What `/proc/PID/stat` tells.
#[derive(Debug, PartialEq, Eq)]
struct Stat<'a> {
    name: &'a str,
    state: char,
    parent: u32,
    cpu_ticks: u64,
    start_ticks: u64,
}

/// One row for each of `pids` that is still there.
pub(crate) fn rows(pids: &[Pid]) -> Vec<ProcessRow> {
    let pids = &pids[..pids.len().min(ROWS_MAX)];
    let command_max = (COMMANDS_MAX / pids.len().max(1)).min(COMMAND_MAX);
    let booted = boot_time();
    pids.iter().filter_map(|pid| row(*pid, booted, command_max)).collect()
}

fn row(pid: Pid, booted: u64, command_max: usize) -> Option<ProcessRow> {
    let directory = format!("/proc/{}", pid.as_raw_nonzero());
    let text = read(&format!("{directory}/stat"), FILE_MAX)?;
    let stat = parse_stat(&text)?;
    let status = read(&format!("{directory}/status"), FILE_MAX)?;
    let line = read(&format!("{directory}/cmdline"), command_max as u64).unwrap_or_default();
    Some(ProcessRow {
        pid: pid.as_raw_nonzero().get().unsigned_abs(),
        ppid: stat.parent,
        uid: status_number(&status, "Uid:", 1)?,
        state: stat.state,
        cpu_millis: stat.cpu_ticks.saturating_mul(TICK_MILLIS),
        started_unix: booted.saturating_add(stat.start_ticks / (1000 / TICK_MILLIS)),
        rss_bytes: status_number(&status, "VmRSS:", 0).map_or(0, |kib| u64::from(kib) * 1024),
        command: command(&line, stat.name),
    })
}

fn read(path: &str, limit: u64) -> Option<String> {
    let mut bytes = Vec::new();
    fs::File::open(path).ok()?.take(limit).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// When the guest booted, in seconds since 1970.
fn boot_time() -> u64 {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    text.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok()).unwrap_or(0)
}

/// Reads `/proc/PID/stat`. The name in parentheses is the process's to choose, parentheses and
/// line breaks included; so the fields are counted from the last one that closes.
fn parse_stat(text: &str) -> Option<Stat<'_>> {
    let (head, tail) = text.rsplit_once(')')?;
    let (_, name) = head.split_once('(')?;
    let fields: Vec<&str> = tail.split_ascii_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    Some(Stat {
        name,
        state: fields.first()?.chars().next()?,
        parent: fields.get(1)?.parse().ok()?,
        cpu_ticks: number(11)?.saturating_add(number(12)?),
        start_ticks: number(19)?,
    })
}

/// Reads `text` as each of the files, for the fuzzer.
pub(crate) fn parse(text: &str) {
    let _ = (parse_stat(text), status_number(text, "Uid:", 1));
}

/// A number in `/proc/PID/status`: the one at `place` behind `key`.
fn status_number(text: &str, key: &str, place: usize) -> Option<u32> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_ascii_whitespace().nth(place)?.parse().ok()
}

/// A command line with spaces for zeros; the name in brackets where there is none, as `ps` does.
fn command(line: &str, name: &str) -> String {
    let line = line.trim_end_matches('\0').replace('\0', " ");
    if line.is_empty() { format!("[{name}]") } else { line }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FIELDS: &str = "S 7 9 9 0 -1 4194560 1 2 3 4 50 6 7 8 20 0 1 0 1234 5000 99 0";

    #[test]
    fn a_hostile_name_does_not_shift_the_fields() {
        let text = format!("42 (a) R 1 (x\n) {FIELDS}\n");
        let stat = parse_stat(&text).unwrap();
        let expected =
            Stat { name: "a) R 1 (x\n", state: 'S', parent: 7, cpu_ticks: 56, start_ticks: 1234 };
        assert_eq!(stat, expected);
    }

    #[test]
    fn a_kernel_like_process_shows_its_name() {
        assert_eq!(command("sh\0-c\0true\0", "sh"), "sh -c true");
        assert_eq!(command("", "kworker"), "[kworker]");
        let status = "Name:\tx\nUid:\t1\t2\t3\t4\nVmRSS:\t  12 kB\n";
        assert_eq!(status_number(status, "Uid:", 1), Some(2));
        assert_eq!(status_number(status, "VmRSS:", 0), Some(12));
    }

    #[test]
    fn this_process_is_listed() {
        let rows = rows(&[rustix::process::getpid()]);
        assert_eq!(rows.len(), 1);
        assert_eq!(rows[0].pid, std::process::id());
        assert!(rows[0].rss_bytes > 0 && rows[0].started_unix > 0);
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text: String) {
            parse(&text);
        }
    }
}
