// SPDX-License-Identifier: Apache-2.0
//! How fast bytes and connections pass: `cargo bench -p hc-usernet`.
//!
//! The guest and the network share one thread, so the network alone is faster: the guest's stack is
//! smoltcp as well, and costs about as much. The host's server has another thread.
#![expect(clippy::print_stdout, reason = "the numbers are the output")]
#![expect(clippy::unwrap_used, reason = "a benchmark that fails has nothing to say")]
#![expect(dead_code, reason = "the tests' guest can do more than is measured")]

#[path = "../tests/it/guest.rs"]
mod guest;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::thread;
use std::time::{Duration, Instant};

use guest::{Guest, host_allowed};
use hc_usernet::Config;

const TRANSFER: usize = 512 << 20;
const CONNECTIONS: u32 = 2000;

fn main() {
    for mtu in [65_520, 1500] {
        let config = || Config { mtu, ..host_allowed() };
        println!("mtu {mtu}:");
        println!("  guest to host: {}", rate(measure(config(), upload)));
        println!("  host to guest: {}", rate(measure(config(), download)));
    }
    let took = measure(host_allowed(), connections);
    println!("connect and close: {:?} each", took / CONNECTIONS);
}

/// Runs `work` in a guest on its own runtime, three times, and gives the median.
fn measure(config: Config, work: fn(Config) -> Duration) -> Duration {
    let mut runs = [(); 3].map(|()| work(config.clone()));
    runs.sort();
    runs[1]
}

fn rate(took: Duration) -> String {
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let mib = (TRANSFER >> 20) as f64;
    format!("{:.0} MiB/s", mib / took.as_secs_f64())
}

fn serve(serve: impl Fn(std::net::TcpStream) + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || listener.incoming().flatten().for_each(serve));
    (Ipv4Addr::new(10, 0, 2, 2), port).into()
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn upload(config: Config) -> Duration {
    let remote = serve(|mut stream| {
        let mut chunk = vec![0; 256 << 10];
        while stream.read(&mut chunk).unwrap() > 0 {}
    });
    run(async {
        let mut guest = Guest::start(config);
        let connection = guest.connect(remote).await.unwrap();
        let bytes = vec![7; TRANSFER];
        let start = Instant::now();
        guest.send_all(connection, &bytes, |_| {}).await;
        guest.tcp(connection).close();
        assert!(guest.read_to_end(connection, |_| {}).await);
        start.elapsed()
    })
}

fn download(config: Config) -> Duration {
    let remote = serve(|mut stream| {
        let chunk = vec![7; 256 << 10];
        for _ in 0..TRANSFER / chunk.len() {
            stream.write_all(&chunk).unwrap();
        }
    });
    run(async {
        let mut guest = Guest::start(config);
        let start = Instant::now();
        let connection = guest.connect(remote).await.unwrap();
        let mut len = 0;
        assert!(guest.read_to_end(connection, |bytes| len += bytes.len()).await);
        assert_eq!(len, TRANSFER);
        start.elapsed()
    })
}

fn connections(config: Config) -> Duration {
    let remote = serve(drop);
    run(async {
        let mut guest = Guest::start(config);
        let start = Instant::now();
        for _ in 0..CONNECTIONS {
            let connection = guest.connect(remote).await.unwrap();
            assert!(guest.read_to_end(connection, |_| {}).await);
            guest.close(connection).await;
        }
        start.elapsed()
    })
}
