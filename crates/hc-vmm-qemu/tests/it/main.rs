// SPDX-License-Identifier: Apache-2.0
//! The driver against the real program.

mod bench;
mod contract;
