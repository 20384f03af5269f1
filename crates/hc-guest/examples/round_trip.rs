// SPDX-License-Identifier: Apache-2.0
//! What the host's side costs: calls, echoes and bulk against a guest in another thread, over a
//! socket pair.
//!
//! `cargo run --release -p hc-guest --example round_trip`
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement, run by hand")]

use std::io::{Read, Write};
use std::os::unix::net::UnixStream as StdStream;
use std::thread;
use std::time::{Duration, Instant};

use hc_guest::{Guest, Launch, Stdio};
use hc_proto::message::{Answer, Call, FromGuest, Program, Reply, Request};
use hc_proto::{GuestMux, MuxEvent, decode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

const ROUNDS: usize = 2000;
const BULK: usize = 1 << 30;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let (host, guest) = StdStream::pair().unwrap();
    let guest = thread::spawn(move || serve(guest));
    host.set_nonblocking(true).unwrap();
    let host = UnixStream::from_std(host).unwrap();
    let (host, events) = Guest::connect(host, Duration::from_secs(10)).await.unwrap();

    let mut calls = Vec::new();
    for _ in 0..ROUNDS {
        let start = Instant::now();
        host.call(Call::Shutdown).await.unwrap();
        calls.push(start.elapsed());
    }
    report("call", calls);

    let launch = Launch {
        container: hc_spec::Id::from_bytes([0; 32]),
        main: true,
        program: Program::Stat { path: "/".into() },
        stdio: Stdio { stdin: true, stdout: true, stderr: false },
    };
    let process = host.spawn(launch).await.unwrap();
    let (mut stdin, mut stdout) = (process.stdin.unwrap(), process.stdout.unwrap());
    let mut echoes = Vec::new();
    for _ in 0..ROUNDS {
        let start = Instant::now();
        stdin.write_all(b"x").await.unwrap();
        stdout.read_exact(&mut [0]).await.unwrap();
        echoes.push(start.elapsed());
    }
    report("echo", echoes);

    let start = Instant::now();
    let writer = tokio::spawn(async move {
        let block = vec![7; 64 * 1024];
        for _ in 0..BULK / block.len() {
            stdin.write_all(&block).await.unwrap();
        }
    });
    let mut read = 0;
    while let Some(chunk) = stdout.next_chunk().await.unwrap() {
        read += chunk.len();
    }
    assert_eq!(read, BULK);
    println!("bulk, in and out: {} MB/s", BULK as u128 / start.elapsed().as_micros());
    writer.await.unwrap();
    drop((host, events, stdout));
    guest.join().unwrap();
}

fn report(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |percent: usize| times[times.len() * percent / 100].as_micros();
    println!("{what}: median {} us, 99 in 100 within {} us", at(50), at(99));
}

/// A guest that says yes to every call and echoes every stream.
fn serve(mut line: StdStream) {
    let mut mux = GuestMux::new();
    let mut bytes = vec![0; 64 * 1024];
    let (mut stdin, mut stdout) = (0, 0);
    let mut held: Vec<u8> = Vec::new();
    let mut ended = false;
    loop {
        let n = line.read(&mut bytes).unwrap();
        if n == 0 {
            return;
        }
        mux.feed(&bytes[..n]).unwrap();
        while let Some(event) = mux.next_event() {
            match event {
                MuxEvent::Control(message) => {
                    let Request { id, call } = decode(&message).unwrap();
                    if let Call::Spawn(spawn) = call {
                        stdout = spawn.stdout.unwrap();
                    }
                    let reply = Reply { id, result: Ok(Answer::Done) };
                    mux.send_control(&FromGuest::Reply(reply)).unwrap();
                }
                MuxEvent::Data { stream, bytes } => {
                    stdin = stream;
                    held.extend_from_slice(&bytes);
                }
                MuxEvent::Eof { .. } => ended = true,
                _ => {}
            }
            if !held.is_empty() {
                let sent = mux.send_data(stdout, &held).unwrap();
                mux.consumed(stdin, sent);
                held.drain(..sent);
            }
            if ended && held.is_empty() {
                mux.send_eof(stdout);
            }
        }
        while mux.has_output() {
            let n = line.write(mux.pending_output()).unwrap();
            mux.advance(n);
        }
    }
}
