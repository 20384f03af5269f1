// SPDX-License-Identifier: Apache-2.0
//! Which driver is used, and what `info` and `doctor` say about it. Each state of KVM is brought
//! about: the daemon sees another `/dev/kvm` in a mount namespace of its own, or a real one in the
//! lab.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::Path;
use std::process::{Command, Stdio};

use hc_testkit::{Host, Output, is_root, skip};
use serde_json::Value;

const KVM: &str = "/dev/kvm";

/// Ends a setup: `hyper` and its arguments follow.
const GO: &str = r#"exec "$@""#;

/// Runs `hyper` after a shell script, in a mount namespace of its own in which the daemon that it
/// starts stays.
fn hyper_after(host: &Host, setup: &str, args: &[&str]) -> Output {
    let hyper = host.command(args);
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-e", "-c", setup, "sh"]).arg(hyper.get_program());
    command.args(hyper.get_args()).stdin(Stdio::null());
    for (name, value) in hyper.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.output().unwrap().into()
}

/// What `info` says as JSON.
fn parse(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[track_caller]
fn str_of<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("no {key} in {value}"))
}

/// Finds a driver's report.
#[track_caller]
fn driver<'a>(info: &'a Value, name: &str) -> &'a Value {
    let drivers = info["drivers"].as_array().unwrap();
    drivers.iter().find(|each| each["name"] == name).unwrap_or_else(|| panic!("no {name}: {info}"))
}

/// Without a usable KVM: every driver of KVM's is unusable, the reason is the sentence that holds
/// for KVM, and a pod gets QEMU's translator.
#[track_caller]
fn check_unusable(info: &Value, state: &str, sentence: &str) {
    assert_eq!(info["kvm"]["state"], state, "{info}");
    assert_eq!(info["kvm"]["usable"], false);
    let finding = str_of(&info["kvm"], "finding");
    assert!(finding.starts_with(sentence), "{finding}");
    let qemu_kvm = driver(info, "qemu-kvm");
    assert_eq!(qemu_kvm["usable"], false);
    assert_eq!(str_of(qemu_kvm, "finding"), finding);
    assert_eq!(qemu_kvm["hint"], info["kvm"]["hint"]);
    assert_eq!(info["driver"], "qemu-tcg");
    assert_eq!(
        str_of(info, "driver_reason"),
        format!("{finding}, so guests are translated by QEMU")
    );
}

/// An installation whose daemon runs in the namespace that `setup` makes, and what it finds there.
fn started_after(setup: &str) -> Option<(Host, Value)> {
    if !is_root() {
        skip("needs root to give a daemon another /dev/kvm");
        return None;
    }
    let host = Host::new()?;
    let setup = setup.replace("$HOST", &host.path().display().to_string());
    let info = parse(&hyper_after(&host, &setup, &["info", "--format", "json"]).ok());
    Some((host, info))
}

/// Someone who names a driver that cannot be used is told why, and gets no other.
#[track_caller]
fn check_refused(host: &Host, info: &Value) {
    host.busybox();
    let refused = host.hyper(["run", "--rm", "--driver", "qemu-kvm", "busybox", "true"]);
    refused.fails(125, str_of(&info["kvm"], "finding"));
    let hint = format!("hint: {}", str_of(&info["kvm"], "hint"));
    assert!(refused.stderr.contains(&hint), "{refused:?}");
    assert_eq!(host.hyper(["ps", "--all", "--quiet"]).ok(), "");
}

#[test]
fn info_and_doctor_tell_the_same_about_kvm_each_driver_and_the_choice() {
    let Some(host) = Host::new() else { return };
    let info = parse(&host.hyper(["info", "--format", "json"]).ok());
    let chosen = driver(&info, str_of(&info, "driver"));
    assert_eq!(chosen["usable"], true, "{info}");
    assert!(Path::new(str_of(chosen, "program")).exists());
    let texts = [host.hyper(["info"]).ok(), host.hyper(["doctor"]).stdout];
    for text in texts {
        for key in ["driver", "driver_reason"] {
            assert!(text.contains(str_of(&info, key)), "{key}: {text}");
        }
        assert!(text.contains(str_of(&info["kvm"], "finding")), "{text}");
        for driver in info["drivers"].as_array().unwrap() {
            let name = str_of(driver, "name");
            let finding = match str_of(driver, "finding") {
                finding if finding == str_of(&info["kvm"], "finding") => "it needs KVM",
                finding => finding,
            };
            let told = text.lines().any(|line| line.contains(name) && line.contains(finding));
            assert!(told, "{name}: {finding}: {text}");
        }
    }
    if let Some(rate) = info["kvm"].get("loops_per_second") {
        assert!(rate.as_u64().unwrap() > 0);
        assert!(str_of(&info["kvm"], "finding").contains("loop turns a second"));
    }
}

#[test]
fn without_a_device_kvm_is_absent_and_a_pod_runs_by_translation() {
    let setup = "mkdir $HOST/dev; mount --rbind /dev $HOST/dev; mount -t tmpfs dev /dev
        for name in null zero full random urandom tty; do
            touch /dev/$name; mount --bind $HOST/dev/$name /dev/$name
        done
        ln -s /proc/self/fd /dev/fd; ";
    let Some((host, info)) = started_after(&(setup.to_owned() + GO)) else { return };
    check_unusable(&info, "absent", "this host has no /dev/kvm");
    check_refused(&host, &info);
    host.hyper(["run", "--name", "c", "busybox", "true"]).ok();
    assert_eq!(host.inspect("c")["driver"], "qemu-tcg");
    host.hyper(["rm", "c"]).ok();
    host.assert_clean();
}

#[test]
fn a_device_that_others_own_is_told_from_one_that_is_missing() {
    // Not even root may open it that has not the right to ignore permissions.
    let setup = "touch $HOST/kvm; chmod 000 $HOST/kvm; mount --bind $HOST/kvm /dev/kvm
        exec setpriv --bounding-set=-dac_override,-dac_read_search \"$@\"";
    let Some((host, info)) = started_after(&with_device(setup)) else { return };
    check_unusable(&info, "no-permission", "this user may not open /dev/kvm");
    assert!(str_of(&info["kvm"], "hint").contains("group"));
    check_refused(&host, &info);
    host.assert_clean();
}

#[test]
fn a_device_that_is_no_kvm_is_broken_and_the_failing_call_is_named() {
    let setup = "mount --bind /dev/null /dev/kvm; ".to_owned() + GO;
    let Some((host, info)) = started_after(&with_device(&setup)) else { return };
    check_unusable(&info, "broken", "KVM does not work: cannot create a VM: ");
    check_refused(&host, &info);
    host.assert_clean();
}

/// Something to mount over, where there is no KVM.
fn with_device(setup: &str) -> String {
    format!("[ -e /dev/kvm ] || {{ mount -t tmpfs dev /dev; touch /dev/kvm; }}\n{setup}")
}

#[test]
fn kvm_on_a_processor_without_virtualisation_is_emulated() {
    let processor = fs::read_to_string("/proc/cpuinfo").unwrap();
    let can = processor.split_ascii_whitespace().any(|flag| flag == "vmx" || flag == "svm");
    if can || !Path::new(KVM).exists() {
        return skip("no KVM without a processor behind it here");
    }
    let Some(host) = Host::new() else { return };
    let info = parse(&host.hyper(["info", "--format", "json"]).ok());
    if info["kvm"]["state"] == "no-permission" {
        return skip("no permission for /dev/kvm");
    }
    check_unusable(&info, "emulated", "KVM only emulates guest kernels here: ");
    assert!(info["kvm"]["loops_per_second"].as_u64().unwrap() > 1000);
    check_refused(&host, &info);
    host.assert_clean();
}

/// Whether KVM is what the lab's processor makes it. Elsewhere a test of that says that it skips.
fn in_lab() -> bool {
    let lab = std::env::var("HYPER_LAB").is_ok_and(|flavour| flavour == "kvm");
    if !lab {
        skip("needs a KVM that tests may take apart: lab/run kvm");
    }
    lab
}

#[test]
fn real_kvm_is_used_by_the_driver_that_is_built_in() {
    if !in_lab() {
        return;
    }
    let Some(host) = Host::new() else { return };
    let info = parse(&host.hyper(["info", "--format", "json"]).ok());
    let kvm = &info["kvm"];
    assert_eq!((&kvm["state"], &kvm["usable"]), (&"usable".into(), &true.into()), "{info}");
    assert!(kvm.get("hint").is_none(), "{kvm}");
    // The processor changes page tables by itself, and leaves the guest to be asked what it is.
    let rate = |key: &str| kvm[key].as_u64().unwrap_or_else(|| panic!("no {key} in {kvm}"));
    assert!(rate("page_table_changes_per_second") > 3 * rate("exits_per_second"), "{kvm}");
    assert_eq!(info["driver"], "kvm");
    assert_eq!(str_of(&info, "driver_reason"), str_of(kvm, "finding"));
    for name in ["kvm", "qemu-kvm", "qemu-tcg"] {
        assert_eq!(driver(&info, name)["usable"], true, "{name}: {info}");
    }
    host.busybox();
    for (options, expected) in [(&[][..], "kvm"), (&["--driver", "qemu-kvm"][..], "qemu-kvm")] {
        host.hyper([&["run", "--name", "c"][..], options, &["busybox", "true"][..]].concat()).ok();
        assert_eq!(host.inspect("c")["driver"], expected);
        host.hyper(["rm", "c"]).ok();
    }
    host.assert_clean();
}

#[test]
fn real_kvm_needs_no_other_program() {
    if !in_lab() {
        return;
    }
    let Some(host) = Host::new() else { return };
    // The daemon that this starts finds no program by its name.
    let info = host.command(["info", "--format", "json"]).env("PATH", "/nonexistent").output();
    let info = parse(&Output::from(info.unwrap()).ok());
    assert_eq!(driver(&info, "qemu-tcg")["usable"], false, "{info}");
    host.busybox();
    assert_eq!(host.hyper(["run", "--rm", "busybox", "sh", "-c", "exit 42"]).status, 42);
    host.assert_clean();
}

/// KVM's module, loaded without nested paging.
struct Shadowed;

impl Shadowed {
    fn load() -> Shadowed {
        reload_kvm("npt=0");
        Shadowed
    }
}

impl Drop for Shadowed {
    fn drop(&mut self) {
        reload_kvm("npt=1");
    }
}

/// The device is made anew, so it gets its owner and mode again.
fn reload_kvm(parameter: &str) {
    let before = fs::metadata(KVM).unwrap();
    let script = r#"busybox rmmod kvm_amd && busybox modprobe kvm_amd "$1""#;
    let loaded = Command::new("sh").args(["-c", script, "sh", parameter]).output().unwrap();
    Output::from(loaded).ok();
    chown(KVM, Some(before.uid()), Some(before.gid())).unwrap();
    fs::set_permissions(KVM, before.permissions()).unwrap();
}

#[test]
fn kvm_without_nested_paging_is_used_and_a_sentence_says_what_is_slow() {
    if !in_lab() {
        return;
    }
    let _shadowed = Shadowed::load();
    let Some(host) = Host::new() else { return };
    let info = parse(&host.hyper(["info", "--format", "json"]).ok());
    let kvm = &info["kvm"];
    assert_eq!((&kvm["state"], &kvm["usable"]), (&"no-nested-paging".into(), &true.into()));
    let finding = str_of(kvm, "finding");
    assert!(finding.starts_with("KVM works without nested paging: "), "{finding}");
    assert!(finding.ends_with(" changes of page tables"), "{finding}");
    assert!(str_of(kvm, "hint").contains("npt=1"), "{kvm}");
    // The clock says the same as the kernel.
    let rate = |key: &str| kvm[key].as_u64().unwrap_or_else(|| panic!("no {key} in {kvm}"));
    assert!(rate("page_table_changes_per_second") < 3 * rate("exits_per_second"), "{kvm}");
    assert_eq!(info["driver"], "kvm");
    let doctor = host.hyper(["doctor"]).stdout;
    let warning = doctor.lines().find(|line| line.contains("/dev/kvm")).unwrap();
    assert!(warning.starts_with("WARN") && warning.contains(finding), "{doctor}");
    host.busybox();
    host.hyper(["run", "--rm", "busybox", "true"]).ok();
    host.assert_clean();
}

#[test]
fn a_driver_in_the_configuration_counts_like_one_that_was_named() {
    let Some(host) = Host::new() else { return };
    host.configure("driver = \"bochs\"");
    host.hyper(["info"]).fails(1, "unknown driver \"bochs\"");
    host.configure("driver = \"qemu-tcg\"");
    let info = parse(&host.hyper(["info", "--format", "json"]).ok());
    assert_eq!(info["driver"], "qemu-tcg");
    assert_eq!(info["driver_reason"], "it was asked for");
}
