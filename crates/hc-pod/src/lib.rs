//! One pod: its VM, guest connection, logs and exit codes.
