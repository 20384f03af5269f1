//! Harness for tests that boot real pods.
