//! What a reset does on ZFS, step by step.

use serde::Serialize;

/// One thing that a reset does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "step")]
pub(in crate::volume) enum Step {
    /// Take a snapshot of the dataset, which becomes the generation.
    Snapshot {
        /// The snapshot.
        name: String,
    },
    /// Lay the blank's content beside the previous one, to `carry`.
    Lay {
        /// The blank, or `None` for an empty tree.
        blank: Option<String>,
    },
    /// Move the persisted paths into the new content, and everything else aside.
    Carry,
    /// Move the new content in, and everything else aside: a `carry` with nothing persisted, to restore
    /// a generation.
    Replace,
    /// Move what is aside to the trash and remove what else is left of the work.
    Tidy,
    /// Destroy the stage that an interrupted run left before its point of no return.
    Discard {
        /// The dataset.
        leftover: String,
    },
    /// Clone the blank as the stage.
    Stage {
        /// The blank snapshot.
        from: String,
        /// The dataset that is made.
        target: String,
    },
    /// Copy the persisted paths from the dataset into the stage.
    CopyIntoStage,
    /// Make the stage durable, under a name that says so.
    Secure {
        /// The snapshot whose existence means that it is complete.
        name: String,
    },
    /// Roll the dataset back to its blank snapshot. From here only forward is safe.
    RollBack {
        /// The blank snapshot.
        snapshot: String,
        /// Newer snapshots and bookmarks, which a rollback destroys.
        destroys: Vec<String>,
    },
    /// Copy the persisted paths from the stage into the dataset.
    CopyIntoLive,
    /// Destroy the stage.
    DestroyStage {
        /// The dataset.
        stage: String,
    },
    /// Destroy an earlier generation, of which a `rollback` leaves none.
    DestroyGeneration {
        /// The snapshot.
        name: String,
    },
    /// Write the number of the generation that is being kept into the live volume's `.darlings`, so
    /// that no other gets it.
    Count {
        /// The number.
        number: u64,
    },
    /// Write the number of the reset and the list of persisted paths into `.darlings`.
    Record,
    /// Make the dataset durable and note that it is complete.
    Complete {
        /// The dataset.
        dataset: String,
    },
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Snapshot { name } => write!(f, "keep the previous state as {name}"),
            Self::Lay { blank: Some(blank) } => {
                write!(f, "lay the content of {blank} beside the old one in the live volume")
            }
            Self::Lay { blank: None } => {
                f.write_str("make a place for the new content in the live volume")
            }
            Self::Carry => f.write_str(
                "move the persisted paths to the new content in the live volume, the rest aside",
            ),
            Self::Replace => f.write_str(
                "move the new content in, and everything else aside, in the live volume",
            ),
            Self::Tidy => f.write_str("move what is aside to the trash"),
            Self::Discard { leftover } => {
                write!(f, "remove {leftover}, left by an interrupted run")
            }
            Self::Stage { from, target } => write!(f, "copy {from} as {target}"),
            Self::CopyIntoStage => {
                f.write_str("copy the persisted paths from the previous state into the stage")
            }
            Self::Secure { name } => write!(f, "make it durable as {name}"),
            Self::RollBack { snapshot, destroys } if destroys.is_empty() => {
                write!(f, "roll back to {snapshot}")
            }
            Self::RollBack { snapshot, destroys } => {
                write!(f, "roll back to {snapshot}, destroying {}", destroys.join(", "))
            }
            Self::CopyIntoLive => {
                f.write_str("copy the persisted paths from the stage into the live volume")
            }
            Self::DestroyStage { stage: name } | Self::DestroyGeneration { name } => {
                write!(f, "destroy {name}")
            }
            Self::Count { number } => write!(f, "record number {number} in the live volume"),
            Self::Record => {
                f.write_str("record the reset and the persisted paths in the live volume")
            }
            Self::Complete { dataset } => write!(f, "make {dataset} durable and mark it complete"),
        }
    }
}
