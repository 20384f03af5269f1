// SPDX-License-Identifier: Apache-2.0
//! A folder that is open, and the loop that serves it.

use std::io::{self, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fuse_backend_rs::api::server::Server;
use fuse_backend_rs::passthrough::{Config, PassthroughFs};
use fuse_backend_rs::transport::{FuseBuf, FuseDevWriter, Reader};
use rustix::io::Errno;

use crate::policy::{Access, DESTROY, HEADER_LEN, RENAME, RENAME2, Request, SYMLINK};

/// The largest write or read of Linux's driver, 256 pages, with all that goes around it.
const MAX_MESSAGE: usize = (1 << 20) + 4096;

/// `struct fuse_out_header`.
const ANSWER_LEN: usize = 16;

/// How long the guest may believe what it was told: others may change the folder.
const BELIEF: Duration = Duration::from_secs(1);

/// Where the user and the group are in a request, in whose name it is.
const IDENTITY: std::ops::Range<usize> = 24..32;

/// What can go wrong with a shared folder.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The folder cannot be opened.
    #[error("cannot share {}", path.display())]
    Open {
        /// The folder.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },

    /// The other side cannot be talked to.
    #[error("cannot talk to who mounted the folder")]
    Socket(#[source] io::Error),

    /// The other side broke the framing; the connection cannot go on.
    #[error("a request of {len} bytes is none")]
    Garbled {
        /// The length that it claims.
        len: usize,
    },
}

/// A folder of the host, ready to be served.
pub struct Folder {
    server: Server<PassthroughFs<()>>,
    access: Access,
    /// Whether files can be made for the user that the guest names.
    is_root: bool,
}

impl Folder {
    /// Opens a folder. Whatever takes its place at `path` later is another one.
    pub fn open(path: &Path, access: Access) -> Result<Folder, Error> {
        let failed = |source| Error::Open { path: path.to_owned(), source };
        let whole = path.canonicalize().map_err(failed)?;
        if !whole.is_dir() {
            return Err(failed(io::ErrorKind::NotADirectory.into()));
        }
        let not_text = || failed(io::Error::new(io::ErrorKind::InvalidInput, "not UTF-8"));
        let config = Config {
            root_dir: whole.to_str().ok_or_else(not_text)?.to_owned(),
            attr_timeout: BELIEF,
            entry_timeout: BELIEF,
            ..Config::default()
        };
        let files = PassthroughFs::new(config).map_err(failed)?;
        files.import().map_err(failed)?;
        let is_root = rustix::process::geteuid().is_root();
        Ok(Folder { server: Server::new(files), access, is_root })
    }

    /// Serves whoever is at the other end, until they hang up.
    ///
    /// Each request and each answer begins with its length, as FUSE has it.
    pub fn serve(&self, mut socket: UnixStream) -> Result<(), Error> {
        socket.set_nonblocking(false).map_err(Error::Socket)?;
        let (mut request, mut room) = (Vec::new(), vec![0; MAX_MESSAGE]);
        while receive(&mut socket, &mut request)? {
            self.answer(&mut socket, &mut request, &mut room).map_err(Error::Socket)?;
        }
        Ok(())
    }

    fn answer(
        &self,
        socket: &mut UnixStream,
        request: &mut [u8],
        room: &mut [u8],
    ) -> io::Result<()> {
        if let Some(identity) = request.get_mut(IDENTITY)
            && !self.is_root
        {
            // Ours is the only user we can be. Zero means that none has to be taken on.
            identity.fill(0);
        }
        let Some(head) = Request::parse(request) else { return Ok(()) };
        let (number, has_answer) = (head.number, head.has_answer());
        let operation = head.operation;
        let allowed = head.check(self.access);
        let outcome = allowed.and_then(|()| self.carry_out(operation, socket, request, room));
        let error = match outcome {
            Ok(0) => 0,
            Ok(_) => return Ok(()),
            Err(error) => -error.raw_os_error(),
        };
        if !has_answer {
            return Ok(());
        }
        let len = u32::try_from(ANSWER_LEN).expect("it is small");
        let answer = [&len.to_le_bytes()[..], &error.to_le_bytes(), &number.to_le_bytes()].concat();
        socket.write_all(&answer)
    }

    /// Does what a request asks for; says how long the answer was that has been sent.
    fn carry_out(
        &self,
        operation: u32,
        socket: &UnixStream,
        request: &mut [u8],
        room: &mut [u8],
    ) -> Result<usize, Errno> {
        let reader =
            Reader::<()>::from_fuse_buffer(FuseBuf::new(request)).map_err(|_| Errno::INVAL)?;
        let writer =
            FuseDevWriter::<()>::new(socket.as_raw_fd(), room).map_err(|_| Errno::INVAL)?;
        match self.server.handle_message(reader, writer.into(), None, None) {
            // It says that it has sent nothing, and has.
            Ok(0) if operation == DESTROY => Ok(ANSWER_LEN),
            Ok(sent) => Ok(sent),
            // Of all that it cannot read, a single name is what it answers by itself.
            Err(fuse_backend_rs::Error::InvalidCString(_))
                if !matches!(operation, SYMLINK | RENAME | RENAME2) =>
            {
                Ok(ANSWER_LEN)
            }
            Err(_) => Err(Errno::INVAL),
        }
    }
}

/// Reads the next request; says whether there was one.
fn receive(socket: &mut UnixStream, request: &mut Vec<u8>) -> Result<bool, Error> {
    let mut header = [0; HEADER_LEN];
    match socket.read_exact(&mut header) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
        Err(error) => return Err(Error::Socket(error)),
    }
    let [a, b, c, d, ..] = header;
    let len = usize::try_from(u32::from_le_bytes([a, b, c, d])).unwrap_or(usize::MAX);
    if !(HEADER_LEN..=MAX_MESSAGE).contains(&len) {
        return Err(Error::Garbled { len });
    }
    request.clear();
    request.extend_from_slice(&header);
    request.resize(len, 0);
    socket.read_exact(&mut request[HEADER_LEN..]).map_err(Error::Socket)?;
    Ok(true)
}

#[cfg(test)]
mod tests;
