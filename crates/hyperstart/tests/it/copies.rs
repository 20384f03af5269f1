// SPDX-License-Identifier: Apache-2.0
//! Guests that are copied: before they have an identity, and while a pod runs in them.

use std::io::Write as _;
use std::net::TcpListener;
use std::process::Command;
use std::thread::JoinHandle;

use hc_proto::message::{Answer, Call, FailureKind, Identity, PodSetup, Program, Scratch};
use hc_proto::{HostMux, SessionId};
use hc_spec::{Exit, Id, NetworkSpec};

use crate::host::{Host, Started, container, process, setup};
use crate::machine::Devices;

/// Reads what only the kernel can know: two numbers drawn at random, the second once for all.
const DRAW: &str = "cat /proc/sys/kernel/random/uuid /proc/sys/kernel/random/boot_id";

/// The session of the host before the copy.
const SESSION: SessionId = SessionId(7);

/// A server on the host that says one line, and its port.
fn server() -> (u16, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let serve = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"from the host\n").unwrap();
    });
    (port, serve)
}

/// The identity of copy `number`.
fn identity(devices: &Devices, number: u8) -> Identity {
    let ours = setup(devices).identity;
    let network = ours.network.map(|network| NetworkSpec {
        mac: [2, 0, 0, 0, 0, number],
        addresses: vec![
            (format!("10.0.2.{number}").parse().unwrap(), 24),
            (format!("fec0::{number}").parse().unwrap(), 64),
        ],
        ..network
    });
    Identity {
        hostname: format!("copy{number}"),
        unix_nanos: 1_800_000_000_000_000_000,
        entropy: vec![number; 64],
        network,
        dns_servers: vec!["10.0.2.4".parse().unwrap()],
        ..ours
    }
}

/// Expects the card to be that of copy `number` and of nobody else, and to reach the host.
fn check_network(host: &mut Host, id: &Id, number: u8) {
    let state = "cat /sys/class/net/eth0/address /sys/class/net/eth0/mtu; \
                 grep fec0 /proc/net/if_inet6 | cut -d ' ' -f 1; \
                 cut -f 1-3 /proc/net/route | grep ^eth0; \
                 grep -B 1 '32 host LOCAL' /proc/net/fib_trie | grep -o '10[.0-9]*'";
    let expected = format!(
        "02:00:00:00:00:{number:02x}\n1400\nfec000000000000000000000000000{number}\n\
         eth0\t00000000\t0202000A\neth0\t0002000A\t00000000\n\
         10.0.2.{number}\n10.0.2.{number}\n"
    );
    assert_eq!(host.sh(id, state).stdout, expected);
    let (port, serve) = server();
    let outcome = host.sh(id, &format!("nc 10.0.2.2 {port} </dev/null"));
    assert_eq!(outcome.stdout, "from the host\n", "{outcome:?}");
    serve.join().unwrap();
}

#[test]
fn copies_of_a_parked_guest_are_set_up_like_guests_that_booted() {
    if Command::new("mkfs.ext4").arg("-V").output().is_err() {
        return hc_testkit::skip("no mkfs.ext4");
    }
    let template = Devices { placeholders: true, network: true, ..Devices::default() };
    let Some(mut host) = Host::greet(&template) else { return };
    let pod = PodSetup { identity: identity(&template, 20), ..setup(&template) };
    assert_eq!(host.call(Call::SetUp(pod)), Ok(Answer::Done));
    assert_eq!(host.call(Call::Park), Ok(Answer::Done));
    let saved = host.save();

    let devices =
        Devices { scratch: Some((32 << 20, 16 << 20)), network: true, ..Devices::default() };
    let mut draws = Vec::new();
    for number in [21, 22] {
        let mut host = Host::meet(saved.wake(&devices), HostMux::new(SessionId(number.into())));
        let mut other = identity(&devices, number);
        other.network.as_mut().unwrap().mac[4] = 1;
        let pod = PodSetup { identity: other, ..setup(&devices) };
        assert_eq!(host.call(Call::SetUp(pod)), Ok(Answer::Done));
        // As often as it likes, while nothing runs; and then as if it had not been a pod before.
        assert_eq!(host.call(Call::Park), Ok(Answer::Done));
        let pod = PodSetup { identity: identity(&devices, number), ..setup(&devices) };
        assert_eq!(host.call(Call::SetUp(pod)), Ok(Answer::Done));
        let id = host.sleeper(&container(1));
        assert_eq!(host.call(Call::Park).unwrap_err().kind, FailureKind::Invalid);
        let draw = host.sh(&id, DRAW).stdout;
        draws.extend(draw.lines().map(str::to_owned));
        assert_eq!(host.sh(&id, "hostname; date +%Y").stdout, format!("copy{number}\n2027\n"));
        let df = host.sh(&id, "df -m / | tail -1").stdout;
        let megabytes: u64 = df.split_whitespace().nth(1).unwrap().parse().unwrap();
        assert!((20..32).contains(&megabytes), "{df}");
        check_network(&mut host, &id, number);
    }
    let all = draws.len();
    draws.sort_unstable();
    draws.dedup();
    assert_eq!((all, draws.len()), (4, 4), "numbers drawn twice: {draws:?}");
}

#[test]
fn a_parked_guest_goes_on_with_a_copy_of_its_scratch_disk_or_with_another() {
    if Command::new("mkfs.ext4").arg("-V").output().is_err() {
        return hc_testkit::skip("no mkfs.ext4");
    }
    let devices = Devices { scratch: Some((64 << 20, 64 << 20)), ..Devices::default() };
    let Some(mut host) = Host::greet(&devices) else { return };
    let parked = PodSetup { scratch: Scratch::Parked, ..setup(&devices) };
    let early = host.call(Call::SetUp(parked.clone())).unwrap_err();
    assert_eq!(early.kind, FailureKind::Invalid);
    assert_eq!(host.call(Call::SetUp(setup(&devices))), Ok(Answer::Done));
    let id = host.create(&container(1));
    let seen = "cut -d ' ' -f 5- /proc/self/mountinfo; stat -c '%n %a %t %T' /dev/*";
    let script = format!("{seen}; dd if=/dev/zero of=/big bs=1M count=8 2>/dev/null; >/file");
    let main = host.spawn(&id, true, Program::Exec(process(&["sh", "-c", &script]))).unwrap();
    assert_eq!(host.container_exit(&id), (Exit::Code(0), false));
    let booted = host.read_text(main.stdout);
    assert!(booted.contains("/dev/null 666 1 3"), "{booted}");
    assert_eq!(host.call(Call::Park), Ok(Answer::Done));
    let saved = host.save();

    for (scratch_of, pod) in [(Some(saved.scratch()), &parked), (None, &setup(&devices))] {
        let devices = Devices { scratch_of, scratch: devices.scratch, ..Devices::default() };
        let mut host = Host::meet(saved.wake(&devices), HostMux::new(SessionId(8)));
        assert_eq!(host.call(Call::SetUp(pod.clone())), Ok(Answer::Done));
        let id = host.sleeper(&container(1));
        assert_eq!(
            host.sh(&id, "ls /file /big 2>/dev/null; echo new >/file; cat /file").stdout,
            "new\n"
        );
        // What was made ahead for it is what it would have been.
        assert_eq!(host.sh(&id, seen).stdout, booted);
        assert_eq!(host.call(Call::Shutdown), Ok(Answer::Done));
        assert!(host.machine.ends());
        let check = Command::new("e2fsck").args(["-n", "-f"]).arg(host.machine.scratch()).output();
        let check = check.unwrap();
        assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stdout));
    }
}

#[test]
fn copies_of_a_running_pod_go_on_as_pods_of_their_own() {
    let devices = Devices { network: true, ..Devices::default() };
    let Some(mut host) = Host::greet(&devices) else { return };
    let early = host.call(Call::Renew(identity(&devices, 21))).unwrap_err();
    assert_eq!(early.kind, FailureKind::Invalid);
    host.call(Call::SetUp(setup(&devices))).unwrap();
    let id = host.create(&container(1));
    let script = "echo before; while read line; do echo $line; hostname; done; exit 5";
    let main = host.spawn(&id, true, Program::Exec(process(&["sh", "-c", script]))).unwrap();
    host.expect(main.stdout, "before\n");
    let Started { stdin, stdout, .. } = main;
    // Has the kernel renew its key if that is due, so that it would not do so again in the copies.
    host.sh(&id, DRAW);
    let saved = host.save();

    let mut draws = Vec::new();
    for number in [21, 22] {
        let mut host = Host::meet(saved.wake(&devices), HostMux::adopt(SESSION));
        host.skip_processes(main.process + 1);
        assert_eq!(host.call(Call::Renew(identity(&devices, number))), Ok(Answer::Done));
        draws.push(host.sh(&id, "cat /proc/sys/kernel/random/uuid").stdout);
        check_network(&mut host, &id, number);
        // The files are those that the container has had from the start.
        let files = "cat /etc/hostname /etc/resolv.conf; grep 10.0.2 /etc/hosts; date +%Y";
        let expected =
            format!("copy{number}\nnameserver 10.0.2.4\n10.0.2.{number}\tcopy{number}\n2027\n");
        assert_eq!(host.sh(&id, files).stdout, expected);

        host.send(stdin, b"after\n", true);
        assert_eq!(host.container_exit(&id), (Exit::Code(5), false));
        // What the host before had not acknowledged comes again.
        let output = host.read_text(stdout);
        let new = output.strip_prefix("before\n").unwrap_or(&output);
        assert_eq!(new, format!("after\ncopy{number}\n"));
    }
    assert_ne!(draws[0], draws[1]);
}

#[test]
fn a_clock_is_set_without_anything_else() {
    let Some(mut host) = Host::boot(&Devices::default()) else { return };
    let id = host.sleeper(&container(1));
    let later = Call::SetClock { unix_nanos: 1_900_000_000_000_000_000, entropy: vec![9; 32] };
    assert_eq!(host.call(later), Ok(Answer::Done));
    assert_eq!(host.sh(&id, "date +%Y; hostname").stdout, "2030\npod\n");
}
