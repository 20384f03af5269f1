// SPDX-License-Identifier: Apache-2.0
//! The signals that this program gets while it stands for another one.

use hc_spec::Signal;
use tokio::signal::unix::{Signal as Listener, SignalKind, signal};

use crate::failure::{Failure, Result};

/// Something that happened to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// A signal that the process behind us would have got.
    Signal(Signal),
    /// The window has another size.
    WindowChanged,
}

/// Listens to signals. From the moment it exists, none of them ends this program by itself.
pub(crate) struct Signals {
    hangup: Listener,
    interrupt: Listener,
    quit: Listener,
    terminate: Listener,
    user1: Listener,
    user2: Listener,
    window: Listener,
}

impl Signals {
    pub(crate) fn listen() -> Result<Signals> {
        let listen =
            |kind| signal(kind).map_err(|error| Failure::system("cannot listen to signals", error));
        Ok(Signals {
            hangup: listen(SignalKind::hangup())?,
            interrupt: listen(SignalKind::interrupt())?,
            quit: listen(SignalKind::quit())?,
            terminate: listen(SignalKind::terminate())?,
            user1: listen(SignalKind::user_defined1())?,
            user2: listen(SignalKind::user_defined2())?,
            window: listen(SignalKind::window_change())?,
        })
    }

    /// The next one. Safe to cancel.
    pub(crate) async fn next(&mut self) -> Event {
        let number = tokio::select! {
            _ = self.hangup.recv() => 1,
            _ = self.interrupt.recv() => 2,
            _ = self.quit.recv() => 3,
            _ = self.user1.recv() => 10,
            _ = self.user2.recv() => 12,
            _ = self.terminate.recv() => 15,
            _ = self.window.recv() => return Event::WindowChanged,
        };
        Event::Signal(Signal::try_from(number).expect("each of these is a signal"))
    }

    /// The next one that asks us to end. Safe to cancel.
    pub(crate) async fn interruption(&mut self) -> Signal {
        loop {
            if let Event::Signal(signal) = self.next().await
                && !matches!(signal.number(), 10 | 12)
            {
                return signal;
            }
        }
    }
}
