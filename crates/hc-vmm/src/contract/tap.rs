// SPDX-License-Identifier: Apache-2.0
//! A tap device that only the test sees, in a network namespace that goes with its descriptors.
#![expect(unsafe_code, reason = "requests for network devices")]

use std::fs::File;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::thread;

use super::links::EXPERIMENTAL;

const NAME: &std::ffi::CStr = c"contract0";
const MTU: libc::c_int = 65_520;

/// A tap device, and the host's side of the network that it is.
pub(super) struct Wired {
    pub(super) device: File,
    /// Sends and receives frames of the experimental type; non-blocking.
    pub(super) socket: OwnedFd,
}

/// Makes one. Only root can.
pub(super) fn wire() -> io::Result<Wired> {
    // The namespace is the thread's, and stays for as long as something in it is open.
    let wired = thread::spawn(|| {
        // SAFETY: a namespace of the network changes no memory and no descriptor.
        check(unsafe { libc::unshare(libc::CLONE_NEWNET) })?;
        let device = File::options().read(true).write(true).open("/dev/net/tun")?;
        let mut request = request();
        let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
        request.ifr_ifru.ifru_flags = flags.try_into().unwrap();
        ioctl(device.as_raw_fd(), libc::TUNSETIFF, &mut request)?;
        Ok(Wired { device, socket: socket()? })
    });
    wired.join().unwrap()
}

/// Brings the device up, and opens a socket for its frames.
fn socket() -> io::Result<OwnedFd> {
    let kind = libc::SOCK_RAW | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: makes a descriptor.
    let socket = check(unsafe { libc::socket(libc::AF_PACKET, kind, 0) })?;
    // SAFETY: it has just been made, and is nobody else's.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    let mut sized = request();
    sized.ifr_ifru.ifru_mtu = MTU;
    ioctl(socket.as_raw_fd(), libc::SIOCSIFMTU, &mut sized)?;
    let mut up = request();
    up.ifr_ifru.ifru_flags = libc::IFF_UP.try_into().unwrap();
    ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &mut up)?;
    let mut named = request();
    ioctl(socket.as_raw_fd(), libc::SIOCGIFINDEX, &mut named)?;
    // SAFETY: all zeros are a valid address, and the request a valid number.
    let (mut address, index) =
        unsafe { (mem::zeroed::<libc::sockaddr_ll>(), named.ifr_ifru.ifru_ifindex) };
    address.sll_family = libc::AF_PACKET.try_into().unwrap();
    address.sll_protocol = u16::from_ne_bytes(EXPERIMENTAL);
    address.sll_ifindex = index;
    let len = mem::size_of_val(&address).try_into().unwrap();
    // SAFETY: the kernel reads an address of this length.
    check(unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), len) })?;
    Ok(socket)
}

/// A request about the device.
fn request() -> libc::ifreq {
    // SAFETY: all zeros are a valid request.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(NAME.to_bytes()) {
        *to = from.cast_signed();
    }
    request
}

fn ioctl(descriptor: RawFd, what: libc::Ioctl, request: &mut libc::ifreq) -> io::Result<()> {
    // SAFETY: the kernel reads and writes a `struct ifreq`.
    check(unsafe { libc::ioctl(descriptor, what, request) }).map(drop)
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
