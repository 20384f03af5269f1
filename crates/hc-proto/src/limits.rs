// SPDX-License-Identifier: Apache-2.0
//! Every bound of the protocol, with its reason. Both sides share them; a change is a new version.

/// The header of a frame: kind, body length, stream.
pub const HEADER_LEN: usize = 8;

/// The end mark of a frame.
pub const TRAILER_LEN: usize = 1;

/// The longest body of one frame.
///
/// Long enough that header and system call cost nothing beside the body, short enough that a frame
/// which an interactive stream must wait for is off a slow line (20 MB/s) in 1.6 ms.
pub const MAX_BODY_LEN: usize = 32 * 1024;

/// The zeros that bring any decoder back between two frames: as many as a frame can have bytes.
pub const SYNC_LEN: usize = HEADER_LEN + MAX_BODY_LEN + TRAILER_LEN;

/// Bytes that one direction of a stream may have under way: sent, or waiting to be sent, and not
/// yet consumed by the reader.
///
/// At 100 MB/s it covers a round trip of 2.5 ms, several times what a virtio port takes. It is
/// also what one stream can make either side hold.
pub const STREAM_WINDOW: u64 = 256 * 1024;

/// A reader that consumed this much tells the writer at once; less waits for the next frame.
pub const ACK_THRESHOLD: u64 = STREAM_WINDOW / 4;

/// The longest control message.
///
/// A process may have up to 128 KiB in one environment variable (the kernel's `MAX_ARG_STRLEN`)
/// and has several in practice; JSON escapes may double it.
pub const MAX_MESSAGE_LEN: usize = 1024 * 1024;

/// Control messages that may be under way, in bytes with [`MESSAGE_OVERHEAD`]: twice the longest
/// message, so that one can be read while the next is written.
pub const CONTROL_WINDOW: u64 = 2 * 1024 * 1024;

/// What a frame of the control lane counts besides its body, so that the window bounds the number
/// of messages and not only their bytes: about what a queued message costs in memory.
pub const MESSAGE_OVERHEAD: u64 = 64;

/// Streams that may be open at once. A process has at most three.
pub const MAX_STREAMS: usize = 4096;

/// Bytes that are framed ahead of the line.
///
/// What is framed cannot be overtaken any more, so this (with one more frame) is what an urgent
/// frame waits for: under 5 ms at 20 MB/s.
pub const OUTPUT_AHEAD: usize = 64 * 1024;

/// Bytes the host skips in search of the guest's answer to its hello.
///
/// A line without connections can hold what the guest said to an earlier host: at most the buffers
/// between the two, a few hundred KiB on the lines known. More is a guest that does not answer.
pub const MAX_SKIPPED: usize = 4 * 1024 * 1024;

/// The oldest version this code speaks.
pub const MIN_VERSION: u16 = 1;

/// The newest version this code speaks.
pub const MAX_VERSION: u16 = 1;
