// SPDX-License-Identifier: Apache-2.0
//! A terminal for programs under test, with a keyboard and a screen that tests use.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use rustix::fs::{Mode, OFlags, open};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use crate::until;

/// Both ends of a terminal, and everything that was shown on it.
#[derive(Debug)]
pub struct Terminal {
    keyboard: File,
    device: OwnedFd,
    shown: Arc<Mutex<String>>,
}

impl Terminal {
    /// A terminal of 80 columns and 24 rows.
    #[expect(clippy::new_without_default, reason = "it opens a device")]
    pub fn new() -> Terminal {
        let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&controller).unwrap();
        unlockpt(&controller).unwrap();
        let path = ptsname(&controller, Vec::new()).unwrap();
        let device = open(path, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap();
        let keyboard = File::from(controller);
        let shown = Arc::new(Mutex::new(String::new()));
        let (mut screen, kept) = (keyboard.try_clone().unwrap(), Arc::clone(&shown));
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = screen.read(&mut buffer) {
                kept.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..length]));
            }
        });
        let terminal = Terminal { keyboard, device, shown };
        terminal.set_size(24, 80);
        terminal
    }

    /// Starts a command on the terminal.
    pub fn start(&self, command: &mut Command) -> Child {
        let end = || Stdio::from(self.device.try_clone().unwrap());
        command.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap()
    }

    /// Changes the size and tells `program`, as the kernel does for a program in the foreground.
    pub fn resize(&self, program: &Child, rows: u16, columns: u16) {
        self.set_size(rows, columns);
        let pid = Pid::from_raw(i32::try_from(program.id()).unwrap()).unwrap();
        kill_process(pid, Signal::WINCH).unwrap();
    }

    fn set_size(&self, rows: u16, columns: u16) {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&self.keyboard, size).unwrap();
    }

    /// Presses keys.
    pub fn press(&self, keys: &str) {
        (&self.keyboard).write_all(keys.as_bytes()).unwrap();
    }

    /// Whether keys go to the program one by one, unchanged and not shown.
    pub fn is_raw(&self) -> bool {
        let modes = tcgetattr(self.device.as_fd()).unwrap().local_modes;
        !modes.intersects(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG)
    }

    /// Waits until `text` was shown.
    #[track_caller]
    pub fn until_shown(&self, text: &str) {
        until(&format!("{text:?} is shown"), || self.shown().contains(text));
    }

    /// Everything that was shown.
    pub fn shown(&self) -> String {
        self.shown.lock().unwrap().clone()
    }
}
