// SPDX-License-Identifier: Apache-2.0
//! Runs the program against a daemon that the tests play.
