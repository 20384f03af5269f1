// SPDX-License-Identifier: Apache-2.0
//! What may befall a template's file. Pods run all the same.

use std::fs;
use std::path::Path;

use hc_testkit::{Host, until};

use super::{files, next_is_copy};

/// The one template's file.
#[track_caller]
fn only_file(host: &Host) -> std::path::PathBuf {
    let files = files(host);
    assert_eq!(files.len(), 1, "{files:?}");
    files.into_iter().next().unwrap()
}

/// Waits until a pod goes on from a template again.
fn until_made(host: &Host) {
    until("a template is made", || next_is_copy(host));
}

/// What is damaged, and how.
type Damage<'a> = (&'a str, &'a dyn Fn(&Path));

/// Damages the template's file in each way. The daemon must say `complaint`, boot the next pod, and
/// make a new file.
fn check(complaint: &str, ways: &[Damage<'_>]) {
    let Some(host) = Host::new() else { return };
    host.busybox();
    host.hyper(["template", "create", "--quiet"]).ok();
    let file = only_file(&host);
    let whole_len = fs::metadata(&file).unwrap().len();
    for (what, damage) in ways {
        // A daemon that has read the file does so no more.
        host.kill_daemon();
        damage(&file);
        let before = host.daemon_log().len();
        assert!(!next_is_copy(&host), "{what}");
        let said = host.daemon_log()[before..].to_owned();
        assert!(
            said.contains("template cannot be used") && said.contains(complaint),
            "{what}: {said}"
        );
        until_made(&host);
        let new_len = fs::metadata(only_file(&host)).unwrap().len();
        assert!(new_len > whole_len / 2, "{what}: {new_len}, once {whole_len}");

        // What was made is good for the next daemon as well.
        host.kill_daemon();
        assert!(next_is_copy(&host), "{what}");
    }
    host.assert_clean();
}

#[test]
fn a_template_that_was_cut_or_changed_is_found_out_and_replaced() {
    let change = |file: &Path, at: &dyn Fn(usize) -> usize| {
        let mut bytes = fs::read(file).unwrap();
        let at = at(bytes.len());
        bytes[at] ^= 0x40;
        fs::write(file, bytes).unwrap();
    };
    let cut = |file: &Path, len: u64| {
        fs::File::options().write(true).open(file).unwrap().set_len(len).unwrap();
    };
    check(
        "damaged copy of a guest",
        &[
            ("a byte of the guest's memory", &|file| change(file, &|len| len / 2)),
            ("a byte of the checksum", &|file| change(file, &|len| len - 1)),
            ("a byte of the label", &|file| change(file, &|_| 40)),
            ("the magic", &|file| change(file, &|_| 0)),
            ("a byte more", &|file| {
                let bytes = [fs::read(file).unwrap(), vec![0]].concat();
                fs::write(file, bytes).unwrap();
            }),
        ],
    );
    check(
        "fill whole buffer",
        &[
            ("the second half", &|file| cut(file, fs::metadata(file).unwrap().len() / 2)),
            ("all but its beginning", &|file| cut(file, 20)),
            ("everything", &|file| cut(file, 0)),
        ],
    );
}

#[test]
fn a_template_whose_label_is_another_templates_is_not_used() {
    let Some(host) = Host::new() else { return };
    host.busybox();
    host.hyper(["template", "create", "--quiet"]).ok();
    let file = only_file(&host);
    host.hyper(["template", "create", "--quiet", "-m", "64m"]).ok();
    let other = files(&host).into_iter().find(|other| *other != file).unwrap();
    let other_key = other.file_stem().unwrap().to_str().unwrap().to_owned();
    host.kill_daemon();
    fs::copy(&other, &file).unwrap();
    assert!(!next_is_copy(&host));
    let log = host.daemon_log();
    assert!(log.contains(&format!("it says that it is {other_key}")), "{log}");
    until_made(&host);
    let mut ids: Vec<_> = host.templates().iter().map(|row| row["ID"].to_string()).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 2);
    host.assert_clean();
}

#[test]
fn a_template_may_be_removed_while_pods_run_that_went_on_from_it() {
    let Some(host) = Host::new() else { return };
    host.busybox();
    let id = host.hyper(["template", "create", "--quiet"]).ok();
    let start = |name: &str| {
        let script = "i=0; while :; do i=$((i+1)); echo $i >/count; usleep 10000; done";
        host.hyper(["run", "-d", "--name", name, "busybox", "sh", "-c", script]).ok();
    };
    let counts = |name: &str| {
        let count = || {
            let text = host.hyper(["exec", name, "cat", "/count"]).stdout;
            text.trim().parse::<u32>().unwrap_or(0)
        };
        let first = count();
        until("it counts on", || count() > first + 1);
    };
    start("x");
    assert!(host.is_copy("x"));

    // Removed behind the daemon's back: it has read it.
    fs::remove_file(only_file(&host)).unwrap();
    counts("x");
    assert!(next_is_copy(&host));

    // Behind the back of one that has not.
    host.kill_daemon();
    counts("x");
    assert!(!next_is_copy(&host));
    until_made(&host);
    counts("x");

    // As one should.
    assert!(host.hyper(["template", "rm", &id[..8]]).ok().starts_with(&id[..8]));
    assert!(files(&host).is_empty() && host.templates().is_empty());
    counts("x");
    host.hyper(["template", "rm", &id]).fails(1, "template");
    assert!(!next_is_copy(&host));
    until_made(&host);
    start("y");
    host.hyper(["template", "prune"]).ok();
    assert!(files(&host).is_empty());
    counts("x");
    counts("y");
    host.hyper(["rm", "--force", "x", "y"]).ok();
    host.assert_clean();
}

#[test]
fn a_template_of_another_kernel_or_init_is_not_used() {
    let Some(mut host) = Host::new() else { return };
    let lib = host.own_lib();
    host.busybox();
    host.hyper(["template", "create", "--quiet"]).ok();
    assert!(next_is_copy(&host));
    for (number, part) in ["vmlinux", "hyperstart"].iter().enumerate() {
        // It does the same and is another.
        let path = lib.join(part);
        let bytes = [fs::read(&path).unwrap(), vec![0]].concat();
        let mode = fs::metadata(&path).unwrap().permissions();
        fs::remove_file(&path).unwrap();
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, mode).unwrap();
        host.kill_daemon();
        assert!(!next_is_copy(&host), "{part}");
        until_made(&host);
        assert_eq!(host.templates().len(), number + 2, "{part}");
    }
    host.assert_clean();
}
