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

use crate::boot::RUN;
use crate::error::{Attempt as _, Error, Result};

/// How long a device may take to appear: many times what a slow emulated machine needs, and short
/// enough that the host hears the reason before its own patience ends.
const APPEAR: Duration = Duration::from_secs(5);
/// The kernel's own announcements.
const KERNEL_GROUP: u32 = 1;
/// Every virtio device, as links named `virtio0` and so on.
const VIRTIO_DEVICES: &str = "/sys/bus/virtio/devices";
/// The virtio number of network cards, as sysfs writes it.
const NETWORK_CARD: &str = "0x0001";

/// An interface that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Interface {
    /// What the kernel calls it.
    pub(crate) name: String,
    /// Its number.
    pub(crate) number: u32,
    /// Whether it has the Ethernet address that was asked for.
    pub(crate) has_address: bool,
}

/// The device file of the virtio-serial port called `name`.
pub(crate) fn port(name: &str) -> Result<PathBuf> {
    find(&format!("port {name}"), || {
        let entry = entries(Path::new("/sys/class/virtio-ports"))
            .find(|entry| says(entry, "name", name))?;
        Some(Path::new("/dev").join(entry.file_name()?))
    })
}

/// The device file at `path`.
pub(crate) fn file(path: &str) -> Result<PathBuf> {
    find(&format!("device {path}"), || Path::new(path).exists().then(|| PathBuf::from(path)))
}

/// The device file of the disk with this serial, which is a path's last part.
///
/// It is looked for once: a copied guest has the same disks, whatever files are behind them.
pub(crate) fn disk(serial: &str) -> Result<PathBuf> {
    let known = Path::new(RUN).join("disks").join(serial);
    if let Ok(device) = fs::read_link(&known) {
        return Ok(device);
    }
    let device = find(&format!("disk {serial}"), || {
        let entry = entries(Path::new("/sys/block")).find(|entry| says(entry, "serial", serial))?;
        Some(Path::new("/dev").join(entry.file_name()?))
    })?;
    std::os::unix::fs::symlink(&device, &known).attempt(|| format!("note disk {serial}"))?;
    Ok(device)
}

/// The interface with this Ethernet address, or else the only virtio card: that of a copied guest
/// has the address of the guest that was copied.
pub(crate) fn interface(mac: [u8; 6]) -> Result<Interface> {
    let address = mac.map(|byte| format!("{byte:02x}")).join(":");
    find(&format!("interface {address}"), || {
        let has_address = |entry: &PathBuf| says(entry, "address", &address);
        let named = entries(Path::new("/sys/class/net")).find(has_address);
        let found = named.or_else(|| only_card(Path::new(VIRTIO_DEVICES)))?;
        let number = fs::read_to_string(found.join("ifindex")).ok()?.trim_end().parse().ok()?;
        let name = found.file_name()?.to_str()?.to_owned();
        Some(Interface { name, number, has_address: has_address(&found) })
    })
}

/// The interface of the only virtio card; `None` if there are more.
fn only_card(devices: &Path) -> Option<PathBuf> {
    let mut cards = entries(devices).filter(|device| says(device, "device", NETWORK_CARD));
    let card = cards.next().filter(|_| cards.next().is_none())?;
    entries(&card.join("net")).next()
}

/// Whether the attribute of a device in sysfs is this text.
fn says(device: &Path, attribute: &str, text: &str) -> bool {
    fs::read_to_string(device.join(attribute)).is_ok_and(|found| found.trim_end() == text)
}

/// What lies in a directory of sysfs; nothing where the directory does not exist (yet).
fn entries(directory: &Path) -> impl Iterator<Item = PathBuf> + use<> {
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory as sysfs shows it: devices by their names and files.
    fn sysfs(devices: &[(&str, &[(&str, &str)])]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for (name, files) in devices {
            for (file, text) in *files {
                let path = directory.path().join(name).join(file);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
        }
        directory
    }

    fn names(paths: impl Iterator<Item = PathBuf>) -> Vec<String> {
        let name = |path: PathBuf| path.file_name().unwrap().display().to_string();
        let mut names: Vec<_> = paths.map(name).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn a_card_is_known_without_its_address_only_if_it_is_the_only_one() {
        let disk = ("virtio0", &[("device", "0x0002\n")][..]);
        let card = ("virtio1", &[("device", "0x0001\n"), ("net/eth0/ifindex", "2\n")][..]);
        let other = ("virtio2", &[("device", "0x0001\n"), ("net/eth1/ifindex", "3\n")][..]);
        for (devices, expected) in
            [(vec![disk, card], Some("eth0")), (vec![disk], None), (vec![disk, card, other], None)]
        {
            let devices = sysfs(&devices);
            let found = only_card(devices.path());
            assert_eq!(names(found.into_iter()), expected.into_iter().collect::<Vec<_>>());
        }
    }
}
