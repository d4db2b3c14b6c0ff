//! What a difference is.

use std::path::{Path, PathBuf};

use rustix::fs::FileType;
use serde::Serialize;

use crate::tree::Difference;

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiffEntry<'a> {
    /// Below the volume's root; empty for the root itself.
    pub path: &'a Path,
    /// What is different.
    pub change: Change,
    /// What becomes of it in the next reset. Between two generations always [`Fate::Erased`], which
    /// says nothing there.
    pub fate: Fate,
    /// What it is now; of what was removed, what it was.
    pub kind: DiffKind,
    /// In what it differs, if it was changed.
    pub aspects: &'a [Difference],
    /// The size of a file, or the length of a symbolic link's target, in bytes; else 0.
    pub bytes: u64,
    /// Who owns it.
    pub uid: u32,
    /// And its group.
    pub gid: u32,
    /// Its permissions, with setuid, setgid and sticky.
    pub mode: u32,
    /// When its content was changed, in seconds since 1970.
    pub modified: i64,
    /// Why nobody will miss it, if the system makes it again by itself.
    pub managed: Option<Managed>,
}

/// How an entry differs from the blank, or from the older generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// The blank does not have it: it would vanish.
    New,
    /// The blank has another one: it would be reverted.
    Changed,
    /// The blank has it, and the live volume does not: it would come back.
    Removed,
}

/// What becomes of a difference in the next reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// It is gone, but for the generation.
    Erased,
    /// It was persisted at the last reset and is no longer declared, so it goes to the attic.
    Attic,
}

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DiffKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A btrfs subvolume nested in the volume.
    Subvolume,
    /// A symbolic link.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A character device.
    CharacterDevice,
    /// A block device.
    BlockDevice,
}

impl DiffKind {
    /// Whether other entries can be in it.
    #[must_use]
    pub fn holds_entries(self) -> bool {
        matches!(self, Self::Directory | Self::Subvolume)
    }

    pub(super) fn of(kind: FileType) -> Option<Self> {
        Some(match kind {
            FileType::RegularFile => Self::File,
            FileType::Directory => Self::Directory,
            FileType::Symlink => Self::Symlink,
            FileType::Fifo => Self::Fifo,
            FileType::Socket => Self::Socket,
            FileType::CharacterDevice => Self::CharacterDevice,
            FileType::BlockDevice => Self::BlockDevice,
            FileType::Unknown => return None,
        })
    }
}

/// Why nobody will miss an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Managed {
    /// A symbolic link into `/nix/store` or `/etc/static`, which NixOS makes at each activation.
    NixLink,
    /// A socket: it is of use only while somebody listens.
    Socket,
    /// A directory with nothing in it.
    EmptyDirectory,
    /// A directory where something is mounted, as one is made for.
    MountPoint,
}

impl Managed {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::NixLink => "link of NixOS",
            Self::Socket => "socket",
            Self::EmptyDirectory => "empty directory",
            Self::MountPoint => "mount point",
        }
    }
}

/// The path of an entry in the running system.
#[must_use]
pub fn in_running_system(mount_point: &Path, path: &Path) -> PathBuf {
    if path.as_os_str().is_empty() { mount_point.to_owned() } else { mount_point.join(path) }
}
