//! Plain data that describes pods, containers and their processes.
