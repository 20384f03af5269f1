// SPDX-License-Identifier: Apache-2.0
//! The interrupt controllers, the timer and the clock that KVM brings along.

use kvm_bindings::{
    KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE, KVM_PIT_SPEAKER_DUMMY,
    kvm_clock_data, kvm_irqchip, kvm_pit_config, kvm_pit_state2,
};
use kvm_ioctls::VmFd;
use serde::{Deserialize, Serialize};

use crate::cpu;
use crate::error::{Error, Result};
use crate::saved::plain;

/// Where KVM keeps what it needs to run real mode on Intel's processors: out of everybody's way.
const IDENTITY_MAP: u64 = 0xfffb_c000;
const TASK_STATE: usize = 0xfffb_d000;

const CONTROLLERS: [u32; 3] = [KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE, KVM_IRQCHIP_IOAPIC];

/// What the chips were at.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Saved {
    #[serde(with = "plain::list")]
    controllers: Vec<kvm_irqchip>,
    #[serde(with = "plain")]
    timer: kvm_pit_state2,
    /// The clock that KVM shows the guest, in nanoseconds.
    clock: u64,
    /// The host's time stamp counter at that moment.
    host_tsc: u64,
}

/// Adds them to a VM.
pub(crate) fn make(vm: &VmFd) -> Result<()> {
    vm.set_identity_map_address(IDENTITY_MAP).map_err(Error::kvm("place its tables"))?;
    vm.set_tss_address(TASK_STATE).map_err(Error::kvm("place its tables"))?;
    vm.create_irq_chip().map_err(Error::kvm("make interrupt controllers"))?;
    let timer = kvm_pit_config { flags: KVM_PIT_SPEAKER_DUMMY, ..kvm_pit_config::default() };
    vm.create_pit2(timer).map_err(Error::kvm("make a timer"))
}

/// Writes them down, while no vCPU runs.
pub(crate) fn save(vm: &VmFd) -> Result<Saved> {
    let failed = || Error::kvm("read its chips");
    let (clock, host_tsc) = (vm.get_clock().map_err(failed())?.clock, cpu::host_tsc());
    let controller = |chip_id| {
        let mut chip = kvm_irqchip { chip_id, ..kvm_irqchip::default() };
        vm.get_irqchip(&mut chip).map_err(failed())?;
        Ok(chip)
    };
    let controllers = CONTROLLERS.into_iter().map(controller).collect::<Result<_>>()?;
    let timer = vm.get_pit2().map_err(failed())?;
    Ok(Saved { controllers, timer, clock, host_tsc })
}

impl Saved {
    /// What the host's time stamp counter has gained since.
    pub(crate) fn host_tsc_gained(&self) -> u64 {
        cpu::host_tsc().wrapping_sub(self.host_tsc)
    }

    /// Makes the chips of a new VM what they were. All vCPUs are there already, since interrupts that
    /// wait here are passed on to them.
    pub(crate) fn restore(&self, vm: &VmFd) -> Result<()> {
        let failed = || Error::kvm("set its chips");
        vm.set_pit2(&self.timer).map_err(failed())?;
        let clock = kvm_clock_data { clock: self.clock, ..kvm_clock_data::default() };
        vm.set_clock(&clock).map_err(failed())?;
        if !self.controllers.iter().map(|chip| chip.chip_id).eq(CONTROLLERS) {
            return Err(Error::Saved("its interrupt controllers are others".to_owned()));
        }
        for controller in &self.controllers {
            vm.set_irqchip(controller).map_err(failed())?;
        }
        Ok(())
    }
}
