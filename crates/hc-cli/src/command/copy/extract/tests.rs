// SPDX-License-Identifier: Apache-2.0
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;

use super::*;

/// One entry of an archive that no honest packer would write.
struct Hostile {
    kind: EntryType,
    path: &'static str,
    link: &'static str,
    content: &'static str,
    mode: u32,
}

fn file(path: &'static str, content: &'static str) -> Hostile {
    Hostile { kind: EntryType::Regular, path, link: "", content, mode: 0o644 }
}

fn folder(path: &'static str) -> Hostile {
    Hostile { kind: EntryType::Directory, path, link: "", content: "", mode: 0o755 }
}

fn link(path: &'static str, link: &'static str) -> Hostile {
    Hostile { kind: EntryType::Symlink, path, link, content: "", mode: 0o777 }
}

fn hard_link(path: &'static str, link: &'static str) -> Hostile {
    Hostile { kind: EntryType::Link, path, link, content: "", mode: 0o644 }
}

/// Builds the bytes by hand, because honest libraries refuse such paths.
fn archive(entries: &[Hostile]) -> Vec<u8> {
    let mut out = Vec::new();
    for entry in entries {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(entry.kind);
        header.set_mode(entry.mode);
        header.set_mtime(1_700_000_000);
        header.set_uid(12345);
        header.set_gid(12345);
        header.set_size(entry.content.len() as u64);
        let old = header.as_old_mut();
        old.name[..entry.path.len()].copy_from_slice(entry.path.as_bytes());
        old.linkname[..entry.link.len()].copy_from_slice(entry.link.as_bytes());
        header.set_cksum();
        out.extend_from_slice(header.as_bytes());
        out.extend_from_slice(entry.content.as_bytes());
        out.resize(out.len().next_multiple_of(512), 0);
    }
    out.extend_from_slice(&[0; 1024]);
    out
}

/// A folder to extract into, with a secret beside it that nothing may touch.
struct Sandbox {
    dir: tempfile::TempDir,
}

impl Sandbox {
    fn new() -> Sandbox {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("in")).unwrap();
        std::fs::create_dir(dir.path().join("outside")).unwrap();
        std::fs::write(dir.path().join("outside/secret"), "secret").unwrap();
        Sandbox { dir }
    }

    fn inside(&self) -> PathBuf {
        self.dir.path().join("in")
    }

    fn extract(&self, entries: &[Hostile], name: Option<&str>, keep: bool) -> io::Result<Summary> {
        let destination = Destination {
            folder: open_destination(&self.inside()).unwrap(),
            name: name.map(Into::into),
            keep,
        };
        extract(&archive(entries)[..], &destination)
    }

    /// Nothing outside was made, changed or removed.
    fn check_outside(&self) {
        let secret = self.dir.path().join("outside/secret");
        assert_eq!(std::fs::read_to_string(&secret).unwrap(), "secret");
        assert_eq!(secret.metadata().unwrap().mode() & 0o7777, 0o644);
        assert_eq!(std::fs::read_dir(self.dir.path().join("outside")).unwrap().count(), 1);
        assert_eq!(std::fs::read_dir(self.dir.path()).unwrap().count(), 2);
    }

    #[track_caller]
    fn refuses(&self, entries: &[Hostile], why: &str) {
        let error = self.extract(entries, Some("top"), false).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
        self.check_outside();
    }
}

#[test]
fn an_honest_tree_is_extracted_under_its_new_name() {
    let sandbox = Sandbox::new();
    let entries = [
        folder("src"),
        file("src/a", "hello"),
        folder("src/d"),
        link("src/d/l", "../a"),
        hard_link("src/h", "src/a"),
    ];
    let summary = sandbox.extract(&entries, Some("new"), false).unwrap();
    assert_eq!(summary.bytes, 5);
    let new = sandbox.inside().join("new");
    assert_eq!(std::fs::read_to_string(new.join("h")).unwrap(), "hello");
    assert_eq!(std::fs::read_link(new.join("d/l")).unwrap(), Path::new("../a"));
    assert_eq!(new.join("a").metadata().unwrap().mtime(), 1_700_000_000);
    assert_eq!(new.join("d").metadata().unwrap().mtime(), 1_700_000_000);
    assert_eq!(new.join("d").metadata().unwrap().mode() & 0o777, 0o755);
    assert_eq!(new.join("a").metadata().unwrap().nlink(), 2);
}

#[test]
fn content_goes_right_into_the_folder_and_existing_files_are_replaced() {
    let sandbox = Sandbox::new();
    let target = sandbox.inside().join("a");
    std::fs::write(&target, "old").unwrap();
    // Another name of the old file keeps the old content.
    std::fs::hard_link(&target, sandbox.inside().join("other")).unwrap();
    sandbox.extract(&[folder("src"), file("src/a", "new")], None, false).unwrap();
    assert_eq!(std::fs::read_to_string(&target).unwrap(), "new");
    assert_eq!(std::fs::read_to_string(sandbox.inside().join("other")).unwrap(), "old");
    sandbox.extract(&[folder("./"), folder("./b"), file("./b/c", "x")], None, false).unwrap();
    assert_eq!(std::fs::read_to_string(sandbox.inside().join("b/c")).unwrap(), "x");
}

#[test]
fn dots_never_lead_out() {
    let sandbox = Sandbox::new();
    sandbox.refuses(&[folder("top"), file("top/../../outside/new", "x")], "..");
    sandbox.refuses(&[file("../outside/secret", "x")], "..");
    sandbox.refuses(&[folder("top"), hard_link("top/h", "../outside/secret")], "..");
}

#[test]
fn absolute_paths_stay_below_the_folder() {
    let sandbox = Sandbox::new();
    sandbox.refuses(&[folder("top"), file("/etc/cron.d/x", "x")], "outside of what was asked for");
    sandbox.extract(&[file("/etc/passwd", "x")], Some("f"), false).unwrap();
    assert_eq!(std::fs::read_to_string(sandbox.inside().join("f")).unwrap(), "x");
    sandbox.check_outside();
}

#[test]
fn links_in_the_archive_are_never_followed() {
    let sandbox = Sandbox::new();
    let through = "link or file";
    sandbox
        .refuses(&[folder("top"), link("top/l", "../../outside"), file("top/l/new", "x")], through);
    Sandbox::new().refuses(&[link("top", "../outside"), file("top/new", "x")], through);
    sandbox.refuses(&[folder("top"), link("top/m", "/"), folder("top/m/tmp/x")], through);
    // The same path first as a link, then as a folder.
    sandbox.refuses(
        &[folder("top"), link("top/d", "../../outside"), folder("top/d")],
        "a file stands",
    );
}

#[test]
fn a_link_at_the_place_of_a_file_is_replaced_and_not_written_through() {
    let sandbox = Sandbox::new();
    let entries = [folder("top"), link("top/f", "../../outside/secret"), file("top/f", "mine")];
    sandbox.extract(&entries, Some("top"), false).unwrap();
    let written = sandbox.inside().join("top/f");
    assert!(written.symlink_metadata().unwrap().is_file());
    assert_eq!(std::fs::read_to_string(written).unwrap(), "mine");
    sandbox.check_outside();
}

#[test]
fn a_hard_link_to_a_link_is_no_way_to_its_target() {
    let sandbox = Sandbox::new();
    let entries = [
        folder("top"),
        link("top/l", "../../outside/secret"),
        hard_link("top/h", "top/l"),
        file("top/h", "mine"),
    ];
    sandbox.extract(&entries, Some("top"), false).unwrap();
    sandbox.check_outside();
}

#[test]
fn links_of_the_host_below_the_folder_are_not_followed_either() {
    let sandbox = Sandbox::new();
    symlink("../outside", sandbox.inside().join("top")).unwrap();
    sandbox.refuses(&[folder("top"), file("top/new", "x")], "a file stands");
}

#[test]
fn files_and_folders_do_not_replace_each_other() {
    let sandbox = Sandbox::new();
    sandbox.refuses(&[folder("top"), folder("top/x"), file("top/x", "")], "a folder stands");
    sandbox.refuses(&[folder("top"), file("top/y", ""), folder("top/y")], "a file stands");
    sandbox.refuses(&[folder("top"), hard_link("top/z", "top/none")], "No such file");
}

#[test]
fn setuid_bits_owners_and_devices_do_not_come_along() {
    let sandbox = Sandbox::new();
    let device = |kind, path| Hostile { kind, path, link: "", content: "", mode: 0o666 };
    let entries = [
        folder("top"),
        Hostile { mode: 0o6755, ..file("top/suid", "x") },
        Hostile { mode: 0o1000, ..folder("top/locked") },
        file("top/locked/in", "x"),
        device(EntryType::Char, "top/mem"),
        device(EntryType::Block, "top/disk"),
        device(EntryType::Fifo, "top/pipe"),
    ];
    let summary = sandbox.extract(&entries, Some("top"), false).unwrap();
    assert_eq!(summary.skipped.len(), 3);
    let top = sandbox.inside().join("top");
    let metadata = top.join("suid").metadata().unwrap();
    assert_eq!(metadata.mode() & 0o7777, 0o755);
    assert_eq!(metadata.uid(), rustix::process::geteuid().as_raw());
    assert_eq!(top.join("locked").metadata().unwrap().mode() & 0o7777, 0o700);
    for name in ["mem", "disk", "pipe"] {
        assert!(top.join(name).symlink_metadata().is_err(), "{name}");
    }
    let any_device = std::fs::read_dir(&top)
        .unwrap()
        .any(|entry| entry.unwrap().file_type().unwrap().is_block_device());
    assert!(!any_device);
}

#[test]
fn everything_is_kept_when_asked() {
    let sandbox = Sandbox::new();
    let entries = [folder("top"), Hostile { mode: 0o4755, ..file("top/suid", "x") }];
    sandbox.extract(&entries, Some("top"), true).unwrap();
    let metadata = sandbox.inside().join("top/suid").metadata().unwrap();
    assert_eq!(metadata.permissions().mode() & 0o7777, 0o4755);
    if rustix::process::geteuid().is_root() {
        assert_eq!(metadata.uid(), 12345);
    }
}

proptest::proptest! {
    /// Whatever an archive says, nothing outside changes.
    #[test]
    fn no_archive_reaches_outside(
        choices in proptest::collection::vec((0_usize..4, 0_usize..6, 0_usize..5), 0..12),
    ) {
        const PATHS: [&str; 6] = ["top", "top/a", "top/a/secret", "top/b", "top/a/b", "top/../x"];
        const LINKS: [&str; 5] = ["../../outside", "/", "top/a", "top", "../outside/secret"];
        let sandbox = Sandbox::new();
        let entries: Vec<_> = choices
            .into_iter()
            .map(|(kind, path, target)| match kind {
                0 => folder(PATHS[path]),
                1 => file(PATHS[path], "x"),
                2 => link(PATHS[path], LINKS[target]),
                _ => hard_link(PATHS[path], LINKS[target]),
            })
            .collect();
        let _ = sandbox.extract(&entries, Some("top"), false);
        sandbox.check_outside();
    }
}
