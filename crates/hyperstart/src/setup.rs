// SPDX-License-Identifier: Apache-2.0
//! What the host makes of this guest: the pod's identity (name, time, randomness, `/etc`, network),
//! given once and again to a copy of a running pod, and the storage for writable layers.

use core::fmt::Write as _;
use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use hc_proto::message::{Identity, PodSetup, Scratch};
use hc_spec::NetworkSpec;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::time::{ClockId, Timespec, clock_settime};

use crate::boot::RUN;
use crate::container::checked_serial;
use crate::error::{Attempt as _, Error, Result};
use crate::{devices, kmsg, network, sys};

const NANOS: u64 = 1_000_000_000;
/// The unit of sizes in `/sys/class/block`, whatever the disk's own blocks are.
const SECTOR: u64 = 512;

/// Carries out `setup`, in a guest that has the `network` now.
pub(crate) fn apply(setup: &PodSetup, network: &mut Option<NetworkSpec>) -> Result<()> {
    take_on(&setup.identity, network)?;
    mount_scratch(&setup.scratch)
}

/// Unmounts what [`apply`] mounted, and the images that containers have had mounted since: nothing of
/// any disk is known any more.
pub(crate) fn unmount_disks() -> Result<()> {
    let images = format!("{RUN}/images");
    for image in fs::read_dir(&images).attempt(|| format!("read {images}"))?.flatten() {
        let path = image.path();
        let what = || format!("let go of {}", path.display());
        unmount(&path, UnmountFlags::empty()).attempt(what)?;
        fs::remove_dir(&path).attempt(what)?;
    }
    unmount(format!("{RUN}/scratch"), UnmountFlags::empty()).attempt(|| "unmount scratch".into())
}

/// Makes this guest, which has the `network` now, the pod that `identity` says.
pub(crate) fn take_on(identity: &Identity, network: &mut Option<NetworkSpec>) -> Result<()> {
    set_clock(identity.unix_nanos, &identity.entropy)?;
    rustix::system::sethostname(identity.hostname.as_bytes()).attempt(|| "set host name".into())?;
    let files = [
        ("hostname", format!("{}\n", identity.hostname)),
        ("hosts", hosts(identity)),
        ("resolv.conf", resolv_conf(identity)),
    ];
    for (name, text) in files {
        // Written over and not replaced: containers have these very files mounted.
        fs::write(format!("{RUN}/etc/{name}"), text).attempt(|| format!("write {name}"))?;
    }
    network::change(network, identity.network.as_ref())
}

/// Sets the time of day and stirs `entropy` into the kernel's randomness.
pub(crate) fn set_clock(unix_nanos: u64, entropy: &[u8]) -> Result<()> {
    let seconds = i64::try_from(unix_nanos / NANOS)
        .map_err(|_| Error::invalid("the time of day is out of range"))?;
    let nanos = (unix_nanos % NANOS).try_into().unwrap_or(0); // Below a billion, so it fits.
    clock_settime(ClockId::Realtime, Timespec { tv_sec: seconds, tv_nsec: nanos })
        .attempt(|| "set the clock".into())?;
    let device = fs::File::options().write(true).open("/dev/urandom");
    device.and_then(|device| sys::add_entropy(device, entropy)).attempt(|| "add entropy".into())
}

/// Writes everything back and unmounts the scratch disk, so that its file system is clean.
pub(crate) fn unmount_scratch() {
    let scratch = format!("{RUN}/scratch");
    if unmount(scratch.as_str(), UnmountFlags::empty()).is_err() {
        // Something still holds it; then at least nothing is lost.
        kmsg::warn("scratch is busy at shutdown");
        rustix::fs::sync();
    }
}

/// The text of `/etc/hosts`.
fn hosts(identity: &Identity) -> String {
    let mut text = String::from(
        "127.0.0.1\tlocalhost\n\
         ::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::0\tip6-localnet\n\
         ff00::0\tip6-mcastprefix\n\
         ff02::1\tip6-allnodes\n\
         ff02::2\tip6-allrouters\n",
    );
    for entry in &identity.hosts {
        let _ = writeln!(text, "{}\t{}", entry.address, entry.name); // A String takes everything.
    }
    let addresses = identity.network.iter().flat_map(|network| &network.addresses);
    let own: Vec<String> = addresses.map(|(address, _)| address.to_string()).collect();
    let own = if own.is_empty() { vec!["127.0.0.1".to_owned()] } else { own };
    for address in own {
        let _ = writeln!(text, "{address}\t{}", identity.hostname);
    }
    text
}

/// The text of `/etc/resolv.conf`.
fn resolv_conf(identity: &Identity) -> String {
    let mut text = String::new();
    for server in &identity.dns_servers {
        let _ = writeln!(text, "nameserver {server}");
    }
    for (keyword, words) in [("search", &identity.dns_search), ("options", &identity.dns_options)] {
        if !words.is_empty() {
            let _ = writeln!(text, "{keyword} {}", words.join(" "));
        }
    }
    text
}

fn mount_scratch(scratch: &Scratch) -> Result<()> {
    let place = format!("{RUN}/scratch");
    match scratch {
        Scratch::Memory => {
            mount("scratch", &place, "tmpfs", MountFlags::NOATIME, c"mode=0755,size=90%")
                .attempt(|| "mount scratch memory".into())
        }
        Scratch::Disk(serial) => {
            let device = devices::disk(checked_serial(serial)?)?;
            // Tables are made when they are needed: writing them ahead would fill a sparse disk.
            mount(&device, &place, "ext4", MountFlags::NOATIME, c"discard,noinit_itable")
                .attempt(|| format!("mount scratch disk {serial}"))?;
            grow(&device, &place).attempt(|| format!("grow scratch disk {serial}"))
        }
    }
}

/// Grows the file system at `place` to the size of its disk.
fn grow(device: &Path, place: &str) -> std::io::Result<()> {
    let name = device.file_name().unwrap_or_default();
    let size = fs::read_to_string(Path::new("/sys/class/block").join(name).join("size"))?;
    let sectors: u64 = size.trim().parse().map_err(std::io::Error::other)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::openat(CWD, place, flags, Mode::empty())?;
    let block = rustix::fs::fstatvfs(&directory)?.f_bsize.max(SECTOR);
    let wanted = sectors / (block / SECTOR);
    // Asked first, because the kernel refuses to look at file systems that it could not grow, also
    // where there is nothing to do.
    if ext4_blocks(device)? >= wanted { Ok(()) } else { sys::grow_ext4(&directory, wanted) }
}

/// How many blocks the ext4 file system on `device` has, as its superblock says.
fn ext4_blocks(device: &Path) -> std::io::Result<u64> {
    const SUPERBLOCK: u64 = 1024;
    const COUNT_LOW: usize = 0x04;
    const COUNT_HIGH: usize = 0x150;
    let mut superblock = [0; 1024];
    fs::File::open(device)?.read_exact_at(&mut superblock, SUPERBLOCK)?;
    let word = |at: usize| {
        let bytes = superblock[at..].first_chunk().copied().unwrap_or_default();
        u64::from(u32::from_le_bytes(bytes))
    };
    Ok(word(COUNT_HIGH) << 32 | word(COUNT_LOW))
}

#[cfg(test)]
mod tests {
    use hc_spec::HostEntry;

    use super::*;

    fn identity() -> Identity {
        Identity {
            hostname: "pod".into(),
            unix_nanos: 0,
            entropy: Vec::new(),
            network: Some(NetworkSpec {
                mac: [2, 0, 0, 0, 0, 1],
                addresses: vec![("10.0.2.15".parse().unwrap(), 24)],
                gateways: Vec::new(),
                mtu: 1500,
            }),
            dns_servers: vec!["10.0.2.3".parse().unwrap(), "fd00::3".parse().unwrap()],
            dns_search: vec!["a.example".into(), "b.example".into()],
            dns_options: Vec::new(),
            hosts: vec![HostEntry { address: "1.2.3.4".parse().unwrap(), name: "db".into() }],
        }
    }

    #[test]
    fn hosts_name_loopback_the_given_and_the_pod() {
        let text = hosts(&identity());
        assert!(text.starts_with("127.0.0.1\tlocalhost\n"));
        assert!(text.ends_with("1.2.3.4\tdb\n10.0.2.15\tpod\n"), "{text}");
        let alone = Identity { network: None, ..identity() };
        assert!(hosts(&alone).ends_with("1.2.3.4\tdb\n127.0.0.1\tpod\n"));
    }

    #[test]
    fn resolv_conf_has_only_what_was_given() {
        assert_eq!(
            resolv_conf(&identity()),
            "nameserver 10.0.2.3\nnameserver fd00::3\nsearch a.example b.example\n"
        );
    }
}
