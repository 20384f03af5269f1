// SPDX-License-Identifier: Apache-2.0
//! What makes a guest this pod and no other, and its clock right.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hc_guest::Guest;
use hc_proto::message::{Call, Identity};
use hc_spec::NetworkSpec;
use hc_usernet::GuestNetwork;

use crate::failure::{Failure, Result};
use crate::pod::Pod;

/// Random bytes that a guest is given: twice what its pool holds.
const ENTROPY_BYTES: usize = 64;
/// How far a guest's clock may be off, and how often it is set until it is not.
const CLOCK_ERROR: Duration = Duration::from_millis(10);
const CLOCK_ATTEMPTS: u32 = 5;

/// Sets the clock of a guest that stood still, or was copied. A guest that runs its code for the first
/// time may be slow to take the message up, and its clock is behind by as much: then once more.
pub(crate) async fn set_clock(guest: &Guest) -> Result<()> {
    for _ in 0..CLOCK_ATTEMPTS {
        let begun = Instant::now();
        guest.call(Call::SetClock { unix_nanos: unix_nanos(), entropy: entropy()? }).await?;
        if begun.elapsed() < CLOCK_ERROR {
            break;
        }
    }
    Ok(())
}

pub(crate) fn unix_nanos() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

pub(crate) fn entropy() -> Result<Vec<u8>> {
    let mut entropy = vec![0; ENTROPY_BYTES];
    rustix::rand::getrandom(&mut entropy[..], rustix::rand::GetRandomFlags::empty())
        .map_err(|errno| Failure::io("cannot get random bytes", &errno.into()))?;
    Ok(entropy)
}

pub(crate) fn identity(pod: &Pod, network: Option<hc_usernet::GuestNetwork>) -> Result<Identity> {
    let config = &pod.config;
    let mut dns_servers = config.dns_servers.clone();
    let mut dns_search = config.dns_search.clone();
    if let Some(network) = &network {
        if dns_servers.is_empty() {
            dns_servers.clone_from(&network.dns_servers);
        }
        if dns_search.is_empty() {
            dns_search.clone_from(&network.dns_search);
        }
    }
    Ok(Identity {
        hostname: config.hostname.clone(),
        unix_nanos: unix_nanos(),
        entropy: entropy()?,
        network: network.map(network_spec),
        dns_servers,
        dns_search,
        dns_options: config.dns_options.clone(),
        hosts: config.hosts.clone(),
    })
}

/// What the guest is told of its network.
pub(crate) fn network_spec(network: GuestNetwork) -> NetworkSpec {
    NetworkSpec {
        mac: network.mac,
        addresses: network.addresses,
        gateways: network.gateways,
        mtu: network.mtu,
    }
}
