// SPDX-License-Identifier: Apache-2.0
//! A host as small as it gets: it says hello, asks, and keeps everything that it hears.

use std::collections::{BTreeMap, VecDeque};
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::Shutdown;
use std::time::{Duration, Instant};

use hc_proto::message::{
    Answer, Call, Event, Failure, FromGuest, Identity, PodSetup, Program, Request, Scratch, Spawn,
};
use hc_proto::message::{ProcessId, StreamId};
use hc_proto::{Direction, HostMux, Line, MuxEvent, Nonce, SessionId, decode};
use hc_spec::{
    CapabilitySet, ContainerLimits, ContainerSpec, Exit, Id, NetworkSpec, ProcessSpec, Signal,
};

use crate::machine::{Devices, IMAGE, Machine, SCRATCH, Saved};

/// How long anything may take on a slow and busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);
/// How long to wait for the line before looking at the clock again.
const TICK: Duration = Duration::from_millis(50);

/// A host with its guest.
pub(crate) struct Host {
    pub(crate) machine: Machine,
    mux: HostMux,
    replies: BTreeMap<u64, Result<Answer, Failure>>,
    events: VecDeque<Event>,
    received: BTreeMap<StreamId, Received>,
    sending: BTreeMap<StreamId, Sending>,
    resets: Vec<StreamId>,
    next_request: u64,
    next_process: ProcessId,
    ready: usize,
}

#[derive(Default)]
struct Received {
    bytes: Vec<u8>,
    ended: bool,
}

struct Sending {
    bytes: Vec<u8>,
    sent: usize,
    end: bool,
}

/// What a finished program left.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) exit: Exit,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A process that was asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Started {
    pub(crate) process: ProcessId,
    pub(crate) stdin: StreamId,
    pub(crate) stdout: StreamId,
    pub(crate) stderr: StreamId,
}

impl Host {
    /// Boots a guest with these devices and sets the pod up.
    pub(crate) fn boot(devices: &Devices) -> Option<Host> {
        let mut host = Host::greet(devices)?;
        host.call(Call::SetUp(setup(devices))).unwrap();
        Some(host)
    }

    /// Boots a guest and says hello.
    pub(crate) fn greet(devices: &Devices) -> Option<Host> {
        Machine::boot(devices).map(|machine| Host::meet(machine, HostMux::new(SessionId(7))))
    }

    /// Says hello to a guest.
    pub(crate) fn meet(machine: Machine, mux: HostMux) -> Host {
        machine.line.set_read_timeout(Some(TICK)).unwrap();
        let mut host = Host {
            machine,
            mux,
            replies: BTreeMap::new(),
            events: VecDeque::new(),
            received: BTreeMap::new(),
            sending: BTreeMap::new(),
            resets: Vec::new(),
            next_request: 1,
            next_process: 1,
            ready: 0,
        };
        host.mux.attach(Nonce(1), Line::Fresh);
        host.wait("hello", |host| (host.ready == 1).then_some(()));
        host
    }

    /// Drops the line and comes back on another, as a host does that was restarted.
    pub(crate) fn reconnect(&mut self) {
        self.machine.line.shutdown(Shutdown::Both).unwrap();
        let (line, _) = self.machine.listener.accept().unwrap();
        line.set_read_timeout(Some(TICK)).unwrap();
        self.machine.line = line;
        let ready = self.ready + 1;
        self.mux.attach(Nonce(ready as u128 + 1), Line::Used);
        self.wait("another hello", move |host| (host.ready == ready).then_some(()));
    }

    /// Becomes another host, which knows nothing of what was before.
    pub(crate) fn replace(&mut self, mux: HostMux) {
        self.mux = mux;
        self.received.clear();
        self.sending.clear();
        self.reconnect();
    }

    /// Numbers processes from behind this one, which an earlier host started.
    pub(crate) fn skip_processes(&mut self, last: ProcessId) {
        self.next_process = last + 1;
    }

    /// Copies the guest and ends it.
    pub(crate) fn save(self) -> Saved {
        self.machine.save()
    }

    /// Asks and waits for the answer.
    pub(crate) fn call(&mut self, call: Call) -> Result<Answer, Failure> {
        let id = self.ask(call);
        self.wait("an answer", |host| host.replies.remove(&id))
    }

    /// Asks without waiting.
    pub(crate) fn ask(&mut self, call: Call) -> u64 {
        let id = self.next_request;
        self.next_request += 1;
        self.mux.send_control(&Request { id, call }).unwrap();
        id
    }

    /// Makes a container.
    pub(crate) fn create(&mut self, spec: &ContainerSpec) -> Id {
        self.call(Call::CreateContainer(Box::new(spec.clone()))).unwrap();
        spec.id.clone()
    }

    /// Makes a container whose main process sleeps, for others to be run in.
    pub(crate) fn sleeper(&mut self, spec: &ContainerSpec) -> Id {
        let id = self.create(spec);
        self.spawn(&id, true, Program::Exec(process(&["sleep", "1000"]))).unwrap();
        id
    }

    /// Starts a program with all its streams.
    pub(crate) fn spawn(
        &mut self,
        container: &Id,
        main: bool,
        program: Program,
    ) -> Result<Started, Failure> {
        let terminal = matches!(&program, Program::Exec(spec) if spec.terminal.is_some());
        let process = self.next_process;
        self.next_process += 1;
        let stdin = self.mux.open(Direction::ToGuest).unwrap();
        let stdout = self.mux.open(Direction::ToHost).unwrap();
        let stderr = if terminal { 0 } else { self.mux.open(Direction::ToHost).unwrap() };
        self.call(Call::Spawn(Box::new(Spawn {
            container: container.clone(),
            process,
            main,
            program,
            stdin: Some(stdin),
            stdout: Some(stdout),
            stderr: (!terminal).then_some(stderr),
        })))?;
        Ok(Started { process, stdin, stdout, stderr })
    }

    /// Queues bytes, and perhaps the end, for a process.
    pub(crate) fn send(&mut self, stream: StreamId, bytes: &[u8], end: bool) {
        let sending = self.sending.entry(stream).or_insert_with(|| Sending {
            bytes: Vec::new(),
            sent: 0,
            end: false,
        });
        sending.bytes.extend_from_slice(bytes);
        sending.end |= end;
        self.feed_streams();
    }

    /// Runs a shell script in a container and waits for its end.
    pub(crate) fn sh(&mut self, container: &Id, script: &str) -> Outcome {
        self.run(container, Program::Exec(process(&["sh", "-c", script])), &[])
    }

    /// Runs a program with this input and waits for its end.
    pub(crate) fn run(&mut self, container: &Id, program: Program, input: &[u8]) -> Outcome {
        let started = self.spawn(container, false, program).unwrap();
        self.send(started.stdin, input, true);
        self.finish(started)
    }

    /// Waits for the end of a process that is not its container's main one, and for its streams.
    pub(crate) fn finish(&mut self, started: Started) -> Outcome {
        let exit = self.process_exit(started.process);
        let stdout = self.read_text(started.stdout);
        let stderr =
            if started.stderr == 0 { String::new() } else { self.read_text(started.stderr) };
        Outcome { exit, stdout, stderr }
    }

    /// Waits for the end of a process that is not its container's main one.
    pub(crate) fn process_exit(&mut self, wanted: ProcessId) -> Exit {
        self.wait("a process's end", |host| {
            let is_it = |event: &Event| {
                matches!(event, Event::ProcessExited { process, .. } if *process == wanted)
            };
            let index = host.events.iter().position(is_it)?;
            match host.events.remove(index)? {
                Event::ProcessExited { exit, .. } => Some(exit),
                Event::ContainerExited { .. } => None,
            }
        })
    }

    /// Waits for a container's end: how it ended, and whether it was for want of memory.
    pub(crate) fn container_exit(&mut self, id: &Id) -> (Exit, bool) {
        self.wait("a container's end", |host| {
            let is_it = |event: &Event| {
                matches!(event, Event::ContainerExited { container, .. } if container == id)
            };
            let index = host.events.iter().position(is_it)?;
            match host.events.remove(index)? {
                Event::ContainerExited { exit, oom_killed, .. } => Some((exit, oom_killed)),
                Event::ProcessExited { .. } => None,
            }
        })
    }

    /// Sends a signal.
    pub(crate) fn signal(&mut self, container: &Id, process: Option<ProcessId>, signal: Signal) {
        self.call(Call::Signal { container: container.clone(), process, signal }).unwrap();
    }

    /// Everything a stream carried, once it has ended.
    pub(crate) fn read_all(&mut self, stream: StreamId) -> Vec<u8> {
        self.wait("the end of a stream", |host| {
            host.received.get(&stream).is_some_and(|received| received.ended).then_some(())
        });
        self.received.remove(&stream).unwrap().bytes
    }

    /// The same as text.
    pub(crate) fn read_text(&mut self, stream: StreamId) -> String {
        String::from_utf8(self.read_all(stream)).unwrap()
    }

    /// Waits until a stream has carried `text`, and gives everything so far.
    pub(crate) fn expect(&mut self, stream: StreamId, text: &str) -> String {
        self.wait(&format!("{text:?}"), |host| {
            let bytes = &host.received.get(&stream)?.bytes;
            let heard = String::from_utf8_lossy(bytes).into_owned();
            heard.contains(text).then_some(heard)
        })
    }

    /// Waits until the guest has given a stream up.
    pub(crate) fn expect_reset(&mut self, stream: StreamId) {
        self.wait("a reset", |host| host.resets.contains(&stream).then_some(()));
    }

    /// Lets the line work until `ready` says something.
    #[track_caller]
    pub(crate) fn wait<T>(
        &mut self,
        what: &str,
        mut ready: impl FnMut(&mut Host) -> Option<T>,
    ) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = ready(self) {
                return found;
            }
            assert!(Instant::now() < deadline, "no {what} within {PATIENCE:?}");
            self.turn();
        }
    }

    fn turn(&mut self) {
        while self.mux.has_output() {
            let taken = self.machine.line.write(self.mux.pending_output()).unwrap();
            self.mux.advance(taken);
        }
        let mut buffer = vec![0; 256 * 1024];
        match self.machine.line.read(&mut buffer) {
            Ok(0) => panic!("the guest is gone"),
            Ok(length) => self.mux.feed(&buffer[..length]).unwrap(),
            Err(error) if error.kind() == ErrorKind::WouldBlock => self.mux.flush_acks(),
            Err(error) => panic!("{error}"),
        }
        while let Some(event) = self.mux.next_event() {
            self.take(event);
        }
        self.feed_streams();
    }

    fn take(&mut self, event: MuxEvent) {
        match event {
            MuxEvent::Ready { .. } => self.ready += 1,
            MuxEvent::Control(message) => match decode(&message).unwrap() {
                FromGuest::Reply(reply) => {
                    self.replies.insert(reply.id, reply.result);
                }
                FromGuest::Event(event) => self.events.push_back(event),
            },
            MuxEvent::Data { stream, bytes } => {
                self.mux.consumed(stream, bytes.len());
                self.received.entry(stream).or_default().bytes.extend(bytes);
            }
            MuxEvent::Eof { stream } => self.received.entry(stream).or_default().ended = true,
            MuxEvent::Reset { stream } => {
                self.sending.remove(&stream);
                self.resets.push(stream);
            }
            MuxEvent::Writable { .. } | MuxEvent::Opened { .. } => {}
        }
    }

    fn feed_streams(&mut self) {
        for (&stream, sending) in &mut self.sending {
            while sending.sent < sending.bytes.len() {
                match self.mux.send_data(stream, &sending.bytes[sending.sent..]) {
                    Ok(0) | Err(_) => break,
                    Ok(taken) => sending.sent += taken,
                }
            }
        }
        let mux = &mut self.mux;
        self.sending.retain(|&stream, sending| {
            let done = sending.sent == sending.bytes.len();
            if done && sending.end {
                mux.send_eof(stream);
            }
            !(done && sending.end)
        });
    }
}

/// The pod that the tests set up.
pub(crate) fn setup(devices: &Devices) -> PodSetup {
    let identity = Identity {
        hostname: "pod".into(),
        unix_nanos: 1_700_000_000_000_000_000,
        entropy: vec![42; 64],
        network: devices.network.then(|| NetworkSpec {
            mac: [0x52, 0x54, 0, 0x12, 0x34, 0x56],
            addresses: vec![("10.0.2.15".parse().unwrap(), 24), ("fec0::15".parse().unwrap(), 64)],
            gateways: vec!["10.0.2.2".parse().unwrap(), "fec0::2".parse().unwrap()],
            mtu: 1400,
        }),
        dns_servers: vec!["10.0.2.3".parse().unwrap()],
        dns_search: Vec::new(),
        dns_options: Vec::new(),
        hosts: Vec::new(),
    };
    let scratch = match devices.scratch {
        Some(_) => Scratch::Disk(SCRATCH.into()),
        None => Scratch::Memory,
    };
    PodSetup { identity, scratch }
}

/// A container like Docker's default.
pub(crate) fn container(number: u8) -> ContainerSpec {
    ContainerSpec {
        id: Id::from_bytes([number; 32]),
        rootfs: IMAGE.into(),
        read_only: false,
        tmpfs: Vec::new(),
        shm_bytes: 64 << 20,
        limits: ContainerLimits::default(),
        privileged: false,
        capabilities: CapabilitySet::default(),
        stop_signal: Signal::TERM,
        process: process(&["true"]),
    }
}

/// A process like Docker's default.
pub(crate) fn process(args: &[&str]) -> ProcessSpec {
    ProcessSpec {
        args: args.iter().map(ToString::to_string).collect(),
        env: Vec::new(),
        cwd: "/".into(),
        user: String::new(),
        terminal: None,
        capabilities: CapabilitySet::default(),
        no_new_privileges: false,
        rlimits: Vec::new(),
    }
}
