//! What a reset needs and `darlings init` creates, on a system that was installed without it.

use serde::Serialize;

/// How to go about it.
#[derive(Debug, Clone, Copy)]
pub struct InitOptions {
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
