// SPDX-License-Identifier: Apache-2.0
//! vCPUs before their first instruction: what they can do, and where the first one starts.

use kvm_bindings::{
    CpuId, KVM_MAX_CPUID_ENTRIES, Msrs, kvm_cpuid_entry2, kvm_msr_entry, kvm_regs, kvm_segment,
};
use kvm_ioctls::{Cap, Kvm, VcpuFd};

use crate::error::{Error, Result};

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

/// What this host's processor offers to guests.
pub(crate) fn abilities(kvm: &Kvm) -> Result<CpuId> {
    let mut abilities = kvm
        .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
        .map_err(Error::kvm("say what processors it has"))?;
    // The timer of KVM's own APIC, which no processor announces: a guest need not measure it.
    let deadline = if kvm.check_extension(Cap::TscDeadlineTimer) { TSC_DEADLINE } else { 0 };
    for entry in abilities.as_mut_slice().iter_mut().filter(|entry| entry.function == FEATURES) {
        entry.ecx |= HYPERVISOR | deadline;
    }
    Ok(abilities)
}

/// Makes a vCPU what it is to be.
pub(crate) fn prepare(vcpu: &VcpuFd, id: u32, vcpus: u32, abilities: &CpuId) -> Result<()> {
    let mut own = abilities.clone();
    for entry in own.as_mut_slice() {
        personalise(entry, id, vcpus);
    }
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
