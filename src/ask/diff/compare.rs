//! Whether two entries of the same name are the same.
//!
//! Times do not count: a reset gives the blank's, and nobody misses others. The content of two files
//! of the same size is taken to be the same where their times of modification are the same to the
//! nanosecond, as rsync(1) does it; but a file that was touched in any way since the reset, in
//! either tree (its inode's own time, `ctime`, which nobody can set, says so), is read.

use rustix::fs::{FileType, Statx};
use serde::Serialize;

use crate::tree::{Comparison, NamedEntry, same_flags, same_target};

use crate::fs::at;
use crate::own::state::{Moment, moment};

/// In what an entry differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Aspect {
    /// What it is.
    Kind,
    /// The bytes of a file.
    Content,
    /// Where a symbolic link points.
    Target,
    /// Which device it stands for.
    Device,
    /// Owner or group.
    Owner,
    /// Permissions.
    Mode,
    /// ACLs, capabilities, labels, or others of the extended attributes.
    Attributes,
    /// Flags of `chattr(1)`.
    Flags,
}

impl Aspect {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Kind => "another kind",
            Self::Content => "content",
            Self::Target => "target",
            Self::Device => "device",
            Self::Owner => "owner",
            Self::Mode => "mode",
            Self::Attributes => "attributes",
            Self::Flags => "flags",
        }
    }
}

/// One side of a comparison.
pub(super) struct Side<'a> {
    pub(super) named: NamedEntry<'a>,
    pub(super) status: &'a Statx,
}

/// Memory for comparing, and what it must know.
pub(super) struct Comparer {
    /// When the newer tree was made, if that is known for sure. Files that were touched since, in
    /// either tree, are read, and all are where it is not.
    made: Option<Moment>,
    comparison: Comparison,
}

impl Comparer {
    /// For a newer tree that was made then.
    pub(super) fn new(made: Option<Moment>) -> Self {
        Self { made, comparison: Comparison::default() }
    }

    /// In what two entries differ; in nothing, if they are the same.
    pub(super) fn differences(
        &mut self,
        new: &Side<'_>,
        old: &Side<'_>,
    ) -> anyhow::Result<Vec<Aspect>> {
        let (kind, was) = (at::kind(new.status), at::kind(old.status));
        if kind != was {
            return Ok(vec![Aspect::Kind]);
        }
        let (status, before) = (new.status, old.status);
        let mut found = Vec::new();
        let what = match kind {
            FileType::RegularFile => (!self.same_content(new, old)?).then_some(Aspect::Content),
            FileType::Symlink => (!same_target(new.named, old.named)?).then_some(Aspect::Target),
            FileType::CharacterDevice | FileType::BlockDevice => {
                let device = |it: &Statx| (it.stx_rdev_major, it.stx_rdev_minor);
                (device(status) != device(before)).then_some(Aspect::Device)
            }
            _ => None,
        };
        found.extend(what);
        if (status.stx_uid, status.stx_gid) != (before.stx_uid, before.stx_gid) {
            found.push(Aspect::Owner);
        }
        if kind != FileType::Symlink && status.stx_mode != before.stx_mode {
            found.push(Aspect::Mode);
        }
        if !self.comparison.same_xattrs(new.named, old.named, kind)? {
            found.push(Aspect::Attributes);
        }
        if !same_flags(new.named, old.named, kind)? {
            found.push(Aspect::Flags);
        }
        Ok(found)
    }

    fn same_content(&mut self, new: &Side<'_>, old: &Side<'_>) -> anyhow::Result<bool> {
        if new.status.stx_size != old.status.stx_size {
            return Ok(false);
        }
        let before =
            |made: Moment| [new, old].iter().all(|side| moment(side.status.stx_ctime) < made);
        if new.status.stx_size == 0
            || (self.made.is_some_and(before)
                && moment(new.status.stx_mtime) == moment(old.status.stx_mtime))
        {
            return Ok(true);
        }
        self.comparison.same_bytes(new.named, old.named)
    }
}
