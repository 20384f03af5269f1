// SPDX-License-Identifier: Apache-2.0
//! Two pods of one template never share what must be a pod's own.

use hc_testkit::Host;

use crate::probe::{assert_nothing_in_common, start_with_probe};

#[test]
fn two_pods_of_one_template_have_nothing_secret_in_common() {
    let Some(host) = Host::new() else { return };
    host.busybox();
    host.hyper(["template", "create", "--quiet"]).ok();
    check(&host);
}

#[test]
fn two_vms_that_waited_have_nothing_secret_in_common() {
    let Some(host) = Host::new() else { return };
    host.configure("pool = 2");
    host.busybox();
    host.until_waiting(2);
    check(&host);
}

fn check(host: &Host) {
    for name in ["a", "b"] {
        start_with_probe(host, name, &[]);
        assert!(host.is_copy(name), "{name}");
    }
    assert_nothing_in_common(host, ["a", "b"]);
    host.hyper(["rm", "--force", "a", "b"]).ok();
    host.assert_clean();
}
