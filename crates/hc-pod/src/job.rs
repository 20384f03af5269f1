// SPDX-License-Identifier: Apache-2.0
//! What a pod process is told to do: messages with open files, over the socket that is its standard
//! input when it starts.
//!
//! ```text
//! daemon                                     hyper-pod
//!   | ------------- Pod, files ----------------> |  lives that pod's life
//!
//!   | ------------- Warm, guest ---------------> |  makes a VM of the guest
//!   | <------------ Ready ---------------------- |
//!   | ------------- Pod, files ----------------> |  lives that pod's life in it
//!
//!   | ------------- Template, empty guest -----> |  boots, fills the guest's files, ends
//!   | <------------ Ready ---------------------- |
//! ```
//!
//! # Invariants
//!
//! - A message is one packet: it comes whole, with its files, or not at all.
//! - A process whose daemon goes away before it has a pod ends, and its VM with it.
//! - The pod's lock is among the files, so another daemon sees that the pod lives from the moment at
//!   which the message is sent.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg,
    sendmsg, socketpair,
};
use serde::{Deserialize, Serialize};

use crate::config::VmConfig;
use crate::saved::Guest;

/// The longest message: a few paths.
const MAX_MESSAGE: usize = 64 << 10;
/// The most files of a message.
const MAX_FILES: usize = 6;

/// Something to do.
#[derive(Debug)]
pub enum Job {
    /// Live the life of a pod.
    Pod {
        /// Its folders.
        dirs: PodDirs,
        /// Where its clients connect; they may have already.
        listener: UnixListener,
        /// Its lock, taken.
        lock: File,
        /// Its own log.
        log: File,
        /// The guest that its VM goes on from, if it does not boot.
        guest: Option<Guest>,
    },
    /// Make a VM of a template, for the pod that comes next, and rehearse a pod in it.
    Warm(Rehearsed, Guest),
    /// Boot a VM, rehearse a pod in it, and copy its guest to the empty files.
    Template(Rehearsed, Guest),
}

/// The folders of a pod, as [`PodDir`](crate::PodDir) names them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodDirs {
    /// What outlives a reboot.
    pub data: PathBuf,
    /// What does not.
    pub runtime: PathBuf,
}

/// All that pods have in common which start from the same template.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    /// The VM.
    pub vm: VmConfig,
    /// Whether it has a network card.
    pub network: bool,
}

/// A VM in which a pod is rehearsed before it is anybody's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rehearsed {
    /// Its shape.
    pub shape: Shape,
    /// A root file system with one program, `/program`, which ends at once.
    pub rehearsal: PathBuf,
}

/// What came of a job that is not a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The VM waits, or the template is made.
    Ready,
    /// Neither, for this reason.
    Failed(String),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Message {
    Pod(PodDirs),
    Warm(Rehearsed),
    Template(Rehearsed),
}

/// A socket for jobs: the daemon's end, non-blocking, and the pod process's.
pub fn socket() -> io::Result<(UnixStream, OwnedFd)> {
    let (ours, theirs) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    rustix::io::ioctl_fionbio(&ours, true)?;
    // One of packets; to whoever waits for it, it is like any other.
    Ok((ours.into(), theirs))
}

impl Job {
    /// Sends the job. It never waits: a socket has room for more jobs than a process is given.
    pub fn send(&self, socket: impl AsFd) -> io::Result<()> {
        let (message, mut files): (_, Vec<BorrowedFd<'_>>) = match self {
            Job::Pod { dirs, listener, lock, log, .. } => {
                (Message::Pod(dirs.clone()), vec![listener.as_fd(), lock.as_fd(), log.as_fd()])
            }
            Job::Warm(new, _) => (Message::Warm(new.clone()), Vec::new()),
            Job::Template(new, _) => (Message::Template(new.clone()), Vec::new()),
        };
        if let Job::Pod { guest: Some(guest), .. } | Job::Warm(_, guest) | Job::Template(_, guest) =
            self
        {
            files.extend([guest.memory.as_fd(), guest.state.as_fd(), guest.disk.as_fd()]);
        }
        send(socket, &serde_json::to_vec(&message)?, &files)
    }

    /// Waits for a job; `None` when the daemon has gone.
    pub fn receive(socket: impl AsFd) -> io::Result<Option<Job>> {
        let (bytes, files) = receive(socket)?;
        if bytes.is_empty() {
            return Ok(None);
        }
        let mut files = files.into_iter();
        let guest = |files: &mut std::vec::IntoIter<OwnedFd>| {
            let (memory, state, disk) = (files.next()?, files.next()?, files.next()?);
            Some(Guest { memory: memory.into(), state: state.into(), disk: disk.into() })
        };
        let job = match serde_json::from_slice(&bytes)? {
            Message::Pod(dirs) => (|| {
                let (listener, lock, log) = (files.next()?, files.next()?, files.next()?);
                Some(Job::Pod {
                    dirs,
                    listener: listener.into(),
                    lock: lock.into(),
                    log: log.into(),
                    guest: guest(&mut files),
                })
            })(),
            Message::Warm(new) => guest(&mut files).map(|guest| Job::Warm(new, guest)),
            Message::Template(new) => guest(&mut files).map(|guest| Job::Template(new, guest)),
        };
        job.map(Some).ok_or_else(|| io::Error::other("a job came without its files"))
    }
}

impl Outcome {
    /// Tells the daemon. One that has gone does not care.
    pub fn send(&self, socket: impl AsFd) -> io::Result<()> {
        send(socket, &serde_json::to_vec(self)?, &[])
    }

    /// Takes what the process has told, or fails with `WouldBlock` where it has told nothing. A
    /// process that ended without a word has failed.
    pub fn receive(socket: impl AsFd) -> io::Result<Outcome> {
        let (bytes, _) = receive(socket)?;
        if bytes.is_empty() {
            return Ok(Outcome::Failed("the pod process has ended".to_owned()));
        }
        Ok(serde_json::from_slice(&bytes)?)
    }
}

fn send(socket: impl AsFd, bytes: &[u8], files: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FILES))];
    let mut along = SendAncillaryBuffer::new(&mut space);
    if !files.is_empty() {
        along.push(SendAncillaryMessage::ScmRights(files));
    }
    sendmsg(socket, &[IoSlice::new(bytes)], &mut along, SendFlags::NOSIGNAL)?;
    Ok(())
}

fn receive(socket: impl AsFd) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut bytes = vec![0; MAX_MESSAGE];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FILES))];
    let mut along = RecvAncillaryBuffer::new(&mut space);
    let mut places = [IoSliceMut::new(&mut bytes)];
    let received = match recvmsg(socket, &mut places, &mut along, RecvFlags::CMSG_CLOEXEC) {
        // The other side ended before it took all that we sent.
        Err(rustix::io::Errno::CONNRESET) => return Ok((Vec::new(), Vec::new())),
        received => received?,
    };
    let mut files = Vec::new();
    for message in along.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            files.extend(descriptors);
        }
    }
    if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(io::Error::other("a message is too long"));
    }
    bytes.truncate(received.bytes);
    Ok((bytes, files))
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Seek as _, Write as _};

    use super::*;
    use crate::config::{DriverConfig, TransportConfig};

    fn shape() -> Shape {
        Shape {
            vm: VmConfig {
                driver: DriverConfig::QemuTcg,
                kernel: "/k".into(),
                initramfs: "/i".into(),
                kernel_parameters: "quiet".into(),
                transport: TransportConfig::Mmio,
                vcpus: 1,
                memory_mib: 64,
                scratch_template: "/s".into(),
                boot_timeout_seconds: 5,
                confine: None,
            },
            network: true,
        }
    }

    fn warm() -> Rehearsed {
        Rehearsed { shape: shape(), rehearsal: "/r".into() }
    }

    #[test]
    fn a_job_comes_with_its_files() {
        let (ours, theirs) = socket().unwrap();
        let guest = Guest::empty().unwrap();
        Job::Warm(warm(), guest.share().unwrap()).send(&ours).unwrap();
        let Some(Job::Warm(received, copy)) = Job::receive(&theirs).unwrap() else {
            panic!("another job")
        };
        assert_eq!(received, warm());
        (&copy.state).write_all(b"same file").unwrap();
        let mut text = String::new();
        let mut state = guest.state;
        state.rewind().unwrap();
        state.read_to_string(&mut text).unwrap();
        assert_eq!(text, "same file");
    }

    #[test]
    fn a_daemon_that_goes_away_has_no_more_jobs() {
        let (ours, theirs) = socket().unwrap();
        drop(ours);
        assert!(Job::receive(&theirs).unwrap().is_none());
    }

    #[test]
    fn a_process_that_ends_without_a_word_has_failed() {
        let (ours, theirs) = socket().unwrap();
        let nothing = Outcome::receive(&ours).unwrap_err();
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
        Outcome::Ready.send(&theirs).unwrap();
        assert_eq!(Outcome::receive(&ours).unwrap(), Outcome::Ready);
        Job::Warm(warm(), Guest::empty().unwrap()).send(&ours).unwrap();
        drop(theirs);
        assert!(matches!(Outcome::receive(&ours).unwrap(), Outcome::Failed(_)));
    }
}
