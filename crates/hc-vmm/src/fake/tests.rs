// SPDX-License-Identifier: Apache-2.0
//! The fake keeps the contract, with a guest that is a task of the test.

use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use rustix::io::Errno;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;

use super::{Fake, Guest};
use crate::contract::Bench;
use crate::{Access, Disk, Driver as _, Exit, Transport};

crate::contract!(bench);

mod bare {
    crate::contract!(super::bare_bench);
}

/// A driver that can do everything.
#[expect(clippy::unnecessary_wraps, reason = "other benches may lack something")]
fn bench() -> Option<Bench> {
    Some(bench_of(|fake| fake))
}

/// A driver that can do next to nothing.
#[expect(clippy::unnecessary_wraps, reason = "other benches may lack something")]
fn bare_bench() -> Option<Bench> {
    Some(bench_of(|fake| {
        fake.without(crate::Ability::Pause)
            .without(crate::Ability::Network)
            .without(crate::Ability::Transport(Transport::Pci))
    }))
}

fn bench_of(change: impl FnOnce(Fake) -> Fake) -> Bench {
    let (fake, mut guests) = Fake::new();
    tokio::spawn(async move {
        while let Some(guest) = guests.recv().await {
            tokio::spawn(play(guest));
        }
    });
    Bench {
        driver: Box::new(change(fake)),
        kernel: PathBuf::from("no-kernel"),
        initramfs: PathBuf::from("no-initramfs"),
        transport: Transport::Mmio,
        serve: None,
        skip: |reason| eprintln!("skipped: {reason}"),
    }
}

#[tokio::test]
async fn the_test_sees_what_the_caller_asked_for() {
    let (fake, mut guests) = Fake::new();
    assert_eq!(fake.name(), "fake");
    let spec = crate::VmSpec {
        name: "web".to_owned(),
        run_dir: PathBuf::from("/nonexistent"),
        kernel: PathBuf::from("kernel"),
        initramfs: PathBuf::from("initramfs"),
        kernel_parameters: "quiet".to_owned(),
        transport: Transport::Mmio,
        vcpus: 3,
        memory_mib: 64,
        disks: Vec::new(),
        nic: None,
        shares: Vec::new(),
        saved: None,
        confine: None,
    };
    let mut vm = fake.create(spec).await.unwrap();
    vm.start().await.unwrap();
    let guest = guests.recv().await.unwrap();
    assert_eq!((&*guest.name, &*guest.kernel_parameters), ("web", "quiet"));
    assert_eq!((guest.vcpus, guest.memory_mib), (3, 64));

    vm.pause().unwrap().hold().await.unwrap();
    assert!(guest.is_held());
    vm.pause().unwrap().release().await.unwrap();
    assert!(!guest.is_held());
    drop(vm);
    assert_eq!(guest.ended().await, Exit::Killed);
}

/// Does what `contract/guest.c` does, as far as a task can.
async fn play(mut guest: Guest) {
    let channel = guest.channel.try_clone().unwrap();
    let mut channel = BufReader::new(UnixStream::from_std(channel).unwrap());
    let boot = std::time::Instant::now();
    let mut reply = "ready\n".to_owned();
    let mut request = String::new();
    loop {
        let sent = channel.write_all(reply.as_bytes()).await;
        request.clear();
        if sent.is_err() || !matches!(channel.read_line(&mut request).await, Ok(1..)) {
            return;
        }
        let words: Vec<&str> = request.split_whitespace().collect();
        reply = match *words.as_slice() {
            ["echo", len] => {
                echo(&mut channel, len.parse().unwrap()).await;
                String::new()
            }
            ["cpus"] => line(guest.vcpus),
            ["memory"] => line(guest.memory_mib),
            ["clock"] => line(boot.elapsed().as_nanos()),
            ["read", id] => line(read(disk(&guest, id))),
            ["write", id, text] => line(answer(write(disk(&guest, id), text))),
            ["fill", id] => line(answer(fill(disk(&guest, id)))),
            ["trim", id] => line(answer(trim(disk(&guest, id)))),
            ["bounce", count] => {
                let network = guest.network.take().unwrap();
                tokio::spawn(bounce(network, count.parse().unwrap()));
                line("ok")
            }
            ["say", text] => {
                write_console(&guest, text);
                line("ok")
            }
            ["flood", kib] => {
                (0..kib.parse().unwrap()).for_each(|_| write_console(&guest, &"f".repeat(1023)));
                line("ok")
            }
            ["tick"] => return tick(&guest, &mut channel).await,
            ["stop"] => return guest.end(Exit::Stopped),
            ["panic"] => return guest.panic("asked to panic\nAttempted to kill init!"),
            _ => panic!("unknown request {request:?}"),
        };
    }
}

fn line(value: impl std::fmt::Display) -> String {
    format!("{value}\n")
}

async fn echo(channel: &mut BufReader<UnixStream>, len: usize) {
    let mut left = len;
    let mut bytes = vec![0; 16 << 10];
    while left > 0 {
        let most = left.min(bytes.len());
        let got = channel.read(&mut bytes[..most]).await.unwrap();
        channel.write_all(&bytes[..got]).await.unwrap();
        left -= got;
    }
}

async fn tick(guest: &Guest, channel: &mut BufReader<UnixStream>) {
    loop {
        guest.held(false).await;
        if channel.write_all(b"tick\n").await.is_err() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
}

async fn bounce(network: std::os::unix::net::UnixStream, count: usize) {
    let mut network = UnixStream::from_std(network).unwrap();
    for _ in 0..count {
        let len = network.read_u32().await.unwrap();
        let mut frame = vec![0; usize::try_from(len).unwrap()];
        network.read_exact(&mut frame).await.unwrap();
        let (to, rest) = frame.split_at_mut(6);
        to.swap_with_slice(&mut rest[..6]);
        network.write_all(&len.to_be_bytes()).await.unwrap();
        network.write_all(&frame).await.unwrap();
    }
}

/// Loses what the console has no room for, as the contract allows.
fn write_console(guest: &Guest, text: &str) {
    use std::io::Write as _;
    let _ = writeln!(&guest.console, "{text}");
}

fn disk<'a>(guest: &'a Guest, id: &str) -> &'a Disk {
    guest.disks.iter().find(|disk| disk.id == id).unwrap()
}

fn read(disk: &Disk) -> String {
    let mut bytes = [0; 64];
    disk.file.read_exact_at(&mut bytes, 0).unwrap();
    let end = bytes.iter().position(|&byte| byte == b'\n').unwrap();
    format!("ok {}", String::from_utf8_lossy(&bytes[..end]))
}

fn write(disk: &Disk, text: &str) -> std::io::Result<()> {
    if disk.access == Access::ReadOnly {
        return Err(Errno::PERM.into());
    }
    disk.file.write_all_at(format!("{text}\n").as_bytes(), 0)
}

fn fill(disk: &Disk) -> std::io::Result<()> {
    let len = disk.file.metadata()?.len();
    let chunk = vec![b'x'; 256 << 10];
    (0..len).step_by(chunk.len()).try_for_each(|at| disk.file.write_all_at(&chunk, at))
}

fn trim(disk: &Disk) -> std::io::Result<()> {
    let len = disk.file.metadata()?.len();
    disk.file.set_len(0)?;
    disk.file.set_len(len)
}

fn answer(result: std::io::Result<()>) -> String {
    match result {
        Ok(()) => "ok".to_owned(),
        Err(error) => format!("error {}", error.raw_os_error().unwrap_or_default()),
    }
}
