//! What an answer says of one path.

use std::path::PathBuf;

use serde::Serialize;

use super::known::Advice;
use crate::text::shown_path;

/// Well-known state that is on a volume that is reset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Suggestion {
    /// In the running system.
    #[serde(serialize_with = "shown_path")]
    pub path: PathBuf,
    /// Whose it is, and what it holds.
    pub what: &'static str,
    /// What happens without it.
    pub why: &'static str,
    /// Whether it should be kept.
    pub advice: Advice,
    /// What becomes of it.
    pub state: SuggestionState,
    /// What is kept of it already, if that is a part.
    pub kept_below: Vec<PathBuf>,
    /// Whether it is a directory, or a file.
    pub kind: SuggestionKind,
    /// Files in it, but for what the system makes itself: links into the Nix store, sockets, empty
    /// directories.
    pub files: u64,
    /// How much they hold, in bytes.
    pub bytes: u64,
    /// There are more: counting was given up.
    pub at_least: bool,
}

/// What the next reset does with something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SuggestionState {
    /// It is erased.
    NotKept,
    /// Some of it is kept, the rest is erased.
    PartlyKept,
    /// It is kept.
    Kept,
    /// It is erased, since it lies in what the configuration leaves out by name.
    Excluded,
    /// The blank holds the same file, so that it is there after a reset too.
    InTheBlank,
}

/// What something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SuggestionKind {
    /// A directory.
    Directory,
    /// A file, or a symbolic link.
    File,
}
