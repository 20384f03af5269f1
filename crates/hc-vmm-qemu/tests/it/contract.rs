// SPDX-License-Identifier: Apache-2.0
//! What every driver owes its callers, for both kinds of machine.

mod microvm {
    hc_vmm::contract!(crate::bench::microvm);
}

mod q35 {
    hc_vmm::contract!(crate::bench::q35);
}
