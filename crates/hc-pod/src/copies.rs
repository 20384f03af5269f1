// SPDX-License-Identifier: Apache-2.0
//! Holding a pod's VM, and copying it: for its clones, or to wait on disk.
//!
//! # Invariants
//!
//! - Guest and scratch disk of a copy are of one instant, at which the guest was held.
//! - A pod goes on after its copy was taken, or could not be, as it was before.

use std::io;
use std::time::Instant;

use hc_api::ErrorKind;
use hc_vmm::Vm;

use crate::config::Copied;
use crate::failure::{Failure, Result};
use crate::identity::set_clock;
use crate::pod::{CopyTo, Pod};
use crate::{Phase, Taken, saved, scratch};

pub(crate) async fn hold(vm: &mut dyn Vm) -> Result<()> {
    let pause = vm.pause().ok_or_else(|| unsupported("pause a VM"))?;
    Ok(pause.hold().await?)
}

/// Lets a VM go on, and its guest know how long it stood still.
pub(crate) async fn release(pod: &Pod, vm: &mut dyn Vm) -> Result<()> {
    let pause = vm.pause().ok_or_else(|| unsupported("pause a VM"))?;
    pause.release().await?;
    if let Some(running) = pod.running() {
        set_clock(&running.guest).await?;
    }
    Ok(())
}

fn unsupported(what: &str) -> Failure {
    Failure::new(ErrorKind::Unsupported, format!("this driver cannot {what}"))
}

/// Copies the guest, and leaves it held; also since when it is.
async fn take(vm: &mut dyn Vm) -> Result<(saved::Guest, Instant)> {
    let guest = saved::Guest::empty().map_err(|error| Failure::io("cannot copy", &error))?;
    let snapshot = vm.snapshot().ok_or_else(|| unsupported("copy a VM"))?;
    let held = snapshot.take(&guest.memory, &guest.state).await?;
    Ok((guest, held))
}

/// What the copies of a guest have to know that is held.
fn copied(pod: &Pod) -> Result<Copied> {
    let not_running = || Failure::new(ErrorKind::InvalidState, "container is not running");
    let running = pod.running().ok_or_else(not_running)?;
    Ok(Copied::of(&running.guest, running.ids))
}

pub(crate) async fn copy(pod: &Pod, vm: &mut dyn Vm, to: CopyTo) -> Result<Taken> {
    let was_held = pod.status.borrow().phase == Phase::Paused;
    let taken = take(vm).await;
    let disk = match &taken {
        Ok(_) => {
            let from = pod.dir.scratch();
            blocking("cannot copy the scratch disk", move || scratch::copy(&from, &to.scratch))
                .await
        }
        Err(_) => Ok(()),
    };
    let copied = copied(pod);
    // It goes on whatever came of the copy.
    if !was_held {
        release(pod, vm).await?;
    }
    let (guest, held) = taken?;
    let held_micros = u64::try_from(held.elapsed().as_micros()).unwrap_or(u64::MAX);
    disk?;
    blocking("cannot write the guest", move || guest.write(&[], &to.guest)).await?;
    Ok(Taken { copied: copied?, held_micros })
}

pub(crate) async fn suspend(pod: &Pod, vm: &mut dyn Vm) -> Result<Copied> {
    let path = pod.dir.paused_guest();
    let written = match take(vm).await {
        Ok((guest, _)) => blocking("cannot write the guest", move || guest.write(&[], &path)).await,
        Err(failure) => Err(failure),
    };
    // Only now: what it had said before it was held has arrived meanwhile.
    match written.and_then(|()| copied(pod)) {
        Ok(copied) => {
            pod.running.send_replace(None);
            Ok(copied)
        }
        Err(failure) => {
            release(pod, vm).await?;
            Err(failure)
        }
    }
}

/// Does on another thread what keeps this one waiting.
pub(crate) async fn blocking<T: Send + 'static>(
    what: &str,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await.map_err(io::Error::other).flatten();
    done.map_err(|error| Failure::io(what, &error))
}
