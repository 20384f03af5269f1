// SPDX-License-Identifier: Apache-2.0
//! Pods that go on from templates, or in VMs that waited: as good as those that boot, and with
//! nothing in common; whatever happens to a template, pods run.

mod clock;
mod files;
mod kills;
mod pool;
mod rounds;
mod secrets;

use std::fs;
use std::path::PathBuf;

use hc_testkit::Host;

/// The files in the folder of templates.
fn files(host: &Host) -> Vec<PathBuf> {
    let entries = fs::read_dir(host.templates_dir()).into_iter().flatten();
    entries.map(|entry| entry.unwrap().path()).collect()
}

/// Whether a pod of the usual shape goes on from a template.
#[track_caller]
fn next_is_copy(host: &Host) -> bool {
    host.hyper(["run", "-d", "--name", "next", "busybox", "sleep", "600"]).ok();
    assert_eq!(host.hyper(["exec", "next", "echo", "here"]).ok(), "here");
    let is_copy = host.is_copy("next");
    host.hyper(["rm", "--force", "next"]).ok();
    is_copy
}

#[test]
fn the_second_pod_of_a_shape_goes_on_from_a_template() {
    let Some(host) = Host::new() else { return };
    host.busybox();
    assert!(!next_is_copy(&host));
    hc_testkit::until("the template is made", || host.templates().len() == 1);
    let template = &host.templates()[0];
    assert_eq!((&template["Memory"], &template["CPUs"]), (&"512MiB".into(), &1.into()));
    assert!(next_is_copy(&host));

    // Another size is another shape.
    let id = host.hyper(["template", "create", "--quiet", "-m", "64m"]).ok();
    let ids: Vec<_> = host.templates().iter().map(|row| row["ID"].clone()).collect();
    assert!(ids.len() == 2 && ids.contains(&id.clone().into()), "{id} {ids:?}");
    for (name, size, is_copy) in [("small", "64m", true), ("large", "96m", false)] {
        host.hyper(["run", "-d", "--name", name, "-m", size, "busybox", "sleep", "600"]).ok();
        assert_eq!(host.is_copy(name), is_copy, "{name}");
        host.hyper(["rm", "--force", name]).ok();
    }
    host.assert_clean();
}

#[test]
fn pods_boot_where_templates_are_switched_off() {
    let Some(host) = Host::new() else { return };
    host.configure("templates = \"off\"");
    host.busybox();
    for _ in 0..2 {
        assert!(!next_is_copy(&host));
    }
    assert!(host.templates().is_empty() && files(&host).is_empty());
    host.hyper(["template", "create"]).fails(1, "templates are switched off");
    host.assert_clean();
}
