// SPDX-License-Identifier: Apache-2.0
//! Guests whose init is not ours and means harm.

use std::fs;
use std::path::Path;
use std::process::Command;

use hc_testkit::{Host, children_of, has_program, memory_kib, skip};

use super::start;

/// What a pod's process may need at most, whatever its guest does.
const MAX_POD_KIB: u64 = 64 * 1024;

/// An init that finds the line to the host and does as `MODE` says: 0 is silent, 1 sends zeros for
/// ever, 2 noise for ever, 3 sends everything back.
const HOSTILE_INIT: &str = r#"
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

static int channel(void)
{
    char path[512], name[64];
    DIR *ports = opendir("/sys/class/virtio-ports");
    for (struct dirent *port; ports && (port = readdir(ports));) {
        snprintf(path, sizeof path, "/sys/class/virtio-ports/%s/name", port->d_name);
        int file = open(path, O_RDONLY);
        ssize_t length = file < 0 ? -1 : read(file, name, sizeof name);
        if (length > 0 && !strncmp(name, "org.hyper.channel.0", 19)) {
            snprintf(path, sizeof path, "/dev/%s", port->d_name);
            return open(path, O_RDWR);
        }
    }
    return -1;
}

int main(void)
{
    static unsigned char bytes[65536];
    unsigned seed = 1;
    mkdir("/sys", 0755);
    mkdir("/dev", 0755);
    mount("sysfs", "/sys", "sysfs", 0, 0);
    mount("devtmpfs", "/dev", "devtmpfs", 0, 0);
    int line = channel();
    for (;;) {
        ssize_t length = sizeof bytes;
        if (line < 0 || MODE == 0)
            pause();
        for (int i = 0; MODE == 2 && i < sizeof bytes; i++)
            bytes[i] = (seed = seed * 1103515245 + 12345) >> 16;
        if (MODE == 3)
            length = read(line, bytes, sizeof bytes);
        for (ssize_t sent = 0, n; sent < length; sent += n)
            if ((n = write(line, bytes + sent, length - sent)) < 0)
                break;
    }
}
"#;

/// Boots a guest with the hostile init; the run must fail with one line that has `reason`.
fn check(mode: u32, reason: &str) {
    let Some(mut host) = Host::new() else { return };
    if !has_program("cc") {
        return skip("no C compiler");
    }
    let lib = host.own_lib();
    compile(mode, &lib.join("hyperstart"));
    host.configure("boot-timeout = 4");
    host.busybox();

    let daemon = host.daemon_pid();
    let mut run = start(&mut host.command(["run", "--rm", "--name", "x", "busybox", "true"]));
    let mut peak = 0;
    while run.try_wait().unwrap().is_none() {
        for pod in children_of(daemon) {
            peak = peak.max(memory_kib(pod, "status", "VmHWM").unwrap_or(0));
        }
        // Not a wait for the end, only a pause between two looks at the memory.
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let output = hc_testkit::Output::from(run.wait_with_output().unwrap());
    output.fails(125, reason);
    assert!(peak > 0 && peak < MAX_POD_KIB, "the pod's process needed {peak} KiB");
    host.assert_clean();
}

fn compile(mode: u32, init: &Path) {
    fs::remove_file(init).unwrap(); // It was a link to ours.
    let source = init.with_extension("c");
    fs::write(&source, HOSTILE_INIT).unwrap();
    let mut command = Command::new("cc");
    command.args(["-static", "-O2", &format!("-DMODE={mode}"), "-o"]).arg(init).arg(&source);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_guest_that_never_answers_is_given_up() {
    check(0, "answer");
}

#[test]
fn a_guest_that_floods_the_line_with_zeros_is_given_up() {
    check(1, "guest");
}

#[test]
fn a_guest_that_floods_the_line_with_noise_is_given_up() {
    check(2, "guest");
}

#[test]
fn a_guest_that_sends_back_what_it_hears_is_given_up() {
    check(3, "guest");
}
