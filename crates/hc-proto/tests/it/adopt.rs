// SPDX-License-Identifier: Apache-2.0
//! A new host process takes over the session of one that is gone.
