// SPDX-License-Identifier: Apache-2.0
//! The machine as a whole: made, run, held, ended.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, PoisonError, RwLockWriteGuard};

use crate::config::Machine;
use crate::confine;
use crate::control::{self, Command, Keep, Lines, Replace, Save};
use crate::descriptors::{Descriptors, Kept};
use crate::error::{Error, Result};
use crate::filter::{self, Role};
use crate::make::{self, Made};
use crate::memory::{self, Pagemap};
use crate::reactor::Gate;
use crate::vcpu::Vcpus;
use crate::virtio::Slot;

/// What the main thread waits for.
pub(crate) enum News {
    /// The owner said something, and passed descriptors along.
    Said(String, Vec<OwnedFd>),
    /// The owner has gone.
    Abandoned,
    /// The guest has reset, or its machine is broken.
    Ended(Result<()>),
}

/// Makes a machine, runs it, and returns when it has ended: well, if the guest wanted it.
///
/// The process is the machine's alone, and has one thread when this is called.
pub fn run(machine: &Machine) -> Result<(), Error> {
    let pagemap = Pagemap::open();
    confine::leave(machine.user)?;
    let mut descriptors = Descriptors::default();
    let kvm = descriptors.kvm(machine.kvm)?;
    let control = UnixStream::from(descriptors.take(machine.control)?);
    let listener = control.try_clone().map_err(Error::host("listen to its owner"))?;
    let (sender, news) = channel();
    let gate = Arc::new(Gate::default());
    let closed = gate.write().unwrap_or_else(PoisonError::into_inner);
    let made = make::all(machine, &kvm, descriptors, &gate, &sender)?;
    let listening = sender.clone();
    make::spawn("control", Role::Control, move || listen(listener, &listening))?;
    filter::apply(Role::Main)?;
    if made.goes_on {
        made.bus.rouse();
    }
    let mut running = Running { made, gate: &gate, held: Some(closed), pagemap, control };
    running.release();
    running.attend(&news)
}

/// Passes on what the owner says.
fn listen(control: UnixStream, news: &Sender<News>) {
    for (line, descriptors) in Lines::of(control) {
        if news.send(News::Said(line, descriptors)).is_err() {
            return;
        }
    }
    let _ = news.send(News::Abandoned);
}

/// A machine at work.
struct Running<'a> {
    made: Made,
    gate: &'a Gate,
    /// Keeps devices from working, while all is held.
    held: Option<RwLockWriteGuard<'a, ()>>,
    pagemap: Option<Pagemap>,
    /// Where the owner listens. One who has gone does not need to know what is said.
    control: UnixStream,
}

impl Running<'_> {
    /// Does what the owner wants, until the end.
    fn attend(&mut self, news: &Receiver<News>) -> Result<()> {
        let mut kept = Kept::default();
        loop {
            let (line, descriptors) = match news.recv() {
                Ok(News::Said(line, descriptors)) => (line, descriptors),
                Ok(News::Abandoned) | Err(_) => return Ok(()),
                Ok(News::Ended(result)) => {
                    result?;
                    let _ = self.control.write_all(control::shutdown().as_bytes());
                    return Ok(());
                }
            };
            let done = control::parse(&line)
                .and_then(|command| self.obey(command, descriptors, &mut kept));
            let _ = self.control.write_all(control::answer(done).as_bytes());
        }
    }

    fn obey(
        &mut self,
        command: Command,
        descriptors: Vec<OwnedFd>,
        kept: &mut Kept,
    ) -> Result<(), String> {
        match command {
            Command::Greet => Ok(()),
            Command::Stop => {
                self.hold();
                Ok(())
            }
            Command::Continue => {
                self.release();
                Ok(())
            }
            Command::Keep(Keep { name }) => kept.keep(name, descriptors),
            Command::Save(Save { memory, state }) => {
                let (memory, state) = (kept.take(&memory)?, kept.take(&state)?);
                let was_held = self.held.is_some();
                self.save(&memory, &state).map_err(|error| {
                    if !was_held {
                        self.release();
                    }
                    told(&error)
                })
            }
            Command::Replace(replace) => {
                let file = kept.take(&replace.file)?;
                self.replace(&replace, file)
            }
        }
    }

    /// Takes every vCPU out of the guest, and waits until no device works.
    fn hold(&mut self) {
        hold(&self.made.vcpus, self.gate, &mut self.held);
    }

    fn release(&mut self) {
        self.held = None;
        self.made.vcpus.release();
    }

    /// Writes the guest down, and leaves it held.
    fn save(&mut self, memory: &File, state: &File) -> Result<()> {
        let what = "write the copy of a guest";
        let Running { made, gate, held, pagemap, control } = self;
        made.shape.can_be_saved()?;
        let mut copy = memory::Saving::to(memory, &made.memory, &made.filled, pagemap.as_ref())
            .map_err(Error::host(what))?;
        if held.is_none() {
            copy.pass().map_err(Error::host(what))?;
            hold(&made.vcpus, gate, held);
            let _ = control.write_all(control::stopped().as_bytes());
        }
        copy.pass().map_err(Error::host(what))?;
        state.write_all_at(&made.state()?.encode()?, 0).map_err(Error::host(what))
    }

    /// Puts another file behind a disk.
    fn replace(&self, replace: &Replace, file: File) -> Result<(), String> {
        let Replace { disk: id, access, .. } = replace;
        let is_it = |slot: &&Arc<Slot>| slot.with_disk(|disk| disk.is(id)).unwrap_or(false);
        let slot = self.made.bus.slots().iter().find(is_it);
        let replaced = slot.and_then(|slot| {
            slot.with_disk(|disk| match disk.access() {
                had if had == *access => disk.replace(file).map_err(|error| error.to_string()),
                had => Err(format!("disk {id} was made with {had:?}, and is to have {access:?}")),
            })
        });
        replaced.unwrap_or_else(|| Err(format!("there is no disk {id}")))
    }
}

fn hold<'a>(vcpus: &Vcpus, gate: &'a Gate, held: &mut Option<RwLockWriteGuard<'a, ()>>) {
    vcpus.hold();
    held.get_or_insert_with(|| gate.write().unwrap_or_else(PoisonError::into_inner));
}

/// An error for the owner, with its causes.
fn told(error: &Error) -> String {
    let first: &dyn std::error::Error = error;
    let causes = std::iter::successors(Some(first), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
