//! How much room it takes to lay the blank's content, or to bring over what is kept, before it is tried.

use std::collections::BTreeSet;
use std::os::fd::AsFd as _;
use std::path::PathBuf;

use anyhow::Context as _;
use rustix::fs::{FileType, StatVfs, Statx, fstatfs, fstatvfs};

use super::lay::{Unit, jobs_of};
use crate::fs::Dir;
use crate::fs::at;
use crate::rules::Node;
use crate::tree::next_data;

/// Magic numbers of filesystems that share the extents of files, as `statfs(2)` tells them.
const SHARING: [u64; 2] = [0x5846_5342, 0xca45_1a4e];

/// What an entry takes beside its content, at most, in bytes: its inode, its name, its attributes.
const PER_ENTRY: u64 = 1024;

/// Room on a filesystem, taken or free.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Room {
    /// In bytes.
    pub bytes: u64,
    /// How many entries; the most that there are where a filesystem does not count them.
    pub entries: u64,
}

impl Room {
    /// What is free on a filesystem for everybody but root, who may take more.
    #[must_use]
    pub fn free(of: &StatVfs) -> Self {
        let entries = if of.f_files == 0 { u64::MAX } else { of.f_favail };
        Self { bytes: of.f_bavail.saturating_mul(of.f_frsize), entries }
    }

    /// What it takes at most to lay the blank's part of these units on the filesystem of `target`, which
    /// shares the content of files if it `clones`, or can in any case.
    pub fn to_lay(units: &[Unit], blank: &Dir, target: &Dir, clones: bool) -> anyhow::Result<Self> {
        let mut counting = Counting::of(blank, target, clones || shares(blank, target)?)?;
        for unit in units {
            for (path, job) in jobs_of(unit, blank, target)? {
                counting.count(path, job.rules)?;
            }
        }
        Ok(counting.room)
    }

    /// What it takes at most to bring these over within their filesystem, each without what is excluded
    /// from it.
    pub fn to_bring<'p>(
        paths: impl Iterator<Item = (PathBuf, Option<&'p Node>)>,
        previous: &Dir,
        clones: bool,
    ) -> anyhow::Result<Self> {
        let mut counting = Counting::of(previous, previous, clones)?;
        for (path, rules) in paths {
            counting.count(path, rules)?;
        }
        Ok(counting.room)
    }
}

/// Whether files are laid without their bytes being written.
fn shares(blank: &Dir, target: &Dir) -> anyhow::Result<bool> {
    let device = |at: &Dir| -> anyhow::Result<_> {
        let status = at.status()?;
        Ok((status.stx_dev_major, status.stx_dev_minor))
    };
    let magic = fstatfs(target)?.f_type.cast_unsigned();
    Ok(SHARING.contains(&magic) && device(blank)? == device(target)?)
}

struct Counting<'a> {
    tree: &'a Dir,
    block: u64,
    shares: bool,
    /// Files with several names, of which one was counted.
    linked: BTreeSet<u64>,
    room: Room,
}

impl<'a> Counting<'a> {
    fn of(tree: &'a Dir, target: &Dir, shares: bool) -> anyhow::Result<Self> {
        let target = fstatvfs(target).context("cannot ask for the size of a block")?;
        let block = target.f_frsize.max(512);
        Ok(Self { tree, block, shares, linked: BTreeSet::new(), room: Room::default() })
    }

    /// Counts what is at a path of the tree, with what is below it.
    fn count(&mut self, path: PathBuf, rules: Option<&Node>) -> anyhow::Result<()> {
        let mut waiting = vec![(path, rules)];
        while let Some((path, rules)) = waiting.pop() {
            let (parent, name) = self.tree.open_parent(&path)?;
            let status = parent.status_at(&name)?;
            let kind = at::kind(&status);
            if kind != FileType::Directory
                && status.stx_nlink > 1
                && !self.linked.insert(status.stx_ino)
            {
                continue;
            }
            let content = match kind {
                FileType::RegularFile if self.shares => 0,
                FileType::RegularFile => data_in(&parent, &name, &status)
                    .with_context(|| format!("cannot look at {path:?}"))?,
                FileType::Directory | FileType::Symlink => {
                    u64::from(status.stx_size > 0) + status.stx_size
                }
                _ => 0,
            };
            self.room.bytes += content.next_multiple_of(self.block) + PER_ENTRY;
            self.room.entries += 1;
            if kind == FileType::Directory {
                for name in parent.open_or_mounted(&name)?.names()? {
                    let rules = rules.and_then(|rules| rules.child(&name));
                    if !rules.is_some_and(Node::is_excluded) {
                        waiting.push((path.join(&name), rules));
                    }
                }
            }
        }
        Ok(())
    }
}

/// The bytes of a file that are no holes.
fn data_in(parent: &Dir, name: &std::ffi::OsStr, status: &Statx) -> anyhow::Result<u64> {
    let size = status.stx_size;
    // All that it reads as is there, mostly.
    if size <= status.stx_blocks.saturating_mul(512) {
        return Ok(size);
    }
    let file = parent.open_file(name)?;
    let (mut at, mut bytes) = (0, 0);
    while let Some((start, end)) = next_data(file.as_fd(), at, size)? {
        (at, bytes) = (end, bytes + (end - start));
    }
    Ok(bytes)
}
