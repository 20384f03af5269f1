// SPDX-License-Identifier: Apache-2.0
//! The system calls that a running machine makes. Any other one kills the process.
//!
//! Each thread shuts itself in before it does anything else, and knows the calls of its own work:
//!
//! | thread | calls, besides those of every thread |
//! | --- | --- |
//! | vCPU | those of devices; of KVM, only to run |
//! | device | those of devices; to wait for events |
//! | control | to receive, with descriptors |
//! | main | to read the machine's state from KVM, never to change it; to write it to a file |
//!
//! What is on no list was either done before the filter, or belongs to an attacker: no file is opened,
//! no socket made, no program started, no memory made executable, no other process touched. Threads
//! share their memory, so a list of its own keeps a thread honest, and stops nobody who has taken over
//! the process: against him it is the sum that counts.

use std::collections::BTreeMap;

use kvm_bindings::{
    KVMIO, kvm_clock_data, kvm_debugregs, kvm_device_attr, kvm_irqchip, kvm_lapic_state,
    kvm_mp_state, kvm_msrs, kvm_pit_state2, kvm_regs, kvm_sregs, kvm_vcpu_events, kvm_xcrs,
    kvm_xsave,
};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};
use vmm_sys_util::ioctl::{_IOC_NONE, _IOC_READ, _IOC_WRITE, ioctl_expr};

use crate::error::{Error, Result};

/// What a thread is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Runs the guest, and works for devices whose registers it reads and writes.
    Vcpu,
    /// Works for devices.
    Device,
    /// Listens to the owner.
    Control,
    /// Does what the owner wants.
    Main,
}

/// Calls of every thread. Their arguments do not matter: they work on what is open already, or on our
/// own memory.
const COMMON: &[i64] = &[
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_close,
    // Threads.
    libc::SYS_futex,
    libc::SYS_sched_yield,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_exit,
    libc::SYS_exit_group,
    // Memory and time.
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_clock_gettime,
    // Seeds of tables.
    libc::SYS_getrandom,
];

/// Calls on disks and streams.
const DEVICES: &[i64] = &[
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_preadv,
    libc::SYS_pwritev,
    libc::SYS_recvfrom,
    libc::SYS_sendto,
    libc::SYS_fdatasync,
    libc::SYS_fallocate,
    libc::SYS_poll,
];

impl Role {
    fn calls(self) -> Vec<i64> {
        let own: &[&[i64]] = match self {
            Role::Vcpu => &[DEVICES],
            Role::Device => &[DEVICES, &[libc::SYS_epoll_wait, libc::SYS_epoll_pwait]],
            Role::Control => &[&[libc::SYS_recvmsg]],
            Role::Main => &[
                // Answers, the table of pages, the copy of a guest, and how long a disk is.
                &[libc::SYS_sendto, libc::SYS_pread64, libc::SYS_pwrite64, libc::SYS_lseek],
            ],
        };
        [COMMON, &own.concat()].concat()
    }

    /// What the thread may ask KVM for.
    fn requests(self) -> &'static [libc::c_ulong] {
        match self {
            Role::Vcpu => TO_RUN,
            Role::Main => TO_READ,
            Role::Device | Role::Control => &[],
        }
    }
}

/// `KVM_RUN`.
const TO_RUN: &[libc::c_ulong] = &[ioctl_expr(_IOC_NONE, KVMIO, 0x80, 0)];

/// `KVM_GET_` and the names of the structures.
const TO_READ: &[libc::c_ulong] = &[
    asks::<kvm_irqchip>(_IOC_READ | _IOC_WRITE, 0x62),
    asks::<kvm_clock_data>(_IOC_READ, 0x7c),
    asks::<kvm_regs>(_IOC_READ, 0x81),
    asks::<kvm_sregs>(_IOC_READ, 0x83),
    asks::<kvm_msrs>(_IOC_READ | _IOC_WRITE, 0x88),
    asks::<kvm_lapic_state>(_IOC_READ, 0x8e),
    asks::<kvm_mp_state>(_IOC_READ, 0x98),
    asks::<kvm_vcpu_events>(_IOC_READ, 0x9f),
    asks::<kvm_pit_state2>(_IOC_READ, 0x9f),
    asks::<kvm_debugregs>(_IOC_READ, 0xa1),
    ioctl_expr(_IOC_NONE, KVMIO, 0xa3, 0), // KVM_GET_TSC_KHZ
    asks::<kvm_xsave>(_IOC_READ, 0xa4),
    asks::<kvm_xcrs>(_IOC_READ, 0xa6),
    KVM_GET_DEVICE_ATTR,
];

/// Asks for an attribute, with a request that only tells where the answer goes.
pub(crate) const KVM_GET_DEVICE_ATTR: libc::c_ulong = asks::<kvm_device_attr>(_IOC_WRITE, 0xe2);

/// The request of this number about a structure.
const fn asks<T>(direction: libc::c_uint, number: libc::c_uint) -> libc::c_ulong {
    #[expect(clippy::cast_possible_truncation, reason = "structures are small")]
    let size = size_of::<T>() as libc::c_uint;
    ioctl_expr(direction, KVMIO, number, size)
}

/// Shuts the calling thread in. There is no way back.
pub(crate) fn apply(role: Role) -> Result<()> {
    let failed = |error: String| Error::Host {
        what: "filter system calls",
        source: std::io::Error::other(error),
    };
    let filter = program(role).map_err(|error| failed(error.to_string()))?;
    seccompiler::apply_filter(&filter).map_err(|error| failed(error.to_string()))
}

fn program(role: Role) -> Result<BpfProgram, seccompiler::BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        role.calls().into_iter().map(|call| (call, Vec::new())).collect();
    let requests = role.requests().iter().map(|&request| argument(1, SeccompCmpOp::Eq, request));
    let requests = requests.collect::<Result<Vec<_>, _>>()?;
    if !requests.is_empty() {
        rules.insert(libc::SYS_ioctl, requests);
    }
    // What the standard library of a debug build asks before it closes a descriptor.
    let whether_open = u64::from(libc::F_GETFD.cast_unsigned());
    rules.insert(libc::SYS_fcntl, vec![argument(1, SeccompCmpOp::Eq, whether_open)?]);
    let executable = u64::from(libc::PROT_EXEC.cast_unsigned());
    let harmless = SeccompCmpOp::MaskedEq(executable);
    for call in [libc::SYS_mmap, libc::SYS_mprotect] {
        rules.insert(call, vec![argument(2, harmless.clone(), 0)?]);
    }
    let own = u64::from(std::process::id());
    rules.insert(libc::SYS_tgkill, vec![argument(0, SeccompCmpOp::Eq, own)?]);
    SeccompFilter::new(rules, SeccompAction::KillProcess, SeccompAction::Allow, TargetArch::x86_64)?
        .try_into()
}

/// A rule about one argument of a call.
fn argument(
    number: u8,
    operator: SeccompCmpOp,
    value: u64,
) -> Result<SeccompRule, seccompiler::BackendError> {
    let condition = SeccompCondition::new(number, SeccompCmpArgLen::Dword, operator, value)?;
    SeccompRule::new(vec![condition])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_those_of_the_kernels_headers() {
        assert_eq!(Role::Vcpu.requests(), [0xae80]);
        let main = [
            0xc208_ae62,
            0x8030_ae7c,
            0x8090_ae81,
            0x8138_ae83,
            0xc008_ae88,
            0x8400_ae8e,
            0x8004_ae98,
            0x8040_ae9f,
            0x8070_ae9f,
            0x8080_aea1,
            0xaea3,
            0x9000_aea4,
            0x8188_aea6,
            0x4018_aee2,
        ];
        assert_eq!(Role::Main.requests(), main);
    }

    #[test]
    fn every_thread_has_a_filter() {
        for role in [Role::Vcpu, Role::Device, Role::Control, Role::Main] {
            assert!(!program(role).unwrap().is_empty(), "{role:?}");
        }
    }
}
