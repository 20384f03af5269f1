// SPDX-License-Identifier: Apache-2.0
//! The sockets between a VM's owner and its hypervisor, and all else that the process inherits.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

/// What a process is going to inherit.
#[derive(Debug, Default)]
pub struct Inherited {
    descriptors: Vec<OwnedFd>,
}

impl Inherited {
    /// Takes a file, and says under which number the process will find it.
    pub fn file(&mut self, file: impl Into<OwnedFd>) -> RawFd {
        let descriptor = file.into();
        let number = descriptor.as_raw_fd();
        self.descriptors.push(descriptor);
        number
    }

    /// Makes a stream to the process: our end, non-blocking, and the number of the other.
    pub fn stream(&mut self) -> io::Result<(UnixStream, RawFd)> {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        Ok((ours, self.file(theirs)))
    }

    /// All that was taken, for [`Plan::inherited`](crate::Plan::inherited).
    #[must_use]
    pub fn descriptors(self) -> Vec<OwnedFd> {
        self.descriptors
    }
}

/// The owner's ends of a VM's streams.
#[derive(Debug)]
pub struct Streams {
    pub(crate) control: UnixStream,
    pub(crate) channel: UnixStream,
    /// What comes from the hypervisor, what goes out again, and where the caller finds it.
    pub(crate) console: UnixStream,
    pub(crate) console_copy: UnixStream,
    pub(crate) console_reader: UnixStream,
    pub(crate) network: Option<UnixStream>,
}

/// The hypervisor's ends, as the numbers of descriptors.
#[derive(Clone, Copy, Debug)]
pub struct Wires {
    /// The control protocol.
    pub control: RawFd,
    /// The byte stream to the guest's init.
    pub channel: RawFd,
    /// What the guest writes on its console.
    pub console: RawFd,
    /// The Ethernet frames of the guest's card, if it has one.
    pub network: Option<RawFd>,
}

impl Streams {
    /// Makes the streams of a VM, with a network or without.
    pub fn lay(network: bool, inherited: &mut Inherited) -> io::Result<(Streams, Wires)> {
        let (control, control_wire) = inherited.stream()?;
        let (channel, channel_wire) = inherited.stream()?;
        let (console, console_wire) = inherited.stream()?;
        let (console_reader, console_copy) = UnixStream::pair()?;
        console_reader.set_nonblocking(true)?;
        console_copy.set_nonblocking(true)?;
        let (network, network_wire) =
            if network { Some(inherited.stream()?) } else { None }.unzip();
        let wires = Wires {
            control: control_wire,
            channel: channel_wire,
            console: console_wire,
            network: network_wire,
        };
        let streams = Streams { control, channel, console, console_copy, console_reader, network };
        Ok((streams, wires))
    }
}
