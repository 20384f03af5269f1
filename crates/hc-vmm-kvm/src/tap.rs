// SPDX-License-Identifier: Apache-2.0
//! Tap devices, made ready here: the machine may ask the kernel for nothing of the kind.
#![expect(unsafe_code, reason = "requests for a device")]

use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd as _;

/// `struct virtio_net_hdr_v1`, which stands before each frame.
static HEADER_LEN: libc::c_int = 12;

/// How it has to be attached: frames, with the card's header and no other.
const FLAGS: libc::c_int = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;

/// Makes an attached tap device carry what the machine's card sends and expects: whole frames with
/// complete checksums, each after a header.
pub(crate) fn prepare(device: &File) -> io::Result<()> {
    let flags = flags(device)?;
    if flags & FLAGS != FLAGS {
        let reason = "it is not attached with IFF_TAP, IFF_NO_PI and IFF_VNET_HDR";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
    }
    // SAFETY: the kernel reads one number.
    let sized =
        unsafe { libc::ioctl(device.as_raw_fd(), libc::TUNSETVNETHDRSZ, &raw const HEADER_LEN) };
    // Whoever had the device before may have promised that its guest does this work. It takes the
    // argument as a value.
    // SAFETY: the kernel touches no memory of ours.
    let plain = unsafe { libc::ioctl(device.as_raw_fd(), libc::TUNSETOFFLOAD, 0) };
    if sized < 0 || plain < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn flags(device: &File) -> io::Result<libc::c_int> {
    let mut request = MaybeUninit::<libc::ifreq>::zeroed();
    // SAFETY: the kernel writes a `struct ifreq`, for which there is room.
    let done = unsafe { libc::ioctl(device.as_raw_fd(), libc::TUNGETIFF, request.as_mut_ptr()) };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: all of it was zeroed, which is a valid value, and the kernel has set the flags.
    let flags = unsafe { request.assume_init().ifr_ifru.ifru_flags };
    Ok(libc::c_int::from(flags))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_tap_device_is_refused() {
        prepare(&tempfile::tempfile().unwrap()).unwrap_err();
    }
}
