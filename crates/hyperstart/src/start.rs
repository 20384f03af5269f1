// SPDX-License-Identifier: Apache-2.0
//! How PID 1 begins.

use std::os::fd::OwnedFd;

use crate::channel::Channel;
use crate::error::{Attempt as _, Result};
use crate::init::Init;
use crate::{boot, kmsg, network, sys};

/// Runs as PID 1 and never returns, or gives the exit status of a process that is not PID 1.
pub fn run() -> core::ffi::c_int {
    if rustix::process::getpid() != rustix::process::Pid::INIT {
        // A container may find this file by way of `/proc`; there is nothing for it to gain here.
        return 1;
    }
    kmsg::install_panic_hook();
    match boot() {
        Ok(init) => init.run(),
        Err(error) => kmsg::die(&error.to_string()),
    }
}

fn boot() -> Result<Init> {
    sys::ignore_broken_pipes();
    boot::prepare()?;
    let null = open_null()?;
    let children = sys::child_signals().attempt(|| "watch for children".into())?;
    let channel = Channel::open()?;
    network::loopback_up()?;
    kmsg::note("ready for the host");
    Init::new(channel, children, null).attempt(|| "watch the channel".into())
}

/// Opens `/dev/null`, and with it whatever of the standard streams the kernel left closed: other
/// descriptors must never come by these numbers.
fn open_null() -> Result<OwnedFd> {
    use std::os::fd::{AsRawFd as _, IntoRawFd as _};
    loop {
        let file = std::fs::File::options().read(true).write(true).open("/dev/null");
        let null = OwnedFd::from(file.attempt(|| "open /dev/null".into())?);
        if null.as_raw_fd() > 2 {
            return Ok(null);
        }
        let _ = null.into_raw_fd(); // Stays open as a standard stream.
    }
}
