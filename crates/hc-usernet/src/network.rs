// SPDX-License-Identifier: Apache-2.0
//! The network of one VM: set-up, and the loop that moves bytes.
//!
//! One task does it all, in turns: write to the VM, read from it, look at the flows whose sockets
//! are ready, send what smoltcp has to send. While the VM does not take what waits for it, nothing
//! else is read or written, so that every peer feels the VM's pace. A VM must therefore never make
//! its reading wait for its own writing.

use std::future::{Future, poll_fn};
use std::path::Path;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::config::{Bound, Config, GuestNetwork};
use crate::dns::Resolvers;
use crate::error::{Error, Result};
use crate::limits::TURNS_PER_POLL;
use crate::link::{Arrival, Input, Output};
use crate::port::BoundPort;
use crate::ready::Ready;
use crate::route::RouteTable;
use crate::stats::Stats;
use crate::switch::Switch;

/// The network of one VM, with its published ports bound.
#[derive(Debug)]
pub struct Network {
    config: Config,
    guest: GuestNetwork,
    ports: Vec<BoundPort>,
    published: Vec<Bound>,
    resolvers: Resolvers,
    routes: RouteTable,
    stats: Stats,
}

impl Network {
    /// Checks `config`, binds the published ports and reads who answers DNS queries.
    ///
    /// Needs no runtime, and nothing of the VM: call it first, so that a port in use is reported
    /// before anything boots. Connections wait in the kernel until [`run`](Self::run) takes them.
    pub fn bind(config: Config) -> Result<Self> {
        config.check()?;
        let ports = config.publish.iter().map(BoundPort::bind).collect::<Result<Vec<_>>>()?;
        let published = ports.iter().map(BoundPort::bound).collect();
        let (resolvers, dns_search) = Resolvers::new(&config.dns, Path::new("/etc/resolv.conf"));
        let routes =
            RouteTable::open().map_err(|source| Error::Setup { what: "route look-ups", source })?;
        let guest = config.guest(dns_search);
        let stats = Stats::default();
        Ok(Self { config, guest, ports, published, resolvers, routes, stats })
    }

    /// The published ports, in the order asked for, each with its true host port.
    pub fn published(&self) -> &[Bound] {
        &self.published
    }

    /// What the guest has to be told.
    pub fn guest(&self) -> &GuestNetwork {
        &self.guest
    }

    /// The counters, which can be read while [`run`](Self::run) has the network.
    pub fn stats(&self) -> Stats {
        self.stats.clone()
    }

    /// Runs the network until the VM's stream ends, which is no error.
    ///
    /// `vm` carries Ethernet frames in both directions, each after its length as four bytes,
    /// big-endian: the framing of QEMU's `-netdev stream`. Dropping the future ends every flow.
    pub async fn run<S>(self, mut vm: S) -> Result<()>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let Self { config, ports, resolvers, routes, stats, .. } = self;
        let ready = Ready::default();
        let ports = ports
            .into_iter()
            .enumerate()
            .map(|(index, port)| port.listen(index, &ready))
            .collect::<Result<Vec<_>>>()?;
        let switch = Switch::new(&config, ports, resolvers, routes, ready.clone());
        let mut cable =
            Cable { input: Input::new(), output: Output::default(), switch, ready, stats };
        let mut timer = pin!(sleep_until(Instant::now()));
        poll_fn(|cx| cable.poll(&mut vm, timer.as_mut(), cx)).await
    }
}

/// A running network: the buffers towards the VM and what lies behind them.
struct Cable {
    input: Input,
    output: Output,
    switch: Switch,
    ready: Ready,
    stats: Stats,
}

impl Cable {
    fn poll<S>(
        &mut self,
        vm: &mut S,
        mut timer: Pin<&mut Sleep>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<()>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        self.ready.register(cx);
        for _ in 0..TURNS_PER_POLL {
            match self.turn(vm, cx)? {
                Turn::End => return Poll::Ready(Ok(())),
                Turn::Moved => {}
                Turn::Blocked => return Poll::Pending,
                Turn::Idle => {
                    let Some(deadline) = self.switch.next_deadline() else {
                        return Poll::Pending;
                    };
                    timer.as_mut().reset(deadline);
                    if timer.as_mut().poll(cx).is_pending() {
                        return Poll::Pending;
                    }
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn turn<S>(&mut self, vm: &mut S, cx: &mut Context<'_>) -> Result<Turn>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        if self.output.poll_flush(vm, cx)?.is_pending() && self.output.is_full() {
            return Ok(Turn::Blocked);
        }
        let mut arrived = self.take_frames()?;
        if !arrived {
            match self.input.poll_fill(vm, cx)? {
                Poll::Ready(Arrival::End) => return Ok(Turn::End),
                Poll::Ready(Arrival::Bytes) => {
                    arrived = true;
                    self.take_frames()?;
                }
                Poll::Pending => {}
            }
        }
        let stepped = self.switch.step(&mut self.output);
        self.stats.publish(&self.switch.counts(&self.output));
        if arrived || stepped {
            return Ok(Turn::Moved);
        }
        // What the VM does not take now wakes us when it can.
        let _ = self.output.poll_flush(vm, cx)?;
        Ok(Turn::Idle)
    }

    /// Hands on the frames that have arrived whole, as long as there is room for answers.
    fn take_frames(&mut self) -> Result<bool> {
        let mut any = false;
        while !self.output.is_full()
            && let Some(frame) = self.input.next_frame()?
        {
            self.switch.frame(frame, &mut self.output);
            any = true;
        }
        Ok(any)
    }
}

/// What a turn of the loop came to.
enum Turn {
    /// The VM's stream has ended.
    End,
    /// Something moved; there may be more.
    Moved,
    /// The VM does not take what waits for it.
    Blocked,
    /// Nothing to do until a socket or the clock says so.
    Idle,
}
