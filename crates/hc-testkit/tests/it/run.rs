// SPDX-License-Identifier: Apache-2.0

use hc_testkit::Host;

#[test]
fn a_program_runs_and_its_output_and_status_come_back() {
    let Some(host) = Host::new() else { return };
    host.busybox();
    let output =
        host.hyper(["run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2; exit 7"]);
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("out\n", "err\n"));
    assert_eq!(output.status, 7);
    host.assert_clean();
}
