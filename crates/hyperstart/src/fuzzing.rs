// SPDX-License-Identifier: Apache-2.0
//! What the fuzzer calls: every parser of bytes that a container, or an archive copied into one,
//! can choose.

use crate::{archive, cgroup, list, netlink, user};

/// Reads `bytes` as each of the things that they could be. Nothing may panic or hang.
pub fn read_everything(bytes: &[u8]) {
    archive::list(bytes);
    let _ = netlink::acknowledgements(bytes); // Only that it comes back matters, here and below.
    let text = String::from_utf8_lossy(bytes);
    let (wanted, files) = text.split_once('\n').unwrap_or((&text, ""));
    let _ = user::resolve(wanted, files, files);
    list::parse(&text);
    cgroup::parse(&text);
}
