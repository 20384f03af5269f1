// SPDX-License-Identifier: Apache-2.0
//! The pod's network, on QEMU's own.

use std::io::Write as _;
use std::net::TcpListener;

use crate::host::{Host, container};
use crate::machine::Devices;

#[test]
fn the_interface_is_what_the_host_said_and_reaches_it() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"from the host\n").unwrap();
    });
    let devices = Devices { network: true, ..Devices::default() };
    let Some(mut host) = Host::boot(&devices) else { return };
    let id = host.sleeper(&container(1));
    let outcome = host.sh(&id, &format!("nc 10.0.2.2 {port} </dev/null"));
    assert_eq!(outcome.stdout, "from the host\n", "{outcome:?}");
    server.join().unwrap();
    let state = "cat /sys/class/net/eth0/mtu; grep fec0 /proc/net/if_inet6 | cut -d ' ' -f 1,3,4; \
                 cut -f 1-3 /proc/net/route | grep ^eth0 | head -1; grep 10.0.2.15 /etc/hosts";
    let outcome = host.sh(&id, state);
    let expected = "1400\nfec00000000000000000000000000015 40 40\n\
                    eth0\t00000000\t0202000A\n10.0.2.15\tpod\n";
    assert_eq!(outcome.stdout, expected, "{outcome:?}");
}
