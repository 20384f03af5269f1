//! The image store: an OCI layout on disk, filled by load, import and pull.
