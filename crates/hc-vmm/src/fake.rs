// SPDX-License-Identifier: Apache-2.0
//! A driver without a hypervisor: the test plays the guest.
//!
//! [`Fake::new`] returns the driver and the far end of its VMs. Each VM that is started sends its
//! [`Guest`], which holds the other ends of the VM's streams, the disks and the say over how the VM
//! ends.
//!
//! # Limits
//!
//! Holding such a VM stops nothing by itself: a test that cares asks [`Guest::is_held`].

use std::collections::BTreeSet;
use std::io;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::{mpsc, watch};

use crate::driver::{Ability, Driver, Exit, Pause, Vm};
use crate::error::{Error, Result};
use crate::spec::{Disk, Link, Nic, Share, Transport, VmSpec};

/// More VMs than any test starts without looking at the guests.
const UNSEEN_GUESTS: usize = 1024;

/// The driver.
#[derive(Debug)]
pub struct Fake {
    abilities: BTreeSet<Ability>,
    guests: mpsc::Sender<Guest>,
}

impl Fake {
    /// A driver with every ability but tap devices, and the guests of the VMs it starts.
    #[must_use]
    pub fn new() -> (Fake, mpsc::Receiver<Guest>) {
        let (guests, started) = mpsc::channel(UNSEEN_GUESTS);
        let abilities = BTreeSet::from([
            Ability::Pause,
            Ability::Network,
            Ability::Socket,
            Ability::Share,
            Ability::Confine,
            Ability::Transport(Transport::Mmio),
            Ability::Transport(Transport::Pci),
        ]);
        (Fake { abilities, guests }, started)
    }

    /// The same driver without `ability`.
    #[must_use]
    pub fn without(mut self, ability: Ability) -> Fake {
        self.abilities.remove(&ability);
        self
    }
}

#[async_trait]
impl Driver for Fake {
    fn name(&self) -> &'static str {
        "fake"
    }

    fn abilities(&self) -> &BTreeSet<Ability> {
        &self.abilities
    }

    async fn create(&self, spec: VmSpec) -> Result<Box<dyn Vm>> {
        spec.check(self)?;
        let name = spec.name.clone();
        let failed = |source| Error::Host { vm: name.clone(), what: "make its streams", source };
        let vm = FakeVm::new(self, spec).map_err(failed)?;
        Ok(Box::new(vm))
    }
}

/// The inside of a started VM, for a test to play.
#[derive(Debug)]
pub struct Guest {
    /// [`VmSpec::name`].
    pub name: String,
    /// [`VmSpec::kernel_parameters`].
    pub kernel_parameters: String,
    /// [`VmSpec::vcpus`].
    pub vcpus: u32,
    /// [`VmSpec::memory_mib`].
    pub memory_mib: u32,
    /// [`VmSpec::disks`].
    pub disks: Vec<Disk>,
    /// The guest's end of the channel to its init, non-blocking like the next two.
    pub channel: UnixStream,
    /// The guest's end of its network card, framed as [`Vm::network`] says.
    pub network: Option<UnixStream>,
    /// [`VmSpec::shares`].
    pub shares: Vec<Share>,
    /// Where the guest writes its console.
    pub console: UnixStream,
    machine: Arc<Machine>,
}

impl Guest {
    /// Ends the VM this way, unless it has ended already.
    pub fn end(&self, exit: Exit) {
        self.machine.end(exit);
    }

    /// Ends the VM as a panicking kernel does.
    pub fn panic(&self, last_words: &str) {
        self.end(Exit::Crashed {
            status: "guest kernel panicked".to_owned(),
            last_words: last_words.to_owned(),
        });
    }

    /// Waits until the VM has ended, and says how.
    pub async fn ended(&self) -> Exit {
        self.machine.ended().await
    }

    /// Whether the VM is held by its [`Pause`].
    #[must_use]
    pub fn is_held(&self) -> bool {
        *self.machine.state.borrow() == State::Held
    }

    /// Waits until [`Guest::is_held`] is `held`, or the VM has ended.
    pub async fn held(&self, held: bool) {
        self.machine
            .wait_for(|state| match state {
                State::Held => held,
                State::Created | State::Running => !held,
                State::Exited(_) => true,
            })
            .await;
    }
}

/// What a VM and its guest share.
#[derive(Debug)]
struct Machine {
    state: watch::Sender<State>,
    /// Second handles of the guest's ends, to hang up with when the VM ends.
    ends: Vec<UnixStream>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Created,
    Running,
    Held,
    Exited(Exit),
}

impl Machine {
    fn end(&self, exit: Exit) {
        let ended = self.state.send_if_modified(|state| match state {
            State::Exited(_) => false,
            State::Created | State::Running | State::Held => {
                *state = State::Exited(exit);
                true
            }
        });
        if ended {
            for end in &self.ends {
                // Fails only when the other side hung up first, which is as good.
                let _ = end.shutdown(Shutdown::Both);
            }
        }
    }

    async fn ended(&self) -> Exit {
        match self.wait_for(|state| matches!(state, State::Exited(_))).await {
            State::Exited(exit) => exit,
            State::Created | State::Running | State::Held => unreachable!("waited for an exit"),
        }
    }

    async fn wait_for(&self, wanted: impl FnMut(&State) -> bool) -> State {
        let mut states = self.state.subscribe();
        let state = states.wait_for(wanted).await.expect("self keeps the sender");
        state.clone()
    }
}

struct FakeVm {
    name: String,
    machine: Arc<Machine>,
    /// Where `guest` goes on start.
    guests: mpsc::Sender<Guest>,
    guest: Option<Guest>,
    channel: Option<UnixStream>,
    network: Option<UnixStream>,
    console: Option<UnixStream>,
    pauses: bool,
}

impl FakeVm {
    fn new(driver: &Fake, spec: VmSpec) -> io::Result<FakeVm> {
        let (channel, guest_channel) = stream_pair()?;
        let (console, guest_console) = stream_pair()?;
        let (network, guest_network) = match spec.nic {
            Some(Nic { link: Link::Owner, .. }) => {
                stream_pair().map(|(ours, theirs)| (Some(ours), Some(theirs)))?
            }
            Some(Nic { link: Link::Socket(socket), .. }) => {
                socket.set_nonblocking(true)?;
                (None, Some(socket))
            }
            // `VmSpec::check` refuses tap devices.
            Some(Nic { link: Link::Tap(_), .. }) | None => (None, None),
        };
        let mut ends = vec![guest_channel.try_clone()?, guest_console.try_clone()?];
        if let Some(network) = &guest_network {
            ends.push(network.try_clone()?);
        }
        let machine = Arc::new(Machine { state: watch::Sender::new(State::Created), ends });
        let guest = Guest {
            name: spec.name.clone(),
            kernel_parameters: spec.kernel_parameters,
            vcpus: spec.vcpus,
            memory_mib: spec.memory_mib,
            disks: spec.disks,
            channel: guest_channel,
            network: guest_network,
            shares: spec.shares,
            console: guest_console,
            machine: Arc::clone(&machine),
        };
        Ok(FakeVm {
            name: spec.name,
            machine,
            guests: driver.guests.clone(),
            guest: Some(guest),
            channel: Some(channel),
            network,
            console: Some(console),
            pauses: driver.abilities.contains(&Ability::Pause),
        })
    }

    /// Moves a VM in state `from` to state `to`.
    fn step(&self, call: &'static str, from: &State, to: State) -> Result<()> {
        let mut refused = None;
        self.machine.state.send_if_modified(|state| {
            if state != from {
                refused = Some(match state {
                    State::Created => "not started",
                    State::Running => "running",
                    State::Held => "paused",
                    State::Exited(_) => "ended",
                });
                return false;
            }
            *state = to;
            true
        });
        match refused {
            None => Ok(()),
            Some(state) => Err(Error::State { vm: self.name.clone(), call, state }),
        }
    }
}

#[async_trait]
impl Vm for FakeVm {
    async fn start(&mut self) -> Result<()> {
        self.step("start", &State::Created, State::Running)?;
        if let Some(guest) = self.guest.take() {
            // A test that wants no guests has dropped the receiver; its VMs then just run.
            let _ = self.guests.send(guest).await;
        }
        Ok(())
    }

    async fn kill(&mut self) -> Result<()> {
        self.machine.end(Exit::Killed);
        Ok(())
    }

    async fn wait(&mut self) -> Result<Exit> {
        Ok(self.machine.ended().await)
    }

    fn channel(&mut self) -> Option<UnixStream> {
        self.channel.take()
    }

    fn network(&mut self) -> Option<UnixStream> {
        self.network.take()
    }

    fn console(&mut self) -> Option<UnixStream> {
        self.console.take()
    }

    fn process_id(&self) -> Option<u32> {
        None
    }

    fn pause(&mut self) -> Option<&mut dyn Pause> {
        if self.pauses { Some(self) } else { None }
    }
}

#[async_trait]
impl Pause for FakeVm {
    async fn hold(&mut self) -> Result<()> {
        self.step("hold", &State::Running, State::Held)
    }

    async fn release(&mut self) -> Result<()> {
        self.step("release", &State::Held, State::Running)
    }
}

impl Drop for FakeVm {
    fn drop(&mut self) {
        self.machine.end(Exit::Killed);
    }
}

/// A connected pair, both ends non-blocking.
fn stream_pair() -> io::Result<(UnixStream, UnixStream)> {
    let (a, b) = UnixStream::pair()?;
    a.set_nonblocking(true)?;
    b.set_nonblocking(true)?;
    Ok((a, b))
}

#[cfg(test)]
mod tests;
