// SPDX-License-Identifier: Apache-2.0
//! Two who want the same thing at once.

use std::process::Child;

use hc_testkit::{Host, processes_using, until};
use serde_json::Value;

use super::{finish, start};

#[test]
fn of_two_runs_with_one_name_one_wins_and_one_is_told() {
    let Some(host) = Host::new() else { return };
    host.busybox();
    host.daemon_pid();
    for _ in 0..3 {
        let run = ["run", "--name", "x", "busybox", "echo", "mine"];
        let runs: Vec<Child> = (0..2).map(|_| start(&mut host.command(run))).collect();
        let mut outputs: Vec<_> = runs.into_iter().map(finish).collect();
        outputs.sort_by_key(|output| output.status);
        assert_eq!((outputs[0].status, outputs[0].stdout.as_str()), (0, "mine\n"), "{outputs:?}");
        outputs[1].fails(125, "name x is in use by container");
        host.hyper(["rm", "x"]).ok();
        host.assert_clean();
    }
}

#[test]
fn commands_that_find_no_daemon_at_once_start_one() {
    let Some(host) = Host::new() else { return };
    let version = ["version", "--format", "json"];
    let asked: Vec<Child> = (0..8).map(|_| start(&mut host.command(version))).collect();
    let daemon = |child| {
        let version: Value = serde_json::from_str(&finish(child).ok()).unwrap();
        u32::try_from(version["server"]["pid"].as_u64().unwrap()).unwrap()
    };
    let mut daemons: Vec<u32> = asked.into_iter().map(daemon).collect();
    daemons.dedup();
    assert_eq!(daemons.len(), 1, "{daemons:?}");
    let data = host.data_dir().display().to_string();
    until("no other daemon is left", || processes_using(&data) == daemons);
}
