// SPDX-License-Identifier: Apache-2.0
//! Every fuzz target runs over its seeds and some mutations of them.

use std::fs;
use std::path::Path;
use std::process::Command;

#[test]
fn every_target_bears_its_seeds() {
    let any = Path::new(env!("CARGO_BIN_EXE_proto_host"));
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz_targets");
    let mut failed = Vec::new();
    let mut count = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_owned();
        let status = Command::new(any.with_file_name(&name)).status();
        if !status.is_ok_and(|status| status.success()) {
            failed.push(name);
        }
        count += 1;
    }
    assert!(failed.is_empty(), "{failed:?} failed, or have no [[bin]] in fuzz/Cargo.toml");
    assert!(count >= 7, "targets were lost");
}
