// SPDX-License-Identifier: Apache-2.0
//! What a test sees of templates, and of VMs that go on from copies.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use crate::{Host, children_of, until};

/// What the files in memory are called which copied guests are in, so that whatever goes on from one
/// has it in its maps.
const GUEST_FILE: &str = "/memfd:guest-memory";

impl Host {
    /// The folder of templates.
    pub fn templates_dir(&self) -> PathBuf {
        self.data_dir().join("templates")
    }

    /// What `hyper template ls` says.
    #[track_caller]
    pub fn templates(&self) -> Vec<Value> {
        let text = self.hyper(["template", "ls", "--no-trunc", "--format", "json"]).ok();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Runs one container, so that its template is made, and waits until this is there.
    #[track_caller]
    pub fn make_template(&self, options: &[&str]) {
        let known = self.templates().len();
        let run = ["run", "--rm"].iter().chain(options).chain(&["busybox", "true"]);
        self.hyper(run).ok();
        until("the template is made", || self.templates().len() > known);
    }

    /// Waits until `count` VMs wait for pods.
    #[track_caller]
    pub fn until_waiting(&self, count: u64) {
        let count_in = |row: &Value| row["Waiting"].as_u64().unwrap();
        until("VMs wait for pods", || count == self.templates().iter().map(count_in).sum::<u64>());
    }

    /// The hypervisor of a container.
    #[track_caller]
    pub fn hypervisor(&self, name: &str) -> u32 {
        let children = children_of(self.pod_pid(name));
        assert_eq!(children.len(), 1, "{children:?}");
        children[0]
    }

    /// Whether a container's guest goes on from a copy, and has not booted its kernel.
    #[track_caller]
    pub fn is_copy(&self, name: &str) -> bool {
        let maps = fs::read_to_string(format!("/proc/{}/maps", self.hypervisor(name))).unwrap();
        maps.contains(GUEST_FILE)
    }
}
