// SPDX-License-Identifier: Apache-2.0
//! What every request handler shares.

use std::sync::Arc;

use hc_paths::Paths;

use crate::config::Config;
use crate::supervisor::Supervisor;

/// The daemon, as handlers see it.
#[derive(Clone)]
pub(crate) struct App {
    pub(crate) supervisor: Arc<Supervisor>,
    pub(crate) config: Arc<Config>,
    pub(crate) paths: Arc<Paths>,
}
