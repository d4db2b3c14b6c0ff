//! What is at a path of a tree, as far as it can be reached without following a link.

use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Statx};
use serde::Serialize;

use crate::fs::Dir;
use crate::fs::at::{self, Kind};
use crate::generations::listing::utc;
use crate::keep::survey::{State, state_at};
use crate::names::shown;
use crate::text::bytes_in_words;
use crate::text::shown_path;

/// What is at a path of a tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum Found {
    /// It is there.
    Present(FoundEntry),
    /// It is not there.
    Absent,
    /// An ancestor is no directory, and is not followed.
    Unreachable {
        /// The ancestor, below the volume's root.
        #[serde(serialize_with = "shown_path")]
        ancestor: PathBuf,
        /// What it is instead.
        kind: Kind,
    },
}

/// An entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FoundEntry {
    /// `file`, `directory`, `symbolic link`, ...
    pub kind: Kind,
    /// The size of a file.
    pub bytes: Option<u64>,
    /// When its content was modified last, in seconds since 1970.
    pub modified: i64,
    /// The permissions, in octal digits.
    pub mode: String,
    /// The user that owns it.
    pub owner: u32,
    /// The group.
    pub group: u32,
    /// Where a symbolic link points.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
}

impl FoundEntry {
    /// For a person, without the time.
    #[must_use]
    pub fn in_short(&self) -> String {
        match (self.bytes, &self.target) {
            (Some(bytes), _) => format!("{}, {}", self.kind, bytes_in_words(bytes)),
            (None, Some(target)) => format!("{} to {}", self.kind, shown(target)),
            (None, None) => self.kind.to_string(),
        }
    }

    /// When it was modified, for a person.
    #[must_use]
    pub fn modified_in_words(&self) -> String {
        u64::try_from(self.modified).map_or_else(|_| "before 1970".to_owned(), utc)
    }
}

impl std::fmt::Display for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Present(entry) => {
                let modified = entry.modified_in_words();
                write!(f, "{}, modified {modified}, mode {}", entry.in_short(), entry.mode)
            }
            Self::Absent => f.write_str("nothing"),
            Self::Unreachable { ancestor, kind } => {
                write!(f, "nothing: {} is a {kind}", shown(ancestor))
            }
        }
    }
}

impl Found {
    /// The entry, if it is there.
    #[must_use]
    pub fn entry(&self) -> Option<&FoundEntry> {
        match self {
            Self::Present(entry) => Some(entry),
            Self::Absent | Self::Unreachable { .. } => None,
        }
    }
}

/// Looks at a path below a root; empty for the root itself.
pub fn find(root: &Dir, path: &Path) -> anyhow::Result<Found> {
    if path.as_os_str().is_empty() {
        return Ok(Found::Present(entry(&root.status()?, None)));
    }
    match state_at(root, path)? {
        State::Absent => return Ok(Found::Absent),
        State::Unreachable { ancestor, kind } => return Ok(Found::Unreachable { ancestor, kind }),
        State::Present { .. } => {}
    }
    let Some(status) = root.status_optional(path)? else { return Ok(Found::Absent) };
    let target = match at::kind(&status) {
        FileType::Symlink => Some(root.read_link(path)?),
        _ => None,
    };
    Ok(Found::Present(entry(&status, target.as_deref())))
}

fn entry(status: &Statx, target: Option<&Path>) -> FoundEntry {
    let kind = at::kind(status);
    FoundEntry {
        kind: kind.into(),
        bytes: (kind == FileType::RegularFile).then_some(status.stx_size),
        modified: status.stx_mtime.tv_sec,
        mode: format!("{:04o}", u32::from(status.stx_mode) & 0o7777),
        owner: status.stx_uid,
        group: status.stx_gid,
        target: target.map(|target| target.to_string_lossy().into_owned()),
    }
}
