//! Merges image layers into one read-only EROFS file in a single pass.
