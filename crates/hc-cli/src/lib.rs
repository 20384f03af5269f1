//! hyper: the command line.
