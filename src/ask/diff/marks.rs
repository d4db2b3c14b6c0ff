//! Which directories need not be looked into, because nothing was changed below them.
//!
//! On btrfs the filesystem's own records say so: every inode has the transaction that last changed
//! it, and so has every name in a directory. See [`darlings_btrfs::changes_after`].
//!
//! **Since a reset.** What the reset wrote beside the generations has the last transaction in which it
//! changed the tree, before that became the live one, and the last one that had changed the blank before
//! anything was made from it ([`Changes`]). It names both by their UUIDs, which no copy has. Whatever is
//! not persisted was the blank's then. A directory that the blank has too, in which and below which
//! nothing was changed since, in neither tree, is still the same, if it is still the same directory: so
//! neither it nor one above it may have got its name since.
//!
//! **Between generations** that come from one another by snapshots, a directory with the same inode
//! number in both is the same one, and is unchanged if nothing below it was changed, in neither tree,
//! since the first of those snapshots was taken.

use std::collections::HashSet;

use darlings_btrfs as fs;

use crate::fs::Dir;
use crate::generations::{Changes, Detail, Generation, Store};

/// What was changed in two trees.
pub(super) struct Marks {
    new: Marked,
    old: Marked,
    related: bool,
}

/// What was changed in one tree.
struct Marked {
    changes: fs::Changes,
    /// Directories that lead to nested subvolumes, about which nothing is known.
    nested: HashSet<u64>,
}

impl Marked {
    fn below(&self, directory: u64) -> bool {
        self.changes.is_above(directory) || self.nested.contains(&directory)
    }

    fn at_or_below(&self, inode: u64) -> bool {
        self.changes.is_changed(inode) || self.below(inode)
    }
}

/// A directory that both trees have, by its inode numbers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Both {
    pub(super) new: u64,
    pub(super) old: u64,
}

impl Marks {
    /// Since a reset made the live tree from the blank.
    pub(super) fn since_reset(live: &Dir, blank: &Dir, changes: Changes) -> anyhow::Result<Self> {
        live.sync_filesystem()?;
        let after = |root: &Dir, transaction| -> anyhow::Result<Marked> {
            let changes = fs::changes_after(root, transaction)?;
            Ok(Marked { changes, nested: HashSet::new() })
        };
        Ok(Self {
            new: after(live, changes.live)?,
            old: after(blank, changes.blank)?,
            related: false,
        })
    }

    /// Between two trees; `None` where neither comes from the other by snapshots that are still
    /// there.
    pub(super) fn between(
        store: &mut dyn Store,
        older: &Generation,
        new: &Dir,
        old: &Dir,
    ) -> anyhow::Result<Option<Self>> {
        if !fs::is_btrfs(new)? || !fs::is_btrfs(old)? {
            return Ok(None);
        }
        let Some(first) = first_snapshot(store, older, new, old)? else { return Ok(None) };
        new.sync_filesystem()?;
        // What was changed in the very transaction of the snapshot may be in it or not.
        let last = first.saturating_sub(1);
        Ok(Some(Self {
            new: Marked { changes: fs::changes_after(new, last)?, nested: nested(new)? },
            old: Marked { changes: fs::changes_after(old, last)?, nested: nested(old)? },
            related: true,
        }))
    }

    /// Whether a directory that both trees have can be the same one, given whether those above it
    /// can.
    pub(super) fn is_still(&self, both: Both, above: bool) -> bool {
        if self.related {
            return both.new == both.old;
        }
        above && !self.new.changes.is_placed(both.new) && !self.old.changes.is_placed(both.old)
    }

    /// Whether nothing was changed in such a directory, or below it.
    pub(super) fn is_unchanged(&self, both: Both) -> bool {
        !self.new.at_or_below(both.new) && !self.old.at_or_below(both.old)
    }

    /// Whether all that was changed in such a directory, or below it, was changed in the newer tree.
    pub(super) fn is_unchanged_in_old(&self, both: Both) -> bool {
        !self.old.at_or_below(both.old)
    }

    /// Whether an entry of such a directory, by the inode number that the directory tells, was
    /// changed, or something below it.
    pub(super) fn holds(&self, inode: u64) -> bool {
        self.new.at_or_below(inode)
    }

    /// Whether a name in such a directory may have gone.
    pub(super) fn may_lack_names(&self, both: Both) -> bool {
        self.new.changes.is_changed(both.new) || self.old.at_or_below(both.old)
    }
}

/// The transaction in which the first snapshot was taken on the way from the older to the newer tree.
fn first_snapshot(
    store: &mut dyn Store,
    older: &Generation,
    new: &Dir,
    old: &Dir,
) -> anyhow::Result<Option<u64>> {
    let Some(from) = fs::subvolume_info(old)?.uuid else { return Ok(None) };
    let mut on_the_way = fs::subvolume_info(new)?;
    let mut between = store.look(Detail::Retention)?.generations;
    between.retain(|generation| generation.number > older.number);
    // Each generation is a snapshot of the one before, so the newest is looked for first.
    while on_the_way.parent_uuid != Some(from) {
        let mut found = None;
        while let Some(generation) = between.pop() {
            let info = fs::subvolume_info(store.tree(&generation)?)?;
            if info.uuid.is_some() && info.uuid == on_the_way.parent_uuid {
                found = Some(info);
                break;
            }
        }
        let Some(info) = found else { return Ok(None) };
        on_the_way = info;
    }
    Ok(Some(on_the_way.made))
}

/// The directories above the subvolumes nested in a tree.
fn nested(root: &Dir) -> anyhow::Result<HashSet<u64>> {
    let mut directories = HashSet::new();
    for nested in fs::nested_subvolumes(root)? {
        for path in nested.path.ancestors() {
            if let Some(opened) = root.open_dir_optional(path)? {
                directories.insert(opened.status()?.stx_ino);
            }
        }
    }
    Ok(directories)
}
