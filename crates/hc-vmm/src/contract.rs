// SPDX-License-Identifier: Apache-2.0
//! What every driver owes its callers, as tests that take any driver.
//!
//! A driver crate writes one function that says how to make the driver and where a kernel is, and
//! [`contract!`](crate::contract!) turns every promise below into a test of its own. They talk to a
//! real guest, `contract/guest.c`, which does what lines on its channel ask for.
//!
//! # Limits
//!
//! That no instruction runs before `start` is checked only by the guest's silence.
#![expect(clippy::missing_panics_doc, reason = "a panic is how a test fails")]
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod disks;
mod guest;
mod life;
mod links;
mod owner;
mod shares;
mod snapshots;
mod streams;
mod tap;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::time::timeout;

pub use disks::{
    disks_are_found_by_their_id, full_host_disk_is_an_error_for_the_guest,
    read_only_disk_cannot_be_written, scratch_disk_reaches_its_file, trimmed_blocks_are_given_back,
};
pub use guest::initramfs;
pub use life::{
    crashed_hypervisor_is_told, created_and_dropped_vm_leaves_nothing, exit_is_kept,
    guest_that_stops_has_stopped, held_guest_stands_still, kernel_panic_is_told_with_last_words,
    killed_before_start_is_killed, missing_ability_is_refused, pause_handle_matches_abilities,
    running_vm_dies_when_dropped, senseless_spec_is_refused, started_twice_is_refused,
    wait_can_be_cancelled,
};
pub use links::{
    network_carries_frames_both_ways, socket_carries_frames_both_ways, tap_carries_frames_both_ways,
};
pub use owner::vm_dies_with_its_owner;
pub use shares::{
    read_only_share_cannot_be_written, shared_folder_has_no_way_out,
    shared_folder_is_read_and_written,
};
pub use snapshots::{
    damaged_snapshot_is_no_vm, replaced_disk_has_the_new_content,
    restored_guest_gets_its_own_disks, restored_guest_has_a_network, snapshot_goes_on_many_times,
    snapshot_handles_match_abilities, snapshot_is_sparse, snapshot_of_a_restored_vm,
};
pub use streams::{
    channel_carries_bytes_both_ways, console_reader_may_be_slow, guest_clock_keeps_time,
    guest_gets_its_share, streams_are_given_once, streams_end_with_the_vm,
};

use crate::{Access, Disk, Driver, Transport, Vm, VmSpec};

/// The longest that anything here takes: a boot under emulation on a machine that is busy.
const DEADLINE: Duration = Duration::from_mins(1);

/// A driver, and what it needs to boot the contract's guest.
pub struct Bench {
    /// The driver.
    pub driver: Box<dyn Driver>,
    /// A kernel that it boots.
    pub kernel: PathBuf,
    /// What [`initramfs`] made.
    pub initramfs: PathBuf,
    /// How the kernel finds its devices.
    pub transport: Transport,
    /// Serves a folder, read-only or not, at the other end of what it gives; `None` if this is not
    /// tested here.
    pub serve: Option<fn(&Path, bool) -> std::os::unix::net::UnixStream>,
    /// Says that a test does not run, and why.
    pub skip: fn(&str),
}

/// Turns every promise into a test of the crate that calls it.
///
/// `$bench` is a function that makes a [`Bench`](crate::contract::Bench), or says why it cannot and
/// returns `None`. The crate needs tokio.
#[macro_export]
macro_rules! contract {
    ($bench:path) => {
        $crate::contract! { $bench =>
            channel_carries_bytes_both_ways
            console_reader_may_be_slow
            crashed_hypervisor_is_told
            damaged_snapshot_is_no_vm
            created_and_dropped_vm_leaves_nothing
            disks_are_found_by_their_id
            exit_is_kept
            full_host_disk_is_an_error_for_the_guest
            guest_clock_keeps_time
            guest_gets_its_share
            guest_that_stops_has_stopped
            held_guest_stands_still
            kernel_panic_is_told_with_last_words
            killed_before_start_is_killed
            missing_ability_is_refused
            network_carries_frames_both_ways
            pause_handle_matches_abilities
            read_only_disk_cannot_be_written
            read_only_share_cannot_be_written
            replaced_disk_has_the_new_content
            restored_guest_gets_its_own_disks
            restored_guest_has_a_network
            running_vm_dies_when_dropped
            scratch_disk_reaches_its_file
            senseless_spec_is_refused
            shared_folder_has_no_way_out
            shared_folder_is_read_and_written
            snapshot_goes_on_many_times
            snapshot_handles_match_abilities
            snapshot_is_sparse
            snapshot_of_a_restored_vm
            socket_carries_frames_both_ways
            started_twice_is_refused
            streams_are_given_once
            streams_end_with_the_vm
            tap_carries_frames_both_ways
            trimmed_blocks_are_given_back
            wait_can_be_cancelled
        }

        #[::tokio::test]
        async fn vm_dies_with_its_owner() {
            if let Some(bench) = $bench() {
                let module = ::core::module_path!();
                $crate::contract::vm_dies_with_its_owner(&bench, module).await;
            }
        }
    };
    ($bench:path => $($promise:ident)*) => {$(
        #[::tokio::test]
        async fn $promise() {
            if let Some(bench) = $bench() {
                $crate::contract::$promise(&bench).await;
            }
        }
    )*};
}

/// A folder for one VM.
fn run_dir() -> TempDir {
    tempfile::Builder::new().prefix("hyper-contract-").tempdir().unwrap()
}

impl Bench {
    /// A VM as small as it gets, also for a driver's own tests; a test names only what it is about.
    #[must_use]
    pub fn spec(&self, dir: &Path) -> VmSpec {
        VmSpec {
            name: "contract".to_owned(),
            run_dir: dir.to_owned(),
            kernel: self.kernel.clone(),
            initramfs: self.initramfs.clone(),
            kernel_parameters: "quiet".to_owned(),
            transport: self.transport,
            vcpus: 1,
            memory_mib: 96,
            disks: Vec::new(),
            nic: None,
            shares: Vec::new(),
            saved: None,
            confine: None,
        }
    }

    /// Boots a VM and waits until its guest is ready for requests.
    async fn boot(&self, change: impl FnOnce(&mut VmSpec)) -> Running {
        let mut running = self.launch(change).await;
        let greeting = running.line().await;
        assert_eq!(greeting, "ready", "the console says: {}", running.console().await);
        running
    }

    /// Makes a VM and starts it.
    async fn launch(&self, change: impl FnOnce(&mut VmSpec)) -> Running {
        let dir = run_dir();
        let mut spec = self.spec(dir.path());
        change(&mut spec);
        let mut vm = self.driver.create(spec).await.unwrap();
        let channel = UnixStream::from_std(vm.channel().unwrap()).unwrap();
        vm.start().await.unwrap();
        Running { vm, channel, dir }
    }
}

/// A VM with a guest that answers.
struct Running {
    vm: Box<dyn Vm>,
    channel: UnixStream,
    dir: TempDir,
}

impl Running {
    async fn send(&mut self, bytes: &[u8]) {
        in_time("write to the channel", self.channel.write_all(bytes)).await.unwrap();
    }

    /// The guest's next line, or what there is of it when the channel ends.
    async fn line(&mut self) -> String {
        let read = async {
            let mut line = Vec::new();
            while let Ok(byte) = self.channel.read_u8().await
                && byte != b'\n'
            {
                line.push(byte);
            }
            String::from_utf8_lossy(&line).into_owned()
        };
        let Ok(line) = timeout(DEADLINE, read).await else {
            panic!("no line from the guest; the console says: {}", self.console().await)
        };
        line
    }

    /// Sends a request and gives back the guest's answer.
    async fn ask(&mut self, request: &str) -> String {
        self.send(format!("{request}\n").as_bytes()).await;
        self.line().await
    }

    /// What is on the console so far.
    async fn console(&mut self) -> String {
        let Some(console) = self.vm.console() else { return "(already taken)".to_owned() };
        let console = UnixStream::from_std(console).unwrap();
        let mut bytes = [0; 4096];
        let len = match in_time("read the console", console.readable()).await {
            Ok(()) => console.try_read(&mut bytes).unwrap_or_default(),
            Err(_) => 0,
        };
        String::from_utf8_lossy(&bytes[..len]).into_owned()
    }
}

/// Waits for `future`, but not for ever.
async fn in_time<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(DEADLINE, future).await.unwrap_or_else(|_| panic!("no end: {what}"))
}

/// A disk of this size that begins with `text`.
fn disk(id: &str, access: Access, len: u64, text: &str) -> Disk {
    let file = tempfile::tempfile().unwrap();
    fill(&file, len, text);
    Disk { id: id.to_owned(), file, access }
}

fn fill(mut file: &File, len: u64, text: &str) {
    use std::io::Write as _;
    file.set_len(len).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}
