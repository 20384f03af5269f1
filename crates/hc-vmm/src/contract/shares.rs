// SPDX-License-Identifier: Apache-2.0
//! Promises about folders of the host that a guest mounts.

use std::fs;
use std::os::unix::fs::symlink;

use tempfile::TempDir;

use super::{Bench, Running};
use crate::{Ability, Share};

/// What a guest's kernel without the file system says to a mount (`ENODEV`).
const NO_SUCH_FILE_SYSTEM: &str = "error 19";

/// The guest reads what the host wrote, and the other way round.
pub async fn shared_folder_is_read_and_written(bench: &Bench) {
    let dir = folder();
    let Some(mut running) = mounted(bench, &dir, false).await else { return };
    assert_eq!(running.ask("get file").await, "ok from-the-host");
    assert_eq!(running.ask("put new from-the-guest").await, "ok");
    let written = fs::read_to_string(dir.path().join("shared/new")).unwrap();
    assert_eq!(written, "from-the-guest\n");
    assert_eq!(running.ask("put file changed").await, "ok");
    assert_eq!(fs::read_to_string(dir.path().join("shared/file")).unwrap(), "changed\n");
    assert_eq!(running.ask("get none").await, "error 2");
    // A file of many requests comes through whole.
    let long: String = ('a'..='z').cycle().take(3 << 20).collect();
    fs::write(dir.path().join("shared/long"), &long).unwrap();
    assert_eq!(running.ask("sum long").await, format!("{} {}", long.len(), sum(&long)));
}

/// No link and no name leads out of the folder, and none makes a file elsewhere.
pub async fn shared_folder_has_no_way_out(bench: &Bench) {
    let dir = folder();
    let Some(mut running) = mounted(bench, &dir, false).await else { return };
    for name in ["../secret", "link", "far-link", "folder/../../secret"] {
        let answer = running.ask(&format!("get {name}")).await;
        assert_eq!(answer, "error 2", "{name}");
    }
    running.ask("put link changed").await;
    assert_eq!(fs::read_to_string(dir.path().join("secret")).unwrap(), "secret\n");
}

/// A folder that is served to be looked at stays as it is, whatever the guest tries.
pub async fn read_only_share_cannot_be_written(bench: &Bench) {
    let dir = folder();
    let Some(mut running) = mounted(bench, &dir, true).await else { return };
    assert_eq!(running.ask("get file").await, "ok from-the-host");
    for name in ["file", "new"] {
        assert_eq!(running.ask(&format!("put {name} changed")).await, "error 30");
    }
    assert_eq!(fs::read_to_string(dir.path().join("shared/file")).unwrap(), "from-the-host\n");
    assert!(!dir.path().join("shared/new").exists());
}

/// A folder to share, with something beside it that is nobody's business.
fn folder() -> TempDir {
    let dir = super::run_dir();
    let shared = dir.path().join("shared");
    fs::create_dir_all(shared.join("folder")).unwrap();
    fs::write(shared.join("file"), "from-the-host\n").unwrap();
    fs::write(dir.path().join("secret"), "secret\n").unwrap();
    symlink("../secret", shared.join("link")).unwrap();
    symlink(dir.path().join("secret"), shared.join("far-link")).unwrap();
    dir
}

/// A guest that has mounted the folder; `None` if there can be none.
async fn mounted(bench: &Bench, dir: &TempDir, read_only: bool) -> Option<Running> {
    if !bench.driver.abilities().contains(&Ability::Share) {
        return None;
    }
    let Some(serve) = bench.serve else {
        (bench.skip)("nobody serves a folder here");
        return None;
    };
    let server = serve(&dir.path().join("shared"), read_only);
    let share = Share { tag: "folder".to_owned(), server };
    let mut running = bench.boot(|spec| spec.shares = vec![share]).await;
    let answer = running.ask("mount folder").await;
    if answer == NO_SUCH_FILE_SYSTEM {
        (bench.skip)("the guest's kernel has no virtiofs");
        return None;
    }
    assert_eq!(answer, "ok");
    Some(running)
}

/// What the guest makes of a file's bytes.
fn sum(text: &str) -> u32 {
    text.bytes().fold(0, |sum: u32, byte| sum.wrapping_mul(31).wrapping_add(byte.into()))
}
