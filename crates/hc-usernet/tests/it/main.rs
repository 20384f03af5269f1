// SPDX-License-Identifier: Apache-2.0
//! The network as a guest sees it: a guest with a stack of its own at one end of a socket pair, the
//! network at the other, and servers on the host's loopback behind it.
#![expect(missing_docs, reason = "tests are named by what they promise")]

mod guest;
mod tcp;
