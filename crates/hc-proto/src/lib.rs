//! Frames and messages between host and guest, sans-io.
