// SPDX-License-Identifier: Apache-2.0
//! Finding devices by what the host named them: a port by its name, a disk by its serial, an
//! interface by its Ethernet address.
//!
//! Devices may appear late, since the kernel probes them on its own time. Every search therefore
//! waits, for the kernel's announcement and never longer than [`APPEAR`].

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType};

use crate::error::{Attempt as _, Error, Result};

/// How long a device may take to appear: many times what a slow emulated machine needs, and short
/// enough that the host hears the reason before its own patience ends.
const APPEAR: Duration = Duration::from_secs(5);
/// The kernel's own announcements.
const KERNEL_GROUP: u32 = 1;

/// The device file of the virtio-serial port called `name`.
pub(crate) fn port(name: &str) -> Result<PathBuf> {
    find(&format!("port {name}"), || {
        let entry = entries("/sys/class/virtio-ports").find(|entry| {
            fs::read_to_string(entry.join("name")).is_ok_and(|found| found.trim_end() == name)
        })?;
        Some(Path::new("/dev").join(entry.file_name()?))
    })
}

/// The device file at `path`.
pub(crate) fn file(path: &str) -> Result<PathBuf> {
    find(&format!("device {path}"), || Path::new(path).exists().then(|| PathBuf::from(path)))
}

/// The device file of the disk with this serial.
pub(crate) fn disk(serial: &str) -> Result<PathBuf> {
    find(&format!("disk {serial}"), || {
        let entry = entries("/sys/block").find(|entry| {
            fs::read_to_string(entry.join("serial")).is_ok_and(|found| found.trim_end() == serial)
        })?;
        Some(Path::new("/dev").join(entry.file_name()?))
    })
}

/// The number of the interface with this Ethernet address.
pub(crate) fn interface(mac: [u8; 6]) -> Result<u32> {
    let address = mac.map(|byte| format!("{byte:02x}")).join(":");
    find(&format!("interface {address}"), || {
        let entry = entries("/sys/class/net").find(|entry| {
            fs::read_to_string(entry.join("address")).is_ok_and(|found| found.trim_end() == address)
        })?;
        fs::read_to_string(entry.join("ifindex")).ok()?.trim_end().parse().ok()
    })
}

/// What lies in a directory of sysfs; nothing where the directory does not exist (yet).
fn entries(directory: &str) -> impl Iterator<Item = PathBuf> + use<> {
    fs::read_dir(directory).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()))
}

/// Asks `probe` until it finds something, again after each announcement.
fn find<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> Result<T> {
    if let Some(found) = probe() {
        return Ok(found);
    }
    let deadline = Instant::now() + APPEAR;
    let announcements = listen()?;
    loop {
        // Probing after the socket listens: nothing can appear unnoticed in between.
        if let Some(found) = probe() {
            return Ok(found);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Error::not_found(format!("{what} did not appear within {APPEAR:?}")));
        }
        wait(&announcements, left)?;
    }
}

/// A socket that hears the kernel announce devices.
fn listen() -> Result<OwnedFd> {
    let socket = rustix::net::socket_with(
        AddressFamily::NETLINK,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        Some(netlink::KOBJECT_UEVENT),
    )
    .attempt(|| "open a socket for announcements".into())?;
    rustix::net::bind(&socket, &SocketAddrNetlink::new(0, KERNEL_GROUP))
        .attempt(|| "listen for announcements".into())?;
    Ok(socket)
}

/// Waits for announcements and throws them away: what they are about is in sysfs.
fn wait(announcements: &OwnedFd, patience: Duration) -> Result<()> {
    let timeout = Timespec {
        tv_sec: i64::try_from(patience.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(patience.subsec_nanos()),
    };
    let mut fds = [PollFd::new(announcements, PollFlags::IN)];
    match poll(&mut fds, Some(&timeout)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(error) => return Err(error).attempt(|| "wait for announcements".into()),
    }
    let mut buffer = [0_u8; 4096];
    // An overrun (ENOBUFS) is as good as news: the probe looks at everything again.
    while rustix::net::recv(announcements, &mut buffer, RecvFlags::empty()).is_ok() {}
    Ok(())
}
