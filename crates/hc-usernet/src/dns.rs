// SPDX-License-Identifier: Apache-2.0
//! Which DNS server answers for the guest.
//!
//! Queries are passed on as they are, over the transport that they came by. All go to one server
//! until that leaves one unanswered; then the next one has its turn.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use tokio::time::Instant;

use crate::config::Dns;
use crate::limits::RESOLV_CONF_EVERY;

/// Servers that the C library takes from `/etc/resolv.conf`, and so do we.
const SERVERS_MAX: usize = 3;

/// Search domains that the C library takes.
const SEARCH_MAX: usize = 6;

const DNS_PORT: u16 = 53;

/// The servers to ask, and which of them has the turn.
#[derive(Debug)]
pub(crate) struct Resolvers {
    servers: Vec<SocketAddr>,
    turn: usize,
    file: Option<File>,
}

/// The file that the servers come from.
#[derive(Debug)]
struct File {
    path: PathBuf,
    modified: Option<SystemTime>,
    checked: Option<Instant>,
}

/// What a `resolv.conf` says that matters to a guest.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ResolvConf {
    pub(crate) servers: Vec<SocketAddr>,
    pub(crate) search: Vec<String>,
}

impl Resolvers {
    /// The servers that `dns` names, and the host's search domains if it names the host's.
    pub(crate) fn new(dns: &Dns, resolv_conf: &Path) -> (Self, Vec<String>) {
        match dns {
            Dns::Servers(servers) => {
                (Self { servers: servers.clone(), turn: 0, file: None }, Vec::new())
            }
            Dns::System => {
                let mut file = File { path: resolv_conf.to_owned(), modified: None, checked: None };
                let ResolvConf { servers, search } = file.read();
                (Self { servers, turn: 0, file: Some(file) }, search)
            }
        }
    }

    /// The server for the next query.
    pub(crate) fn current(&mut self) -> SocketAddr {
        if let Some(file) = &mut self.file
            && file.has_changed()
        {
            self.servers = file.read().servers;
            self.turn = 0;
        }
        self.servers[self.turn % self.servers.len()]
    }

    /// Passes over `server` if it still has the turn: it left a query unanswered.
    pub(crate) fn pass_over(&mut self, server: SocketAddr) {
        if self.servers[self.turn % self.servers.len()] == server {
            self.turn = (self.turn + 1) % self.servers.len();
        }
    }
}

impl File {
    fn has_changed(&mut self) -> bool {
        let now = Instant::now();
        if self.checked.is_some_and(|checked| now - checked < RESOLV_CONF_EVERY) {
            return false;
        }
        self.checked = Some(now);
        self.modified_now() != self.modified
    }

    fn read(&mut self) -> ResolvConf {
        self.modified = self.modified_now();
        // Without a readable file the C library asks the host itself, and so do we.
        parse(&std::fs::read_to_string(&self.path).unwrap_or_default())
    }

    fn modified_now(&self) -> Option<SystemTime> {
        std::fs::metadata(&self.path).and_then(|metadata| metadata.modified()).ok()
    }
}

/// Reads a `resolv.conf`; never names no server, because the absence of any means loopback.
///
/// # Limits
///
/// A server with a scope (`fe80::1%eth0`) is passed over.
fn parse(text: &str) -> ResolvConf {
    let mut servers = Vec::new();
    let mut search = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") if servers.len() < SERVERS_MAX => {
                let address = words.next().and_then(|word| word.parse::<IpAddr>().ok());
                servers.extend(address.map(|address| SocketAddr::new(address, DNS_PORT)));
            }
            // The last line of the two kinds counts.
            Some("search" | "domain") => {
                search = words.take(SEARCH_MAX).map(str::to_owned).collect();
            }
            _ => {}
        }
    }
    if servers.is_empty() {
        servers.push(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), DNS_PORT));
    }
    ResolvConf { servers, search }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, servers: &[&str], search: &[&str]) {
        let servers = servers.iter().map(|server| server.parse().unwrap()).collect();
        let search = search.iter().map(|&domain| domain.to_owned()).collect();
        assert_eq!(parse(text), ResolvConf { servers, search });
    }

    #[test]
    fn resolv_conf_is_read_as_the_c_library_reads_it() {
        check("", &["127.0.0.1:53"], &[]);
        check(
            "nameserver 127.0.0.53\noptions edns0\nsearch a.example b.example\n",
            &["127.0.0.53:53"],
            &["a.example", "b.example"],
        );
        check(
            "# nameserver 1.1.1.1\n nameserver 9.9.9.9 # x\ndomain old\nsearch new",
            &["9.9.9.9:53"],
            &["new"],
        );
        check(
            "nameserver 2001:db8::1\nnameserver fe80::1%eth0\nnameserver bad",
            &["[2001:db8::1]:53"],
            &[],
        );
        check(&"nameserver 1.1.1.1\n".repeat(9), &["1.1.1.1:53"; 3], &[]);
    }

    #[test]
    fn a_silent_server_loses_its_turn_once() {
        let [a, b] = [1, 2].map(|last| SocketAddr::from(([192, 0, 2, last], 53)));
        let (mut resolvers, _) = Resolvers::new(&Dns::Servers(vec![a, b]), Path::new("/nowhere"));
        assert_eq!(resolvers.current(), a);
        resolvers.pass_over(a);
        resolvers.pass_over(a);
        assert_eq!(resolvers.current(), b);
        resolvers.pass_over(b);
        assert_eq!(resolvers.current(), a);
    }
}
