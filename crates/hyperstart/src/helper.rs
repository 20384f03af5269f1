// SPDX-License-Identifier: Apache-2.0
//! A forked copy of PID 1 that finds something out and answers, while the loop goes on.
//!
//! For what could hang: reading about a process touches its memory, and whoever shares it can make
//! that wait.

use std::io::Write as _;

use hc_proto::message::{Answer, Failure};
use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};

use crate::error::{Attempt as _, Error, Result};
use crate::sys::{self, Forked};
use crate::watch::{Token, Watch, Watched};

/// The longest answer; a control message may not be longer either.
const ANSWER_MAX: usize = 1 << 20;

/// A helper at work.
pub(crate) struct Helper {
    /// The request that it answers.
    pub(crate) request: u64,
    pipe: Watched,
    said: Vec<u8>,
}

impl Helper {
    /// Forks a helper that answers `request` with what `work` finds.
    pub(crate) fn fork(
        number: u32,
        request: u64,
        watch: &Watch,
        work: impl FnOnce() -> Result<Answer>,
    ) -> Result<Helper> {
        let (ours, theirs) = pipe_with(PipeFlags::CLOEXEC).attempt(|| "make a pipe".into())?;
        match sys::fork(None).attempt(|| "fork a helper".into())? {
            Forked::Child => {
                let answer: core::result::Result<Answer, Failure> = work().map_err(Into::into);
                if let Ok(json) = serde_json::to_vec(&answer) {
                    // A parent that is gone needs no answer.
                    let _ = std::fs::File::from(theirs).write_all(&json);
                }
                sys::exit_now(0)
            }
            Forked::Parent(_) => {
                rustix::io::ioctl_fionbio(&ours, true).attempt(|| "set up a pipe".into())?;
                let mut pipe = Watched::new(ours, Token::Helper(number));
                pipe.want(watch, Some(EventFlags::IN)).attempt(|| "watch a helper".into())?;
                Ok(Helper { request, pipe, said: Vec::new() })
            }
        }
    }

    /// The answer, once it is whole.
    pub(crate) fn hear(&mut self, watch: &Watch) -> Option<core::result::Result<Answer, Failure>> {
        loop {
            let mut piece = [0_u8; 16 * 1024];
            match rustix::io::read(&self.pipe, &mut piece) {
                Ok(0) => break,
                Ok(length) => self.said.extend_from_slice(&piece[..length]),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return None,
                Err(_) => break,
            }
            if self.said.len() > ANSWER_MAX {
                break;
            }
        }
        let _ = self.pipe.want(watch, None); // It is closed right away.
        Some(
            serde_json::from_slice(&self.said)
                .unwrap_or_else(|_| Err(Error::system("a helper died before it answered").into())),
        )
    }
}
