// SPDX-License-Identifier: Apache-2.0
//! Promises about how a VM begins and ends.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, Signal};
use tokio::time::{Instant, sleep, timeout};

use super::links::card;
use super::{Bench, DEADLINE, Running, disk, in_time, run_dir};
use crate::{Ability, Access, Error, Exit, Kind, Link, Share, Transport, Vm, VmSpec};

/// A change of a spec.
type Change = dyn Fn(&mut VmSpec);

/// How long a held guest has to say nothing: it would say something every few milliseconds.
const SILENCE: Duration = Duration::from_millis(200);

/// A kill is reported as one, to everybody who asks, and a second kill is no error.
pub async fn exit_is_kept(bench: &Bench) {
    let mut running = bench.boot(|_| ()).await;
    running.vm.kill().await.unwrap();
    running.vm.kill().await.unwrap();
    assert_eq!(exit(&mut *running.vm).await, Exit::Killed);
    assert_eq!(exit(&mut *running.vm).await, Exit::Killed);
    assert_nothing_left(running);
}

/// A created VM is silent, can be killed, and then cannot be started.
pub async fn killed_before_start_is_killed(bench: &Bench) {
    let dir = run_dir();
    let mut vm = bench.driver.create(bench.spec(dir.path())).await.unwrap();
    let mut byte = [0];
    let silence = std::io::Read::read(&mut vm.channel().unwrap(), &mut byte).unwrap_err();
    assert_eq!(silence.kind(), std::io::ErrorKind::WouldBlock);
    vm.kill().await.unwrap();
    assert_eq!(exit(&mut *vm).await, Exit::Killed);
    assert_eq!(vm.start().await.unwrap_err().kind(), Kind::InvalidState);
    assert_eq!(exit(&mut *vm).await, Exit::Killed);
}

/// A VM is started once.
pub async fn started_twice_is_refused(bench: &Bench) {
    let mut running = bench.boot(|_| ()).await;
    assert_eq!(running.vm.start().await.unwrap_err().kind(), Kind::InvalidState);
    assert_eq!(running.ask("cpus").await, "1");
}

/// A guest's own end is no kill and no crash, also if somebody kills the VM after it.
pub async fn guest_that_stops_has_stopped(bench: &Bench) {
    let mut running = bench.boot(|_| ()).await;
    running.send(b"stop\n").await;
    assert_eq!(exit(&mut *running.vm).await, Exit::Stopped);
    running.vm.kill().await.unwrap();
    assert_eq!(exit(&mut *running.vm).await, Exit::Stopped);
    assert_eq!(running.vm.process_id(), None);
    assert_nothing_left(running);
}

/// A caller that stops waiting loses nothing.
pub async fn wait_can_be_cancelled(bench: &Bench) {
    let mut running = bench.boot(|_| ()).await;
    let early = timeout(Duration::from_millis(1), running.vm.wait()).await;
    assert!(early.is_err(), "{early:?}");
    running.send(b"stop\n").await;
    assert_eq!(exit(&mut *running.vm).await, Exit::Stopped);
}

/// A VM that was never started costs nothing to drop.
pub async fn created_and_dropped_vm_leaves_nothing(bench: &Bench) {
    let dir = run_dir();
    let vm = bench.driver.create(bench.spec(dir.path())).await.unwrap();
    let process = vm.process_id();
    drop(vm);
    assert_ended(process).await;
    assert_eq!(traces(dir.path()), 0);
}

/// Nobody has to remember to kill.
pub async fn running_vm_dies_when_dropped(bench: &Bench) {
    let Running { vm, channel, dir } = bench.boot(|_| ()).await;
    let process = vm.process_id();
    drop(vm);
    assert_ended(process).await;
    drop(channel);
    assert_eq!(traces(dir.path()), 0);
}

/// A panic is told from an end that the guest wanted, and why it came can be read.
pub async fn kernel_panic_is_told_with_last_words(bench: &Bench) {
    let mut running = bench.boot(|_| ()).await;
    running.send(b"panic\n").await;
    let Exit::Crashed { status, last_words } = exit(&mut *running.vm).await else {
        panic!("a panic is a crash")
    };
    assert_eq!(status, "guest kernel panicked");
    assert!(last_words.contains("asked to panic"), "{last_words}");
    assert!(last_words.contains("Attempted to kill init"), "{last_words}");
}

/// A hypervisor that dies is told from a guest that does.
pub async fn crashed_hypervisor_is_told(bench: &Bench) {
    let mut running = bench.boot(|_| ()).await;
    let Some(process) = running.vm.process_id() else { return };
    signal(process, Signal::KILL);
    let Exit::Crashed { status, .. } = exit(&mut *running.vm).await else {
        panic!("nobody asked for this end")
    };
    assert!(status.contains("signal 9"), "{status}");
    assert_nothing_left(running);
}

/// Whoever plans by the abilities is not disappointed.
pub async fn pause_handle_matches_abilities(bench: &Bench) {
    let dir = run_dir();
    let mut vm = bench.driver.create(bench.spec(dir.path())).await.unwrap();
    assert_eq!(vm.pause().is_some(), bench.driver.abilities().contains(&Ability::Pause));
    if let Some(pause) = vm.pause() {
        assert_eq!(pause.hold().await.unwrap_err().kind(), Kind::InvalidState);
    }
}

/// A held guest runs no instruction, and goes on where it was.
pub async fn held_guest_stands_still(bench: &Bench) {
    if !bench.driver.abilities().contains(&Ability::Pause) {
        return;
    }
    let mut running = bench.boot(|_| ()).await;
    assert_eq!(running.ask("tick").await, "tick");
    running.vm.pause().unwrap().hold().await.unwrap();
    // What was said before is still on its way; then there is silence.
    let deadline = Instant::now() + DEADLINE;
    while timeout(SILENCE, running.line()).await.is_ok() {
        assert!(Instant::now() < deadline, "a held guest goes on talking");
    }
    running.vm.pause().unwrap().release().await.unwrap();
    running.line().await;
    assert_eq!(running.line().await, "tick");
    running.vm.pause().unwrap().hold().await.unwrap();
    running.vm.kill().await.unwrap();
    assert_eq!(exit(&mut *running.vm).await, Exit::Killed);
}

/// What a driver does not list, it refuses before anything is made.
pub async fn missing_ability_is_refused(bench: &Bench) {
    let uses: [(Ability, &Change); 5] = [
        (Ability::Network, &|spec| spec.nic = Some(card(Link::Owner))),
        (Ability::Socket, &|spec| spec.nic = Some(card(Link::Socket(socket())))),
        (Ability::Share, &|spec| spec.shares = vec![share("folder")]),
        (Ability::Transport(Transport::Mmio), &|spec| spec.transport = Transport::Mmio),
        (Ability::Transport(Transport::Pci), &|spec| spec.transport = Transport::Pci),
    ];
    for (ability, ask_for) in uses {
        let dir = run_dir();
        let mut spec = bench.spec(dir.path());
        ask_for(&mut spec);
        let refused = match bench.driver.create(spec).await {
            Ok(_) => false,
            Err(Error::Unsupported { ability: refused, .. }) => refused == ability,
            Err(error) => panic!("{error}"),
        };
        assert_eq!(refused, !bench.driver.abilities().contains(&ability), "{ability}");
        assert_eq!(traces(dir.path()), 0);
    }
}

/// A spec without sense gives an error that says what is wrong.
pub async fn senseless_spec_is_refused(bench: &Bench) {
    let changes: [(&str, &Change); 7] = [
        ("no processor", &|spec| spec.vcpus = 0),
        ("no memory", &|spec| spec.memory_mib = 0),
        ("control character", &|spec| spec.kernel_parameters.push('\n')),
        ("cannot be the id", &|spec| {
            spec.disks = vec![disk("more-than-twenty-bytes", Access::ReadOnly, 4096, "")];
        }),
        ("two disks", &|spec| {
            let twin = || disk("twin", Access::ReadOnly, 4096, "");
            spec.disks = vec![twin(), twin()];
        }),
        ("cannot be the tag", &|spec| spec.shares = vec![share("")]),
        ("two shared folders", &|spec| spec.shares = vec![share("twin"), share("twin")]),
    ];
    for (reason, change) in changes {
        let dir = run_dir();
        let mut spec = bench.spec(dir.path());
        change(&mut spec);
        let Err(error) = bench.driver.create(spec).await else { panic!("made a vm: {reason}") };
        assert_eq!(error.kind(), Kind::InvalidArgument);
        assert!(error.to_string().contains(reason), "{error}");
    }
}

fn socket() -> UnixStream {
    UnixStream::pair().unwrap().0
}

/// A folder that nobody serves.
fn share(tag: &str) -> Share {
    Share { tag: tag.to_owned(), server: socket() }
}

/// Waits for the end of a VM.
async fn exit(vm: &mut dyn Vm) -> Exit {
    in_time("wait for the exit", vm.wait()).await.unwrap()
}

/// Checks that a VM that has ended left no process and no file.
fn assert_nothing_left(running: Running) {
    let Running { vm, channel: _, dir } = running;
    assert_eq!(vm.process_id(), None);
    drop(vm);
    assert_eq!(traces(dir.path()), 0);
}

/// Waits until the process is gone, or is only an exit status that its parent has yet to collect.
pub(super) async fn assert_ended(process: Option<u32>) {
    let Some(process) = process else { return };
    let runs = || {
        let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
        state.is_some_and(|state| !matches!(state, 'Z' | 'X'))
    };
    let deadline = Instant::now() + DEADLINE;
    while runs() {
        assert!(Instant::now() < deadline, "process {process} lives on");
        sleep(Duration::from_millis(2)).await;
    }
}

pub(super) fn signal(process: u32, signal: Signal) {
    let process = Pid::from_raw(process.cast_signed()).unwrap();
    rustix::process::kill_process(process, signal).unwrap();
}

fn traces(dir: &Path) -> usize {
    fs::read_dir(dir).unwrap().count()
}
