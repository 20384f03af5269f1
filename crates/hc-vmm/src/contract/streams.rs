// SPDX-License-Identifier: Apache-2.0
//! Promises about what goes in and out of a VM.

use std::io::{self, Read as _};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use super::links::card;
use super::{Bench, in_time, run_dir};
use crate::{Ability, Link};

/// More than every buffer on the way together.
const ECHO_LEN: usize = 8 << 20;

/// More than the buffer of the console's stream, which nobody empties: so many times so much. At
/// several exits from the VM for each byte one of them takes a second, and ten in an emulated machine.
const FLOODS: usize = 8;
const FLOOD_KIB: usize = 40;

/// How long a guest's clock is watched.
const CLOCK_TEST: Duration = Duration::from_millis(500);

/// Ten times what NTP can correct, and far less than a guest is off that counts timer interrupts.
const CLOCK_ERROR: f64 = 0.005;

/// Any bytes, in any amount, arrive unchanged in order.
pub async fn channel_carries_bytes_both_ways(bench: &Bench) {
    let mut running = bench.boot(|_| ()).await;
    let sent: Vec<u8> = (0..=250).cycle().take(ECHO_LEN).collect();
    running.send(format!("echo {ECHO_LEN}\n").as_bytes()).await;
    let (mut from_guest, mut to_guest) = running.channel.split();
    let mut received = vec![0; ECHO_LEN];
    let write = to_guest.write_all(&sent);
    let read = from_guest.read_exact(&mut received);
    let (written, read) = in_time("echo", async { tokio::join!(write, read) }).await;
    written.unwrap();
    read.unwrap();
    assert!(sent == received, "bytes changed on the way");
    assert_eq!(running.ask("cpus").await, "1");
}

/// The guest has the processors and the memory that were asked for.
pub async fn guest_gets_its_share(bench: &Bench) {
    let mut running = bench
        .boot(|spec| {
            spec.vcpus = 2;
            spec.memory_mib = 160;
        })
        .await;
    assert_eq!(running.ask("cpus").await, "2");
    let memory: u32 = running.ask("memory").await.parse().unwrap();
    // The kernel keeps some for itself.
    assert!((100..=160).contains(&memory), "{memory} MiB");
}

/// The guest's clock runs like the host's, also while the host is busy.
pub async fn guest_clock_keeps_time(bench: &Bench) {
    let mut running = bench.boot(|spec| spec.vcpus = 2).await;
    let before_first = Instant::now();
    let first: u64 = running.ask("clock").await.parse().unwrap();
    let after_first = Instant::now();
    tokio::time::sleep(CLOCK_TEST).await;
    let before_second = Instant::now();
    let second: u64 = running.ask("clock").await.parse().unwrap();
    // However long the questions took, what passed in the guest lies between these two.
    let least = (before_second - after_first).mul_f64(1.0 - CLOCK_ERROR);
    let most = before_first.elapsed().mul_f64(1.0 + CLOCK_ERROR);
    let passed = Duration::from_nanos(second - first);
    assert!(least <= passed && passed <= most, "{least:?} <= {passed:?} <= {most:?}");
}

/// Every stream has one owner, and a VM without a card has no network.
pub async fn streams_are_given_once(bench: &Bench) {
    let dir = run_dir();
    let mut vm = bench.driver.create(bench.spec(dir.path())).await.unwrap();
    assert!(vm.channel().is_some());
    assert!(vm.channel().is_none());
    assert!(vm.console().is_some());
    assert!(vm.console().is_none());
    assert!(vm.network().is_none());
}

/// Who reads learns of the end without asking for it.
pub async fn streams_end_with_the_vm(bench: &Bench) {
    let nic = bench.driver.abilities().contains(&Ability::Network);
    let mut running = bench.boot(|spec| spec.nic = nic.then(|| card(Link::Owner))).await;
    let mut streams = vec![UnixStream::from_std(running.vm.console().unwrap()).unwrap()];
    streams.extend(running.vm.network().map(|stream| UnixStream::from_std(stream).unwrap()));
    running.vm.kill().await.unwrap();
    streams.push(running.channel);
    for mut stream in streams {
        let mut rest = Vec::new();
        match in_time("read to the end", stream.read_to_end(&mut rest)).await {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset),
        }
    }
}

/// The console reaches its reader, and the guest goes on if he reads nothing.
pub async fn console_reader_may_be_slow(bench: &Bench) {
    let mut running = bench.boot(|_| ()).await;
    let mut console = running.vm.console().unwrap();
    assert_eq!(running.ask("say hello-console").await, "ok");
    let said = in_time("read the console", async {
        let mut said = String::new();
        while !said.contains("hello-console") {
            let mut bytes = [0; 1024];
            match console.read(&mut bytes) {
                Ok(len) => said += &String::from_utf8_lossy(&bytes[..len]),
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
            tokio::task::yield_now().await;
        }
        said
    });
    assert!(said.await.contains("hello-console"));
    for _ in 0..FLOODS {
        assert_eq!(running.ask(&format!("flood {FLOOD_KIB}")).await, "ok");
    }
    assert_eq!(running.ask("cpus").await, "1");
}
