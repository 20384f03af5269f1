// SPDX-License-Identifier: Apache-2.0
//! Copying into and out of a container.

use hc_proto::message::{PathStat, Program};
use hc_spec::Exit;

use crate::host::{Host, container};
use crate::machine::Devices;

fn file_header(size: u64, uid: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o4755);
    header.set_uid(uid);
    header.set_gid(uid);
    header.set_mtime(1_500_000_000);
    header.set_size(size);
    header
}

#[test]
fn files_go_in_and_come_out_as_they_are() {
    let Some(mut host) = Host::boot(&Devices::default()) else { return };
    // Before anything runs, too: the host may fill a container that it has only made.
    let id = host.create(&container(1));
    let mut builder = tar::Builder::new(Vec::new());
    // As `setcap cap_net_raw+ep` writes it, line break byte and all.
    let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    builder.append_pax_extensions([("SCHILY.xattr.security.capability", &capability[..])]).unwrap();
    builder.append_data(&mut file_header(5, 1000), "dir/tool", &b"hello"[..]).unwrap();
    let mut link = tar::Header::new_gnu();
    link.set_entry_type(tar::EntryType::Symlink);
    link.set_size(0);
    builder.append_link(&mut link, "dir/link", "/absolute").unwrap();
    let archive = builder.into_inner().unwrap();

    let unpack = |path: &str, keep_owner| Program::Unpack { path: path.into(), keep_owner };
    for (path, keep_owner) in [("/data", true), ("/tmp", false)] {
        let outcome = host.run(&id, unpack(path, keep_owner), &archive);
        assert_eq!((outcome.exit, outcome.stderr.as_str()), (Exit::Code(0), ""));
    }
    let outcome = host.sh(
        &id,
        "cd /data/dir; stat -c '%a %u %Y' tool; readlink link; \
                                stat -c %u /tmp/dir/tool",
    );
    assert_eq!(outcome.stdout, "4755 1000 1500000000\n/absolute\n0\n");

    let started =
        host.spawn(&id, false, Program::Pack { path: "/data/dir".into(), follow: false }).unwrap();
    assert_eq!(host.process_exit(started.process), Exit::Code(0));
    let packed = host.read_all(started.stdout);
    let mut out = tar::Archive::new(&packed[..]);
    let mut found = Vec::new();
    for entry in out.entries().unwrap() {
        let mut entry = entry.unwrap();
        let attributes: Vec<_> = entry
            .pax_extensions()
            .unwrap()
            .into_iter()
            .flatten()
            .map(|record| record.unwrap())
            .filter(|record| record.key_bytes() == b"SCHILY.xattr.security.capability")
            .map(|record| record.value_bytes().to_vec())
            .collect();
        let path = entry.path().unwrap().display().to_string();
        found.push((path, entry.header().mode().unwrap(), attributes));
    }
    assert_eq!(
        found,
        [
            ("dir/".to_owned(), 0o755, vec![]),
            ("dir/link".to_owned(), 0o777, vec![]),
            ("dir/tool".to_owned(), 0o4755, vec![capability.to_vec()]),
        ]
    );
}

#[test]
fn what_is_at_a_path_is_told() {
    let Some(mut host) = Host::boot(&Devices::default()) else { return };
    let id = host.create(&container(1));
    let mut stat = |path: &str| host.run(&id, Program::Stat { path: path.into() }, &[]);
    let outcome = stat("/etc/passwd");
    let found: PathStat = serde_json::from_str(&outcome.stdout).unwrap();
    assert_eq!((found.name.as_str(), found.mode), ("passwd", 0o100_644));
    assert!(found.size > 10);
    let absent = stat("/etc/absent");
    assert_eq!(absent.exit, Exit::Code(1));
    assert_eq!(absent.stderr, "/etc/absent: no such file or directory\n");
}

#[test]
fn an_archive_that_cannot_be_unpacked_says_why() {
    let Some(mut host) = Host::boot(&Devices::default()) else { return };
    let id = host.create(&container(1));
    let unpack = |path: &str| Program::Unpack { path: path.into(), keep_owner: false };
    let outcome = host.run(&id, unpack("/etc/passwd"), &[]);
    assert_eq!(
        (outcome.exit, outcome.stderr.as_str()),
        (Exit::Code(1), "/etc/passwd: not a directory\n")
    );
    let outcome = host.run(&id, unpack("/data"), &[7; 600]);
    assert_eq!(outcome.exit, Exit::Code(1));
    assert!(outcome.stderr.contains("checksum"), "{outcome:?}");
}
