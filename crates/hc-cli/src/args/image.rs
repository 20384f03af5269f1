// SPDX-License-Identifier: Apache-2.0
//! Arguments of the commands about images.

use std::path::PathBuf;

use clap::Args;

/// Fetch an image from a registry
#[derive(Debug, Args)]
pub(crate) struct PullArgs {
    /// The image's name, with tag or digest
    #[arg(value_name = "IMAGE")]
    pub(crate) image: String,
    /// Print the image's name alone
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// The platform; only this host's can run
    #[arg(long)]
    pub(crate) platform: Option<String>,
    /// Not supported
    #[arg(short, long, hide = true)]
    pub(crate) all_tags: bool,
}

/// Take in images from an archive: `docker save`'s, or an OCI layout as tar
#[derive(Debug, Args)]
pub(crate) struct LoadArgs {
    /// The archive, plain or compressed; `-` or nothing for standard input
    #[arg(short, long, value_name = "FILE")]
    pub(crate) input: Option<PathBuf>,
    /// Show no progress
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// Make an image of the tar archive of a root file system
#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// The archive, plain or compressed; `-` for standard input
    #[arg(value_name = "FILE|-")]
    pub(crate) file: PathBuf,
    /// The image's name
    pub(crate) name: Option<String>,
    /// Set a part of the configuration, in Dockerfile words, such as 'USER nobody'
    #[arg(short, long, value_name = "INSTRUCTION", allow_hyphen_values = true)]
    pub(crate) change: Vec<String>,
    /// Not supported
    #[arg(short, long, hide = true, allow_hyphen_values = true)]
    pub(crate) message: Option<String>,
    /// The platform; only this host's can run
    #[arg(long)]
    pub(crate) platform: Option<String>,
    /// Show no progress
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// List images
#[derive(Debug, Args)]
pub(crate) struct ImagesArgs {
    /// Only images of this name
    #[arg(value_name = "NAME[:TAG]")]
    pub(crate) name: Option<String>,
    /// Print ids alone
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Print ids in full
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// What to print: `table`, `json`, or a template such as '{{.ID}}'
    #[arg(long)]
    pub(crate) format: Option<String>,
    /// Not needed: there are no intermediate images
    #[arg(short, long, hide = true)]
    pub(crate) all: bool,
}

/// Remove images, or names of them
#[derive(Debug, Args)]
pub(crate) struct RmiArgs {
    /// Images, by name or id
    #[arg(required = true, value_name = "IMAGE")]
    pub(crate) images: Vec<String>,
    /// Remove also an image that stopped containers use, or that has several names
    #[arg(short, long)]
    pub(crate) force: bool,
}

/// Give an image another name
#[derive(Debug, Args)]
pub(crate) struct TagArgs {
    /// The image, by name or id
    #[arg(value_name = "IMAGE")]
    pub(crate) source: String,
    /// The new name
    #[arg(value_name = "NAME[:TAG]")]
    pub(crate) target: String,
}
