// SPDX-License-Identifier: Apache-2.0
//! One process as the host knows it: from the fork to its exit and the end of its streams.
//!
//! ```text
//! spawn() --> starting --program runs--> running --> exited, draining --> done
//!                 |
//!                 +--it cannot run: the reason, and nothing remains
//! ```

use std::os::fd::{AsFd as _, OwnedFd};

use hc_proto::GuestMux;
use hc_proto::message::{Failure, ProcessId, Program, Spawn, StreamId};
use hc_spec::{Exit, Id, Signal, WindowSize};
use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Pid;
use rustix::termios::Winsize;

use crate::child::{self, Child};
use crate::container::Container;
use crate::error::{Attempt as _, Error, Result};
use crate::stdio::{Input, Output};
use crate::sys::{self, Forked};
use crate::watch::{Token, Watch, Watched};

/// What a pipe from a process holds: the more it has, the fewer turns a flood of output takes.
const PIPE_LEN: usize = 256 * 1024;
/// The longest report of a child: one line with its kind.
const REPORT_MAX: usize = 64 * 1024;

/// A process that the host asked for.
pub(crate) struct Process {
    /// The host's number.
    pub(crate) id: ProcessId,
    /// The kernel's number.
    pub(crate) pid: Pid,
    /// Where it runs.
    pub(crate) container: Id,
    /// There until it is known whether its program could be run.
    pub(crate) start: Option<Start>,
    /// Its standard input, if the host feeds it.
    pub(crate) input: Option<Input>,
    /// Its standard output and error, as far as the host listens.
    pub(crate) outputs: Vec<Output>,
    /// How it ended, once it has.
    pub(crate) exit: Option<Exit>,
    /// Whether the host has been told of its end.
    pub(crate) told: bool,
    terminal: Option<OwnedFd>,
}

/// A child that has not yet said whether its program runs.
pub(crate) struct Start {
    /// The request to answer.
    pub(crate) request: u64,
    report: Watched,
    said: Vec<u8>,
}

/// What a child has said so far.
pub(crate) enum Said {
    /// Nothing final yet.
    Wait,
    /// Its program runs.
    Runs,
    /// Its program cannot be run.
    Cannot(Failure),
}

/// What a new process shares with all others.
pub(crate) struct Surroundings<'a> {
    /// The loop's set.
    pub(crate) watch: &'a Watch,
    /// An open `/dev/null`.
    pub(crate) null: &'a OwnedFd,
    /// The pod's host name.
    pub(crate) hostname: &'a str,
}

/// Both ends of a process's standard streams.
struct Wiring {
    /// The process's ends.
    theirs: [Option<OwnedFd>; 3],
    /// Our ends of input, output and error.
    ours: [Option<OwnedFd>; 3],
    terminal: Option<OwnedFd>,
}

impl Process {
    /// Forks a process of `container`. Whether its program runs is told later, by [`Self::hear`].
    pub(crate) fn spawn(
        request: u64,
        call: &Spawn,
        container: &Container,
        around: &Surroundings<'_>,
    ) -> Result<Process> {
        let wiring = Wiring::make(call, container)?;
        let (report, report_end) =
            pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).attempt(|| "make a pipe".into())?;
        let forked = sys::fork(Some(container.cgroup.as_fd()));
        let pid = match forked.attempt(|| "fork a process".into())? {
            Forked::Parent(pid) => pid,
            Forked::Child => {
                let [input, output, error] = &wiring.theirs;
                let stdio = [input, output, error].map(|fd| fd.as_ref().map(OwnedFd::as_fd));
                let child = Child {
                    namespace: container.namespace(),
                    stdio,
                    null: around.null.as_fd(),
                    report: report_end.as_fd(),
                    hostname: around.hostname,
                };
                child.run(&call.program)
            }
        };
        drop(report_end);
        let report = Watched::new(report, Token::Start(call.process));
        let mut process = Process {
            id: call.process,
            pid,
            container: container.id.clone(),
            start: Some(Start { request, report, said: Vec::new() }),
            input: None,
            outputs: Vec::new(),
            exit: None,
            told: false,
            terminal: wiring.terminal,
        };
        let connected = process.connect(call, wiring.ours, around.watch);
        if connected.is_err() {
            // Nobody would hear of it; it may have ended already.
            let _ = sys::kill(pid, Signal::KILL);
        }
        connected.attempt(|| "watch a new process".into())?;
        Ok(process)
    }

    /// Watches for its start, and ties our ends of the standard streams to the host's streams.
    fn connect(
        &mut self,
        call: &Spawn,
        ours: [Option<OwnedFd>; 3],
        watch: &Watch,
    ) -> std::io::Result<()> {
        if let Some(start) = self.start.as_mut() {
            start.report.want(watch, Some(EventFlags::IN))?;
        }
        let [input, output, error] = ours;
        let is_terminal = self.terminal.is_some();
        if let (Some(stream), Some(fd)) = (call.stdin, input) {
            self.input = Some(Input::new(stream, fd, Token::Input(self.id), is_terminal));
        }
        let outputs = [
            (call.stdout, output, Token::Output(self.id)),
            (call.stderr, error, Token::ErrorOutput(self.id)),
        ];
        for (stream, fd, token) in outputs {
            if let Some(fd) = fd {
                self.outputs.push(Output::new(stream, fd, token, watch)?);
            }
        }
        Ok(())
    }

    /// Hears what the child says about its start.
    pub(crate) fn hear(&mut self, watch: &Watch) -> Said {
        let Some(start) = self.start.as_mut() else { return Said::Wait };
        loop {
            let mut piece = [0_u8; 1024];
            match rustix::io::read(&start.report, &mut piece) {
                Ok(0) => break,
                Ok(length) => {
                    start.said.extend_from_slice(&piece[..length]);
                    if start.said.len() > REPORT_MAX {
                        break;
                    }
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Said::Wait,
                Err(_) => break,
            }
        }
        let _ = start.report.want(watch, None); // It is closed with the process's start.
        match child::reported(&start.said) {
            None => Said::Runs,
            Some(failure) => Said::Cannot(failure),
        }
    }

    /// Sends it a signal; one that has ended takes it without a word.
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        if self.exit.is_some() {
            return Ok(()); // Its number may be another's by now.
        }
        sys::kill(self.pid, signal).attempt(|| format!("send a signal to process {}", self.id))
    }

    /// Gives its terminal a new size.
    pub(crate) fn resize(&self, size: WindowSize) -> Result<()> {
        let terminal = self
            .terminal
            .as_ref()
            .ok_or_else(|| Error::invalid(format!("process {} has no terminal", self.id)))?;
        set_size(terminal, size).attempt(|| "resize a terminal".into())
    }

    /// Reads what it wrote before its end and ends its streams; `false` while there is no room.
    pub(crate) fn drain(&mut self, mux: &mut GuestMux, watch: &Watch) -> bool {
        let mut whole = true;
        for output in &mut self.outputs {
            if output.drain(mux, watch) {
                output.finish(mux);
            } else {
                whole = false;
            }
        }
        whole
    }

    /// Whether there is nothing left of it: its end was told, and everybody who wrote where it did
    /// is gone as well.
    pub(crate) fn is_spent(&self) -> bool {
        self.told && self.outputs.iter().all(Output::has_ended)
    }

    /// Lets go of its input. A stream that only fed it is given up, so that the host stops sending.
    pub(crate) fn close_input(&mut self, mux: &mut GuestMux, watch: &Watch) {
        if let Some(mut input) = self.input.take() {
            input.close(mux, watch);
            let shared = self.outputs.iter().any(|o| o.stream() == Some(input.stream()));
            if !input.has_ended() && !shared {
                mux.reset(input.stream());
            }
        }
    }

    /// The host has given `stream` up, or forgotten it.
    pub(crate) fn forget_stream(&mut self, stream: StreamId, mux: &mut GuestMux, watch: &Watch) {
        if self.input.as_ref().is_some_and(|input| input.stream() == stream)
            && let Some(mut input) = self.input.take()
        {
            input.close(mux, watch);
        }
        for output in self.outputs.iter_mut().filter(|o| o.stream() == Some(stream)) {
            output.discard(mux, watch);
        }
    }

    /// Every stream it is tied to.
    pub(crate) fn streams(&self) -> Vec<StreamId> {
        let outputs = self.outputs.iter().filter_map(Output::stream);
        self.input.iter().map(Input::stream).chain(outputs).collect()
    }
}

impl Wiring {
    fn make(call: &Spawn, container: &Container) -> Result<Wiring> {
        let size = match &call.program {
            Program::Exec(spec) => spec.terminal,
            Program::Pack { .. } | Program::Unpack { .. } | Program::Stat { .. } => None,
        };
        match size {
            Some(size) => Wiring::terminal(size, container).attempt(|| "open a terminal".into()),
            None => Wiring::pipes(call).attempt(|| "make a pipe".into()),
        }
    }

    fn terminal(size: WindowSize, container: &Container) -> std::io::Result<Wiring> {
        let (ours, theirs) = container.open_terminal()?;
        set_size(&ours, size)?;
        Ok(Wiring {
            ours: [Some(ours.try_clone()?), Some(ours.try_clone()?), None],
            theirs: [Some(theirs.try_clone()?), Some(theirs.try_clone()?), Some(theirs)],
            terminal: Some(ours),
        })
    }

    fn pipes(call: &Spawn) -> std::io::Result<Wiring> {
        let mut wiring =
            Wiring { theirs: [None, None, None], ours: [None, None, None], terminal: None };
        let wanted = [call.stdin, call.stdout, call.stderr];
        for (place, _) in wanted.iter().enumerate().filter(|(_, stream)| stream.is_some()) {
            let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
            let (theirs, ours) = if place == 0 { (reader, writer) } else { (writer, reader) };
            rustix::io::ioctl_fionbio(&ours, true)?;
            // A limit of the user's may refuse it; a smaller pipe works as well.
            let _ = rustix::pipe::fcntl_setpipe_size(&ours, PIPE_LEN);
            wiring.theirs[place] = Some(theirs);
            wiring.ours[place] = Some(ours);
        }
        Ok(wiring)
    }
}

fn set_size(terminal: &OwnedFd, size: WindowSize) -> rustix::io::Result<()> {
    let size = Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(terminal, size)
}
