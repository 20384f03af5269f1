// SPDX-License-Identifier: Apache-2.0
//! SIGKILL of a pod's processes, and of its kernel.

use hc_testkit::{Host, is_alive, kill, until};

use super::{finish, names, start_until};

/// Runs `busybox` in two ways while `end` ends its VM: detached and kept, attached and removed. The
/// reason that is told must contain `reason`.
fn check(end: impl Fn(&Host), reason: &str) {
    let Some(host) = Host::new() else { return };
    host.busybox();
    let script = "echo up; sleep 600";
    host.hyper(["run", "-d", "--privileged", "--name", "x", "busybox", "sh", "-c", script]).ok();
    end(&host);
    host.until_state("x", "exited");
    let x = host.inspect("x");
    assert_eq!(x["exit_status"], 125, "{x}");
    assert!(x["error"].as_str().unwrap().contains(reason), "{x}");
    assert_eq!(host.hyper(["wait", "x"]).ok(), "125");
    // It is no worse for it.
    host.hyper(["start", "x"]).ok();
    assert_eq!(host.inspect("x")["state"], "running");
    host.hyper(["rm", "--force", "x"]).ok();
    host.assert_clean();

    let mut command = host.command(["run", "--rm", "--privileged", "--name", "x", "busybox"]);
    let run = start_until(command.args(["sh", "-c", script]), "up");
    end(&host);
    let output = finish(run);
    assert_eq!(output.status, 125, "{output:?}");
    until("it is removed", || names(&host).is_empty());
    host.assert_clean();
}

#[test]
fn a_hypervisor_that_is_killed_ends_its_container_with_the_reason() {
    let end = |host: &Host| kill(host.hypervisor("x"));
    check(end, "hypervisor was killed by signal 9");
}

#[test]
fn a_pod_process_that_is_killed_takes_its_hypervisor_along() {
    let end = |host: &Host| {
        let hypervisor = host.hypervisor("x");
        kill(host.pod_pid("x"));
        until("the hypervisor is gone", || !is_alive(hypervisor));
    };
    check(end, "process was killed");
}

/// Runs a command in the container that ends its VM, and is cut off, one way or the other.
fn from_inside(command: &'static str) -> impl Fn(&Host) {
    move |host| {
        host.hyper(["exec", "--privileged", "x", "sh", "-c", command]);
    }
}

#[test]
fn a_guest_kernel_that_panics_ends_its_container_with_the_reason() {
    check(from_inside("echo c >/proc/sysrq-trigger"), "guest kernel panicked");
}

#[test]
fn a_guest_that_resets_itself_ends_its_container_with_the_reason() {
    check(from_inside("reboot -f"), "the guest powered off by itself");
}

#[test]
fn a_guest_that_powers_itself_off_ends_its_container_with_the_reason() {
    check(from_inside("poweroff -f"), "the guest powered off by itself");
}
