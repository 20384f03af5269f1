// SPDX-License-Identifier: Apache-2.0
//! The system calls that a running machine makes. Any other one kills the process.
//!
//! The list is for all threads: reactors, vCPUs and the one that listens to the owner. What is not
//! on it was either done before the filter, or belongs to an attacker: no file is opened, no socket
//! made, no program started, no memory made executable, no other process touched.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

use crate::error::{Error, Result};

/// Calls whose arguments do not matter: they work on what is open already, or on our own memory.
const PLAIN: &[i64] = &[
    // Disks and streams.
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_preadv,
    libc::SYS_pwritev,
    libc::SYS_recvfrom,
    libc::SYS_sendto,
    libc::SYS_fdatasync,
    libc::SYS_fallocate,
    libc::SYS_epoll_wait,
    libc::SYS_epoll_pwait,
    libc::SYS_poll,
    libc::SYS_close,
    libc::SYS_getrandom,
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
];

/// `KVM_RUN`, the only request that a running machine has for KVM.
const KVM_RUN: u64 = 0xae80;

/// Shuts the process in, all its threads. There is no way back.
pub(crate) fn apply() -> Result<()> {
    let failed = |error: String| Error::Host {
        what: "filter system calls",
        source: std::io::Error::other(error),
    };
    let filter = program().map_err(|error| failed(error.to_string()))?;
    seccompiler::apply_filter_all_threads(&filter).map_err(|error| failed(error.to_string()))
}

fn program() -> Result<BpfProgram, seccompiler::BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        PLAIN.iter().map(|&call| (call, Vec::new())).collect();
    rules.insert(libc::SYS_ioctl, vec![argument(1, SeccompCmpOp::Eq, KVM_RUN)?]);
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
