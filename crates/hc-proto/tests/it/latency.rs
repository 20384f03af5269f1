// SPDX-License-Identifier: Apache-2.0
//! What an urgent frame waits for.
