// SPDX-License-Identifier: Apache-2.0
//! What keeps a machine from being.

use std::io;

/// The result of the monitor's own steps.
pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a machine cannot be made, or cannot go on.
///
/// None of these is the guest's doing: what a guest does wrong is its own affair.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The description of the machine cannot be read.
    #[error("cannot read the machine's description")]
    Description(#[source] io::Error),

    /// The description asks for something that cannot be.
    #[error("cannot make this machine: {0}")]
    Senseless(String),

    /// A saved guest cannot go on here, or a guest cannot be saved.
    #[error("cannot use this copy of a guest: {0}")]
    Saved(String),

    /// KVM refused something.
    #[error("kvm cannot {what}")]
    Kvm {
        /// What was asked of it.
        what: &'static str,
        /// What it answered.
        source: kvm_ioctls::Error,
    },

    /// The host refused something else.
    #[error("cannot {what}")]
    Host {
        /// What was tried.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },

    /// A vCPU stopped in a way that only a broken guest or processor causes.
    #[error("vcpu {vcpu} stopped: {reason}")]
    Stopped {
        /// Which one.
        vcpu: u32,
        /// KVM's word for it.
        reason: String,
    },
}

impl Error {
    /// For `map_err` on KVM's calls.
    pub(crate) fn kvm(what: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> Error {
        move |source| Error::Kvm { what, source }
    }

    /// For `map_err` on all other calls.
    pub(crate) fn host<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> Error {
        move |source| Error::Host { what, source: source.into() }
    }
}
