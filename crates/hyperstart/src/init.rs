// SPDX-License-Identifier: Apache-2.0
//! The loop of PID 1: what the host says, what processes write, and which children have ended.
//!
//! One thread and one epoll set. What a call means is in `calls`; here it is only seen to that
//! every word is heard and every byte moves.
//!
//! # Invariants
//!
//! - A process's end is told after its streams have ended, a container's after the last process in
//!   its control group is gone. What is left of the container is gone before the next request.
//! - Every child is reaped, also those that nobody asked for: orphans end up here.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use hc_proto::message::{Answer, Event, Failure, FromGuest, PodSetup, ProcessId, Reply, StreamId};
use hc_proto::{Attached, GuestMux, MuxEvent, SendError};
use hc_spec::{Exit, Id};
use rustix::process::{Pid, WaitOptions, WaitStatus};

use crate::cgroup::Cgroup;
use crate::channel::Channel;
use crate::container::{Container, Phase};
use crate::device_rules::DeviceRules;
use crate::helper::Helper;
use crate::kmsg;
use crate::process::{Process, Said};
use crate::setup::Kept;
use crate::watch::{Token, Watch};

/// How long the line is idle before acknowledgements go out by themselves.
const ACK_PAUSE: Duration = Duration::from_millis(20);
/// Reads of the line in a row before processes get their turn.
const CHANNEL_TURN: usize = 32;
/// How long killed processes may take to be gone at shutdown. The kernel needs milliseconds; only
/// one that hangs in a device takes longer, and will not get better.
const KILL_PATIENCE: Duration = Duration::from_secs(2);
/// How long the host may take to read the last words.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Everything PID 1 knows.
pub(crate) struct Init {
    pub(crate) watch: Watch,
    pub(crate) mux: GuestMux,
    pub(crate) null: OwnedFd,
    /// What the host has set up; `None` before it has.
    pub(crate) pod: Option<PodSetup>,
    /// What there is of the pod, or has stayed of the one before.
    pub(crate) kept: Kept,
    pub(crate) containers: BTreeMap<Id, Container>,
    pub(crate) processes: BTreeMap<ProcessId, Process>,
    pub(crate) helpers: BTreeMap<u32, Helper>,
    /// The request to shut down and until when processes may take to die.
    pub(crate) shutdown: Option<(u64, Instant)>,
    /// Containers whose end is told, or about to be, and whose mounts and groups are still there.
    gone: Vec<Container>,
    /// What came on streams that no process has been tied to yet.
    pub(crate) early: BTreeMap<StreamId, Early>,
    /// The control group of the next container, for which the stage is set, as in a parked guest.
    pub(crate) next_group: Option<Cgroup>,
    /// How many groups there have been.
    pub(crate) groups: u64,
    /// What restricts a container's devices; there once a container needed it.
    pub(crate) device_rules: Option<DeviceRules>,
    channel: Channel,
    children: OwnedFd,
    /// Whose each stream is.
    owners: BTreeMap<StreamId, ProcessId>,
    /// What the host has not had room for.
    outbox: VecDeque<FromGuest>,
    /// Whether the line may hold more than was read in the last turn.
    unread: bool,
}

/// Bytes of a stream whose process is still to be spawned.
#[derive(Default)]
pub(crate) struct Early {
    pub(crate) pieces: Vec<Vec<u8>>,
    pub(crate) ended: bool,
}

impl Init {
    /// Ties everything together. `children` tells of ended children.
    pub(crate) fn new(channel: Channel, children: OwnedFd, null: OwnedFd) -> io::Result<Init> {
        let watch = Watch::new()?;
        channel.watch(&watch)?;
        watch.add(&children, Token::Children, rustix::event::epoll::EventFlags::IN)?;
        Ok(Init {
            watch,
            mux: GuestMux::new(),
            null,
            pod: None,
            kept: Kept::default(),
            containers: BTreeMap::new(),
            processes: BTreeMap::new(),
            helpers: BTreeMap::new(),
            shutdown: None,
            gone: Vec::new(),
            early: BTreeMap::new(),
            next_group: None,
            groups: 0,
            device_rules: None,
            channel,
            children,
            owners: BTreeMap::new(),
            outbox: VecDeque::new(),
            unread: false,
        })
    }

    /// Serves the host until it shuts the pod down.
    pub(crate) fn run(mut self) -> ! {
        loop {
            if let Err(error) = self.turn() {
                kmsg::die(&format!("cannot go on: {error}"));
            }
        }
    }

    fn turn(&mut self) -> io::Result<()> {
        self.end_if_asked();
        self.send();
        self.channel.write(&mut self.mux)?;
        self.clear_away();
        let patience = if self.unread {
            Some(Duration::ZERO)
        } else if self.mux.has_lazy_acks() {
            Some(ACK_PAUSE)
        } else {
            self.shutdown.map(|(_, deadline)| deadline.saturating_duration_since(Instant::now()))
        };
        let tokens = self.watch.wait(patience)?;
        if tokens.is_empty() && !self.unread {
            self.mux.flush_acks();
        }
        if self.unread {
            self.read_channel()?;
        }
        for token in tokens {
            match token {
                Token::Channel => self.read_channel()?,
                Token::Children => self.reap(),
                Token::Start(process) => self.hear_start(process),
                Token::Input(process) => self.pump_input(process),
                Token::Output(process) | Token::ErrorOutput(process) => self.pump_outputs(process),
                Token::Helper(number) => self.hear_helper(number),
            }
        }
        Ok(())
    }

    /// Queues an answer.
    pub(crate) fn reply(&mut self, id: u64, result: Result<Answer, Failure>) {
        self.outbox.push_back(FromGuest::Reply(Reply { id, result }));
    }

    /// Notes which process the streams of a request belong to, and gives it what came early.
    pub(crate) fn adopt_streams(&mut self, id: ProcessId) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        for stream in process.streams() {
            self.owners.insert(stream, id);
            let early = self.early.remove(&stream).unwrap_or_default();
            if let Some(input) = process.input.as_mut().filter(|input| input.stream() == stream) {
                for piece in early.pieces {
                    input.push(piece, &mut self.mux, &self.watch);
                }
                if early.ended {
                    input.end(&mut self.mux, &self.watch);
                }
            }
        }
    }

    /// Gives up streams that no process will ever use.
    pub(crate) fn give_up_streams(&mut self, streams: impl IntoIterator<Item = StreamId>) {
        for stream in streams {
            self.early.remove(&stream);
            self.owners.remove(&stream);
            self.mux.reset(stream);
        }
    }

    fn send(&mut self) {
        while let Some(message) = self.outbox.front() {
            match self.mux.send_control(message) {
                Ok(()) => {}
                Err(SendError::Full) => return,
                Err(error) => kmsg::warn(&format!("a message to the host is lost: {error}")),
            }
            self.outbox.pop_front();
        }
    }

    fn read_channel(&mut self) -> io::Result<()> {
        for _ in 0..CHANNEL_TURN {
            let bytes = self.channel.read()?;
            if bytes.is_empty() {
                self.unread = false;
                return Ok(());
            }
            if let Err(error) = self.mux.feed(bytes) {
                kmsg::warn(&format!("the host broke the protocol: {error}"));
            }
            while let Some(event) = self.mux.next_event() {
                let is_request = matches!(event, MuxEvent::Control(_));
                self.take(event);
                if is_request {
                    // The host hears of it before the next, which may take long.
                    self.send();
                    self.channel.write(&mut self.mux)?;
                }
            }
            self.send();
            self.channel.write(&mut self.mux)?;
        }
        self.unread = true;
        Ok(())
    }

    fn take(&mut self, event: MuxEvent) {
        match event {
            MuxEvent::Ready { attached: Attached::New, .. } => self.forget_host(),
            MuxEvent::Ready { .. } => {}
            MuxEvent::Control(message) => match hc_proto::decode(&message) {
                Ok(request) => {
                    self.clear_away();
                    self.answer(request);
                }
                Err(error) => kmsg::warn(&format!("a request makes no sense: {error}")),
            },
            MuxEvent::Opened { stream, .. } => {
                self.early.insert(stream, Early::default());
            }
            MuxEvent::Data { stream, bytes } => self.take_data(stream, bytes),
            MuxEvent::Eof { stream } => self.take_end(stream),
            MuxEvent::Reset { stream } => {
                self.early.remove(&stream);
                self.forget_stream(stream);
            }
            MuxEvent::Writable { stream } => {
                if let Some(&process) = self.owners.get(&stream) {
                    self.pump_outputs(process);
                }
            }
        }
    }

    fn take_data(&mut self, stream: StreamId, bytes: Vec<u8>) {
        if let Some(early) = self.early.get_mut(&stream) {
            early.pieces.push(bytes);
            return;
        }
        let owner = self.owners.get(&stream).and_then(|id| self.processes.get_mut(id));
        let input = owner.and_then(|process| process.input.as_mut());
        match input.filter(|input| input.stream() == stream) {
            Some(input) => input.push(bytes, &mut self.mux, &self.watch),
            None => self.mux.consumed(stream, bytes.len()),
        }
    }

    fn take_end(&mut self, stream: StreamId) {
        if let Some(early) = self.early.get_mut(&stream) {
            early.ended = true;
            return;
        }
        let owner = self.owners.get(&stream).and_then(|id| self.processes.get_mut(id));
        let input = owner.and_then(|process| process.input.as_mut());
        if let Some(input) = input.filter(|input| input.stream() == stream) {
            input.end(&mut self.mux, &self.watch);
        }
    }

    fn forget_stream(&mut self, stream: StreamId) {
        let Some(id) = self.owners.remove(&stream) else { return };
        if let Some(process) = self.processes.get_mut(&id) {
            process.forget_stream(stream, &mut self.mux, &self.watch);
        }
        self.settle(id);
    }

    /// A host came that knows nothing of the one before.
    fn forget_host(&mut self) {
        self.outbox.clear();
        self.early.clear();
        for stream in self.owners.keys().copied().collect::<Vec<_>>() {
            self.forget_stream(stream);
        }
    }

    fn pump_input(&mut self, id: ProcessId) {
        if let Some(input) = self.processes.get_mut(&id).and_then(|p| p.input.as_mut()) {
            input.pump(&mut self.mux, &self.watch);
        }
    }

    fn pump_outputs(&mut self, id: ProcessId) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        for output in &mut process.outputs {
            output.pump(&mut self.mux, &self.watch);
        }
        self.settle(id);
    }

    fn hear_start(&mut self, id: ProcessId) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        let said = process.hear(&self.watch);
        if matches!(said, Said::Wait) {
            return;
        }
        let Some(start) = process.start.take() else { return };
        match said {
            Said::Cannot(failure) => {
                self.forget_process(id);
                self.reply(start.request, Err(failure));
            }
            Said::Runs | Said::Wait => self.reply(start.request, Ok(Answer::Done)),
        }
    }

    /// Drops a process whose program never ran.
    fn forget_process(&mut self, id: ProcessId) {
        let Some(process) = self.processes.remove(&id) else { return };
        self.give_up_streams(process.streams());
        if let Some(container) = self.containers.get_mut(&process.container)
            && container.phase == Phase::Running(id)
        {
            container.phase = Phase::Created;
        }
    }

    fn hear_helper(&mut self, number: u32) {
        let answer = self.helpers.get_mut(&number).and_then(|helper| helper.hear(&self.watch));
        if let Some(answer) = answer
            && let Some(helper) = self.helpers.remove(&number)
        {
            self.reply(helper.request, answer);
        }
    }

    /// Takes note of every child that has ended.
    fn reap(&mut self) {
        // The descriptor holds one note however many children ended.
        let _ = rustix::io::read(&self.children, &mut [0_u8; 128]);
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            if let Some(exit) = exit_of(status) {
                self.child_ended(pid, exit);
            }
        }
        let ending: Vec<ProcessId> = self
            .containers
            .values()
            .filter_map(|container| match container.phase {
                Phase::Ending(main, _) => Some(main),
                Phase::Created | Phase::Running(_) => None,
            })
            .collect();
        for main in ending {
            self.settle(main);
        }
    }

    fn child_ended(&mut self, pid: Pid, exit: Exit) {
        let found = self.processes.values().find(|p| p.pid == pid && p.exit.is_none());
        let Some(id) = found.map(|process| process.id) else { return };
        self.hear_start(id); // It may have said why before it ended.
        let Some(process) = self.processes.get_mut(&id) else { return };
        process.exit = Some(exit);
        process.close_input(&mut self.mux, &self.watch);
        if let Some(container) = self.containers.get_mut(&process.container)
            && container.phase == Phase::Running(id)
        {
            container.phase = Phase::Ending(id, exit);
            if let Err(error) = container.cgroup.kill() {
                kmsg::warn(&format!("cannot end container {}: {error}", container.id.short()));
            }
        }
        self.settle(id);
    }

    /// Tells the end of a process, or of the container that ends with it, once everything that must
    /// come before has happened; lets go of the process once nothing is left of it.
    fn settle(&mut self, id: ProcessId) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        let Some(exit) = process.exit else { return };
        if !process.told {
            let container = self.containers.get(&process.container);
            let ending = container.filter(|c| c.phase == Phase::Ending(id, exit));
            if ending.is_some_and(|container| !container.cgroup.is_empty()) {
                return;
            }
            if !process.drain(&mut self.mux, &self.watch) {
                return;
            }
            process.told = true;
            let ended = ending.map(|container| container.id.clone());
            let event = match ended.and_then(|id| self.containers.remove(&id)) {
                None => Event::ProcessExited { process: id, exit },
                Some(container) => {
                    let oom_killed = container.cgroup.oom_kills() > 0;
                    let id = container.id.clone();
                    self.gone.push(container);
                    Event::ContainerExited { container: id, exit, oom_killed }
                }
            };
            self.outbox.push_back(FromGuest::Event(event));
        }
        let Some(process) = self.processes.get(&id).filter(|p| p.is_spent()) else { return };
        for stream in process.streams() {
            self.owners.remove(&stream);
        }
        self.processes.remove(&id);
    }

    /// Lets go of what is left of containers that have ended. Nobody waits for it, so it is done
    /// after their end was told; but before the next request, which may need the place.
    fn clear_away(&mut self) {
        for container in self.gone.drain(..) {
            container.cgroup.remove();
        }
    }

    /// Shuts the pod down if that was asked for and nothing runs any more.
    fn end_if_asked(&mut self) {
        let Some((request, deadline)) = self.shutdown else { return };
        let gone = self.containers.values().all(|container| container.cgroup.is_empty());
        if !gone && Instant::now() < deadline {
            return;
        }
        // Roots are unmounted with their namespaces.
        self.containers.clear();
        self.gone.clear();
        self.kept.close();
        self.reply(request, Ok(Answer::Done));
        self.send();
        self.mux.flush_acks();
        if let Err(error) = self.channel.flush(&mut self.mux, Instant::now() + LAST_WORDS) {
            kmsg::warn(&format!("the host did not read the last words: {error}"));
        }
        kmsg::end_vm()
    }
}

/// How a child ended; `None` if it only stopped.
fn exit_of(status: WaitStatus) -> Option<Exit> {
    if let Some(code) = status.exit_status() {
        return Some(Exit::Code(u8::try_from(code & 0xff).unwrap_or(u8::MAX)));
    }
    let signal = status.terminating_signal()?;
    Some(Exit::Signal(u8::try_from(signal).unwrap_or(u8::MAX)))
}

/// When killed processes must be gone.
pub(crate) fn kill_deadline() -> Instant {
    Instant::now() + KILL_PATIENCE
}
