// SPDX-License-Identifier: Apache-2.0
//! The network with Linux as the guest: a network name space whose only card is a tap device, and a
//! pump that carries its frames. Needs root, `ip` and `/dev/net/tun`.
#![expect(unsafe_code, reason = "only an ioctl opens a tap device")]

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::thread::{self, JoinHandle};

use hc_usernet::{Config, Dns, Network, Protocol, Publish};
use rustix::ioctl::{Opcode, Setter, ioctl};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use sha2::{Digest, Sha256};

use crate::guest::{host_allowed, pattern};
use crate::namespace::{ip, skip};
use crate::packet::{GATEWAY, GATEWAY6};

const LARGE: usize = 16 << 20;

/// A name space that is a guest, with its network running beside it.
struct LinuxGuest {
    name: String,
    published: Vec<hc_usernet::Bound>,
    stream: UnixStream,
    network: Option<JoinHandle<hc_usernet::Result<()>>>,
}

impl LinuxGuest {
    /// `None`, with the reason told, where this machine does not let us.
    fn start(test: &str, config: Config) -> Option<Self> {
        if !hc_testkit::is_root() {
            return skip("network name spaces need root");
        }
        let name = format!("hc-{test}-{}", std::process::id());
        if !ip(&format!("netns add {name}")) {
            return skip("`ip netns` cannot make network name spaces here");
        }
        let network = Network::bind(config).unwrap();
        let published = network.published().to_vec();
        let told = network.guest().clone();
        let (stream, other) = UnixStream::pair().unwrap();
        let mut guest = Self { name, published, stream, network: None };
        let Ok(tap) = guest.run(open_tap).join().unwrap() else {
            return skip("/dev/net/tun does not open");
        };
        let name = &guest.name;
        let mac = told.mac.map(|byte| format!("{byte:02x}")).join(":");
        assert!(ip(&format!("-n {name} link set tap address {mac} mtu {} up", told.mtu)));
        for (address, prefix_len) in &told.addresses {
            assert!(ip(&format!("-n {name} address add {address}/{prefix_len} dev tap nodad")));
        }
        for gateway in &told.gateways {
            assert!(ip(&format!("-n {name} route add default via {gateway} dev tap")));
        }
        pump(tap, guest.stream.try_clone().unwrap());
        guest.network = Some(thread::spawn(move || {
            other.set_nonblocking(true).unwrap();
            tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(
                async { network.run(tokio::net::UnixStream::from_std(other).unwrap()).await },
            )
        }));
        Some(guest)
    }

    /// Runs `work` as a process of the guest would.
    fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        let space = File::open(format!("/run/netns/{}", self.name)).unwrap();
        thread::spawn(move || {
            move_into_link_name_space(space.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            work()
        })
    }

    fn stop(mut self) {
        self.stream.shutdown(Shutdown::Both).unwrap();
        self.network.take().unwrap().join().unwrap().unwrap();
    }
}

impl Drop for LinuxGuest {
    fn drop(&mut self) {
        ip(&format!("netns delete {}", self.name));
    }
}

/// Opens a tap device called `tap` in the name space of the calling thread.
fn open_tap() -> std::io::Result<File> {
    /// `TUNSETIFF`, and its flags for Ethernet frames with nothing before them.
    const SET_INTERFACE: Opcode = rustix::ioctl::opcode::write::<std::ffi::c_int>(b'T', 202);
    const TAP_WITHOUT_HEADER: u16 = 0x1002;
    let tap = File::options().read(true).write(true).open("/dev/net/tun")?;
    // `struct ifreq`: the name in 16 bytes, then flags in a union of 24.
    let mut request = [0_u8; 40];
    request[..3].copy_from_slice(b"tap");
    request[16..18].copy_from_slice(&TAP_WITHOUT_HEADER.to_ne_bytes());
    // SAFETY: TUNSETIFF reads and writes one `ifreq`, which `request` is as large as and lives
    // through the call.
    unsafe { ioctl(&tap, Setter::<SET_INTERFACE, _>::new(request)) }?;
    Ok(tap)
}

/// Carries frames both ways until `stream` or the tap device goes away.
fn pump(tap: File, mut stream: UnixStream) {
    let (mut from_tap, mut to_tap) = (tap.try_clone().unwrap(), tap);
    let mut to_network = stream.try_clone().unwrap();
    thread::spawn(move || {
        let mut frame = vec![0; 1 << 16];
        while let Ok(len) = from_tap.read(&mut frame) {
            let header = u32::try_from(len).unwrap().to_be_bytes();
            if to_network.write_all(&[&header, &frame[..len]].concat()).is_err() {
                return;
            }
        }
    });
    thread::spawn(move || {
        let mut header = [0; 4];
        let mut frame = vec![0; 1 << 17];
        while stream.read_exact(&mut header).is_ok() {
            let len = usize::try_from(u32::from_be_bytes(header)).unwrap();
            // The device drops what comes before it is up.
            if stream.read_exact(&mut frame[..len]).is_err() || to_tap.write(&frame[..len]).is_err()
            {
                return;
            }
        }
    });
}

/// Sends `bytes` and reads to the end, both at once; the hash of what came.
fn exchange(mut stream: TcpStream, bytes: Vec<u8>) -> Vec<u8> {
    let mut writer = stream.try_clone().unwrap();
    let sent = thread::spawn(move || {
        writer.write_all(&bytes).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    let mut all = Vec::new();
    stream.read_to_end(&mut all).unwrap();
    sent.join().unwrap();
    Sha256::digest(&all).to_vec()
}

#[test]
fn linux_connects_out() {
    let Some(guest) = LinuxGuest::start("out", host_allowed()) else {
        return;
    };
    for (listen, gateway) in [
        (SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), GATEWAY),
        (SocketAddr::from((Ipv6Addr::LOCALHOST, 0)), GATEWAY6.into()),
    ] {
        let listener = TcpListener::bind(listen).unwrap();
        let remote = SocketAddr::new(gateway, listener.local_addr().unwrap().port());
        let bytes = pattern(LARGE);
        let expected = Sha256::digest(&bytes).to_vec();
        let inside = guest.run({
            let bytes = bytes.clone();
            move || exchange(TcpStream::connect(remote).unwrap(), bytes)
        });
        assert_eq!(exchange(listener.accept().unwrap().0, bytes), expected);
        assert_eq!(inside.join().unwrap(), expected);
        drop(listener);
        let error = guest.run(move || TcpStream::connect(remote)).join().unwrap().unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
    }
    guest.stop();
}

#[test]
fn linux_is_connected_to() {
    let publish = Publish {
        protocol: Protocol::Tcp,
        host_ip: Ipv4Addr::LOCALHOST.into(),
        host_port: 0,
        guest_port: 80,
    };
    // The smallest packets, so that there are many.
    let config = Config { publish: vec![publish], mtu: 1280, ..Config::default() };
    let Some(guest) = LinuxGuest::start("in", config) else {
        return;
    };
    let address = guest.published[0].host;
    let (listening, started) = std::sync::mpsc::channel();
    let bytes = pattern(LARGE);
    let expected = Sha256::digest(&bytes).to_vec();
    let inside = guest.run({
        let bytes = bytes.clone();
        move || {
            let listener = TcpListener::bind("0.0.0.0:80").unwrap();
            listening.send(()).unwrap();
            exchange(listener.accept().unwrap().0, bytes)
        }
    });
    started.recv().unwrap();
    assert_eq!(exchange(TcpStream::connect(address).unwrap(), bytes), expected);
    assert_eq!(inside.join().unwrap(), expected);
    guest.stop();
}

#[test]
fn linux_learns_why_nothing_came_back() {
    let config = Config { dns: Dns::System, ..Config::default() };
    let Some(guest) = LinuxGuest::start("why", config) else {
        return;
    };
    let send = |to: &'static str| {
        guest
            .run(move || {
                let to: SocketAddr = to.parse().unwrap();
                let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
                let socket = UdpSocket::bind(any).unwrap();
                socket.connect(to).unwrap();
                socket.send(b"x").unwrap();
                socket.recv(&mut [0; 1]).unwrap_err().kind()
            })
            .join()
            .unwrap()
    };
    // What Linux makes of "administratively prohibited".
    assert_eq!(send("169.254.169.254:80"), std::io::ErrorKind::HostUnreachable);
    assert_eq!(send("[fd00:ec2::254]:80"), std::io::ErrorKind::PermissionDenied);
    guest.stop();
}
