// SPDX-License-Identifier: Apache-2.0
//! The entry point of `/init`.
//!
//! The C one, without Rust's own start-up: that insists on open standard streams, which a kernel
//! without a console does not give, and which cannot be opened before `/dev` is mounted.
#![no_main]
#![expect(unsafe_code, reason = "the C library finds it by its bare name")]

// SAFETY: no other function of this name is linked in, and C calls it as it is declared.
#[unsafe(no_mangle)]
extern "C" fn main() -> core::ffi::c_int {
    hyperstart::run()
}
