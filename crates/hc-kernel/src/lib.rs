//! Guest kernels: what a kernel file is, what it lacks, and the initramfs it boots with.
