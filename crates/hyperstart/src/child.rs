// SPDX-License-Identifier: Apache-2.0
//! A new process between its fork and its program: everything that turns a copy of PID 1 into a
//! process of a container.
//!
//! # Invariants
//!
//! - Nothing here returns to the loop: a child runs a program, or says why it cannot and exits.
//! - The first thing it does is to let go of every descriptor of PID 1, among them other processes'
//!   pipes and the channel.
//! - What a container could have prepared as a trap is touched only by way of [`Root`], or after
//!   the rights are gone that would make it one.

use core::convert::Infallible;
use std::io::Write as _;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

use hc_proto::message::{Failure, Program};
use hc_spec::{CapabilitySet, ProcessSpec};
use rustix::fs::Mode;
use rustix::thread::{CapabilitySet as Mask, CapabilitySets, LinkNameSpaceType};

use crate::error::{Attempt as _, Error, Result};
use crate::root::Root;
use crate::{archive, program, sys, user};

/// Capabilities that the kernel may have; dropping one that it has not is refused and harmless.
const CAPABILITIES: u32 = 64;
/// What packing and unpacking needs. Without `SYS_PTRACE` and its kin no link below `/proc` leads
/// out of the container.
const ARCHIVE_CAPABILITIES: Mask = Mask::CHOWN
    .union(Mask::DAC_OVERRIDE)
    .union(Mask::DAC_READ_SEARCH)
    .union(Mask::FOWNER)
    .union(Mask::FSETID)
    .union(Mask::MKNOD)
    .union(Mask::SETFCAP);

/// What a child gets from PID 1.
pub(crate) struct Child<'a> {
    /// The container's mount namespace.
    pub(crate) namespace: BorrowedFd<'a>,
    /// What becomes standard input, output and error; `None` is `/dev/null`.
    pub(crate) stdio: [Option<BorrowedFd<'a>>; 3],
    /// An open `/dev/null`.
    pub(crate) null: BorrowedFd<'a>,
    /// Takes the reason why the program does not run; closed without a word when it does.
    pub(crate) report: BorrowedFd<'a>,
    /// The host name, for the environment.
    pub(crate) hostname: &'a str,
}

impl Child<'_> {
    /// Runs `program` in this process, which is a fork of PID 1.
    pub(crate) fn run(&self, program: &Program) -> ! {
        let report = match self.prepare() {
            Ok(report) => report,
            Err(error) => {
                crate::kmsg::warn(&format!("a new process is lost: {error}"));
                sys::exit_now(1)
            }
        };
        let error = match program {
            Program::Exec(spec) => match self.exec(spec) {
                Ok(never) => match never {},
                Err(error) => error,
            },
            Program::Pack { .. } | Program::Unpack { .. } | Program::Stat { .. } => {
                match limit_capabilities(ARCHIVE_CAPABILITIES) {
                    Ok(()) => {
                        drop(report);
                        sys::exit_now(archive::run(program))
                    }
                    Err(error) => error,
                }
            }
        };
        tell(report, error);
        sys::exit_now(1)
    }

    /// Puts standard streams in their places, enters the container and closes every descriptor but
    /// the report, whose copy it returns.
    fn prepare(&self) -> Result<OwnedFd> {
        sys::reset_signals();
        rustix::process::umask(Mode::from_raw_mode(0o022));
        rustix::process::setsid().attempt(|| "begin a session".into())?;
        let copy = |fd: BorrowedFd<'_>| rustix::io::fcntl_dupfd_cloexec(fd, 10);
        let stdio = self.stdio.map(|fd| copy(fd.unwrap_or(self.null)));
        for (number, fd) in (0..).zip(stdio) {
            let fd = fd.attempt(|| "copy a standard stream".into())?;
            sys::place_stream(fd, number).attempt(|| "place a standard stream".into())?;
        }
        rustix::thread::move_into_link_name_space(self.namespace, Some(LinkNameSpaceType::Mount))
            .attempt(|| "enter the container".into())?;
        let report = copy(self.report).attempt(|| "copy the report".into())?;
        sys::close_all_but(&report).attempt(|| "close descriptors".into())?;
        Ok(report)
    }

    fn exec(&self, spec: &ProcessSpec) -> Result<Infallible> {
        let root = Root::open("/").attempt(|| "open the root".into())?;
        let user = user::look_up(&root, &spec.user)?;
        self.own_stdio(spec, &user)?;
        let cwd = root
            .ensure_directory(Path::new(&spec.cwd))
            .attempt(|| format!("make working directory {}", spec.cwd))?;
        rustix::process::fchdir(&cwd).attempt(|| format!("enter {}", spec.cwd))?;
        drop((cwd, root));
        for limit in &spec.rlimits {
            sys::set_rlimit(limit.resource, limit.soft, limit.hard)
                .attempt(|| format!("set resource limit {}", limit.resource))?;
        }
        drop_bounding(spec.capabilities);
        user::become_user(&user).attempt(|| format!("become user {}", user.uid))?;
        if user.uid == 0 {
            limit_capabilities(Mask::from_bits_retain(spec.capabilities.mask()))?;
        }
        if spec.no_new_privileges {
            rustix::thread::set_no_new_privs(true).attempt(|| "give up new privileges".into())?;
        }
        let terminal = spec.terminal.is_some();
        let env = program::environment(&spec.env, &user, self.hostname, terminal);
        sys::close_rest_on_exec().attempt(|| "mark descriptors".into())?;
        program::run(&spec.args, &env)
    }

    /// Makes the terminal the session's own, and gives the user what it is connected to, so that it
    /// can open `/dev/stdout` and the like again.
    fn own_stdio(&self, spec: &ProcessSpec, user: &user::User) -> Result<()> {
        let places = [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()];
        if spec.terminal.is_some() {
            rustix::process::ioctl_tiocsctty(places[0]).attempt(|| "take the terminal".into())?;
        }
        if user.uid == 0 {
            return Ok(());
        }
        let owner = Some(rustix::fs::Uid::from_raw(user.uid));
        for (place, given) in places.iter().zip(&self.stdio) {
            if given.is_some() {
                rustix::fs::fchown(place, owner, None)
                    .attempt(|| "hand over a standard stream".into())?;
            }
        }
        Ok(())
    }
}

/// Takes everything but `kept` from what this process can ever have again.
fn drop_bounding(kept: CapabilitySet) {
    for number in 0..CAPABILITIES {
        let one = 1_u64 << number;
        if kept.mask() & one == 0
            && let Err(rustix::io::Errno::INVAL) =
                rustix::thread::remove_capability_from_bounding_set(Mask::from_bits_retain(one))
        {
            return; // The kernel knows no capability from here on.
        }
    }
}

/// Leaves this process with `kept`, of what it has.
fn limit_capabilities(kept: Mask) -> Result<()> {
    let what = || "set capabilities".to_owned();
    let had = rustix::thread::capabilities(None).attempt(what)?;
    let left = had.permitted & kept;
    let sets = CapabilitySets { effective: left, permitted: left, inheritable: Mask::empty() };
    rustix::thread::set_capabilities(None, sets).attempt(what)
}

/// Sends `error` to PID 1.
fn tell(report: OwnedFd, error: Error) {
    let failure = Failure::from(error);
    // A parent that is gone needs no answer.
    if let Ok(json) = serde_json::to_vec(&failure) {
        let _ = std::fs::File::from(report).write_all(&json);
    }
}

/// The failure in what a child reported; `None` if it said nothing because its program runs.
pub(crate) fn reported(bytes: &[u8]) -> Option<Failure> {
    if bytes.is_empty() {
        return None;
    }
    Some(
        serde_json::from_slice(bytes)
            .unwrap_or_else(|_| Error::system("a new process died before its program ran").into()),
    )
}
