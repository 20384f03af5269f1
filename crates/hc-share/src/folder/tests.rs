// SPDX-License-Identifier: Apache-2.0

use std::fs;
use std::os::unix::fs::symlink;
use std::thread::{self, JoinHandle};

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

const ROOT: u64 = 1;
const LOOKUP: u32 = 1;
const GETATTR: u32 = 3;
const READLINK: u32 = 5;
const OPEN: u32 = 14;
const READ: u32 = 15;
const INIT: u32 = 26;
const CREATE: u32 = 35;
const DESTROY: u32 = 38;

/// A guest that speaks to the server itself, and may say anything.
struct Guest {
    socket: UnixStream,
    number: u64,
    server: JoinHandle<Result<(), Error>>,
    dir: TempDir,
}

impl Guest {
    /// A folder `shared` with a file, a link that leads out, and something beside it to lead to.
    fn new(access: Access) -> Guest {
        let dir = tempfile::tempdir().unwrap();
        let shared = dir.path().join("shared");
        fs::create_dir(&shared).unwrap();
        fs::create_dir(shared.join("folder")).unwrap();
        fs::write(shared.join("file"), "hello").unwrap();
        fs::write(dir.path().join("secret"), "secret").unwrap();
        symlink("../secret", shared.join("link")).unwrap();
        let folder = Folder::open(&shared, access).unwrap();
        let (socket, theirs) = UnixStream::pair().unwrap();
        let server = thread::spawn(move || folder.serve(theirs));
        let mut guest = Guest { socket, number: 0, server, dir };
        let init = [7_u32, 31, 1 << 16, 0].map(u32::to_le_bytes).concat();
        guest.ask(INIT, 0, &init).unwrap();
        guest
    }

    /// Sends a request; gives what came back, or the number of an error.
    fn ask(&mut self, operation: u32, node: u64, arguments: &[u8]) -> Result<Vec<u8>, i32> {
        self.number += 1;
        let len = u32::try_from(HEADER_LEN + arguments.len()).unwrap();
        let header = [&len.to_le_bytes()[..], &operation.to_le_bytes(), &self.number.to_le_bytes()];
        let rest = [&node.to_le_bytes()[..], &[0; 16], arguments].concat();
        self.socket.write_all(&[header.concat(), rest].concat()).unwrap();
        let mut head = [0; 16];
        self.socket.read_exact(&mut head).unwrap();
        let word = |at: usize| i32::from_le_bytes(*head[at..].first_chunk().unwrap());
        assert_eq!(head[8..], self.number.to_le_bytes());
        let mut rest = vec![0; usize::try_from(word(0)).unwrap() - 16];
        self.socket.read_exact(&mut rest).unwrap();
        if word(4) == 0 { Ok(rest) } else { Err(-word(4)) }
    }

    /// The number of the file of this name.
    fn find(&mut self, folder: u64, name: &str) -> Result<u64, i32> {
        let entry = self.ask(LOOKUP, folder, format!("{name}\0").as_bytes())?;
        Ok(u64::from_le_bytes(*entry.first_chunk().unwrap()))
    }

    fn open(&mut self, node: u64, flags: i32) -> Result<u64, i32> {
        let opened = self.ask(OPEN, node, &[flags, 0].map(i32::to_le_bytes).concat())?;
        Ok(u64::from_le_bytes(*opened.first_chunk().unwrap()))
    }

    fn read(&mut self, node: u64, handle: u64) -> Result<Vec<u8>, i32> {
        let arguments = [handle, 0, 100, 0, 0].map(u64::to_le_bytes).concat();
        self.ask(READ, node, &arguments)
    }

    fn create(&mut self, name: &str) -> Result<Vec<u8>, i32> {
        let flags = (libc::O_CREAT | libc::O_WRONLY).cast_unsigned();
        let arguments = [flags, 0o644, 0, 0].map(u32::to_le_bytes).concat();
        self.ask(CREATE, ROOT, &[&arguments, name.as_bytes(), &[0]].concat())
    }

    fn shared(&self, name: &str) -> PathBuf {
        self.dir.path().join("shared").join(name)
    }
}

#[test]
fn file_is_found_and_read() {
    let mut guest = Guest::new(Access::ReadOnly);
    let file = guest.find(ROOT, "file").unwrap();
    let handle = guest.open(file, libc::O_RDONLY).unwrap();
    assert_eq!(guest.read(file, handle).unwrap(), b"hello");
    assert_eq!(guest.find(ROOT, "none"), Err(libc::ENOENT));
}

#[test]
fn there_is_no_way_out() {
    let mut guest = Guest::new(Access::ReadWrite);
    let folder = guest.find(ROOT, "folder").unwrap();
    for name in ["..", ".", "../secret", "folder/../../secret", "/etc/passwd", "link/x"] {
        for from in [ROOT, folder] {
            assert_eq!(guest.find(from, name), Err(libc::EINVAL), "{name}");
        }
    }
    // A link is a text, which the guest follows where it has such files.
    let link = guest.find(ROOT, "link").unwrap();
    assert_eq!(guest.ask(READLINK, link, &[]).unwrap(), b"../secret");
    assert_eq!(guest.open(link, libc::O_RDONLY), Err(libc::EBADF));
    assert_eq!(guest.find(link, "x"), Err(libc::ENOTDIR));
    // Making a file where the link is does not make it where the link leads.
    let _ = guest.create("link");
    assert_eq!(fs::read(guest.dir.path().join("secret")).unwrap(), b"secret");
    for name in ["../new", "..", "/tmp/new"] {
        guest.create(name).unwrap_err();
    }
    assert!(!guest.dir.path().join("new").exists());
    // What it was never told of does not exist.
    assert_eq!(guest.open(12345, libc::O_RDONLY), Err(libc::EBADF));
}

#[test]
fn read_only_folder_stays_as_it_is() {
    let mut guest = Guest::new(Access::ReadOnly);
    assert_eq!(guest.create("new"), Err(libc::EROFS));
    let file = guest.find(ROOT, "file").unwrap();
    for flags in [libc::O_WRONLY, libc::O_RDWR, libc::O_TRUNC] {
        assert_eq!(guest.open(file, flags), Err(libc::EROFS));
    }
    for operation in [4, 6, 8, 9, 10, 11, 12, 13, 16, 21, 24, 43, 45, 47, 1000] {
        assert_eq!(guest.ask(operation, file, &[0; 64]), Err(libc::EROFS), "{operation}");
    }
    assert_eq!(fs::read(guest.shared("file")).unwrap(), b"hello");
    assert!(!guest.shared("new").exists());
}

#[test]
fn file_is_made_where_that_is_allowed() {
    let mut guest = Guest::new(Access::ReadWrite);
    guest.create("new").unwrap();
    assert!(guest.shared("new").is_file());
}

#[test]
fn every_request_has_an_answer() {
    let mut guest = Guest::new(Access::ReadWrite);
    for operation in (0..64).filter(|op| ![2, 42].contains(op)) {
        // An answer or an error, and the next request is heard.
        let _ = guest.ask(operation, ROOT, &[]);
    }
    assert_eq!(guest.ask(DESTROY, 0, &[]), Ok(Vec::new()));
}

#[test]
fn end_is_no_error_and_nonsense_is_one() {
    let Guest { socket, server, dir: _dir, .. } = Guest::new(Access::ReadOnly);
    drop(socket);
    server.join().unwrap().unwrap();
    for len in [0_u32, 39, u32::MAX] {
        let Guest { mut socket, server, dir: _dir, .. } = Guest::new(Access::ReadOnly);
        socket.write_all(&[&len.to_le_bytes()[..], &[0; 36]].concat()).unwrap();
        assert!(matches!(server.join().unwrap(), Err(Error::Garbled { .. })));
    }
}

#[test]
fn what_is_no_folder_is_not_shared() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    for path in [file, dir.path().join("none")] {
        assert!(matches!(Folder::open(&path, Access::ReadOnly), Err(Error::Open { .. })));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn server_bears_any_arguments(
        requests in proptest::collection::vec(
            (0..50_u32, 0..4_u64, proptest::collection::vec(any::<u8>(), 0..96)), 1..16,
        ),
    ) {
        let mut guest = Guest::new(Access::ReadWrite);
        guest.find(ROOT, "folder").unwrap();
        guest.find(ROOT, "file").unwrap();
        for (operation, node, arguments) in requests {
            if ![2, 42].contains(&operation) {
                let _ = guest.ask(operation, node, &arguments);
            }
        }
        let attributes = guest.ask(GETATTR, ROOT, &[0; 16]);
        prop_assert!(attributes.is_ok(), "{:?}", attributes);
        prop_assert_eq!(fs::read(guest.dir.path().join("secret")).unwrap(), b"secret");
    }
}
