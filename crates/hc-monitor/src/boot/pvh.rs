// SPDX-License-Identifier: Apache-2.0
//! `hvm_start_info` and what it points at, in the layout of Xen's public header
//! `arch-x86/hvm/start_info.h`, version 1.

/// `XEN_HVM_START_MAGIC_VALUE`.
const MAGIC: u32 = 0x336e_c578;
const VERSION: u32 = 1;
/// Length of `hvm_start_info`.
const INFO_LEN: u64 = 56;
/// Length of `hvm_modlist_entry`.
const MODULE_LEN: u64 = 32;
/// `XEN_HVM_MEMMAP_TYPE_RAM`.
const RAM: u32 = 1;

/// What a kernel is told.
pub(crate) struct StartInfo {
    /// Its own address.
    pub(crate) at: u64,
    /// The address of the kernel's parameters, which end with a zero.
    pub(crate) parameters: u64,
    /// Address and length of the initramfs.
    pub(crate) initramfs: (u64, u64),
    /// Address and length of each piece of memory.
    pub(crate) memory: Vec<(u64, u64)>,
}

impl StartInfo {
    /// The structure, the list of modules and the map of memory, one after the other.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let modules = self.at + INFO_LEN;
        let map = modules + MODULE_LEN;
        let mut bytes = Vec::new();
        let u32 = |bytes: &mut Vec<u8>, value: u32| bytes.extend(value.to_le_bytes());
        let u64 = |bytes: &mut Vec<u8>, value: u64| bytes.extend(value.to_le_bytes());
        u32(&mut bytes, MAGIC);
        u32(&mut bytes, VERSION);
        u32(&mut bytes, 0); // flags
        u32(&mut bytes, 1); // modules
        u64(&mut bytes, modules);
        u64(&mut bytes, self.parameters);
        u64(&mut bytes, 0); // no ACPI
        u64(&mut bytes, map);
        u32(&mut bytes, u32::try_from(self.memory.len()).expect("a few regions"));
        u32(&mut bytes, 0);
        let (address, len) = self.initramfs;
        for value in [address, len, 0, 0] {
            u64(&mut bytes, value);
        }
        for &(address, len) in &self.memory {
            u64(&mut bytes, address);
            u64(&mut bytes, len);
            u32(&mut bytes, RAM);
            u32(&mut bytes, 0);
        }
        bytes
    }
}
