//! Making what a reset needs, on a system that was not installed for it.
//!
//! Each filesystem looks first (`volume/*/init.rs`), and then makes what it said that is missing.

use std::path::PathBuf;

use anyhow::Context as _;
use serde::Serialize;

use crate::config;
use crate::names::shown;
use crate::volume;

/// How to go about it.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Only look.
    pub dry_run: bool,
    /// The blank is what is live now, not an empty tree.
    pub from_live: bool,
    /// Generations of another system become this one's.
    pub take_over: bool,
}

/// Something that was missing, by its name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "what", content = "name", rename_all = "snake_case")]
pub enum Missing {
    /// The blank, to be made empty.
    EmptyBlank(String),
    /// The blank, to be made of what is live.
    BlankOfLive(String),
    /// The directory for the generations.
    Generations(String),
    /// That the generations in a directory are this system's; they were another one's.
    Ownership(String),
}

impl std::fmt::Display for Missing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::EmptyBlank(name) => write!(f, "the blank {name}, which is empty"),
            Self::BlankOfLive(name) => write!(f, "the blank {name}, of what is live now"),
            Self::Generations(name) => write!(f, "the directory {name} for previous states"),
            Self::Ownership(name) => write!(f, "the generations in {name} this system's"),
        }
    }
}

/// What was missing of every volume, for `--json`. Its schema is in `docs/json.md`.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Format; a new field does not change it.
    pub version: u32,
    /// Nothing was made.
    pub dry_run: bool,
    /// The volumes, in the order of the configuration.
    pub volumes: Vec<VolumeReport>,
}

/// What was missing of one volume.
#[derive(Debug, Serialize)]
pub struct VolumeReport {
    /// Where the running system mounts it.
    #[serde(serialize_with = "crate::text::shown_path")]
    pub mount_point: PathBuf,
    /// What was made, or would be.
    pub made: Vec<Missing>,
}

/// Makes what is missing of one volume, or says what that is.
///
/// # Errors
/// What could not be made, or cannot be made at all and what to do instead.
pub fn init(volume: &config::Volume, options: Options) -> anyhow::Result<Vec<Missing>> {
    volume::init(volume, options).with_context(|| shown(&volume.mount_point))
}

/// A line for each.
#[must_use]
pub fn in_words(volume: &config::Volume, missing: &[Missing], options: Options) -> String {
    let mount_point = shown(&volume.mount_point);
    if missing.is_empty() {
        return format!("{mount_point}: nothing is missing\n");
    }
    let did = if options.dry_run { "would make" } else { "made" };
    let lines: Vec<String> =
        missing.iter().map(|missing| format!("{mount_point}: {did} {missing}\n")).collect();
    lines.concat()
}
