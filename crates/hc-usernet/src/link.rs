// SPDX-License-Identifier: Apache-2.0
//! Frames.
/// x
pub(crate) const MIN_FRAME: usize = 14;
/// x
pub(crate) const MAX_FRAME: usize = 65_550;
