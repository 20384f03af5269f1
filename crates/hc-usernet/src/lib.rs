//! A user-mode network for one VM: Ethernet frames in, host sockets out.
