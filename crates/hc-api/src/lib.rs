//! The daemon's HTTP API as data: requests, answers, attach frames.
