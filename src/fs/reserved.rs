//! Names in a volume's root that are not the user's.

use std::ffi::OsStr;

use anyhow::Context as _;
use rustix::fs::fstatfs;

use super::Dir;
use crate::rules::OWN_DIRECTORY;

/// Magic numbers of filesystems, as `statfs(2)` tells them (`linux/magic.h`; `OpenZFS`).
const EXT4: u64 = 0xef53;
const ZFS: u64 = 0x2fc1_2fc1;

/// Names in a volume's root that are not the user's: the tool's own, and those that a filesystem
/// shows there by itself (`.zfs` where `snapdir=visible`, `lost+found` on ext4).
#[derive(Debug, Clone, Copy)]
pub struct Reserved {
    by_filesystem: Option<&'static str>,
}

impl Reserved {
    /// Those of the filesystem that an open directory is on.
    pub fn of(root: &Dir) -> anyhow::Result<Self> {
        let by_filesystem =
            match fstatfs(root).context("cannot look at the root")?.f_type.cast_unsigned() {
                EXT4 => Some("lost+found"),
                ZFS => Some(".zfs"),
                _ => None,
            };
        Ok(Self { by_filesystem })
    }

    /// Whether a name in the root is one.
    #[must_use]
    pub fn holds(self, name: &OsStr) -> bool {
        name == OWN_DIRECTORY || self.by_filesystem.is_some_and(|own| name == own)
    }
}
