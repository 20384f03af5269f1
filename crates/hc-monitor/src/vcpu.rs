// SPDX-License-Identifier: Apache-2.0
//! A vCPU at work: a thread that runs the guest until it wants something.
//!
//! ```text
//!            +--- hold ---> parked ---+
//!            |                        | release
//!  spawn -> running <-----------------+
//!            +--- reset, or something is wrong ---> over (and with it the machine)
//! ```
#![expect(unsafe_code, reason = "a signal handler that makes a vCPU stop")]

use std::cell::Cell;
use std::os::unix::thread::JoinHandleExt as _;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use kvm_ioctls::{VcpuExit, VcpuFd};
use vmm_sys_util::signal::{SIGRTMIN, register_signal_handler};

use crate::bus::{Bus, Effect};
use crate::cpu::{self, Processor};
use crate::error::{Error, Result};
use crate::filter::{self, Role};
use crate::monitor::News;

thread_local! {
    /// The byte of this thread's vCPU that makes KVM return at once.
    static EXIT_REQUEST: Cell<*mut u8> = const { Cell::new(std::ptr::null_mut()) };
}

/// Installs the handler of the signal that takes a vCPU out of the guest.
pub(crate) fn install_kick() -> Result<()> {
    register_signal_handler(SIGRTMIN(), on_kick).map_err(|error| Error::Host {
        what: "install a signal handler",
        source: std::io::Error::from_raw_os_error(error.errno()),
    })
}

/// Without the byte, a signal that comes right before KVM is called would be lost.
extern "C" fn on_kick(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    let request = EXIT_REQUEST.get();
    if !request.is_null() {
        // SAFETY: the byte is in this thread's vCPU, which lives as long as the thread does.
        unsafe { request.write_volatile(1) };
    }
}

/// Holds vCPUs, and knows how many are held.
#[derive(Debug, Default)]
pub(crate) struct Brake {
    state: Mutex<Held>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Held {
    wanted: bool,
    parked: usize,
}

impl Brake {
    /// Waits here for as long as vCPUs are to be held.
    fn pass(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if !state.wanted {
            return;
        }
        state.parked += 1;
        self.changed.notify_all();
        while state.wanted {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.parked -= 1;
    }

    /// Counts a vCPU as held for good: it has ended.
    fn leave(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).parked += 1;
        self.changed.notify_all();
    }
}

/// The vCPUs of a machine. Each is its thread's alone, but while it is held.
pub(crate) struct Vcpus {
    threads: Vec<JoinHandle<()>>,
    all: Vec<Arc<Mutex<VcpuFd>>>,
    brake: Arc<Brake>,
}

impl Vcpus {
    /// Starts a thread for each vCPU, and returns when all of them are there, held.
    pub(crate) fn spawn(vcpus: Vec<VcpuFd>, bus: &Arc<Bus>, news: &Sender<News>) -> Result<Vcpus> {
        let brake = Arc::new(Brake::default());
        brake.state.lock().unwrap_or_else(PoisonError::into_inner).wanted = true;
        let mut threads = Vec::new();
        let vcpus: Vec<_> = vcpus.into_iter().map(|vcpu| Arc::new(Mutex::new(vcpu))).collect();
        for (number, vcpu) in (0..).zip(&vcpus) {
            let (bus, brake, news) = (Arc::clone(bus), Arc::clone(&brake), news.clone());
            let vcpu = Arc::clone(vcpu);
            let thread = std::thread::Builder::new()
                .name(format!("vcpu{number}"))
                .spawn(move || {
                    let end =
                        filter::apply(Role::Vcpu).and_then(|()| run(number, &vcpu, &bus, &brake));
                    brake.leave();
                    bus.finish();
                    // Fails if the machine ends already.
                    let _ = news.send(News::Ended(end));
                })
                .map_err(Error::host("start a thread"))?;
            threads.push(thread);
        }
        let vcpus = Vcpus { threads, all: vcpus, brake };
        vcpus.hold();
        Ok(vcpus)
    }

    /// Takes every vCPU out of the guest, and returns when all are.
    pub(crate) fn hold(&self) {
        let mut state = self.brake.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.wanted = true;
        for thread in &self.threads {
            // SAFETY: the thread was never joined, so its handle is good.
            unsafe { libc::pthread_kill(thread.as_pthread_t(), SIGRTMIN()) };
        }
        while state.parked < self.threads.len() {
            state = self.brake.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Writes down what each is at. All are held.
    pub(crate) fn save(&self, processor: &Processor) -> Result<Vec<cpu::Saved>> {
        self.all.iter().map(|vcpu| cpu::save(&lock(vcpu), processor)).collect()
    }

    /// Lets them run.
    pub(crate) fn release(&self) {
        self.brake.state.lock().unwrap_or_else(PoisonError::into_inner).wanted = false;
        self.brake.changed.notify_all();
    }
}

/// Runs until the guest resets, or cannot go on.
///
/// A vCPU is held only between two instructions: one that has left the guest in the middle of an
/// access to a device enters it once more, for as long as it takes to finish (`KVM_RUN` with
/// `immediate_exit`).
fn run(number: u32, vcpu: &Mutex<VcpuFd>, bus: &Bus, brake: &Brake) -> Result<()> {
    EXIT_REQUEST.set(&raw mut lock(vcpu).get_kvm_run().immediate_exit);
    let stopped = |reason: String| Err(Error::Stopped { vcpu: number, reason });
    brake.pass();
    loop {
        let mut vcpu = lock(vcpu);
        match vcpu.run() {
            Ok(VcpuExit::IoIn(port, bytes)) => bus.read_port(port, bytes),
            Ok(VcpuExit::IoOut(port, bytes)) => match bus.write_port(port, bytes) {
                Effect::None => {}
                Effect::Reset => return Ok(()),
            },
            Ok(VcpuExit::MmioRead(address, bytes)) => bus.read_memory(address, bytes),
            Ok(VcpuExit::MmioWrite(address, bytes)) => bus.write_memory(address, bytes),
            // A triple fault, which is how Linux resets a machine that offers nothing better.
            Ok(VcpuExit::Shutdown) => return Ok(()),
            Ok(VcpuExit::FailEntry(reason, _)) => {
                return stopped(format!("the processor refused it (reason {reason:#x})"));
            }
            Ok(exit) => return stopped(format!("{exit:?}")),
            Err(error) if [libc::EINTR, libc::EAGAIN].contains(&error.errno()) => {
                vcpu.set_kvm_immediate_exit(0);
                drop(vcpu);
                brake.pass();
            }
            Err(source) => return Err(Error::Kvm { what: "run a vcpu", source }),
        }
    }
}

fn lock(vcpu: &Mutex<VcpuFd>) -> MutexGuard<'_, VcpuFd> {
    vcpu.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A thread that does nothing but what a vCPU does between two stays in the guest.
    fn vcpu(brake: &Arc<Brake>, ends: bool) -> JoinHandle<()> {
        let brake = Arc::clone(brake);
        std::thread::spawn(move || {
            brake.pass();
            if ends {
                return brake.leave();
            }
            loop {
                brake.pass();
                std::thread::yield_now();
            }
        })
    }

    #[test]
    fn vcpu_that_has_ended_holds_nobody_up() {
        install_kick().unwrap();
        let brake = Arc::new(Brake::default());
        let threads = vec![vcpu(&brake, false), vcpu(&brake, true)];
        let vcpus = Vcpus { threads, all: Vec::new(), brake };
        for _ in 0..3 {
            vcpus.hold();
            let parked = vcpus.brake.state.lock().unwrap().parked;
            assert_eq!(parked, 2);
            vcpus.release();
        }
    }
}
