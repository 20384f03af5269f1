// SPDX-License-Identifier: Apache-2.0
//! What the host makes of this guest: the pod's identity (name, time, randomness, `/etc`, network),
//! given once and again to a copy of a running pod; and what of it stays for the next pod.

use core::fmt::Write as _;
use std::fs;

use hc_proto::message::{Identity, PodSetup};
use rustix::mount::{UnmountFlags, unmount};
use rustix::time::{ClockId, Timespec, clock_settime};

use crate::boot::RUN;
use crate::error::{Attempt as _, Error, Result};
use crate::network::{self, Network};
use crate::storage::Storage;
use crate::sys;

const NANOS: u64 = 1_000_000_000;

/// What the guest has of its pod that stays when it is parked, for the next pod.
#[derive(Default)]
pub(crate) struct Kept {
    network: Option<Network>,
    storage: Storage,
}

impl Kept {
    /// Carries out `setup`.
    pub(crate) fn set_up(&mut self, setup: &PodSetup) -> Result<()> {
        self.take_on(&setup.identity)?;
        self.storage.mount(&setup.scratch)
    }

    /// Makes this guest the pod that `identity` says.
    pub(crate) fn take_on(&mut self, identity: &Identity) -> Result<()> {
        set_clock(identity.unix_nanos, &identity.entropy)?;
        rustix::system::sethostname(identity.hostname.as_bytes())
            .attempt(|| "set host name".into())?;
        let files = [
            ("hostname", format!("{}\n", identity.hostname)),
            ("hosts", hosts(identity)),
            ("resolv.conf", resolv_conf(identity)),
        ];
        for (name, text) in files {
            // Written over and not replaced: containers have these very files mounted.
            fs::write(format!("{RUN}/etc/{name}"), text).attempt(|| format!("write {name}"))?;
        }
        network::change(&mut self.network, identity.network.as_ref())
    }

    /// Gets ready for other disks: see [`Call::Park`](hc_proto::message::Call::Park).
    pub(crate) fn park(&mut self) -> Result<()> {
        let images = format!("{RUN}/images");
        for image in fs::read_dir(&images).attempt(|| format!("read {images}"))?.flatten() {
            let path = image.path();
            let what = || format!("let go of {}", path.display());
            unmount(&path, UnmountFlags::empty()).attempt(what)?;
            fs::remove_dir(&path).attempt(what)?;
        }
        self.storage.park()
    }

    /// Leaves the scratch disk clean at the end of the VM.
    pub(crate) fn close(&mut self) {
        self.storage.close();
    }
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

#[cfg(test)]
mod tests {
    use hc_spec::{HostEntry, NetworkSpec};

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
