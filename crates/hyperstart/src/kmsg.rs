// SPDX-License-Identifier: Apache-2.0
//! The kernel's log: the only way to speak before the channel stands, and where the console shows
//! what went wrong.

use std::fs::OpenOptions;
use std::io::Write as _;

use rustix::system::RebootCommand;

/// The longest line; the kernel cuts at about 1,000 bytes.
const LINE_MAX: usize = 900;

/// Logs how far PID 1 is, for those who look where the time of a boot goes.
pub(crate) fn note(message: &str) {
    write(6, message);
}

/// Logs something odd that was dealt with. Boot parameters decide whether the console shows it.
pub(crate) fn warn(message: &str) {
    write(4, message);
}

/// Logs that PID 1 cannot go on, and ends the VM.
///
/// A reset and not a power-off: without ACPI a kernel cannot switch the machine off, and every
/// hypervisor is told to end the VM when it resets.
pub(crate) fn die(message: &str) -> ! {
    write(2, message);
    end_vm()
}

/// Resets the machine, which ends the VM.
pub(crate) fn end_vm() -> ! {
    let refused = rustix::system::reboot(RebootCommand::Restart);
    // Only a process without CAP_SYS_BOOT comes here; a forked child must not go on either.
    write(2, &format!("cannot reset the machine: {refused:?}"));
    crate::sys::exit_now(1)
}

/// Makes a panic end the VM, or the child it happens in, with its message in the log.
pub(crate) fn install_panic_hook() {
    std::panic::set_hook(Box::new(|panic| {
        if rustix::process::getpid() == rustix::process::Pid::INIT {
            die(&format!("hyperstart: {panic}"));
        }
        write(3, &panic.to_string());
        crate::sys::exit_now(70) // EX_SOFTWARE of sysexits.h
    }));
}

/// Writes one line of `level`; a log that cannot be written has nowhere to complain.
fn write(level: u8, message: &str) {
    let line: String =
        message.chars().map(|c| if c.is_control() { ' ' } else { c }).take(LINE_MAX).collect();
    if let Ok(mut log) = OpenOptions::new().write(true).open("/dev/kmsg") {
        let _ = log.write_all(format!("<{level}>hyperstart: {line}\n").as_bytes());
    } else if let Ok(mut console) = OpenOptions::new().write(true).open("/dev/console") {
        let _ = console.write_all(format!("hyperstart: {line}\n").as_bytes());
    }
}
