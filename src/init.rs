//! Making what a reset needs, on a system that was not installed for it.
//!
//! Each filesystem looks first (`volume/*/init.rs`), and then makes what it said that is missing.

use anyhow::Context as _;

use crate::config;
use crate::plan::shown;
use crate::volume;

/// How to go about it.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Only look.
    pub dry_run: bool,
    /// The blank is what is live now, not an empty tree.
    pub from_live: bool,
}

/// Something that was missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Missing {
    /// The blank, by its name, to be made empty.
    EmptyBlank(String),
    /// The blank, to be made of what is live.
    BlankOfLive(String),
    /// The directory for the generations.
    Generations(String),
}

impl std::fmt::Display for Missing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::EmptyBlank(name) => write!(f, "the blank {name}, which is empty"),
            Self::BlankOfLive(name) => write!(f, "the blank {name}, of what is live now"),
            Self::Generations(name) => write!(f, "the directory {name} for previous states"),
        }
    }
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
