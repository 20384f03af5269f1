// SPDX-License-Identifier: Apache-2.0

use vm_memory::{Bytes as _, GuestAddress};

use super::*;
use crate::devices::{Balloon, Entropy};
use crate::virtio::guest::Guest;

const READY: u64 = 0x44;
const STATUS: u64 = 0x70;
const REASONS: u64 = 0x60;
const ACKNOWLEDGE: u64 = 0x64;

/// Where the guest's first queue has the index of what it offers, and what it has to say.
const AVAILABLE_INDEX: GuestAddress = GuestAddress(0x5002);

#[test]
fn device_says_what_it_is() {
    let guest = Guest::new(Balloon);
    let registers = [0x00, 0x04, 0x08, 0x34, 0x70, 0xb0, 0xfc].map(|at| guest.read(at));
    // A queue at work is no longer there to be set up.
    assert_eq!(registers, [MAGIC, VERSION, 5, 0, 0xf, u32::MAX, 0]);
}

#[test]
fn registers_are_read_and_written_whole() {
    let guest = Guest::new(Entropy);
    for width in [1, 2, 3, 8] {
        let mut bytes = [0x77; 8];
        guest.slot().read(0, &mut bytes[..width]);
        assert_eq!(bytes, [0x77; 8]);
        guest.slot().write(STATUS, &[0; 8][..width]);
        assert_eq!(guest.read(STATUS), 0xf);
    }
}

#[test]
fn configuration_ends_where_it_ends() {
    let guest = Guest::new(Balloon);
    for offset in [0x100, 0x104, 0x107, 0x108, 0x200, 0xfff, u64::MAX] {
        let mut bytes = [0x77; 8];
        guest.slot().read(offset, &mut bytes);
        assert_eq!(bytes, [0; 8]);
        guest.slot().write(offset, &[1; 8]);
    }
}

#[test]
fn features_that_are_not_offered_are_refused() {
    let guest = Guest::new(Entropy);
    for (page, features) in [(0, 1), (1, 0)] {
        guest.write(STATUS, 0);
        guest.write(0x24, 1);
        guest.write(0x20, 1);
        guest.write(0x24, page);
        guest.write(0x20, features);
        guest.write(STATUS, 0xb);
        assert_eq!(guest.read(STATUS), 3);
        guest.write(STATUS, 0xf);
        assert_eq!(guest.read(STATUS), 7);
    }
}

#[test]
fn reset_forgets_all_of_it() {
    let mut guest = Guest::new(Entropy);
    assert_eq!(guest.ask(0, &[], 8).map(|bytes| bytes.len()), Some(8));
    assert_eq!(guest.read(REASONS), 1);
    guest.write(STATUS, 0);
    assert_eq!((guest.read(STATUS), guest.read(READY), guest.read(REASONS)), (0, 0, 0));
    guest.send(0, &[], 8);
    assert_eq!(guest.answered(0), None);
    guest.start();
    assert_eq!(guest.ask(0, &[], 8).map(|bytes| bytes.len()), Some(8));
}

#[test]
fn interrupt_is_acknowledged() {
    let mut guest = Guest::new(Entropy);
    guest.send(0, &[], 8);
    guest.write(ACKNOWLEDGE, 2);
    assert_eq!(guest.read(REASONS), 1);
    guest.write(ACKNOWLEDGE, 1);
    assert_eq!(guest.read(REASONS), 0);
}

/// Such a queue has no next request, and says that it has more.
#[test]
fn queue_that_claims_more_than_it_has_room_for_is_left_alone() {
    let mut guest = Guest::new(Entropy);
    guest.memory.write_obj(300_u16, AVAILABLE_INDEX).unwrap();
    guest.kick(0);
    assert_eq!(guest.answered(0), None);
    guest.memory.write_obj(0_u16, AVAILABLE_INDEX).unwrap();
    assert_eq!(guest.ask(0, &[], 8).map(|bytes| bytes.len()), Some(8));
}

#[test]
fn queue_outside_of_memory_is_one_the_guest_does_without() {
    let mut guest = Guest::new(Entropy);
    for register in [0x84, 0x94, 0xa4] {
        guest.write(STATUS, 0);
        guest.write(0x24, 1);
        guest.write(0x20, 1);
        guest.write(STATUS, 0xb);
        for address in [0x80, 0x90, 0xa0] {
            guest.write(address, 0x4000);
        }
        guest.write(register, 1);
        guest.write(READY, 1);
        guest.write(STATUS, 0xf);
        guest.send(0, &[], 8);
        assert_eq!(guest.answered(0), None);
    }
}

#[test]
fn chain_that_bites_its_tail_ends() {
    let mut guest = Guest::new(Entropy);
    // Writable, and its own next one; more memory than there is, if it were counted for ever.
    let word = 0x1000_u64 | 3 << 32;
    for (at, word) in [(0x4000, 0x2_0000_u64), (0x4008, word)] {
        guest.memory.write_obj(word, GuestAddress(at)).unwrap();
    }
    guest.offer(0, 0);
    guest.kick(0);
    assert!(guest.answered(0).is_some());
}

#[test]
fn saved_device_goes_on_where_it_was() {
    let mut guest = Guest::new(Entropy);
    for _ in 0..300 {
        assert!(guest.ask(0, &[], 8).is_some());
    }
    // Set up, and never asked for anything: the driver has yet to say that it is ready.
    let fresh = Guest::new(Balloon);
    fresh.write(STATUS, 0);
    fresh.write(STATUS, 1);
    fresh.write(0x30, 2);
    fresh.write(0x38, 64);
    fresh.write(READY, 1);
    let fresh = fresh.go_on(Balloon);
    assert_eq!((fresh.read(STATUS), fresh.read(READY)), (1, 1));
    // A request that nobody was told of is found.
    let at = 0x8000;
    guest.put(0, &[(at, 8, true)]);
    let mut guest = guest.go_on(Entropy);
    assert_eq!((guest.read(STATUS), guest.read(REASONS)), (0xf, 1));
    assert_eq!(guest.answered(0), Some(8));
    assert!(guest.ask(0, &[], 8).is_some());
    guest.start();
    assert!(guest.ask(0, &[], 8).is_some());
}

#[test]
fn what_was_not_saved_of_this_device_is_refused() {
    let good = Guest::new(Entropy).slot().save();
    let text = serde_json::to_string(&good).unwrap();
    let refuse = |from: &str, to: &str| {
        assert!(text.contains(from), "{text}");
        let saved = serde_json::from_str(&text.replace(from, to)).unwrap();
        let other = Guest::new(Entropy);
        other.slot().restore(saved).unwrap_err();
    };
    refuse(r#""kind":4"#, r#""kind":5"#);
    refuse(r#""device":"plain""#, r#""device":{"card":{"mac":[0,0,0,0,0,0]}}"#);
    refuse(r#""size":256"#, r#""size":0"#);
    refuse(r#""size":256"#, r#""size":1000"#);
    refuse(r#""descriptors":16384"#, r#""descriptors":1152921504606846976"#);
    refuse(r#""driver_features":"#, r#""driver_features":9"#);
    assert!(serde_json::from_str::<SavedSlot>(&text.replace("}]", "}],\"more\":[]")).is_err());
    let mut none = good.clone();
    none.queues.clear();
    Guest::new(Entropy).slot().restore(none).unwrap_err();
}
