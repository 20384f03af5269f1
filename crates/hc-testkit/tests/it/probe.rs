// SPDX-License-Identifier: Apache-2.0
//! What a program in a container can tell of its guest: the time, and what no other guest may have.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::Stdio;
use std::time::{SystemTime, UNIX_EPOCH};

use hc_testkit::{Host, compile};

/// Does in a container what its shell cannot.
const PROBE: &str = include_str!("probe.c");
/// How wrong a guest's clock may be, in nanoseconds.
const TOLERANCE: u64 = 50_000_000;
/// How often it is asked; the fastest answer is believed.
const ROUNDS: usize = 20;
/// How far apart two sequence numbers of the same moment may be and still come from one secret: the
/// clock that is added to them runs for a quarter of a second meanwhile. By chance it happens once in
/// 500 times to one, and once in 10^8 to all three.
const NEAR: u32 = 1 << 22;

/// Starts a container that sleeps and may do everything, with the program `/probe` in it.
#[track_caller]
pub(crate) fn start_with_probe(host: &Host, name: &str, options: &[&str]) {
    let run = ["run", "-d", "--privileged", "--name", name];
    host.hyper([&run, options, &["busybox", "sleep", "600"]].concat()).ok();
    let program = compile(host.path(), "probe", PROBE);
    host.hyper(["cp", "--quiet", program.to_str().unwrap(), &format!("{name}:/probe")]).ok();
}

/// Fails the test unless the clock of container `name` is right.
#[track_caller]
pub(crate) fn assert_clock_is_right(host: &Host, name: &str) {
    let mut probe = host
        .command(["exec", "-i", name, "/probe", "clock"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = probe.stdin.take().unwrap();
    let mut stdout = BufReader::new(probe.stdout.take().unwrap());
    let mut ask = || {
        let before = since_epoch();
        stdin.write_all(b"\n").unwrap();
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        (before, line.trim_end().parse::<u64>().unwrap(), since_epoch())
    };
    let answers = (0..ROUNDS).map(|_| ask());
    let (before, told, after) = answers.min_by_key(|(before, _, after)| *after - *before).unwrap();
    drop(stdin);
    assert!(probe.wait().unwrap().success());
    let (earliest, latest) = (before - TOLERANCE, after + TOLERANCE);
    assert!((earliest..=latest).contains(&told), "{told}, not within {earliest}..={latest}");
}

/// The host's time of day in nanoseconds.
pub(crate) fn since_epoch() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(now.as_nanos()).unwrap()
}

/// Fails the test if two guests have something in common that must be a guest's own. What programs
/// make of it, such as an SSH server its key, is as different as the random bytes here that it comes
/// from.
#[track_caller]
pub(crate) fn assert_nothing_in_common(host: &Host, pods: [&str; 2]) {
    let both =
        |command: &[&str]| pods.map(|name| host.hyper([&["exec", name], command].concat()).ok());
    for what in [
        "head -c 16 /dev/urandom | hexdump -v -e '1/1 \"%02x\"'",
        "cat /proc/sys/kernel/random/uuid",
        "cat /proc/sys/kernel/random/boot_id",
        "cat /sys/class/net/eth0/address",
        "hostname",
    ] {
        let [a, b] = both(&["sh", "-c", what]);
        assert!(a.len() >= 12 && a.len() == b.len(), "{what}: {a:?} {b:?}");
        assert_ne!(a, b, "{what}");
    }
    let command = ["/probe", "sequence"];
    let [a, b] = both(&command);
    let [a_again, _] = both(&command);
    assert!(near(&a, &a_again).iter().all(|near| *near), "not one secret: {a} {a_again}");
    assert!(!near(&a, &b).iter().all(|near| *near), "one secret: {a} {b}");
}

/// Which of the numbers, a line each, are near their counterpart.
fn near(a: &str, b: &str) -> Vec<bool> {
    let number = |line: &str| line.parse::<u32>().unwrap();
    let near = |(a, b)| {
        let distance = number(a).wrapping_sub(number(b));
        distance.min(distance.wrapping_neg()) < NEAR
    };
    a.lines().zip(b.lines()).map(near).collect()
}
