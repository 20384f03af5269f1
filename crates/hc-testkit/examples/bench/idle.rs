// SPDX-License-Identifier: Apache-2.0
//! What pods cost that do nothing.

use hc_testkit::{Host, memory_kib};

use crate::memory::Memory;
use crate::table::{figure, group, mib};

const PODS: usize = 20;

pub(crate) fn measure(host: &Host) {
    group("idle: 20 pods of 128 MiB that sleep, of one template; PSS of one more pod");
    host.hyper(["template", "create", "--quiet", "-m", "64m"]).ok();
    let names: Vec<_> = (0..PODS).map(|number| format!("idle-{number}")).collect();
    let mut first = Memory::default();
    for name in &names {
        host.hyper(["run", "-d", "-m", "64m", "--name", name, "busybox", "sleep", "1000"]).ok();
        if name == &names[0] {
            first = Memory::of(host, [name]);
        }
    }
    let all = Memory::of(host, &names);
    (all - first).each(PODS - 1).print("at most 30 MiB");
    let daemon = memory_kib(host.daemon_pid(), "smaps_rollup", "Pss").unwrap();
    figure("hyperd", &mib(daemon), "at most 25 MiB");
    host.hyper(["rm", "--force"].into_iter().chain(names.iter().map(String::as_str))).ok();
}
