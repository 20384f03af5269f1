// SPDX-License-Identifier: Apache-2.0
//! Every bound on what a guest can make the host hold, and every time-out, with its reason.

use std::time::Duration;

/// TCP flows of one guest, those still connecting included.
///
/// Each holds a host descriptor. With [`DATAGRAM_FLOWS_MAX`] it stays clear of the 1024 that a
/// process may have open by default, so that a guest cannot starve the rest of its own process.
pub(crate) const TCP_FLOWS_MAX: usize = 512;

/// UDP and ping flows of one guest; the one unused for longest makes room for a new one.
pub(crate) const DATAGRAM_FLOWS_MAX: usize = 256;

/// Bytes of TCP buffers that flows share before new ones get only [`TCP_BUFFER_MIN`]. The more of
/// them are in use, the less a new flow gets, so that a handful of busy flows fits.
pub(crate) const TCP_BUFFER_BUDGET: usize = 4 << 20;

/// The most that one flow gets for each direction: two of the largest segments, so that the guest
/// can fill one while we drain the other. Half as much was as fast between tasks of one thread, but
/// leaves less to do while a VM is slow to answer.
pub(crate) const TCP_BUFFER_MAX: usize = 128 << 10;

/// The least that one flow gets for each direction; still ten ordinary segments.
pub(crate) const TCP_BUFFER_MIN: usize = 16 << 10;

/// The longest SYN that is kept until the host has connected: link, IP and TCP headers with all
/// their options, but no data, which a client may send only with a cookie that we never give.
pub(crate) const SYN_MAX: usize = 14 + 60 + 60;

/// Frames wait for the VM up to here; then flows are left alone, and their peers slow down.
pub(crate) const OUTPUT_SOFT_MAX: usize = 256 << 10;

/// Bytes read from the VM at a time; a few of the largest frames, or many small ones.
pub(crate) const INPUT_LEN: usize = 256 << 10;

/// Datagrams taken from one host socket before others get their turn.
pub(crate) const DATAGRAMS_PER_TURN: usize = 32;

/// Connections taken from one published port before others get their turn.
pub(crate) const ACCEPTS_PER_TURN: usize = 16;

/// Turns of the loop before the other tasks of the process get the thread.
pub(crate) const TURNS_PER_POLL: usize = 16;

/// A UDP flow this long unused is over. RFC 4787 asks NATs for two minutes; protocols that keep a
/// flow open send at least every 30 seconds because common home routers allow no more.
pub(crate) const UDP_IDLE: Duration = Duration::from_mins(1);

/// The same for a DNS query: resolvers give up or ask again after at most 5 seconds (resolv.conf's
/// default), and each query commonly comes from a port of its own.
pub(crate) const DNS_IDLE: Duration = Duration::from_secs(10);

/// The same for echo requests: `ping` waits 10 seconds for the last answer.
pub(crate) const ECHO_IDLE: Duration = Duration::from_secs(15);

/// A DNS server that leaves a query unanswered this long is passed over for the next one; less
/// than the 5 seconds after which the guest's resolver asks again.
pub(crate) const DNS_PATIENCE: Duration = Duration::from_secs(3);

/// How often idle flows are looked for, while there are any.
pub(crate) const SWEEP_EVERY: Duration = Duration::from_secs(5);

/// How often `/etc/resolv.conf` is looked at, while there are queries.
pub(crate) const RESOLV_CONF_EVERY: Duration = Duration::from_secs(1);

/// How long a guest that does not answer keeps the client of a published port waiting; a service
/// that listens answers at once, also in a guest that is still booting.
pub(crate) const PUBLISH_PATIENCE: Duration = Duration::from_secs(30);

/// How long a published port rests after the kernel refused to hand over a connection, which
/// mostly means that descriptors ran out.
pub(crate) const ACCEPT_RETRY: Duration = Duration::from_secs(1);
