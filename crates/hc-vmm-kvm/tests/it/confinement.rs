// SPDX-License-Identifier: Apache-2.0
//! What a machine's process may do, as the kernel sees it.
