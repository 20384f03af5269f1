// SPDX-License-Identifier: Apache-2.0
//! `--publish`: `[IP:][HOST[-HOST]:]PORT[-PORT][/PROTOCOL]`, IPv6 addresses in brackets.

use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;

use hc_api::{Port, Protocol};

use crate::failure::{Failure, Result};

/// The ports that one `--publish` means.
pub(super) fn publish(text: &str) -> Result<Vec<Port>> {
    parse(text).map_err(|why| {
        Failure::argument(format!("--publish {text:?}: {why}"))
            .with_hint("write [IP:][HOST:]PORT[/tcp|/udp], such as 8080:80")
    })
}

fn parse(text: &str) -> Result<Vec<Port>, &'static str> {
    let (rest, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = match protocol.to_ascii_lowercase().as_str() {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "sctp" => return Err("sctp is not supported"),
        _ => return Err("the protocol is tcp or udp"),
    };
    let (host_ip, rest) = host_address(rest)?;
    let (host, container) = rest.rsplit_once(':').unwrap_or(("", rest));
    let container = range(container)?;
    // Docker takes 0 for any free port, too.
    if host.is_empty() || host == "0" {
        return Ok(container
            .map(|container_port| Port { protocol, host_ip, host_port: 0, container_port })
            .collect());
    }
    let host = range(host)?;
    if host.len() != container.len() {
        // Docker takes any free port of the range; which one cannot be told beforehand.
        return Err("the ranges differ in length");
    }
    Ok(host
        .zip(container)
        .map(|(host_port, container_port)| Port { protocol, host_ip, host_port, container_port })
        .collect())
}

/// Takes the address off the front, where there is one.
fn host_address(text: &str) -> Result<(IpAddr, &str), &'static str> {
    const NO_ADDRESS: &str = "that is no IP address";
    if let Some(rest) = text.strip_prefix('[') {
        let (address, rest) = rest.split_once("]:").ok_or(NO_ADDRESS)?;
        return Ok((address.parse().map_err(|_| NO_ADDRESS)?, rest));
    }
    match text.split_once(':') {
        Some((address, rest)) if rest.contains(':') => {
            let address = if address.is_empty() { "0.0.0.0" } else { address }.parse::<Ipv4Addr>();
            Ok((address.map_err(|_| NO_ADDRESS)?.into(), rest))
        }
        _ => Ok((Ipv4Addr::UNSPECIFIED.into(), text)),
    }
}

fn range(text: &str) -> Result<RangeInclusive<u16>, &'static str> {
    let port = |text: &str| match text.parse::<u16>() {
        Ok(port) if port > 0 && !text.starts_with('+') => Ok(port),
        _ => Err("ports are numbers from 1 to 65535"),
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (port(first)?, port(last)?);
    if first > last {
        return Err("the range runs backwards");
    }
    Ok(first..=last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(input: &str, expected: &str) {
        let actual = match parse(input) {
            Err(why) => format!("error: {why}"),
            Ok(ports) => ports
                .iter()
                .map(|port| {
                    let Port { protocol, host_ip, host_port, container_port } = port;
                    format!("{host_ip} {host_port} {container_port} {protocol:?}")
                })
                .collect::<Vec<_>>()
                .join(", "),
        };
        assert_eq!(actual, expected, "{input}");
    }

    #[test]
    fn every_form_of_docker_is_understood() {
        check("80", "0.0.0.0 0 80 Tcp");
        check("8080:80", "0.0.0.0 8080 80 Tcp");
        check("8080:80/udp", "0.0.0.0 8080 80 Udp");
        check("127.0.0.1:8080:80", "127.0.0.1 8080 80 Tcp");
        check("127.0.0.1::80", "127.0.0.1 0 80 Tcp");
        check("127.0.0.1:0:80", "127.0.0.1 0 80 Tcp");
        check("[::1]:8080:80/TCP", "::1 8080 80 Tcp");
        check("[::]::80", ":: 0 80 Tcp");
        check("9000-9001:80-81", "0.0.0.0 9000 80 Tcp, 0.0.0.0 9001 81 Tcp");
        check("80-81", "0.0.0.0 0 80 Tcp, 0.0.0.0 0 81 Tcp");
    }

    #[test]
    fn nonsense_is_refused_with_a_reason() {
        check("", "error: ports are numbers from 1 to 65535");
        check("0", "error: ports are numbers from 1 to 65535");
        check("65536", "error: ports are numbers from 1 to 65535");
        check("+80", "error: ports are numbers from 1 to 65535");
        check("81-80", "error: the range runs backwards");
        check("9000-9001:80", "error: the ranges differ in length");
        check("::1:80:80", "error: ports are numbers from 1 to 65535");
        check("localhost:80:80", "error: that is no IP address");
        check("[::1:80", "error: that is no IP address");
        check("80/sctp", "error: sctp is not supported");
        check("80/x", "error: the protocol is tcp or udp");
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[0-9:./\\-\\[\\]a-z]{0,24}") {
            let _ = parse(&text);
        }
    }
}
