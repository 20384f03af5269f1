// SPDX-License-Identifier: Apache-2.0
//! Many pods, as fast as they come.

use std::process::{Child, Stdio};

use hc_testkit::{Host, until_ended};

use crate::table::{figure, group, millis, time};

const PODS: u32 = 50;

pub(crate) fn measure(host: &Host) {
    group("many: 50 pods of 128 MiB started at once, of one template");
    host.hyper(["template", "create", "--quiet", "-m", "64m"]).ok();
    let names: Vec<_> = (0..PODS).map(|number| format!("many-{number}")).collect();
    let start = |name: &String| -> Child {
        let mut command = host.command(["run", "-d", "-m", "64m", "--name", name]);
        command.args(["busybox", "sleep", "1000"]).stdout(Stdio::null()).spawn().unwrap()
    };
    let mut lost: u32 = 0;
    let took = time(|| {
        let runs: Vec<_> = names.iter().map(start).collect();
        lost = runs.into_iter().map(|mut run| u32::from(until_ended(&mut run) != 0)).sum();
    });
    let rate = f64::from(PODS) / took.as_secs_f64();
    figure("until all run", &millis(took), "");
    figure("pods a second", &format!("{rate:.2}"), "");
    figure("not started", &lost.to_string(), "none");
    let mut silent = 0;
    let mut booted = 0;
    for name in &names {
        let answer = host.hyper(["exec", name, "echo", "here"]);
        if answer.stdout != "here\n" {
            silent += 1;
        } else if !host.is_copy(name) {
            booted += 1;
        }
    }
    figure("without an answer", &silent.to_string(), "none");
    figure("that booted a kernel after all", &booted.to_string(), "none");
    host.hyper(["rm", "--force"].into_iter().chain(names.iter().map(String::as_str))).ok();
}
