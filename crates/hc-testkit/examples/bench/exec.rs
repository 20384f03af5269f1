// SPDX-License-Identifier: Apache-2.0
//! Commands in a container that runs already.

use std::io::{Read as _, Write as _};
use std::process::Stdio;
use std::time::Instant;

use hc_testkit::Host;

use crate::table::{figure, group, median, millis};

const ROUNDS: usize = 50;

pub(crate) fn measure(host: &Host) {
    group("exec: in a container that runs");
    host.hyper(["run", "-d", "--name", "exec", "busybox", "sleep", "1000"]).ok();
    let exec = || {
        let start = Instant::now();
        host.hyper(["exec", "exec", "true"]).ok();
        start.elapsed()
    };
    exec();
    let times = (0..ROUNDS).map(|_| exec()).collect();
    figure("hyper exec POD true, median", &millis(median(times)), "at most 25 ms");

    let mut child = host
        .command(["exec", "-i", "exec", "cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut echo = || {
        let start = Instant::now();
        stdin.write_all(b"x").unwrap();
        stdout.read_exact(&mut [0]).unwrap();
        start.elapsed()
    };
    echo();
    let times = (0..ROUNDS).map(|_| echo()).collect();
    figure(
        "echo of one byte through the guest and back, median",
        &millis(median(times)),
        "at most 5 ms",
    );
    drop(stdin);
    child.wait().unwrap();
    host.hyper(["rm", "--force", "exec"]).ok();
}
