//! What a reset does on btrfs, step by step.

use std::path::PathBuf;

use serde::Serialize;

use crate::names::shown;

/// One thing that a reset does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "step")]
pub(in crate::volume) enum Step {
    /// Remove what an interrupted run left before its point of no return.
    Discard {
        /// The subvolume.
        leftover: String,
    },
    /// Set the flags of a root that an interrupted run had cleared to make it a generation.
    FlagGeneration {
        /// Number of the generation.
        number: u64,
    },
    /// Make the stage: a copy of the blank, of the live volume (to `carry`, or to keep it), or of a
    /// generation (to restore it).
    Stage {
        /// What is copied, or `None` for an empty tree.
        from: Option<String>,
        /// The subvolume that is made.
        target: String,
    },
    /// Copy the persisted paths into the stage.
    CopyIn,
    /// Lay the blank's content beside the previous one in the stage, to `carry`.
    Lay {
        /// The blank, or `None` for an empty tree.
        blank: Option<String>,
    },
    /// Move the persisted paths into the new content, and everything else aside, in the stage.
    Carry,
    /// Write the number of the generation that is being kept into the live volume's `.darlings`, so
    /// that no other gets it.
    Count {
        /// The number.
        number: u64,
    },
    /// Write the number of the reset and the list of persisted paths into the stage's `.darlings`.
    Record,
    /// Make everything so far durable, under a name that says so.
    Secure {
        /// The subvolume whose existence means that it is complete.
        name: String,
    },
    /// Swap the stage with the live subvolume, atomically.
    Exchange {
        /// The stage; afterwards it is the previous state.
        staged: String,
        /// The live subvolume.
        live: String,
    },
    /// Move a nested subvolume that is kept into the result.
    MoveNested {
        /// Below the volume's root.
        #[serde(serialize_with = "crate::text::shown_path")]
        path: PathBuf,
        /// Where it is in the result, below its root: elsewhere if it goes to the attic or comes back
        /// from there.
        #[serde(serialize_with = "crate::text::shown_path")]
        to: PathBuf,
    },
    /// Make the live subvolume the filesystem's default again.
    SetDefault,
    /// Set the times and flags that moving nested subvolumes and exchanging have changed.
    SetAttributes,
    /// Make the previous state a generation.
    KeepGeneration {
        /// The subvolume that it becomes.
        name: String,
    },
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Discard { leftover } => {
                write!(f, "remove {leftover}, left by an interrupted run")
            }
            Self::FlagGeneration { number } => {
                write!(
                    f,
                    "reset the flags on generation {number}'s root that an interrupted run cleared"
                )
            }
            Self::Stage { from: Some(from), target } => write!(f, "copy {from} as {target}"),
            Self::Stage { from: None, target } => write!(f, "make {target}, empty"),
            Self::CopyIn => {
                f.write_str("copy the persisted paths from the previous state into the stage")
            }
            Self::Lay { blank: Some(blank) } => {
                write!(f, "lay the content of {blank} beside the old one in the stage")
            }
            Self::Lay { blank: None } => {
                f.write_str("make a place for the new content in the stage")
            }
            Self::Carry => f.write_str(
                "move the persisted paths to the new content in the stage, the rest aside",
            ),
            Self::Count { number } => write!(f, "record number {number} in the live volume"),
            Self::Record => f.write_str("record the reset and the persisted paths in the stage"),
            Self::Secure { name } => write!(f, "make it durable as {name}"),
            Self::Exchange { staged, live } => write!(f, "exchange {staged} with {live}"),
            Self::MoveNested { path, to } if path == to => {
                write!(f, "move the nested subvolume {} along", shown(path))
            }
            Self::MoveNested { path, to } => {
                write!(f, "move the nested subvolume {} to {}", shown(path), shown(to))
            }
            Self::SetDefault => f.write_str("make the live subvolume the default one"),
            Self::SetAttributes => f.write_str("set the attributes that the exchange has changed"),
            Self::KeepGeneration { name } => write!(f, "keep the previous state as {name}"),
        }
    }
}
