//! Virtual machine drivers: one trait, one crate per hypervisor behind it.
