// SPDX-License-Identifier: Apache-2.0
//! The daemon's HTTP API as data: what clients send, what they get, and the frames of attached
//! streams.
//!
//! Every JSON body of the API is a type of this crate, so the OpenAPI document, the daemon, the pod
//! process and the command line cannot disagree. Nothing here does I/O.
//!
//! # The API at a glance
//!
//! HTTP/1.1 on a unix socket; all paths begin with [`PREFIX`]. `REF` is a container's id, a unique
//! prefix of it, or its name.
//!
//! | request | body → answer |
//! | --- | --- |
//! | `GET /version`, `GET /info` | [`Version`], [`Info`] |
//! | `POST /containers` | [`CreateContainer`] → [`Created`] |
//! | `GET /containers?all=&filter=` | list of [`ContainerSummary`] |
//! | `GET /containers/REF` | [`Container`] |
//! | `DELETE /containers/REF?force=` | |
//! | `POST /containers/REF/start` | plain, or upgraded to attach before the first byte |
//! | `POST /containers/REF/attach` | [`AttachQuery`], upgraded |
//! | `POST /containers/REF/exec` | [`ExecRequest`], upgraded, or plain where detached |
//! | `POST /containers/REF/{stop,restart,kill,unpause}` | |
//! | `POST /containers/REF/wait?condition=` | [`WaitAnswer`] once it is met |
//! | `GET /containers/REF/logs` | [`LogsQuery`] → a body of [`stream`] frames |
//! | `GET /containers/REF/{top,stats}` | [`Top`], lines of [`StatsSample`] |
//! | `GET`/`PUT /containers/REF/archive?path=` | tar |
//! | `POST /containers/REF/pause?to_disk=` | [`PauseQuery`] |
//! | `POST /containers/REF/snapshot` | [`CreateSnapshot`] → [`Snapshot`] |
//! | `POST /containers/REF/clone` | [`CloneContainer`] → [`Created`], not started |
//! | `GET /snapshots`, `DELETE /snapshots/NAME` | list of [`Snapshot`] |
//! | `POST /snapshots/NAME/containers` | [`CloneContainer`] → [`Created`], not started |
//! | `GET`/`POST /templates` | list of [`Template`]; [`CreateTemplate`] → [`Template`] once made |
//! | `DELETE /templates/ID` | by its id or a unique prefix of it |
//! | `POST /templates/prune` | [`PrunedTemplates`] |
//! | `GET /pods` | list of [`PodSummary`] |
//! | `GET /images`, `GET /images/inspect?name=` | list of [`ImageSummary`]; [`ImageDetail`] |
//! | `POST /images/{pull,load,import}` | lines of [`ImageProgress`] |
//! | `POST /images/tag`, `DELETE /images?name=&force=` | |
//!
//! A failed request answers with a status from [`ErrorKind::http_status`] and an [`ErrorBody`].
//! Upgraded connections speak the frames of [`stream`] in both directions.

mod container;
mod error;
mod image;
pub mod stream;
mod system;
mod template;

pub use container::{
    ArchiveQuery, AttachQuery, Container, ContainerState, ContainerSummary, CreateContainer,
    Created, ExecRequest, KillQuery, ListQuery, LogsQuery, NetworkMode, PodSummary, Port, Protocol,
    RemoveQuery, RestartOrStopQuery, StatsQuery, StatsSample, TmpfsMount, Top, TopRow, Ulimit,
    WaitAnswer, WaitCondition, WaitQuery,
};
pub use error::{ErrorBody, ErrorKind};
pub use image::{
    ImageDetail, ImageProgress, ImageRef, ImageSummary, ImportQuery, PullPolicy, PullRequest,
    RemovedImage, TagRequest,
};
pub use system::{DriverReport, Info, KvmReport, KvmState, Version};
pub use template::{
    CloneContainer, CreateSnapshot, CreateTemplate, PauseQuery, PrunedTemplates, Snapshot, Template,
};

/// What every path of this version of the API begins with.
pub const PREFIX: &str = "/v1";
/// The value of the `Upgrade` header that asks for [`stream`] frames.
pub const UPGRADE: &str = "hyper-stream";
/// The header of an archive download that holds the `PathStat` of what was asked for, as JSON.
pub const PATH_STAT_HEADER: &str = "hyper-path-stat";
