// SPDX-License-Identifier: Apache-2.0
//! The threads that work for devices: they wait for kicks of the guest and news of the host.
//!
//! Events are edge-triggered: a device that is woken does all there is to do.

use std::sync::{Arc, PoisonError, RwLock};

use rustix::event::epoll;

use crate::error::{Error, Result};
use crate::virtio::{Slot, Wake};

/// Events taken at once; what does not fit comes next time.
const EVENTS: usize = 32;

/// Who may work: devices while it is open, nobody while somebody holds it.
pub(crate) type Gate = RwLock<()>;

/// One thread's devices.
pub(crate) struct Reactor {
    epoll: std::os::fd::OwnedFd,
    slots: Vec<Arc<Slot>>,
    gate: Arc<Gate>,
}

impl Reactor {
    /// Watches over these devices.
    pub(crate) fn new(slots: Vec<Arc<Slot>>, gate: Arc<Gate>) -> Result<Reactor> {
        let failed = Error::host::<rustix::io::Errno>;
        let what = "watch over the devices";
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(failed(what))?;
        let input = epoll::EventFlags::IN | epoll::EventFlags::ET;
        for (number, slot) in slots.iter().enumerate() {
            for (index, kick) in slot.kicks().enumerate() {
                let token = token(number, Wake::Guest(index));
                epoll::add(&epoll, kick, token, input).map_err(failed(what))?;
            }
            let both = input | epoll::EventFlags::OUT;
            slot.with_host(|host| epoll::add(&epoll, host, token(number, Wake::Host), both))
                .transpose()
                .map_err(failed(what))?;
        }
        Ok(Reactor { epoll, slots, gate })
    }

    /// Works until the process ends.
    pub(crate) fn run(self) -> Result<()> {
        let mut events = Vec::with_capacity(EVENTS);
        loop {
            events.clear();
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), None) {
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(Error::host("wait for the devices")(error)),
            }
            let _open = self.gate.read().unwrap_or_else(PoisonError::into_inner);
            for event in &events {
                let (number, wake) = source(event.data);
                self.slots[number].wake(wake);
            }
        }
    }
}

/// Which device, and its queue counted from one; zero is the host.
fn token(number: usize, wake: Wake) -> epoll::EventData {
    let low = match wake {
        Wake::Host => 0,
        Wake::Guest(index) => 1 + index as u64,
    };
    epoll::EventData::new_u64((number as u64) << 32 | low)
}

fn source(token: epoll::EventData) -> (usize, Wake) {
    let token = token.u64();
    let low = usize::try_from(token & u64::from(u32::MAX)).expect("we made it of one");
    let number = usize::try_from(token >> 32).expect("we made it of one");
    (number, low.checked_sub(1).map_or(Wake::Host, Wake::Guest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_leads_back() {
        for number in [0, 1, 30] {
            for wake in [Wake::Host, Wake::Guest(0), Wake::Guest(3)] {
                assert_eq!(source(token(number, wake)), (number, wake));
            }
        }
    }
}
