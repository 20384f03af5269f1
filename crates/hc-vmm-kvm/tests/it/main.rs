// SPDX-License-Identifier: Apache-2.0
//! The driver against real KVM.

mod bench;
mod confinement;
mod contract;
