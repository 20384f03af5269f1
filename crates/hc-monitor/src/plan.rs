// SPDX-License-Identifier: Apache-2.0
//! Which devices a machine has, and who works for each.

use std::fs::File;
use std::os::unix::net::UnixStream;

use crate::config::{Card, Link, Machine};
use crate::descriptors::Descriptors;
use crate::devices::{Balloon, Block, Channel, Entropy, Net, Share, Stream, Tap, Wire};
use crate::error::Result;
use crate::saved::Access;
use crate::virtio::Device;

/// A device that is not on the bus yet.
pub(crate) struct Planned {
    pub(crate) device: Box<dyn Device>,
    pub(crate) work: Work,
}

/// Which thread works for a device: what waits for a disk is not to hold up what does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// Bytes that come and go at once.
    Streams,
    /// Calls that may take as long as a disk does.
    Storage,
}

impl Planned {
    /// Makes every device of a machine.
    pub(crate) fn all(machine: &Machine, descriptors: &mut Descriptors) -> Result<Vec<Planned>> {
        let channel = descriptors.take(machine.channel.stream)?;
        let mut devices = vec![
            Planned::streams(Channel::new(channel, &machine.channel.name)?),
            Planned::streams(Entropy),
            Planned::streams(Balloon),
        ];
        for disk in &machine.disks {
            let file = File::from(descriptors.take(disk.file)?);
            devices.push(Planned::storage(Block::new(file, &disk.id, Access::of(disk))?));
        }
        if let Some(Card { mac, link }) = machine.card {
            let wire = match link {
                Link::Stream(stream) => {
                    Wire::Stream(Stream::new(UnixStream::from(descriptors.take(stream)?)))
                }
                Link::Tap(tap) => Wire::Tap(Tap::new(descriptors.take(tap)?)),
            };
            devices.push(Planned::streams(Net::new(mac, wire)?));
        }
        for share in &machine.shares {
            let server = UnixStream::from(descriptors.take(share.stream)?);
            devices.push(Planned::streams(Share::new(&share.tag, server)?));
        }
        Ok(devices)
    }

    fn streams(device: impl Device + 'static) -> Planned {
        Planned { device: Box::new(device), work: Work::Streams }
    }

    fn storage(device: impl Device + 'static) -> Planned {
        Planned { device: Box::new(device), work: Work::Storage }
    }
}
