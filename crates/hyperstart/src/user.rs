// SPDX-License-Identifier: Apache-2.0
//! Who a process runs as: an image's `USER` looked up in the container's own `/etc/passwd` and
//! `/etc/group`. Text in, numbers out; the files are the caller's to read.

use std::io;
use std::path::Path;

use hc_proto::message::FailureKind;

use crate::error::{Attempt as _, Error, Result};
use crate::root::Root;

/// The most that is read of either file; a real one has a few KiB.
pub(crate) const FILE_MAX: u64 = 4 << 20;
/// Supplementary groups beyond this are left out; the kernel takes no more (`NGROUPS_MAX`).
const GROUPS_MAX: usize = 65536;

/// A user as the kernel knows it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct User {
    /// The user.
    pub(crate) uid: u32,
    /// The primary group.
    pub(crate) gid: u32,
    /// Every further group.
    pub(crate) groups: Vec<u32>,
    /// The home directory.
    pub(crate) home: String,
}

/// A line of `/etc/passwd`.
struct Account<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

/// A line of `/etc/group`.
struct Group<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

/// Looks `wanted` up in the files of the container whose root is `root`.
pub(crate) fn look_up(root: &Root, wanted: &str) -> Result<User> {
    let read = |path: &str| -> Result<String> {
        let bytes = root.read(Path::new(path), FILE_MAX).attempt(|| format!("read {path}"))?;
        // Names that are no UTF-8 cannot be asked for, so they may as well be garbled.
        Ok(String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned())
    };
    resolve(wanted, &read("/etc/passwd")?, &read("/etc/group")?)
}

/// Resolves `wanted`, which is `user`, `uid`, `user:group` or any mix, against the two files.
///
/// As in Docker: a number that no line has is good as it is, with group 0; a group that is named
/// itself replaces the primary one, and then there are no supplementary ones.
pub(crate) fn resolve(wanted: &str, passwd: &str, groups: &str) -> Result<User> {
    let (user, group) = match wanted.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (wanted, None),
    };
    let user = if user.is_empty() { "0" } else { user };
    let (uid, gid, name, home) = match find_account(user, passwd) {
        Some(account) => (account.uid, account.gid, account.name, account.home),
        None => (number(user).ok_or_else(|| unknown("user", user, "passwd"))?, 0, "", ""),
    };
    let home = if home.is_empty() { "/" } else { home }.to_owned();
    if let Some(group) = group {
        let gid = find_group(group, groups)
            .or_else(|| number(group))
            .ok_or_else(|| unknown("group", group, "group"))?;
        return Ok(User { uid, gid, groups: Vec::new(), home });
    }
    let supplementary = parse_groups(groups)
        .filter(|group| !name.is_empty() && group.members.split(',').any(|m| m.trim() == name))
        .map(|group| group.gid)
        .filter(|found| *found != gid)
        .take(GROUPS_MAX)
        .collect();
    Ok(User { uid, gid, groups: supplementary, home })
}

fn unknown(what: &str, name: &str, file: &str) -> Error {
    let name: String = name.chars().take(64).collect();
    Error::new(
        FailureKind::UserNotFound,
        format!("unable to find {what} {name}: no matching entries in {file} file"),
    )
}

/// The account of that name, or else of that number.
fn find_account<'a>(wanted: &str, passwd: &'a str) -> Option<Account<'a>> {
    let uid = number(wanted);
    parse_passwd(passwd)
        .find(|account| account.name == wanted)
        .or_else(|| parse_passwd(passwd).find(|account| Some(account.uid) == uid))
}

fn find_group(wanted: &str, groups: &str) -> Option<u32> {
    parse_groups(groups).find(|group| group.name == wanted).map(|group| group.gid)
}

/// A user or group number. The last one is the kernel's word for "none".
fn number(text: &str) -> Option<u32> {
    text.parse().ok().filter(|number| *number != u32::MAX)
}

/// The accounts in the text of `/etc/passwd`; lines that make no sense are left out.
fn parse_passwd(text: &str) -> impl Iterator<Item = Account<'_>> {
    text.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let (name, uid, gid) = (fields.next()?, fields.nth(1)?, fields.next()?);
        let home = fields.nth(1).unwrap_or_default();
        Some(Account { name, uid: number(uid)?, gid: number(gid)?, home })
    })
}

/// The groups in the text of `/etc/group`; lines that make no sense are left out.
fn parse_groups(text: &str) -> impl Iterator<Item = Group<'_>> {
    text.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let (name, gid) = (fields.next()?, fields.nth(1)?);
        Some(Group { name, gid: number(gid)?, members: fields.next().unwrap_or_default() })
    })
}

/// Takes on the identity of `user`, for good.
///
/// With any user but root this gives up every capability in force, as the kernel has it.
pub(crate) fn become_user(user: &User) -> io::Result<()> {
    use rustix::process::{Gid, Uid};
    use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
    let groups: Vec<Gid> = user.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    set_thread_groups(&groups)?;
    set_thread_res_gid(gid, gid, gid)?;
    Ok(set_thread_res_uid(uid, uid, uid)?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n\
        # a comment\n\
        broken:x:many:0::/:\n\
        app:x:1000:1001:App,,,:/home/app:/bin/sh\n\
        1000:x:7:7::/seven:\n\
        bare:x:2000:2000\n";
    const GROUP: &str = "root:x:0:\n\
        app:x:1001:app\n\
        wheel:x:10:root,app\n\
        audio:x:29: app , other\n\
        broken\n";

    #[track_caller]
    fn check(wanted: &str, uid: u32, gid: u32, groups: &[u32], home: &str) {
        let user = resolve(wanted, PASSWD, GROUP).unwrap();
        assert_eq!(user, User { uid, gid, groups: groups.to_vec(), home: home.into() }, "{wanted}");
    }

    #[test]
    fn users_and_groups_resolve_as_in_docker() {
        check("", 0, 0, &[10], "/root");
        check("root", 0, 0, &[10], "/root");
        check("0", 0, 0, &[10], "/root");
        check("app", 1000, 1001, &[10, 29], "/home/app");
        check("app:", 1000, 1001, &[10, 29], "/home/app");
        check("app:wheel", 1000, 10, &[], "/home/app");
        check("app:55", 1000, 55, &[], "/home/app");
        check(":wheel", 0, 10, &[], "/root");
        check("4242", 4242, 0, &[], "/");
        check("4242:4343", 4242, 4343, &[], "/");
        check("bare", 2000, 2000, &[], "/");
    }

    #[test]
    fn a_name_of_digits_wins_over_the_number() {
        check("1000", 7, 7, &[], "/seven");
    }

    #[test]
    fn who_is_in_no_file_is_not_found() {
        for wanted in ["nobody", "app:nogroup", "-1", "4294967295", "4294967296", "app:-5"] {
            let error = resolve(wanted, PASSWD, GROUP).unwrap_err();
            assert_eq!(error.kind, FailureKind::UserNotFound, "{wanted}");
        }
        assert_eq!(
            resolve("nobody", PASSWD, GROUP).unwrap_err().message,
            "unable to find user nobody: no matching entries in passwd file"
        );
    }

    proptest! {
        #[test]
        fn any_files_are_read_without_panic(wanted: String, passwd: String, groups: String) {
            let _ = resolve(&wanted, &passwd, &groups);
        }

        #[test]
        fn an_account_is_found_among_others(
            name in "[a-z][a-z0-9_-]{0,8}",
            uid in 0..u32::MAX,
            gid in 0..u32::MAX,
            noise in "([^\n:]{0,9}:){0,2}[^\n:]{0,9}",
        ) {
            let passwd = format!("{noise}\n{name}:x:{uid}:{gid}::/h:/bin/sh\n");
            let user = resolve(&name, &passwd, "").unwrap();
            prop_assert_eq!((user.uid, user.gid, user.home.as_str()), (uid, gid, "/h"));
        }
    }
}
