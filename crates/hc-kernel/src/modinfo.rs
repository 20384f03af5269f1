// SPDX-License-Identifier: Apache-2.0
//! What a module says about itself: the `.modinfo` section, texts of the form `key=value`.

use crate::elf;

/// The modules that the module in these bytes depends on directly; `None` when they are no module.
pub(crate) fn depends(file: &[u8]) -> Option<Vec<String>> {
    let section = elf::section(file, b".modinfo")?;
    let value = section.split(|&byte| byte == 0).find_map(|text| text.strip_prefix(b"depends="))?;
    let names = value.split(|&byte| byte == b',').filter(|name| !name.is_empty());
    Some(names.map(|name| String::from_utf8_lossy(name).replace('-', "_")).collect())
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::elf::tests::HEADER_LEN;

    /// The smallest module file with this `.modinfo`.
    pub(crate) fn module(modinfo: &[u8]) -> Vec<u8> {
        let names = b"\0.modinfo\0";
        let mut file = vec![0; HEADER_LEN];
        file[..6].copy_from_slice(b"\x7fELF\x02\x01");
        let modinfo_at = file.len();
        file.extend_from_slice(modinfo);
        let names_at = file.len();
        file.extend_from_slice(names);
        let table_at = file.len() as u64;
        for (name, at, len) in [(0, names_at, names.len()), (1, modinfo_at, modinfo.len())] {
            let mut entry = [0; 64];
            entry[0] = name;
            entry[24..32].copy_from_slice(&(at as u64).to_le_bytes());
            entry[32..40].copy_from_slice(&(len as u64).to_le_bytes());
            file.extend_from_slice(&entry);
        }
        file[40..48].copy_from_slice(&table_at.to_le_bytes());
        file[58] = 64;
        file[60] = 2;
        file
    }

    #[test]
    fn dependencies_are_read_under_their_canonical_names() {
        let file = module(b"license=GPL\0depends=libcrc32c,net-failover\0name=x\0");
        assert_eq!(depends(&file), Some(vec!["libcrc32c".into(), "net_failover".into()]));
        assert_eq!(depends(&module(b"depends=\0")), Some(vec![]));
        assert_eq!(depends(&module(b"name=x\0")), None);
        assert_eq!(depends(b"#!/bin/sh"), None);
    }

    proptest! {
        #[test]
        fn damaged_module_never_panics(at in 0_usize..256, value in any::<u8>(), cut in 0_usize..256) {
            let mut file = module(b"depends=a,b\0");
            let at = at % file.len();
            file[at] = value;
            file.truncate(file.len() - cut % file.len());
            let _ = depends(&file);
        }
    }
}
