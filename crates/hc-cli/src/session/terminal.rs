// SPDX-License-Identifier: Apache-2.0
//! The user's terminal: whether there is one, its size, and raw mode.

use std::os::fd::AsFd;
use std::sync::Mutex;

use hc_spec::WindowSize;
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};

use crate::failure::{Failure, Result};

/// How the terminal was before raw mode; here, so that a panic finds it too.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

/// Whether standard input is a terminal.
pub(crate) fn has_input() -> bool {
    isatty(rustix::stdio::stdin())
}

/// The size of the terminal that standard output, else standard input, is.
pub(crate) fn window_size() -> Option<WindowSize> {
    let size = |file: std::os::fd::BorrowedFd<'_>| tcgetwinsize(file.as_fd()).ok();
    let size = size(rustix::stdio::stdout()).or_else(|| size(rustix::stdio::stdin()))?;
    // Serial lines know no size and say 0.
    (size.ws_row > 0 && size.ws_col > 0)
        .then_some(WindowSize { rows: size.ws_row, columns: size.ws_col })
}

/// Raw mode; ends when dropped.
#[derive(Debug)]
pub(crate) struct Raw(());

impl Raw {
    /// Makes the terminal on standard input raw; `None` where it is none.
    pub(crate) fn enter() -> Result<Option<Raw>> {
        let stdin = rustix::stdio::stdin();
        if !isatty(stdin) {
            return Ok(None);
        }
        let failed = |error| Failure::system("cannot set up the terminal", error);
        let before = tcgetattr(stdin).map_err(failed)?;
        let mut raw = before.clone();
        raw.make_raw();
        *lock() = Some(before);
        let entered = Raw(());
        tcsetattr(stdin, OptionalActions::Drain, &raw).map_err(failed)?;
        Ok(Some(entered))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        restore();
    }
}

/// Puts the terminal back; does nothing where it is as it was.
pub(crate) fn restore() {
    if let Some(before) = lock().take() {
        // Should it fail, the terminal is gone.
        let _ = tcsetattr(rustix::stdio::stdin(), OptionalActions::Drain, &before);
    }
}

/// Panics put the terminal back too, before their message is printed.
pub(crate) fn restore_on_panic() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        restore();
        print(panic);
    }));
}

fn lock() -> std::sync::MutexGuard<'static, Option<Termios>> {
    BEFORE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
