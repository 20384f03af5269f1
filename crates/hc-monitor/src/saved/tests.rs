// SPDX-License-Identifier: Apache-2.0

use super::*;

fn shape() -> Shape {
    Shape {
        vcpus: 0,
        memory_mib: 64,
        disks: vec![Access { read_only: true, durable: false }],
        card: true,
        shares: 0,
    }
}

/// A machine without processors, since there are none without KVM.
fn state() -> State {
    let zeros = |len| "0".repeat(2 * len);
    let chips = serde_json::json!({
        "controllers": zeros(3 * size_of::<kvm_bindings::kvm_irqchip>()),
        "timer": zeros(size_of::<kvm_bindings::kvm_pit_state2>()),
        "clock": 1_u64 << 40,
        "host_tsc": u64::MAX,
    });
    serde_json::from_value(serde_json::json!({
        "shape": shape(),
        "processor": { "abilities": zeros(80), "msrs": [16], "has_xcrs": false },
        "vcpus": [],
        "chips": chips,
        "serial": { "registers": [0, 0, 0, 0, 0, 0, 0, 0, 7], "line": "61" },
        "slots": [],
    }))
    .unwrap()
}

#[track_caller]
fn check(bytes: &[u8], shape: &Shape, reason: &str) {
    let error = State::decode(bytes, shape).unwrap_err().to_string();
    assert!(error.contains(reason), "{error}");
}

#[test]
fn state_comes_back_as_it_was() {
    let bytes = state().encode().unwrap();
    let again = State::decode(&bytes, &shape()).unwrap();
    assert_eq!(again.encode().unwrap(), bytes);
}

#[test]
fn damage_is_found_wherever_it_is() {
    let whole = state().encode().unwrap();
    for len in 0..whole.len() {
        check(&whole[..len], &shape(), "its file is");
    }
    check(&[&whole[..], &[0]].concat(), &shape(), "cut short");
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        State::decode(&bytes, &shape()).unwrap_err();
    }
}

#[test]
fn another_version_is_named() {
    let mut bytes = state().encode().unwrap();
    bytes[MAGIC.len()..MAGIC.len() + VERSION_LEN].copy_from_slice(b"999.0.0/7               ");
    let ours = format!("{}/{FORMAT}", env!("CARGO_PKG_VERSION"));
    check(&bytes, &shape(), &format!("version 999.0.0/7 saved it, and this is {ours}"));
}

#[test]
fn machine_of_another_shape_is_refused() {
    let bytes = state().encode().unwrap();
    let durable = Access { read_only: false, durable: true };
    for (other, what) in [
        (Shape { vcpus: 1, ..shape() }, "other processors"),
        (Shape { memory_mib: 65, ..shape() }, "other memory"),
        (Shape { disks: Vec::new(), ..shape() }, "other disks"),
        (Shape { disks: vec![durable], ..shape() }, "other disks"),
        (Shape { card: false, ..shape() }, "other network card"),
        (Shape { shares: 1, ..shape() }, "other shared folders"),
    ] {
        check(&bytes, &other, what);
    }
}

#[test]
fn shared_folders_are_refused() {
    shape().can_be_saved().unwrap();
    Shape { shares: 1, ..shape() }.can_be_saved().unwrap_err();
}
