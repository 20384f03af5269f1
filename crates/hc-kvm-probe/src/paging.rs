// SPDX-License-Identifier: Apache-2.0
//! What the kernel says about nested paging, the processor's own translation of guest addresses.
//!
//! Without it KVM keeps a shadow of every page table of the guest, and leaves the guest whenever one
//! of them changes. The modules tell by a parameter that anybody may read; a module built into the
//! kernel tells as well, also one for another maker's processors, which says what it was told and
//! not what there is. So two answers that differ are none.

use std::path::Path;

/// Each module with its parameter.
const PARAMETERS: [&str; 2] = ["kvm_intel/parameters/ept", "kvm_amd/parameters/npt"];

/// Whether KVM uses it; `None` where the kernel does not say.
pub(crate) fn nested(modules: &Path) -> Option<bool> {
    let answers = PARAMETERS.map(|parameter| read(&modules.join(parameter)));
    match answers {
        [Some(intel), Some(amd)] => (intel == amd).then_some(intel),
        [answer, None] | [None, answer] => answer,
    }
}

/// A parameter that is on or off; older kernels wrote numbers.
fn read(parameter: &Path) -> Option<bool> {
    match std::fs::read_to_string(parameter).ok()?.trim_end() {
        "Y" | "1" => Some(true),
        "N" | "0" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parameters_of_the_modules_tell_unless_they_contradict_each_other() {
        let check = |intel: Option<&str>, amd: Option<&str>, expected| {
            let modules = tempfile::tempdir().unwrap();
            for (parameter, value) in PARAMETERS.iter().zip([intel, amd]) {
                let Some(value) = value else { continue };
                let path = modules.path().join(parameter);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, value).unwrap();
            }
            assert_eq!(nested(modules.path()), expected, "{intel:?} {amd:?}");
        };
        check(Some("Y\n"), None, Some(true));
        check(Some("N\n"), None, Some(false));
        check(None, Some("1\n"), Some(true));
        check(None, Some("0\n"), Some(false));
        check(Some("Y\n"), Some("Y\n"), Some(true));
        check(Some("Y\n"), Some("N\n"), None);
        check(None, Some("perhaps"), None);
        check(None, None, None);
    }
}
