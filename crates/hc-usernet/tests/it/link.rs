// SPDX-License-Identifier: Apache-2.0
//! The cable between VM and network, and who answers on it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hc_usernet::{Config, Error, Kind, Network, Protocol, Publish};

use crate::guest::Guest;
use crate::packet::{self, DNS, GATEWAY, GATEWAY6};

#[tokio::test]
async fn only_addresses_in_use_answer_arp() {
    let mut guest = Guest::start(Config::default());
    guest.tap();
    for target in [GATEWAY, IpAddr::V4(Ipv4Addr::new(10, 0, 2, 77)), packet::GUEST, DNS] {
        guest.send_frame(&packet::arp_request(target));
    }
    // Answers keep the order of their questions, so the last one shows that others will not come.
    let answers = guest
        .until("arp answers", |guest| {
            let answers: Vec<_> =
                guest.tap().iter().filter_map(|f| packet::arp_answer(f)).collect();
            answers.contains(&Ipv4Addr::new(10, 0, 2, 3)).then_some(answers)
        })
        .await;
    assert_eq!(answers, [Ipv4Addr::new(10, 0, 2, 2), Ipv4Addr::new(10, 0, 2, 3)]);
}

#[tokio::test]
async fn only_addresses_in_use_answer_neighbor_discovery() {
    let mut guest = Guest::start(Config::default());
    guest.tap();
    let dns6: Ipv6Addr = "fd68:7970:6572::3".parse().unwrap();
    let nobody: Ipv6Addr = "fd68:7970:6572::77".parse().unwrap();
    for target in [GATEWAY6, nobody, packet::GUEST6, dns6] {
        guest.send_frame(&packet::neighbor_solicitation(target));
    }
    let answers = guest
        .until("neighbor advertisements", |guest| {
            let answers: Vec<_> =
                guest.tap().iter().filter_map(|f| packet::neighbor_answer(f)).collect();
            answers.contains(&dns6).then_some(answers)
        })
        .await;
    assert_eq!(answers, [GATEWAY6, dns6]);
}

#[tokio::test]
async fn the_end_of_the_vm_ends_the_network_in_good_order() {
    Guest::start(Config::default()).stop().await.unwrap();
}

#[tokio::test]
async fn a_frame_of_impossible_length_ends_the_network() {
    for len in [0, 13, 65_551, u32::MAX] {
        let mut guest = Guest::start(Config::default());
        guest.send_raw(&len.to_be_bytes());
        guest.until("the network's end", |guest| guest.has_stopped().then_some(())).await;
        let error = guest.stop().await.unwrap_err();
        assert!(matches!(error, Error::Frame { len: told } if told == len), "{error}");
        assert_eq!(error.kind(), Kind::InvalidState);
    }
}

fn publish(host_port: u16) -> Publish {
    Publish {
        protocol: Protocol::Tcp,
        host_ip: Ipv4Addr::LOCALHOST.into(),
        host_port,
        guest_port: 80,
    }
}

#[test]
fn a_port_in_use_is_told_before_the_vm_exists() {
    let first = Network::bind(Config { publish: vec![publish(0)], ..Config::default() }).unwrap();
    let taken = first.published()[0].host.port();
    assert_ne!(taken, 0);
    let error =
        Network::bind(Config { publish: vec![publish(taken)], ..Config::default() }).unwrap_err();
    assert_eq!(error.kind(), Kind::Exists);
    assert_eq!(error.to_string(), format!("cannot publish tcp port on 127.0.0.1:{taken}"));
    drop(first);
    Network::bind(Config { publish: vec![publish(taken)], ..Config::default() }).unwrap();
}

#[test]
fn a_configuration_that_contradicts_itself_is_refused() {
    let check = |change: fn(&mut Config), expected: &str| {
        let mut config = Config::default();
        change(&mut config);
        let error = Network::bind(config).unwrap_err();
        assert_eq!(error.kind(), Kind::InvalidArgument);
        assert_eq!(error.to_string(), format!("network configuration: {expected}"));
    };
    let ipv4 = "guest, gateway and dns are not three ipv4 addresses of one prefix";
    let ipv6 = "guest, gateway and dns are not three ipv6 addresses of one prefix";
    check(|config| config.mtu = 576, "mtu is not between 1280 and 65520");
    check(|config| config.ipv4.dns = config.ipv4.gateway, ipv4);
    check(|config| config.ipv4.gateway = Ipv4Addr::new(10, 0, 3, 2), ipv4);
    check(|config| config.ipv4.guest = Ipv4Addr::new(10, 0, 2, 255), ipv4);
    check(|config| config.ipv4.prefix_len = 33, "ipv4 prefix length is not between 8 and 29");
    check(|config| config.ipv6.as_mut().unwrap().guest = Ipv6Addr::LOCALHOST, ipv6);
    check(
        |config| config.guest_mac = [1; 6],
        "the guest's hardware address is multicast or the gateway's",
    );
    check(
        |config| config.publish = vec![Publish { guest_port: 0, ..publish(0) }],
        "the guest port of a published port is 0",
    );
}

#[test]
fn the_guest_is_told_all_that_dhcp_would_tell() {
    let network = Network::bind(Config::default()).unwrap();
    let guest = network.guest();
    assert_eq!(guest.mac, packet::GUEST_MAC);
    assert_eq!(guest.addresses, [(packet::GUEST, 24), (packet::GUEST6.into(), 64)]);
    assert_eq!(guest.gateways, [GATEWAY, GATEWAY6.into()]);
    assert_eq!(guest.dns_servers, [DNS]);
    assert_eq!(guest.mtu, 65_520);
}
