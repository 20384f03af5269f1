// SPDX-License-Identifier: Apache-2.0
//! `hyperstart` in a real guest, with the test as its host.

mod host;
mod image;
mod lifecycle;
mod machine;
