// SPDX-License-Identifier: Apache-2.0
//! What every driver owes its callers.

hc_vmm::contract!(crate::bench::bench);
