// SPDX-License-Identifier: Apache-2.0
//! The machine as a whole: made, run, held, ended.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, PoisonError, RwLockWriteGuard};
use std::thread;

use kvm_bindings::{KVM_PIT_SPEAKER_DUMMY, kvm_pit_config};
use kvm_ioctls::{Kvm, VcpuFd, VmFd};

use crate::boot::{self, Payload};
use crate::bus::Bus;
use crate::config::Machine;
use crate::control::{self, Command};
use crate::descriptors::Descriptors;
use crate::devices::Serial;
use crate::error::{Error, Result};
use crate::interrupt::{FIRST_VIRTIO_LINE, LINES, SERIAL_LINE, line};
use crate::memory::{self, Memory};
use crate::plan::{Planned, Work};
use crate::reactor::{Gate, Reactor};
use crate::vcpu::{self, Vcpus};
use crate::virtio::{Slot, WINDOW};
use crate::{confine, cpu, filter};

/// Where KVM keeps what it needs to run real mode on Intel's processors: out of everybody's way.
const IDENTITY_MAP: u64 = 0xfffb_c000;
const TASK_STATE: usize = 0xfffb_d000;

/// What the main thread waits for.
pub(crate) enum News {
    /// The owner said something.
    Said(String),
    /// The owner has gone.
    Abandoned,
    /// The guest has reset, or its machine is broken.
    Ended(Result<()>),
}

/// Makes a machine, runs it, and returns when it has ended: well, if the guest wanted it.
///
/// The process is the machine's alone, and has one thread when this is called.
pub fn run(machine: &Machine) -> Result<(), Error> {
    confine::leave(machine.user)?;
    let mut descriptors = Descriptors::default();
    let kvm = descriptors.kvm(machine.kvm)?;
    let control = UnixStream::from(descriptors.take(machine.control)?);
    let listener = control.try_clone().map_err(Error::host("listen to its owner"))?;
    let (sender, news) = channel();
    let vcpus = make(machine, &kvm, descriptors, &sender)?;
    let listening = sender.clone();
    spawn("control", move || listen(listener, &listening))?;
    filter::apply()?;
    vcpus.vcpus.release();
    attend(&vcpus, control, &news)
}

/// All that runs.
struct Running {
    vcpus: Vcpus,
    gate: Arc<Gate>,
    /// Closed last, when nobody uses it any more.
    _vm: VmFd,
}

/// Makes everything but the first instruction happen.
fn make(
    machine: &Machine,
    kvm: &Kvm,
    mut descriptors: Descriptors,
    news: &Sender<News>,
) -> Result<Running> {
    let vm = kvm.create_vm().map_err(Error::kvm("make a vm"))?;
    let memory = Arc::new(memory::map(machine.memory_mib)?);
    memory::register(&memory, &vm)?;
    make_chips(&vm)?;
    let console = UnixStream::from(descriptors.take(machine.console)?);
    let serial = Serial::new(line(&vm, SERIAL_LINE)?, console);
    let (kernel, initramfs) = (
        File::from(descriptors.take(machine.kernel.file)?),
        File::from(descriptors.take(machine.initramfs)?),
    );
    let planned = Planned::all(machine, &mut descriptors)?;
    let mut parameters = machine.kernel_parameters.clone();
    let gate = Arc::new(Gate::default());
    let slots = plug(planned, &vm, &memory, &mut parameters, &gate, news)?;
    let bus = Arc::new(Bus::new(slots, serial));
    let vcpus = make_vcpus(machine.vcpus, kvm, &vm)?;
    let start_info = boot::load(
        &memory,
        &Payload {
            kernel: &kernel,
            segments: &machine.kernel.segments,
            initramfs: &initramfs,
            parameters: &parameters,
            vcpus: machine.vcpus,
        },
    )?;
    if let Some(first) = vcpus.first() {
        cpu::enter(first, machine.kernel.entry, start_info)?;
    }
    vcpu::install_kick()?;
    let vcpus = Vcpus::spawn(vcpus, &bus, news)?;
    Ok(Running { vcpus, gate, _vm: vm })
}

/// The interrupt controllers and the timer that KVM brings along.
fn make_chips(vm: &VmFd) -> Result<()> {
    vm.set_identity_map_address(IDENTITY_MAP).map_err(Error::kvm("place its tables"))?;
    vm.set_tss_address(TASK_STATE).map_err(Error::kvm("place its tables"))?;
    vm.create_irq_chip().map_err(Error::kvm("make interrupt controllers"))?;
    let timer = kvm_pit_config { flags: KVM_PIT_SPEAKER_DUMMY, ..kvm_pit_config::default() };
    vm.create_pit2(timer).map_err(Error::kvm("make a timer"))
}

/// Puts devices on the bus, tells the kernel where, and starts the threads that work for them.
fn plug(
    planned: Vec<Planned>,
    vm: &VmFd,
    memory: &Arc<Memory>,
    parameters: &mut String,
    gate: &Arc<Gate>,
    news: &Sender<News>,
) -> Result<Vec<Arc<Slot>>> {
    let most = usize::from(LINES) - FIRST_VIRTIO_LINE as usize;
    if planned.len() > most {
        let reason = format!("it has {} devices, and there is room for {most}", planned.len());
        return Err(Error::Senseless(reason));
    }
    let mut slots = Vec::new();
    let (mut streams, mut storage) = (Vec::new(), Vec::new());
    for ((number, interrupt), Planned { device, work }) in
        (0..).zip(FIRST_VIRTIO_LINE..).zip(planned)
    {
        let base = Bus::address(number);
        let slot = Arc::new(Slot::new(vm, base, interrupt, Arc::clone(memory), device)?);
        let kib = WINDOW >> 10;
        // Writing to a string cannot fail.
        let _ = write!(parameters, " virtio_mmio.device={kib}K@{base:#x}:{interrupt}");
        match work {
            Work::Streams => streams.push(Arc::clone(&slot)),
            Work::Storage => storage.push(Arc::clone(&slot)),
        }
        slots.push(slot);
    }
    for (name, slots) in [("streams", streams), ("storage", storage)] {
        let (reactor, news) = (Reactor::new(slots, Arc::clone(gate))?, news.clone());
        spawn(name, move || drop(news.send(News::Ended(reactor.run()))))?;
    }
    Ok(slots)
}

fn make_vcpus(count: u32, kvm: &Kvm, vm: &VmFd) -> Result<Vec<VcpuFd>> {
    let abilities = cpu::abilities(kvm)?;
    (0..count)
        .map(|id| {
            let vcpu = vm.create_vcpu(id.into()).map_err(Error::kvm("make a vcpu"))?;
            cpu::prepare(&vcpu, id, count, &abilities)?;
            Ok(vcpu)
        })
        .collect()
}

/// Starts a thread, and returns when it runs: what a thread does before that, the filter forbids.
fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<()> {
    let (started, starting) = channel();
    let work = move || {
        // Fails only if nobody waits for it any more.
        let _ = started.send(());
        work();
    };
    let builder = thread::Builder::new().name(name.to_owned());
    builder.spawn(work).map_err(Error::host("start a thread"))?;
    starting.recv().map_err(|_| Error::host("start a thread")(io::Error::other("it ended")))
}

/// Passes on what the owner says.
fn listen(control: UnixStream, news: &Sender<News>) {
    for line in BufReader::new(control).lines() {
        let Ok(line) = line else { break };
        if news.send(News::Said(line)).is_err() {
            return;
        }
    }
    let _ = news.send(News::Abandoned);
}

/// Does what the owner wants, until the end.
fn attend(running: &Running, mut control: UnixStream, news: &Receiver<News>) -> Result<()> {
    let mut held: Option<RwLockWriteGuard<'_, ()>> = None;
    loop {
        let line = match news.recv() {
            Ok(News::Said(line)) => line,
            Ok(News::Abandoned) | Err(_) => return Ok(()),
            Ok(News::Ended(result)) => {
                result?;
                // An owner who has gone does not need to know.
                let _ = control.write_all(control::shutdown().as_bytes());
                return Ok(());
            }
        };
        let done = control::parse(&line).map(|command| match command {
            Command::Greet => {}
            Command::Stop => {
                running.vcpus.hold();
                let gate = || running.gate.write().unwrap_or_else(PoisonError::into_inner);
                held.get_or_insert_with(gate);
            }
            Command::Continue => {
                held = None;
                running.vcpus.release();
            }
        });
        let _ = control.write_all(control::answer(done).as_bytes());
    }
}
