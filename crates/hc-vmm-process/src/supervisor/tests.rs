// SPDX-License-Identifier: Apache-2.0

use super::*;

/// The wait status of a process that exited by itself.
fn exited(code: i32) -> ExitStatus {
    ExitStatus::from_raw(code << 8)
}

/// The wait status of a process that a signal ended.
fn signalled(signal: i32) -> ExitStatus {
    ExitStatus::from_raw(signal)
}

fn shutdown(guest: bool, reason: &str) -> Shutdown {
    Shutdown { guest, reason: reason.to_owned() }
}

fn said(text: &str) -> Tail {
    let mut tail = Tail::default();
    tail.feed(text.as_bytes());
    tail
}

/// Compares the exit that the evidence leads to.
#[track_caller]
fn check(status: ExitStatus, evidence: Evidence, expected: Exit) {
    assert_eq!(evidence.verdict(Ok(status)), expected);
}

fn crashed(status: &str, last_words: &str) -> Exit {
    Exit::Crashed { status: status.to_owned(), last_words: last_words.to_owned() }
}

#[test]
fn a_guest_that_resets_or_powers_off_has_stopped() {
    for reason in ["guest-reset", "guest-shutdown"] {
        let evidence = Evidence { shutdown: Some(shutdown(true, reason)), ..Evidence::default() };
        check(exited(0), evidence, Exit::Stopped);
    }
    check(exited(0), Evidence::default(), Exit::Stopped);
}

#[test]
fn a_guest_that_stops_while_it_is_killed_has_stopped() {
    let evidence = Evidence {
        killed: true,
        shutdown: Some(shutdown(true, "guest-reset")),
        ..Evidence::default()
    };
    check(exited(0), evidence, Exit::Stopped);
}

#[test]
fn a_guest_that_is_down_but_for_the_machine_has_stopped() {
    let evidence = Evidence { console: said("[ 3.1] reboot: Power down\n"), ..Evidence::default() };
    assert!(evidence.heard_down());
    check(signalled(9), Evidence { down: true, ..evidence }, Exit::Stopped);
    let evidence = Evidence { console: said("reboot: soon\n"), ..Evidence::default() };
    assert!(!evidence.heard_down());
}

#[test]
fn a_panic_on_the_console_is_told() {
    let console = "Kernel panic - not syncing: No working init found.";
    let evidence = Evidence {
        shutdown: Some(shutdown(true, "guest-reset")),
        console: said(console),
        ..Evidence::default()
    };
    check(exited(0), evidence, crashed("guest kernel panicked", console));
}

#[test]
fn a_kill_is_one_only_if_we_asked_for_it() {
    check(signalled(9), Evidence { killed: true, ..Evidence::default() }, Exit::Killed);
    let evidence = Evidence { console: said("a"), stderr: said("b"), ..Evidence::default() };
    check(signalled(9), evidence, crashed("hypervisor was killed by signal 9", "a\nb"));
}

#[test]
fn somebody_elses_wish_is_a_crash() {
    let evidence =
        Evidence { shutdown: Some(shutdown(false, "host-signal")), ..Evidence::default() };
    check(exited(0), evidence, crashed("hypervisor was told to end", ""));
}

#[test]
fn a_failing_hypervisor_is_quoted() {
    let evidence = Evidence { stderr: said("qemu: no such option\n"), ..Evidence::default() };
    let expected = crashed("hypervisor failed (exit status: 1)", "qemu: no such option");
    check(exited(1), evidence, expected);
}
