// SPDX-License-Identifier: Apache-2.0
//! Peers that do not keep to the protocol.
