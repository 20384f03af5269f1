// SPDX-License-Identifier: Apache-2.0
//! From boot to power-off.

use hc_proto::message::{Answer, Call};
use hc_spec::Exit;

use crate::host::{Host, container};
use crate::machine::Devices;

#[test]
fn a_program_runs_and_the_pod_shuts_down() {
    let Some(mut host) = Host::boot(&Devices::default()) else { return };
    let id = host.sleeper(&container(1));
    let outcome = host.sh(&id, "echo out; echo err >&2; exit 42");
    assert_eq!(outcome.exit, Exit::Code(42));
    assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), ("out\n", "err\n"));
    assert_eq!(host.call(Call::Shutdown), Ok(Answer::Done));
    assert!(host.machine.ends());
}
