// SPDX-License-Identifier: Apache-2.0
//! The network of one VM: set-up and the loop that runs it.

use tokio::io::{AsyncRead, AsyncWrite};

use crate::config::{Bound, Config, GuestNetwork};
use crate::error::Result;

/// The network of one VM, with its published ports bound.
#[derive(Debug)]
pub struct Network {
    guest: GuestNetwork,
    published: Vec<Bound>,
}

impl Network {
    /// Checks `config`, binds the published ports and reads who answers DNS queries.
    ///
    /// Needs no runtime, and nothing of the VM: call it first, so that a port in use is reported
    /// before anything boots. Connections wait in the kernel until [`run`](Self::run) takes them.
    pub fn bind(config: Config) -> Result<Self> {
        drop(config);
        unimplemented!()
    }

    /// The published ports, in the order asked for, each with its true host port.
    pub fn published(&self) -> &[Bound] {
        &self.published
    }

    /// What the guest has to be told.
    pub fn guest(&self) -> &GuestNetwork {
        &self.guest
    }

    /// Runs the network until the VM's stream ends, which is no error.
    ///
    /// `vm` carries Ethernet frames in both directions, each after its length as four bytes,
    /// big-endian: the framing of QEMU's `-netdev stream`. Dropping the future ends every flow.
    pub async fn run<S>(self, vm: S) -> Result<()>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        drop(vm);
        unimplemented!()
    }
}
