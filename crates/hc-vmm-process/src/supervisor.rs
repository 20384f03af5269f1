// SPDX-License-Identifier: Apache-2.0
//! The task that owns the process of a VM: it reads all that hypervisor and guest say, passes requests on,
//! and publishes the exit.
//!
//! ```text
//!            requests                    +-- stderr ---> tail
//!  ChildVm ------------> [ supervisor ] <-+-- console --> tail, and the caller's stream
//!         <------------                  +-- control --> replies, reason of the end
//!             exit                       +-- wait -----> status
//! ```

use std::collections::VecDeque;
use std::io::{self, IoSlice, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::AsFd as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;

use hc_vmm::{Exit, Tail};
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use tokio::net::UnixStream;
use tokio::process::Child;
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use crate::control::{self, Command, Decoder, Message, Shutdown};

/// What every panic of a Linux kernel says, before it resets the machine.
const PANIC_MARK: &str = "Kernel panic - not syncing";

/// The last words of a Linux kernel that was told to power off or to halt. A machine without ACPI has
/// no switch for it to turn, so it says so and spins, or sleeps, for ever.
const DOWN_MARKS: [&str; 2] = ["reboot: Power down", "reboot: System halted"];

/// Room for what one read takes.
const READ_LEN: usize = 4096;

/// What the VM's handle asks for.
#[derive(Debug)]
pub(crate) enum Request {
    /// End the process.
    Kill,
    /// Send this command; the answer is the hypervisor's, or its reason for a refusal.
    Command(Command, Reply),
}

/// Where the answer to a command goes.
pub(crate) type Reply = oneshot::Sender<Result<(), String>>;

/// The streams that the task reads, and the one it writes.
#[derive(Debug)]
pub(crate) struct Ends {
    pub(crate) control: UnixStream,
    pub(crate) console: UnixStream,
    /// Where console bytes go; a reader who is too slow or gone loses them.
    pub(crate) console_copy: std::os::unix::net::UnixStream,
    pub(crate) stderr: UnixStream,
}

pub(crate) struct Supervisor {
    child: Child,
    streams: Ends,
    requests: mpsc::Receiver<Request>,
    decoder: Decoder,
    /// Who waits for the answers to the commands under way, in the order in which they come.
    waiting: VecDeque<Reply>,
    progress: broadcast::Sender<String>,
    evidence: Evidence,
}

/// All that is known about how the VM ended, or is about to.
#[derive(Debug, Default)]
struct Evidence {
    killed: bool,
    /// Whether the guest is off but for its hypervisor, which we ended for it.
    down: bool,
    shutdown: Option<Shutdown>,
    console: Tail,
    stderr: Tail,
}

impl Supervisor {
    pub(crate) fn new(
        child: Child,
        streams: Ends,
        requests: mpsc::Receiver<Request>,
        progress: broadcast::Sender<String>,
    ) -> Self {
        let decoder = Decoder::default();
        let evidence = Evidence::default();
        let waiting = VecDeque::new();
        Supervisor { child, streams, requests, decoder, waiting, progress, evidence }
    }

    /// Runs until the process has ended, then publishes how.
    pub(crate) async fn run(mut self, exit: watch::Sender<Option<Exit>>) {
        let status = self.attend().await;
        let Supervisor { streams, mut decoder, mut evidence, .. } = self;
        drain(streams.stderr, |bytes| evidence.stderr.feed(bytes));
        drain(streams.console, |bytes| evidence.hear(bytes, &streams.console_copy));
        drain(streams.control, |bytes| {
            decoder.feed(bytes);
            while let Ok(Some(message)) = decoder.next_message() {
                if let Message::Shutdown(shutdown) = message {
                    evidence.shutdown = Some(shutdown);
                }
            }
        });
        exit.send_replace(Some(evidence.verdict(status)));
    }

    async fn attend(&mut self) -> io::Result<ExitStatus> {
        let Ends { control, console, console_copy, stderr } = &self.streams;
        let mut reading = Reading { control: true, console: true, stderr: true };
        let mut wanted = true;
        loop {
            tokio::select! {
                status = self.child.wait() => return status,
                request = self.requests.recv(), if wanted => match request {
                    Some(Request::Command(command, reply)) => {
                        self.waiting.extend(send(control, &command, reply));
                    }
                    Some(Request::Kill) => kill(&mut self.child, &mut self.evidence),
                    None => {
                        wanted = false;
                        kill(&mut self.child, &mut self.evidence);
                    }
                },
                _ = control.readable(), if reading.control => {
                    let decoder = &mut self.decoder;
                    reading.control = read(control, |bytes| decoder.feed(bytes));
                    let waiting = &mut self.waiting;
                    reading.control &= self.evidence.listen(decoder, waiting, &self.progress);
                }
                _ = console.readable(), if reading.console => {
                    let evidence = &mut self.evidence;
                    reading.console = read(console, |bytes| evidence.hear(bytes, console_copy));
                    if evidence.heard_down() {
                        evidence.down = true;
                        let _ = self.child.start_kill(); // It may have ended by itself.
                    }
                }
                _ = stderr.readable(), if reading.stderr => {
                    let evidence = &mut self.evidence;
                    reading.stderr = read(stderr, |bytes| evidence.stderr.feed(bytes));
                }
            }
        }
    }
}

/// Which streams have not ended yet.
struct Reading {
    control: bool,
    console: bool,
    stderr: bool,
}

fn kill(child: &mut Child, evidence: &mut Evidence) {
    evidence.killed = true;
    // Fails only for a process that has ended, which is what is wanted.
    let _ = child.start_kill();
}

/// Sends a command; gives back whom its answer is for, or tells them that it cannot be sent.
fn send(control: &UnixStream, command: &Command, reply: Reply) -> Option<Reply> {
    let Command { line, descriptor } = command;
    let descriptor = descriptor.as_ref().map(|descriptor| [descriptor.as_fd()]);
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut along = SendAncillaryBuffer::new(&mut space);
    if let Some(descriptor) = &descriptor {
        along.push(SendAncillaryMessage::ScmRights(descriptor));
    }
    // Past tokio, which would first wait for the socket's news that it is writable.
    match sendmsg(control, &[IoSlice::new(line)], &mut along, SendFlags::NOSIGNAL) {
        Ok(written) if written == line.len() => return Some(reply),
        // Its end is about to be noticed, and says more than this error.
        Err(Errno::PIPE) => return Some(reply),
        // Only a hypervisor that reads nothing any more lets its socket fill up.
        Ok(_) => refuse(Some(reply), "it reads no commands"),
        Err(error) => refuse(Some(reply), &error.to_string()),
    }
    None
}

/// Tells whoever waits for an answer, if anybody does, that there will be none.
fn refuse(waiting: Option<Reply>, reason: &str) {
    if let Some(reply) = waiting {
        // Whoever asked may have given up by now.
        let _ = reply.send(Err(reason.to_owned()));
    }
}

/// Reads once; says whether the stream goes on.
fn read(stream: &UnixStream, take: impl FnOnce(&[u8])) -> bool {
    let mut bytes = [0; READ_LEN];
    match stream.try_read(&mut bytes) {
        Ok(0) => false,
        Ok(len) => {
            take(&bytes[..len]);
            true
        }
        Err(error) => error.kind() == io::ErrorKind::WouldBlock,
    }
}

/// Reads what a process that has ended left behind.
fn drain(stream: UnixStream, mut take: impl FnMut(&[u8])) {
    let Ok(mut stream) = stream.into_std() else { return };
    let mut bytes = [0; READ_LEN];
    // The stream is still non-blocking, so this ends in any case.
    while let Ok(len @ 1..) = stream.read(&mut bytes) {
        take(&bytes[..len]);
    }
}

impl Evidence {
    /// Takes note of what is on the console, and passes it on.
    fn hear(&mut self, bytes: &[u8], mut copy: &std::os::unix::net::UnixStream) {
        self.console.feed(bytes);
        // A guest is never held up by whoever reads its console: what does not fit is lost.
        let _ = copy.write(bytes);
    }

    /// Whether the guest's kernel has said its last words.
    fn heard_down(&self) -> bool {
        let console = self.console.text();
        !self.down && DOWN_MARKS.iter().any(|mark| console.contains(mark))
    }

    /// Acts on the messages that have come; says whether they made sense.
    fn listen(
        &mut self,
        decoder: &mut Decoder,
        waiting: &mut VecDeque<Reply>,
        progress: &broadcast::Sender<String>,
    ) -> bool {
        loop {
            let answer = match decoder.next_message() {
                Ok(None) => return true,
                Ok(Some(Message::Other)) => continue,
                Ok(Some(Message::Shutdown(shutdown))) => {
                    self.shutdown = Some(shutdown);
                    continue;
                }
                Ok(Some(Message::Progress(status))) => {
                    let _ = progress.send(status); // Often nobody listens.
                    continue;
                }
                Ok(Some(Message::Done)) => Ok(()),
                Ok(Some(Message::Failed(reason))) => Err(reason),
                Err(control::Garbled) => {
                    tracing::warn!("hypervisor broke its control protocol");
                    for waiting in waiting.drain(..) {
                        refuse(Some(waiting), "its answer makes no sense");
                    }
                    return false;
                }
            };
            if let Some(reply) = waiting.pop_front() {
                // Whoever asked may have given up by now.
                let _ = reply.send(answer);
            }
        }
    }

    fn verdict(&self, status: io::Result<ExitStatus>) -> Exit {
        let console = self.console.text();
        let ended_well = status.as_ref().is_ok_and(ExitStatus::success);
        let by_guest = self.shutdown.as_ref().is_none_or(|shutdown| shutdown.guest);
        let what = match status {
            Ok(_) if ended_well && by_guest && console.contains(PANIC_MARK) => {
                "guest kernel panicked".to_owned()
            }
            Ok(_) if ended_well && by_guest => return Exit::Stopped,
            _ if self.killed => return Exit::Killed,
            _ if self.down => return Exit::Stopped,
            Ok(_) if ended_well => "hypervisor was told to end".to_owned(),
            Ok(status) => match status.signal() {
                Some(signal) => format!("hypervisor was killed by signal {signal}"),
                None => format!("hypervisor failed ({status})"),
            },
            Err(error) => format!("hypervisor cannot be waited for: {error}"),
        };
        let words = [console, self.stderr.text()];
        let spoken: Vec<String> = words.into_iter().filter(|text| !text.is_empty()).collect();
        Exit::Crashed { status: what, last_words: spoken.join("\n") }
    }
}

#[cfg(test)]
mod tests;
