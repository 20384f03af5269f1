// SPDX-License-Identifier: Apache-2.0
//! vCPUs that stand still, written down and made again.
//!
//! The order matters, both ways (`Documentation/virt/kvm/api.rst`, and how QEMU and Firecracker do
//! it): asking for the state of the processor may change the local APIC's, and the APIC has to be
//! there before the deadline of its timer is.
//!
//! # Limits
//!
//! What a guest's own virtual machines were at is not saved; a guest that has begun to run some is
//! refused.
#![expect(unsafe_code, reason = "the time stamp counter, and requests without a function")]

use std::os::fd::AsRawFd as _;

use kvm_bindings::{
    KVM_VCPU_TSC_CTRL, KVM_VCPU_TSC_OFFSET, Msrs, kvm_debugregs, kvm_device_attr, kvm_lapic_state,
    kvm_mp_state, kvm_msr_entry, kvm_regs, kvm_sregs, kvm_vcpu_events, kvm_xcrs, kvm_xsave,
};
use kvm_ioctls::VcpuFd;
use serde::{Deserialize, Serialize};

use super::Processor;
use crate::error::{Error, Result};
use crate::filter;
use crate::saved::plain;

/// `IA32_TSC` and `IA32_TSC_DEADLINE`.
const TSC: u32 = 0x10;
const TSC_DEADLINE: u32 = 0x6e0;
/// `EFER.SVME` and `CR4.VMXE`: the guest has begun to use what is needed for virtual machines.
const SVME: u64 = 1 << 12;
const VMXE: u64 = 1 << 13;
/// The most that one request takes (`MSR_MAX`, less one).
const MSRS_AT_ONCE: usize = 255;
/// How far clocks may be apart that count as of the same rate, in millionths: as far as KVM's own
/// tolerance goes.
const SAME_RATE_PPM: u64 = 250;

/// One vCPU.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Saved {
    #[serde(with = "plain")]
    mp_state: kvm_mp_state,
    #[serde(with = "plain")]
    regs: kvm_regs,
    #[serde(with = "plain")]
    sregs: kvm_sregs,
    #[serde(with = "plain::raw")]
    xsave: Vec<u8>,
    #[serde(with = "plain::option")]
    xcrs: Option<kvm_xcrs>,
    #[serde(with = "plain")]
    debug: kvm_debugregs,
    #[serde(with = "plain")]
    lapic: kvm_lapic_state,
    #[serde(with = "plain")]
    events: kvm_vcpu_events,
    /// By number.
    msrs: Vec<(u32, u64)>,
    /// What the guest's time stamp counter is ahead of the host's, where KVM can say so.
    tsc_offset: Option<u64>,
    tsc_khz: u32,
}

/// The host's time stamp counter.
pub(crate) fn host_tsc() -> u64 {
    // SAFETY: every processor with virtualisation has one.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Writes a vCPU down that is not in the guest.
pub(crate) fn save(vcpu: &VcpuFd, processor: &Processor) -> Result<Saved> {
    let failed = || Error::kvm("read a vcpu's registers");
    let mp_state = vcpu.get_mp_state().map_err(failed())?;
    let regs = vcpu.get_regs().map_err(failed())?;
    let sregs = vcpu.get_sregs().map_err(failed())?;
    if sregs.efer & SVME != 0 || sregs.cr4 & VMXE != 0 {
        let reason = "a guest that runs virtual machines itself cannot be saved";
        return Err(Error::Saved(reason.to_owned()));
    }
    let xsave = vcpu.get_xsave().map_err(failed())?;
    let xcrs = if processor.has_xcrs { Some(vcpu.get_xcrs().map_err(failed())?) } else { None };
    let debug = vcpu.get_debug_regs().map_err(failed())?;
    let lapic = vcpu.get_lapic().map_err(failed())?;
    let tsc_offset = tsc_offset(vcpu);
    let tsc_khz = vcpu.get_tsc_khz().map_err(failed())?;
    let msrs = read_msrs(vcpu, &processor.msrs)?;
    let events = vcpu.get_vcpu_events().map_err(failed())?;
    let xsave = xsave.region.iter().flat_map(|word| word.to_le_bytes()).collect();
    Ok(Saved {
        mp_state,
        regs,
        sregs,
        xsave,
        xcrs,
        debug,
        lapic,
        events,
        msrs,
        tsc_offset,
        tsc_khz,
    })
}

/// Makes a new vCPU what the saved one was. Its abilities are set already.
///
/// `host_tsc_gained` is what the host's time stamp counter has gained since; the guest's goes on from
/// where it was.
pub(crate) fn restore(vcpu: &VcpuFd, saved: &Saved, host_tsc_gained: u64) -> Result<()> {
    let failed = || Error::kvm("set a vcpu's registers");
    same_rate(saved.tsc_khz, vcpu.get_tsc_khz().map_err(failed())?)?;
    vcpu.set_mp_state(saved.mp_state).map_err(failed())?;
    vcpu.set_regs(&saved.regs).map_err(failed())?;
    vcpu.set_sregs(&saved.sregs).map_err(failed())?;
    let xsave = xsave(&saved.xsave)?;
    // SAFETY: the guest has no feature whose state is larger than this structure: KVM offers none
    // to a process that has not asked the kernel for them.
    unsafe { vcpu.set_xsave(&xsave) }.map_err(failed())?;
    if let Some(xcrs) = &saved.xcrs {
        vcpu.set_xcrs(xcrs).map_err(failed())?;
    }
    vcpu.set_debug_regs(&saved.debug).map_err(failed())?;
    vcpu.set_lapic(&saved.lapic).map_err(failed())?;
    let exact = set_tsc_offset(vcpu, saved.tsc_offset.map(|was| was.wrapping_sub(host_tsc_gained)));
    write_msrs(vcpu, &in_order(&saved.msrs, exact))?;
    vcpu.set_vcpu_events(&saved.events).map_err(failed())
}

fn same_rate(was: u32, is: u32) -> Result<()> {
    let (was, is) = (u64::from(was), u64::from(is));
    if was.abs_diff(is) * 1_000_000 > was * SAME_RATE_PPM {
        return Err(Error::Saved(format!("its clock has {was} kHz, and this processor's {is}")));
    }
    Ok(())
}

fn xsave(bytes: &[u8]) -> Result<kvm_xsave> {
    let mut xsave = kvm_xsave::default();
    let (words, rest) = bytes.as_chunks::<4>();
    if words.len() != xsave.region.len() || !rest.is_empty() {
        return Err(Error::Saved("its floating point registers have another length".to_owned()));
    }
    for (word, bytes) in xsave.region.iter_mut().zip(words) {
        *word = u32::from_le_bytes(*bytes);
    }
    Ok(xsave)
}

/// The time stamp counter first, since deadlines are told by it, and the deadline last.
fn in_order(saved: &[(u32, u64)], tsc_is_set: bool) -> Vec<(u32, u64)> {
    let mut msrs: Vec<_> = saved
        .iter()
        .filter(|(index, _)| !(tsc_is_set && *index == TSC))
        // A timer that has just run out has no deadline any more, and an interrupt that is on its
        // way: it runs out again. A guest that expects none does not mind.
        .map(
            |&(index, data)| {
                if index == TSC_DEADLINE { (index, data.max(1)) } else { (index, data) }
            },
        )
        .collect();
    msrs.sort_by_key(|(index, _)| match *index {
        TSC => 0,
        TSC_DEADLINE => 2,
        _ => 1,
    });
    msrs
}

/// Reads all registers that there are.
fn read_msrs(vcpu: &VcpuFd, mut indices: &[u32]) -> Result<Vec<(u32, u64)>> {
    let mut read = Vec::with_capacity(indices.len());
    while !indices.is_empty() {
        let part = &indices[..indices.len().min(MSRS_AT_ONCE)];
        let mut msrs = entries(part.iter().map(|&index| (index, 0)));
        let done = vcpu.get_msrs(&mut msrs).map_err(Error::kvm("read a vcpu's registers"))?;
        read.extend(msrs.as_slice()[..done].iter().map(|entry| (entry.index, entry.data)));
        // KVM lists some that this vCPU does not have. It stops there.
        let skipped = usize::from(done < part.len());
        indices = &indices[done + skipped..];
    }
    Ok(read)
}

fn write_msrs(vcpu: &VcpuFd, mut values: &[(u32, u64)]) -> Result<()> {
    while !values.is_empty() {
        let part = &values[..values.len().min(MSRS_AT_ONCE)];
        let done = vcpu
            .set_msrs(&entries(part.iter().copied()))
            .map_err(Error::kvm("set a vcpu's registers"))?;
        values = &values[done..];
        if done < part.len() {
            // One that cannot be set to nothing is nothing already.
            match values {
                [(_, 0), rest @ ..] => values = rest,
                [(index, data), ..] => {
                    let reason = format!("register {index:#x} cannot be {data:#x} here");
                    return Err(Error::Saved(reason));
                }
                [] => {}
            }
        }
    }
    Ok(())
}

fn entries(values: impl Iterator<Item = (u32, u64)>) -> Msrs {
    let entries: Vec<_> =
        values.map(|(index, data)| kvm_msr_entry { index, data, ..Default::default() }).collect();
    Msrs::from_entries(&entries).expect("there are not too many")
}

/// Linux has this since 5.16.
fn tsc_offset(vcpu: &VcpuFd) -> Option<u64> {
    tsc_attribute(vcpu, filter::KVM_GET_DEVICE_ATTR, 0)
}

/// Says whether it is set.
fn set_tsc_offset(vcpu: &VcpuFd, offset: Option<u64>) -> bool {
    /// `_IOW(KVMIO, 0xe1, struct kvm_device_attr)`.
    const KVM_SET_DEVICE_ATTR: libc::c_ulong = 0x4018_aee1;
    offset.and_then(|offset| tsc_attribute(vcpu, KVM_SET_DEVICE_ATTR, offset)).is_some()
}

fn tsc_attribute(vcpu: &VcpuFd, request: libc::c_ulong, mut offset: u64) -> Option<u64> {
    let attribute = kvm_device_attr {
        flags: 0,
        group: KVM_VCPU_TSC_CTRL,
        attr: KVM_VCPU_TSC_OFFSET.into(),
        addr: &raw mut offset as u64,
    };
    // SAFETY: KVM reads the attribute, and reads or writes the offset where it says.
    let done = unsafe { libc::ioctl(vcpu.as_raw_fd(), request, &raw const attribute) };
    (done == 0).then_some(offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadline_comes_last_and_is_never_lost() {
        let saved = [(TSC_DEADLINE, 0), (0x1a0, 1), (TSC, 77), (0xc000_0080, 5)];
        let rest = [(0x1a0, 1), (0xc000_0080, 5), (TSC_DEADLINE, 1)];
        assert_eq!(in_order(&saved, true), rest);
        assert_eq!(in_order(&saved, false), [&[(TSC, 77)][..], &rest].concat());
    }

    #[test]
    fn clock_of_another_rate_is_refused() {
        same_rate(2_000_000, 2_000_400).unwrap();
        same_rate(2_000_000, 2_001_000).unwrap_err();
        same_rate(2_000_000, 0).unwrap_err();
    }

    #[test]
    fn floating_point_registers_have_one_length() {
        assert_eq!(xsave(&[7; 4096]).unwrap().region[1023], 0x0707_0707);
        for len in [0, 4092, 4095, 4100] {
            xsave(&vec![0; len]).unwrap_err();
        }
    }
}
