// SPDX-License-Identifier: Apache-2.0
//! The time of day in guests that stood still while they were a template.

use hc_testkit::Host;

use crate::probe::{assert_clock_is_right, start_with_probe};

#[test]
fn a_pod_of_a_template_has_the_time_of_its_start() {
    let Some(host) = Host::new() else { return };
    host.configure("pool = 1");
    host.busybox();
    // One goes on from a template, one has a VM that has waited.
    host.hyper(["template", "create", "--quiet", "--cpus", "2"]).ok();
    host.until_waiting(1);
    for (name, cpus) in [("copy", "2"), ("waited", "1")] {
        start_with_probe(&host, name, &["--cpus", cpus]);
        assert!(host.is_copy(name), "{name}");
        assert_clock_is_right(&host, name);
    }
    host.hyper(["rm", "--force", "copy", "waited"]).ok();
    host.assert_clean();
}
