// SPDX-License-Identifier: Apache-2.0
//! Which flows have something to do, without asking every flow.
//!
//! Each flow owns a [`Waker`] that it registers with its host socket and with its smoltcp socket
//! alike. When one of them fires, the flow's token joins a queue and the task that runs the network
//! is woken; it then looks at the queued flows only. A token may outlive its flow by a wake-up, so
//! whoever takes one must expect to find nothing.

use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Wake, Waker};

/// Whom a wake-up is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Token {
    /// A TCP flow, by its number.
    Tcp(u64),
    /// A UDP or ping flow, by its number.
    Datagram(u64),
    /// A published port, by its place in the list of them.
    Port(usize),
}

/// The queue of tokens whose wakers fired.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ready {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Bounded by the number of live wakers: each is queued at most once.
    queue: Vec<Arc<Entry>>,
    task: Option<Waker>,
}

#[derive(Debug)]
struct Entry {
    token: Token,
    queued: AtomicBool,
    shared: Arc<Shared>,
}

impl Ready {
    /// A waker for `token`, which starts out as fired so that the flow gets its first turn.
    pub(crate) fn waker(&self, token: Token) -> Waker {
        let shared = Arc::clone(&self.shared);
        let waker = Waker::from(Arc::new(Entry { token, queued: AtomicBool::new(false), shared }));
        waker.wake_by_ref();
        waker
    }

    /// Makes later wake-ups wake the task of `cx`.
    pub(crate) fn register(&self, cx: &Context<'_>) {
        let mut state = self.shared.lock();
        match &mut state.task {
            Some(task) => task.clone_from(cx.waker()),
            task => *task = Some(cx.waker().clone()),
        }
    }

    /// Moves every fired token into `tokens`, which may be re-used to save its allocation.
    pub(crate) fn take(&self, tokens: &mut Vec<Token>) {
        let mut queue = mem::take(&mut self.shared.lock().queue);
        for entry in queue.drain(..) {
            // From here on a new wake-up queues it again: its flow has yet to look at its sockets.
            entry.queued.store(false, Ordering::Release);
            tokens.push(entry.token);
        }
        let mut state = self.shared.lock();
        if state.queue.is_empty() {
            state.queue = queue;
        }
    }
}

impl Shared {
    /// The state; no code can panic while it holds the lock, so a poisoned one is still whole.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Entry {
    fn wake(self: Arc<Self>) {
        if self.queued.swap(true, Ordering::AcqRel) {
            return;
        }
        let shared = Arc::clone(&self.shared);
        let mut state = shared.lock();
        state.queue.push(self);
        let task = state.task.clone();
        drop(state);
        if let Some(task) = task {
            task.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(ready: &Ready) -> Vec<Token> {
        let mut tokens = Vec::new();
        ready.take(&mut tokens);
        tokens
    }

    #[test]
    fn a_new_waker_has_fired_once() {
        let ready = Ready::default();
        let _waker = ready.waker(Token::Tcp(1));
        assert_eq!(take(&ready), [Token::Tcp(1)]);
        assert_eq!(take(&ready), []);
    }

    #[test]
    fn waking_often_queues_once_until_taken() {
        let ready = Ready::default();
        let waker = ready.waker(Token::Port(3));
        waker.wake_by_ref();
        waker.wake_by_ref();
        assert_eq!(take(&ready), [Token::Port(3)]);
        waker.wake_by_ref();
        assert_eq!(take(&ready), [Token::Port(3)]);
    }
}
