// SPDX-License-Identifier: Apache-2.0
//! Making a machine: everything but the first instruction, whether that is a kernel's or the next one
//! of a guest that was saved.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread;

use kvm_ioctls::{Kvm, VcpuFd, VmFd};

use crate::boot::{self, Payload};
use crate::bus::Bus;
use crate::chips;
use crate::config::{Boot, Machine, Start};
use crate::cpu::{self, Processor};
use crate::descriptors::Descriptors;
use crate::devices::Serial;
use crate::error::{Error, Result};
use crate::filter::{self, Role};
use crate::interrupt::{FIRST_VIRTIO_LINE, LINES, SERIAL_LINE, line};
use crate::memory::{self, Filled, Memory};
use crate::monitor::News;
use crate::plan::{Planned, Work};
use crate::reactor::{Gate, Reactor};
use crate::saved::{MAX_LEN, Shape, State};
use crate::vcpu::{self, Vcpus};
use crate::virtio::{Slot, WINDOW};

/// A machine whose vCPUs are held.
pub(crate) struct Made {
    pub(crate) vcpus: Vcpus,
    pub(crate) bus: Arc<Bus>,
    pub(crate) memory: Arc<Memory>,
    pub(crate) filled: Filled,
    pub(crate) processor: Processor,
    pub(crate) shape: Shape,
    /// Whether its guest was saved, and has to be told of what it may have missed.
    pub(crate) goes_on: bool,
    /// Closed last, when nobody uses it any more.
    pub(crate) vm: VmFd,
}

impl Made {
    /// Writes down all but the memory. All is held.
    pub(crate) fn state(&self) -> Result<State> {
        Ok(State {
            shape: self.shape.clone(),
            vcpus: self.vcpus.save(&self.processor)?,
            chips: chips::save(&self.vm)?,
            processor: self.processor.clone(),
            serial: self.bus.save_serial(),
            slots: self.bus.slots().iter().map(|slot| slot.save()).collect(),
        })
    }
}

/// Makes a machine. Whoever calls keeps the gate closed until its guest may run.
pub(crate) fn all(
    machine: &Machine,
    kvm: &Kvm,
    descriptors: Descriptors,
    gate: &Arc<Gate>,
    news: &Sender<News>,
) -> Result<Made> {
    let vm = kvm.create_vm().map_err(Error::kvm("make a vm"))?;
    let making = Making { machine, kvm, vm, descriptors, gate, news };
    match &machine.start {
        Start::Boot(boot) => making.boot(boot),
        Start::Saved(saved) => making.go_on(*saved),
    }
}

struct Making<'a> {
    machine: &'a Machine,
    kvm: &'a Kvm,
    vm: VmFd,
    descriptors: Descriptors,
    gate: &'a Arc<Gate>,
    news: &'a Sender<News>,
}

impl Making<'_> {
    /// A guest at the entry of its kernel.
    fn boot(mut self, boot: &Boot) -> Result<Made> {
        let kernel = File::from(self.descriptors.take(boot.kernel.file)?);
        let initramfs = File::from(self.descriptors.take(boot.initramfs)?);
        let processor = Processor::of_host(self.kvm)?;
        let memory = Arc::new(memory::map(self.machine.memory_mib)?);
        memory::register(&memory, &self.vm)?;
        chips::make(&self.vm)?;
        let (slots, works) = self.plug(&memory)?;
        let (interrupt, console) = self.console()?;
        let bus = Arc::new(Bus::new(slots, Serial::new(interrupt, console)));
        let vcpus = self.vcpus(&processor)?;
        let mut parameters = boot.kernel_parameters.clone();
        announce(bus.slots().len(), &mut parameters);
        let payload = Payload {
            kernel: &kernel,
            segments: &boot.kernel.segments,
            initramfs: &initramfs,
            parameters: &parameters,
            vcpus: self.machine.vcpus,
        };
        let (start_info, filled) = boot::load(&memory, &payload)?;
        if let Some(first) = vcpus.first() {
            cpu::enter(first, boot.kernel.entry, start_info)?;
        }
        self.finish(works, vcpus, Parts { bus, memory, filled, processor, goes_on: false })
    }

    /// A guest where it was saved.
    fn go_on(mut self, saved: crate::config::Saved) -> Result<Made> {
        let file = File::from(self.descriptors.take(saved.state)?);
        let mut bytes = Vec::new();
        let most = MAX_LEN as u64 + 1;
        file.take(most).read_to_end(&mut bytes).map_err(Error::host("read the copy of a guest"))?;
        let state = State::decode(&bytes, &Shape::of(self.machine))?;
        Processor::of_host(self.kvm)?.can_be(&state.processor)?;
        let file = File::from(self.descriptors.take(saved.memory)?);
        let (memory, filled) = memory::map_saved(self.machine.memory_mib, &file)?;
        let memory = Arc::new(memory);
        memory::register(&memory, &self.vm)?;
        chips::make(&self.vm)?;
        let (slots, works) = self.plug(&memory)?;
        if slots.len() != state.slots.len() {
            return Err(crate::virtio::not_this_device());
        }
        for (slot, saved) in slots.iter().zip(state.slots) {
            slot.restore(saved)?;
        }
        let (interrupt, console) = self.console()?;
        let serial = Serial::restore(state.serial, interrupt, console)?;
        let bus = Arc::new(Bus::new(slots, serial));
        let vcpus = self.vcpus(&state.processor)?;
        let host_tsc_gained = state.chips.host_tsc_gained();
        for (vcpu, saved) in vcpus.iter().zip(&state.vcpus) {
            cpu::restore(vcpu, saved, host_tsc_gained)?;
        }
        state.chips.restore(&self.vm)?;
        let processor = state.processor;
        self.finish(works, vcpus, Parts { bus, memory, filled, processor, goes_on: true })
    }

    /// Starts the threads.
    fn finish(self, works: Vec<Work>, vcpus: Vec<VcpuFd>, parts: Parts) -> Result<Made> {
        let Parts { bus, memory, filled, processor, goes_on } = parts;
        for (name, work) in [("streams", Work::Streams), ("storage", Work::Storage)] {
            let slots = bus.slots().iter().zip(&works).filter(|(_, slots)| **slots == work);
            let slots = slots.map(|(slot, _)| Arc::clone(slot)).collect();
            let (reactor, news) = (Reactor::new(slots, Arc::clone(self.gate))?, self.news.clone());
            spawn(name, Role::Device, move || drop(news.send(News::Ended(reactor.run()))))?;
        }
        vcpu::install_kick()?;
        let vcpus = Vcpus::spawn(vcpus, &bus, self.news)?;
        let shape = Shape::of(self.machine);
        Ok(Made { vcpus, bus, memory, filled, processor, shape, goes_on, vm: self.vm })
    }

    /// Puts devices on the bus; says who works for which.
    fn plug(&mut self, memory: &Arc<Memory>) -> Result<(Vec<Arc<Slot>>, Vec<Work>)> {
        let planned = Planned::all(self.machine, &mut self.descriptors)?;
        let most = usize::from(LINES) - FIRST_VIRTIO_LINE as usize;
        if planned.len() > most {
            let reason = format!("it has {} devices, and there is room for {most}", planned.len());
            return Err(Error::Senseless(reason));
        }
        let mut slots = Vec::new();
        let mut works = Vec::new();
        for ((number, interrupt), Planned { device, work }) in
            (0..).zip(FIRST_VIRTIO_LINE..).zip(planned)
        {
            let base = Bus::address(number);
            slots.push(Arc::new(Slot::new(&self.vm, base, interrupt, Arc::clone(memory), device)?));
            works.push(work);
        }
        Ok((slots, works))
    }

    fn console(&mut self) -> Result<(vmm_sys_util::eventfd::EventFd, UnixStream)> {
        let console = UnixStream::from(self.descriptors.take(self.machine.console)?);
        Ok((line(&self.vm, SERIAL_LINE)?, console))
    }

    fn vcpus(&self, processor: &Processor) -> Result<Vec<VcpuFd>> {
        let count = self.machine.vcpus;
        (0..count)
            .map(|id| {
                let vcpu = self.vm.create_vcpu(id.into()).map_err(Error::kvm("make a vcpu"))?;
                cpu::prepare(&vcpu, id, count, processor)?;
                Ok(vcpu)
            })
            .collect()
    }
}

/// What a machine is made of besides its threads.
struct Parts {
    bus: Arc<Bus>,
    memory: Arc<Memory>,
    filled: Filled,
    processor: Processor,
    goes_on: bool,
}

/// Tells the kernel where its devices are.
fn announce(count: usize, parameters: &mut String) {
    for (number, interrupt) in (0..count).zip(FIRST_VIRTIO_LINE..) {
        let (kib, base) = (WINDOW >> 10, Bus::address(number));
        // Writing to a string cannot fail.
        let _ = write!(parameters, " virtio_mmio.device={kib}K@{base:#x}:{interrupt}");
    }
}

/// Starts a thread, and returns when it has shut itself in and runs.
pub(crate) fn spawn(name: &str, role: Role, work: impl FnOnce() + Send + 'static) -> Result<()> {
    let (started, starting) = channel();
    let work = move || {
        let filtered = filter::apply(role);
        let go_on = filtered.is_ok();
        // Fails only if nobody waits for it any more.
        let _ = started.send(filtered);
        if go_on {
            work();
        }
    };
    let builder = thread::Builder::new().name(name.to_owned());
    builder.spawn(work).map_err(Error::host("start a thread"))?;
    starting.recv().map_err(|_| Error::host("start a thread")(io::Error::other("it ended")))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_is_told_of_each_device() {
        let mut parameters = "quiet".to_owned();
        announce(2, &mut parameters);
        let expected =
            "quiet virtio_mmio.device=4K@0xd0000000:5 virtio_mmio.device=4K@0xd0001000:6";
        assert_eq!(parameters, expected);
    }
}
