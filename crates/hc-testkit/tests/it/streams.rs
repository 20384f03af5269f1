// SPDX-License-Identifier: Apache-2.0
//! Much data through containers: every byte arrives, whoever is slow.

use std::io::{Read, Write as _};
use std::process::Stdio;

use hc_testkit::{Host, Output};

/// Bytes that say where they belong: each 8 of them are a number of their own.
struct Numbers {
    next: u64,
    end: u64,
}

impl Numbers {
    fn of(bytes: u64) -> Numbers {
        Numbers { next: 0, end: bytes / 8 }
    }

    fn fill(&mut self, buffer: &mut Vec<u8>) -> bool {
        buffer.clear();
        while self.next < self.end && buffer.len() < 256 * 1024 {
            // Scattered, so that no two pieces look alike.
            buffer.extend(self.next.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
            self.next += 1;
        }
        !buffer.is_empty()
    }
}

/// Fails unless `stream` has exactly the bytes of [`Numbers`].
fn check(mut stream: impl Read, bytes: u64) {
    let mut numbers = Numbers::of(bytes);
    let (mut expected, mut found) = (Vec::new(), Vec::new());
    let mut checked = 0;
    while numbers.fill(&mut expected) {
        found.resize(expected.len(), 0);
        stream.read_exact(&mut found).unwrap();
        assert!(found == expected, "within {} bytes from {checked}", expected.len());
        checked += expected.len();
    }
    assert_eq!(stream.read(&mut [0]).unwrap(), 0, "more than was sent");
}

#[test]
fn a_gigabyte_goes_in_and_comes_out_unchanged() {
    const BYTES: u64 = 1 << 30;
    let Some(host) = Host::new() else { return };
    host.busybox();
    let mut run = host.command(["run", "-i", "--rm", "busybox", "cat"]);
    let mut run = run.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = run.stdin.take().unwrap();
    let writer = std::thread::spawn(move || {
        let (mut numbers, mut buffer) = (Numbers::of(BYTES), Vec::new());
        while numbers.fill(&mut buffer) {
            stdin.write_all(&buffer).unwrap();
        }
    });
    check(run.stdout.take().unwrap(), BYTES);
    writer.join().unwrap();
    assert_eq!(hc_testkit::until_ended(&mut run), 0);
    host.assert_clean();
}

#[test]
fn what_goes_in_is_what_the_program_reads() {
    const BYTES: u64 = 64 << 20;
    let Some(host) = Host::new() else { return };
    host.busybox();
    let (mut numbers, mut buffer, mut input) = (Numbers::of(BYTES), Vec::new(), Vec::new());
    while numbers.fill(&mut buffer) {
        input.extend_from_slice(&buffer);
    }
    let inside = host.hyper_with(["run", "-i", "--rm", "busybox", "sha256sum"], &input).ok();
    let mut outside = std::process::Command::new("sha256sum");
    let mut outside = outside.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    outside.stdin.take().unwrap().write_all(&input).unwrap();
    let outside: Output = outside.wait_with_output().unwrap().into();
    assert_eq!(inside, outside.ok());
    host.assert_clean();
}

#[test]
fn a_slow_reader_of_a_fast_writer_loses_nothing() {
    const LINES: u32 = 200_000;
    let Some(host) = Host::new() else { return };
    host.busybox();
    let script = format!("seq 1 {LINES}; seq 1 {LINES} >&2");
    let mut run = host.command(["run", "--name", "c", "busybox", "sh", "-c", &script]);
    let mut run = run.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // Nobody reads until the writer is stopped by that.
    let used = || {
        let dir = host.data_dir().join("pods");
        walk(&dir)
    };
    let mut last = 0;
    let mut same = 0;
    hc_testkit::until("the writer is held up", || {
        let now = used();
        same = if now == last && now > 0 { same + 1 } else { 0 };
        last = now;
        same > 100
    });
    let stderr = run.stderr.take().unwrap();
    let errors = std::thread::spawn(move || lines(stderr));
    let expected: Vec<_> = (1..=LINES).map(|n| n.to_string()).collect();
    assert!(lines(run.stdout.take().unwrap()) == expected);
    assert!(errors.join().unwrap() == expected);
    assert_eq!(hc_testkit::until_ended(&mut run), 0);

    let logs = host.hyper(["logs", "c"]);
    assert!(logs.stdout.lines().eq(expected.iter().map(String::as_str)));
    assert!(logs.stderr.lines().eq(expected.iter().map(String::as_str)));
    host.hyper(["rm", "c"]).ok();
    host.assert_clean();
}

fn lines(mut stream: impl Read) -> Vec<String> {
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text.lines().map(str::to_owned).collect()
}

/// Bytes of all logs below `dir`.
fn walk(dir: &std::path::Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    let size = |entry: std::fs::DirEntry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => walk(&entry.path()),
        _ if entry.path().extension().is_some_and(|end| end == "log") => {
            entry.metadata().map_or(0, |data| data.len())
        }
        _ => 0,
    };
    entries.flatten().map(size).sum()
}
