// SPDX-License-Identifier: Apache-2.0
use super::*;

fn speed(loops: u64, switches: u64, exits: u64) -> Speed {
    Speed { loops_per_second: loops, switches_per_second: switches, exits_per_second: exits }
}

/// A processor with nested paging: a switch takes 50 ns, an exit one microsecond.
const NATIVE: (u64, u64, u64) = (3_000_000_000, 20_000_000, 1_000_000);
/// The same without: a switch is an exit and some work.
const TRACED: (u64, u64, u64) = (3_000_000_000, 600_000, 1_000_000);

#[test]
fn a_measurement_is_sorted_by_clock_and_by_what_the_kernel_says() {
    let check = |(loops, switches, exits), nested_paging, expected: fn(Speed) -> Probe| {
        let speed = speed(loops, switches, exits);
        assert_eq!(Probe::of_speed(speed, nested_paging), expected(speed), "{nested_paging:?}");
    };
    check(NATIVE, Some(true), Probe::Usable);
    check(NATIVE, None, Probe::Usable);
    check(TRACED, Some(false), Probe::Shadowed);
    check(TRACED, None, Probe::Shadowed);
    // The clock may lie on a busy host; the kernel knows what it set up.
    check(TRACED, Some(true), Probe::Usable);
    check(NATIVE, Some(false), Probe::Shadowed);
    // Both on an emulator, where everything is slower but by the same measure.
    check((200_000_000, 100_000, 2_000), None, Probe::Usable);
    check((200_000_000, 1_000, 2_000), None, Probe::Shadowed);
    for nested_paging in [None, Some(true), Some(false)] {
        check((1_000_000, 0, 0), nested_paging, Probe::Emulated);
        check((0, 0, 0), nested_paging, Probe::Emulated);
    }
}

/// One of each verdict.
fn all() -> [Probe; 7] {
    [
        Probe::Usable(speed(2_996_123_456, 20_000_000, 1_000_000)),
        Probe::Shadowed(speed(2_996_123_456, 612_345, 1_000_000)),
        Probe::Emulated(speed(1_080_000, 0, 0)),
        Probe::NoPermission,
        Probe::Absent,
        Probe::Busy,
        Probe::Broken("cannot create a VM: no".into()),
    ]
}

#[test]
fn each_verdict_has_its_own_sentence() {
    assert_eq!(
        all().map(|probe| probe.to_string()),
        [
            "KVM works: 3.0 billion loop turns a second",
            "KVM works without nested paging: 3.0 billion loop turns a second, but only 612.3 thousand \
         changes of page tables",
            "KVM only emulates guest kernels here: 1.1 million loop turns a second",
            "this user may not open /dev/kvm",
            "this host has no /dev/kvm",
            "another hypervisor has the processor's virtualisation",
            "KVM does not work: cannot create a VM: no",
        ]
    );
}

#[test]
fn whatever_could_be_better_has_a_hint_of_its_own() {
    let hints = all().map(|probe| probe.hint());
    assert_eq!(hints[0], None);
    for (at, hint) in hints.iter().enumerate().skip(1) {
        assert!(hint.is_some() && !hints[..at].contains(hint), "{hint:?}");
    }
}

#[test]
fn guests_run_under_kvm_exactly_where_their_kernels_run_on_the_processor() {
    assert_eq!(
        all().map(|probe| probe.is_usable()),
        [true, true, false, false, false, false, false]
    );
    assert_eq!(
        all().map(|probe| probe.speed().is_some()),
        [true, true, true, false, false, false, false]
    );
}

#[test]
fn counts_read_as_people_say_them() {
    let check = |number, expected| assert_eq!(count(number), expected);
    check(0, "0");
    check(999, "999");
    check(1_000, "1.0 thousand");
    check(99_999, "100.0 thousand");
    check(999_999, "1.0 million");
    check(3_049_000_000, "3.0 billion");
    check(u64::MAX, "18446744073.7 billion");
}
