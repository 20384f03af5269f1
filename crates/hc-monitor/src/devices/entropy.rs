// SPDX-License-Identifier: Apache-2.0
//! Random numbers of the host (virtio 1.2, 5.4).

use rustix::rand::{GetRandomFlags, getrandom};
use virtio_bindings::virtio_ids::VIRTIO_ID_RNG;

use crate::virtio::{Device, Queues, Wake};

/// The most that one request is given. Linux asks for less, and a guest that wants more asks again.
const MAX_LEN: usize = 4096;

/// A source of random numbers.
#[derive(Debug)]
pub(crate) struct Entropy;

impl Device for Entropy {
    fn kind(&self) -> u32 {
        VIRTIO_ID_RNG
    }

    fn features(&self) -> u64 {
        0
    }

    fn queues(&self) -> usize {
        1
    }

    fn serve(&mut self, _wake: Wake, queues: &mut Queues) {
        let mut served = false;
        while let Some(chain) = queues.pop(0) {
            let mut bytes = [0; MAX_LEN];
            let wanted = chain.writable.len().min(MAX_LEN);
            let len = getrandom(&mut bytes[..wanted], GetRandomFlags::empty()).unwrap_or(0);
            let len = chain.writable.write(queues.memory(), 0, &bytes[..len]);
            queues.done(chain, len);
            served = true;
        }
        if served {
            queues.signal(0);
        }
    }
}
