// SPDX-License-Identifier: Apache-2.0
//! The line to the host: a virtio-serial port, or whatever device the kernel command line names.
//! Bytes in and out, never blocking; what they mean is the mux's.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use hc_proto::GuestMux;
use rustix::event::epoll::EventFlags;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};

use crate::error::{Attempt as _, Result};
use crate::watch::{Token, Watch};
use crate::{boot, devices};

/// The port that every hypervisor with virtio-serial gives the guest.
const PORT: &str = "org.hyper.channel.0";
/// The kernel parameter that names another device.
const PARAMETER: &str = "hyper.channel";
/// Bytes read at once; a port hands out at most a page.
const READ_LEN: usize = 32 * 1024;
/// Pieces of output written at once.
const PIECES: usize = 16;

/// The open line.
pub(crate) struct Channel {
    fd: OwnedFd,
    buffer: Vec<u8>,
}

impl Channel {
    /// Finds the line and opens it.
    pub(crate) fn open() -> Result<Channel> {
        let command_line = boot::command_line()?;
        let path = match boot::parameter(&command_line, PARAMETER) {
            Some(device) => devices::file(device)?,
            None => devices::port(PORT)?,
        };
        let fd = open(&path)?;
        if let Ok(mut terminal) = tcgetattr(&fd) {
            // A serial line: every byte as it is.
            terminal.make_raw();
            tcsetattr(&fd, OptionalActions::Now, &terminal)
                .attempt(|| format!("set up {}", path.display()))?;
        }
        Ok(Channel { fd, buffer: Vec::with_capacity(READ_LEN) })
    }

    /// Watches the line.
    ///
    /// For changes only: a port without a host counts as hung up for as long as it is so, and the
    /// loop would never sleep. So whoever is told must read and write until nothing moves.
    pub(crate) fn watch(&self, watch: &Watch) -> io::Result<()> {
        watch.add(&self.fd, Token::Channel, EventFlags::IN | EventFlags::OUT | EventFlags::ET)
    }

    /// The bytes that have arrived; empty if there are none now.
    pub(crate) fn read(&mut self) -> io::Result<&[u8]> {
        self.buffer.clear();
        let buffer = rustix::buffer::spare_capacity(&mut self.buffer);
        match rustix::io::read(&self.fd, buffer) {
            // None, or no host: it is told when one comes.
            Ok(_) | Err(Errno::AGAIN | Errno::INTR) => Ok(&self.buffer),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes what `mux` has to say, as far as the line takes it.
    pub(crate) fn write(&mut self, mux: &mut GuestMux) -> io::Result<()> {
        loop {
            let mut slices = [IoSlice::new(&[]); PIECES];
            let count = mux.pending_slices(&mut slices);
            if count == 0 {
                return Ok(());
            }
            match rustix::io::writev(&self.fd, &slices[..count]) {
                Ok(taken) => mux.advance(taken),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Writes everything and waits until the hypervisor has taken it, but only until `deadline`:
    /// there may be no host any more.
    pub(crate) fn flush(&mut self, mux: &mut GuestMux, deadline: Instant) -> io::Result<()> {
        while mux.has_output() {
            if !self.wait_writable(deadline.saturating_duration_since(Instant::now()))? {
                return Err(io::ErrorKind::TimedOut.into());
            }
            // A blocking write to a port returns when the hypervisor has taken the bytes. Waiting
            // first keeps it from blocking on a host that is not there.
            rustix::fs::fcntl_setfl(&self.fd, OFlags::RDWR)?;
            let taken = rustix::io::write(&self.fd, mux.pending_output());
            rustix::fs::fcntl_setfl(&self.fd, OFlags::RDWR | OFlags::NONBLOCK)?;
            mux.advance(taken?);
        }
        Ok(())
    }

    fn wait_writable(&self, patience: Duration) -> io::Result<bool> {
        let timeout = Timespec {
            tv_sec: i64::try_from(patience.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(patience.subsec_nanos()),
        };
        let mut fds = [PollFd::new(&self.fd, PollFlags::OUT)];
        poll(&mut fds, Some(&timeout))?;
        Ok(fds[0].revents().contains(PollFlags::OUT))
    }
}

fn open(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, path, flags, Mode::empty())
        .attempt(|| format!("open channel {}", path.display()))
}

impl AsFd for Channel {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
