//! What a purge did, or would do.

use std::path::PathBuf;

use serde::Serialize;

use crate::generations::retention::Reason;
use crate::names::shown;

/// The report of a purge. Its schema is in the README; a new field does not change `version`.
#[derive(Debug, Serialize)]
pub struct PurgeReport {
    /// Format of this report.
    pub version: u32,
    /// Nothing was changed; what is listed would be.
    pub dry_run: bool,
    /// How it ended.
    pub outcome: PurgeOutcome,
    /// The volumes, in the order of the configuration.
    pub volumes: Vec<PurgedVolume>,
}

/// How a purge ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PurgeOutcome {
    /// Everything that was to go is gone.
    Done,
    /// Something could not be removed; the rest is.
    Failed,
}

/// What happened to one volume.
#[derive(Debug, Default, Serialize)]
pub struct PurgedVolume {
    /// Where the running system mounts it.
    #[serde(serialize_with = "crate::text::shown_path")]
    pub mount_point: PathBuf,
    /// What went, in this order.
    pub removed: Vec<Removed>,
    /// What could not be done.
    pub failed: Vec<Failed>,
    /// What a person should know.
    pub notes: Vec<String>,
    /// Bytes that were free before.
    pub available_bytes_before: Option<u64>,
    /// Bytes that are free now. What the kernel still frees in the background is not in it.
    pub available_bytes: Option<u64>,
    /// Bytes that `keep.min_free` wants to be free.
    pub min_free_bytes: Option<u64>,
}

/// One thing that went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Removed {
    /// What kind of thing.
    pub what: What,
    /// The generation's name, or the path below the volume's root.
    pub name: String,
    /// Why.
    pub reason: RemovalReason,
    /// Files and directories that were removed one by one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entries: Option<u64>,
}

/// A kind of thing that a purge removes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// What `carry` moved aside.
    Trash,
    /// What a recovery replaced.
    Replaced,
    /// A previous state.
    Generation,
    /// Paths that are no longer declared.
    Attic,
}

/// Why something goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RemovalReason {
    /// Nobody wants it.
    Trash,
    /// An earlier purge had begun to remove it.
    Begun,
    /// `keep.generations`.
    TooMany,
    /// `keep.days`.
    TooOld,
    /// `keep.min_free`.
    LittleSpace,
}

impl From<Reason> for RemovalReason {
    fn from(reason: Reason) -> Self {
        match reason {
            Reason::TooMany => Self::TooMany,
            Reason::TooOld => Self::TooOld,
        }
    }
}

/// One thing that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Failed {
    /// As in [`Removed::name`]; empty for the volume itself.
    pub name: String,
    /// With its causes.
    pub error: String,
}

impl std::fmt::Display for Removed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match self.what {
            What::Trash => "",
            What::Replaced => "what `recover` replaced, ",
            What::Generation => "the generation ",
            What::Attic => "from the attic ",
        };
        let why = match self.reason {
            RemovalReason::Trash => "what the reset moved aside",
            RemovalReason::Begun => "its removal was begun earlier",
            RemovalReason::TooMany => "more are there than `keep.generations`",
            RemovalReason::TooOld => "older than `keep.days`",
            RemovalReason::LittleSpace => "less is free than `keep.min_free`",
        };
        write!(f, "{kind}{}: {why}", shown(&self.name))
    }
}

impl PurgeReport {}
