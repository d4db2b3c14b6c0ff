//! What a reset does in a plain directory, step by step.

use serde::Serialize;

/// One thing that a reset does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "step")]
pub(in crate::volume) enum Step {
    /// Lay the blank's content beside the previous one.
    Lay {
        /// The blank, or `None` for an empty tree.
        blank: Option<String>,
    },
    /// Move the persisted paths into the new content, and everything else aside.
    Carry,
    /// Write the number of the reset and the list of persisted paths into `.darlings`.
    Record,
    /// Make the previous state a generation.
    KeepGeneration {
        /// The directory that it becomes.
        name: String,
    },
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Lay { blank: Some(blank) } => {
                write!(f, "lay the content of {blank} beside the old one in the live volume")
            }
            Self::Lay { blank: None } => {
                f.write_str("make a place for the new content in the live volume")
            }
            Self::Carry => f.write_str(
                "move the persisted paths to the new content in the live volume, the rest aside",
            ),
            Self::Record => {
                f.write_str("record the reset and the persisted paths in the live volume")
            }
            Self::KeepGeneration { name } => write!(f, "keep the previous state as {name}"),
        }
    }
}
