// SPDX-License-Identifier: Apache-2.0
//! vCPUs before their first instruction: what they can do, and where the first one starts.

mod saved;

use kvm_bindings::{
    CpuId, KVM_MAX_CPUID_ENTRIES, Msrs, kvm_cpuid_entry2, kvm_msr_entry, kvm_regs, kvm_segment,
};
use kvm_ioctls::{Cap, Kvm, VcpuFd};
use serde::{Deserialize, Serialize};

pub(crate) use self::saved::{Saved, host_tsc, restore, save};
use crate::error::{Error, Result};
use crate::saved::plain;

/// Protection on, and the one bit that is always set.
const CR0: u64 = 0x11;
/// Flat 32-bit segments, as PVH asks for: kind and selector.
const CODE: (u8, u16) = (0xb, 0x8);
const DATA: (u8, u16) = (0x3, 0x10);
/// A busy task of 32 bits.
const TASK: (u8, u16) = (0xb, 0x18);
/// `IA32_MTRR_DEF_TYPE`: on, and all memory can be cached.
const MTRR_DEFAULT: (u32, u64) = (0x2ff, 1 << 11 | 6);
/// `IA32_MISC_ENABLE`: fast strings.
const MISC_ENABLE: (u32, u64) = (0x1a0, 1);

/// CPUID leaves that are different for each vCPU.
const FEATURES: u32 = 0x1;
const TOPOLOGY: [u32; 2] = [0xb, 0x1f];
const TSC_DEADLINE: u32 = 1 << 24;
/// Says that this is no bare processor, so that a guest looks for KVM's own leaves: its clock, above
/// all.
const HYPERVISOR: u32 = 1 << 31;

/// What a processor offers to guests.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Processor {
    /// What CPUID says, but for the numbers of vCPUs.
    #[serde(with = "plain::list")]
    abilities: Vec<kvm_cpuid_entry2>,
    /// The model-specific registers that KVM can save.
    msrs: Vec<u32>,
    /// Whether there are registers for extended states.
    has_xcrs: bool,
}

impl Processor {
    /// The processor of this host.
    pub(crate) fn of_host(kvm: &Kvm) -> Result<Processor> {
        let failed = || Error::kvm("say what processors it has");
        let mut abilities = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES).map_err(failed())?;
        // The timer of KVM's own APIC, which no processor announces: a guest need not measure it.
        let deadline = if kvm.check_extension(Cap::TscDeadlineTimer) { TSC_DEADLINE } else { 0 };
        for entry in abilities.as_mut_slice().iter_mut().filter(|entry| entry.function == FEATURES)
        {
            entry.ecx |= HYPERVISOR | deadline;
        }
        Ok(Processor {
            abilities: abilities.as_slice().to_vec(),
            msrs: kvm.get_msr_index_list().map_err(failed())?.as_slice().to_vec(),
            has_xcrs: kvm.check_extension(Cap::Xcrs),
        })
    }

    /// Refuses a guest that has seen abilities that this processor lacks.
    pub(crate) fn can_be(&self, saved: &Processor) -> Result<()> {
        let lacking = |reason: &str| Err(Error::Saved(reason.to_owned()));
        if self.has_xcrs != saved.has_xcrs {
            return lacking("the processor was another");
        }
        for entry in &saved.abilities {
            let here = self.abilities.iter();
            let mut here =
                here.filter(|here| (here.function, here.index) == (entry.function, entry.index));
            let Some(bits) = features(entry) else { continue };
            let here = here.next().and_then(features).unwrap_or_default();
            if bits.iter().zip(here).any(|(bit, here)| bit & !here != 0) {
                return lacking("this processor lacks abilities of that where it was saved");
            }
        }
        Ok(())
    }
}

/// The registers of a leaf whose bits are features, if it is such a leaf.
fn features(entry: &kvm_cpuid_entry2) -> Option<[u32; 4]> {
    let &kvm_cpuid_entry2 { eax, ebx, ecx, edx, .. } = entry;
    match (entry.function, entry.index) {
        (FEATURES | 0x8000_0001, _) => Some([0, 0, ecx, edx]),
        (7, 0) => Some([0, ebx, ecx, edx]),
        // States that can be saved.
        (0xd, 0) => Some([eax, 0, 0, edx]),
        // Ways to save them, and what KVM itself offers.
        (0xd, 1) | (0x4000_0001, _) => Some([eax, 0, 0, 0]),
        _ => None,
    }
}

/// Makes a vCPU what it is to be.
pub(crate) fn prepare(vcpu: &VcpuFd, id: u32, vcpus: u32, processor: &Processor) -> Result<()> {
    let mut own = processor.abilities.clone();
    for entry in &mut own {
        personalise(entry, id, vcpus);
    }
    let own = CpuId::from_entries(&own)
        .map_err(|_| Error::Saved("its processor has too many abilities".to_owned()))?;
    vcpu.set_cpuid2(&own).map_err(Error::kvm("set a vcpu's abilities"))?;
    let msrs = [MTRR_DEFAULT, MISC_ENABLE].map(|(index, data)| kvm_msr_entry {
        index,
        data,
        ..kvm_msr_entry::default()
    });
    let msrs = Msrs::from_entries(&msrs).expect("two of them");
    // A processor that lacks one of them does without.
    vcpu.set_msrs(&msrs).map_err(Error::kvm("set a vcpu's registers"))?;
    Ok(())
}

/// Writes a vCPU's number where a guest looks for it.
fn personalise(entry: &mut kvm_cpuid_entry2, id: u32, vcpus: u32) {
    if entry.function == FEATURES {
        let count = vcpus.next_power_of_two().min(0xff);
        entry.ebx = entry.ebx & 0xffff | id << 24 | count << 16;
    } else if TOPOLOGY.contains(&entry.function) {
        entry.edx = id;
    }
}

/// Puts the first vCPU at the kernel's entry. The others wait for it to call them.
pub(crate) fn enter(vcpu: &VcpuFd, entry: u32, start_info: u32) -> Result<()> {
    let set = "set a vcpu's registers";
    let regs =
        kvm_regs { rip: entry.into(), rbx: start_info.into(), rflags: 2, ..kvm_regs::default() };
    vcpu.set_regs(&regs).map_err(Error::kvm(set))?;
    let mut sregs = vcpu.get_sregs().map_err(Error::kvm(set))?;
    sregs.cs = segment(CODE);
    for data in [&mut sregs.ds, &mut sregs.es, &mut sregs.fs, &mut sregs.gs, &mut sregs.ss] {
        *data = segment(DATA);
    }
    sregs.tr = kvm_segment { limit: 0x67, g: 0, s: 0, db: 0, ..segment(TASK) };
    sregs.cr0 = CR0;
    (sregs.cr4, sregs.efer) = (0, 0);
    vcpu.set_sregs(&sregs).map_err(Error::kvm(set))
}

fn segment((type_, selector): (u8, u16)) -> kvm_segment {
    kvm_segment {
        base: 0,
        limit: u32::MAX,
        selector,
        type_,
        present: 1,
        db: 1,
        s: 1,
        g: 1,
        ..kvm_segment::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guest_goes_on_where_its_processor_lacks_nothing() {
        let processor = |ecx, edx| Processor {
            abilities: vec![kvm_cpuid_entry2 { function: 1, ecx, edx, ..Default::default() }],
            msrs: Vec::new(),
            has_xcrs: true,
        };
        processor(3, 1).can_be(&processor(1, 1)).unwrap();
        processor(1, 1).can_be(&processor(3, 1)).unwrap_err();
        let other = Processor { abilities: Vec::new(), ..processor(0, 0) };
        other.can_be(&processor(1, 0)).unwrap_err();
        processor(1, 0).can_be(&other).unwrap();
        let other = Processor { has_xcrs: false, ..processor(3, 1) };
        processor(3, 1).can_be(&other).unwrap_err();
    }

    #[test]
    fn each_vcpu_has_its_number() {
        let entry = |function| kvm_cpuid_entry2 {
            function,
            ebx: 0xaaaa_1234,
            edx: 9,
            ..kvm_cpuid_entry2::default()
        };
        let check = |function, id, vcpus| {
            let mut entry = entry(function);
            personalise(&mut entry, id, vcpus);
            (entry.ebx, entry.edx)
        };
        assert_eq!(check(FEATURES, 2, 3), (0x0204_1234, 9));
        assert_eq!(check(0xb, 2, 3), (0xaaaa_1234, 2));
        assert_eq!(check(0x7, 2, 3), (0xaaaa_1234, 9));
    }
}
