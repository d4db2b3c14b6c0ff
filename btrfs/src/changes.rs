//! What was changed in a subvolume after a transaction, without walking it.
//!
//! A btrfs never overwrites: what is changed is written anew, with all the leaves and nodes of the
//! tree above it, and each of these says in which transaction that was. A search from a transaction
//! on therefore reads the changed part of the tree alone.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, BorrowedFd};

use linux_raw_sys::btrfs::{
    BTRFS_DIR_INDEX_KEY, BTRFS_FT_DIR, BTRFS_INODE_EXTREF_KEY, BTRFS_INODE_ITEM_KEY,
    BTRFS_ROOT_ITEM_KEY,
};

use crate::error::Result;
use crate::ids::ROOT_INODE;
use crate::ioctl::{FEW, MANY};
use crate::search::{
    DirItem, INODE_REF_KEY, InodeItem, Key, OWN_TREE, inode_extref_directories, range,
};

/// What was changed in a subvolume after a transaction; see [`changes_after`].
///
/// Subvolumes nested in it are not looked into.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Inodes, and subvolumes by their id where a name of one was put, sorted.
    changed: Vec<u64>,
    /// Directories whose name was put where it is, sorted.
    placed: Vec<u64>,
    /// Directories with something changed at any depth below them.
    above: HashSet<u64>,
}

impl Changes {
    /// Whether the inode itself was changed: its data, its attributes, its names; of a directory,
    /// the names in it too. For the entry of a nested subvolume (whose number, as a directory tells
    /// it, is the id), whether it was put there.
    #[must_use]
    pub fn is_changed(&self, inode: u64) -> bool {
        self.changed.binary_search(&inode).is_ok()
    }

    /// Whether anything was changed at any depth below a directory.
    #[must_use]
    pub fn is_above(&self, inode: u64) -> bool {
        self.above.contains(&inode)
    }

    /// Whether a directory got the name that it has: it was made, or moved.
    #[must_use]
    pub fn is_placed(&self, inode: u64) -> bool {
        self.placed.binary_search(&inode).is_ok()
    }

    /// How many inodes were changed.
    #[must_use]
    pub fn len(&self) -> usize {
        self.changed.len()
    }

    /// Whether nothing was changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changed.is_empty()
    }
}

/// Everything that was changed in the subvolume of `file` in transactions after `transaction`, and
/// perhaps more. What is not on the disk yet counts only after a `syncfs(2)`: data that was written,
/// and is still in memory, has not changed its inode. Needs `CAP_SYS_ADMIN`.
///
/// The time depends on how much of the tree was written anew, and not on how many files there are.
/// Memory: 8 bytes for each changed inode, and some more for each directory above one.
pub fn changes_after(file: impl AsFd, transaction: u64) -> Result<Changes> {
    let file = file.as_fd();
    let mut search = Search { transaction, ..Search::default() };
    let first = Key { object: ROOT_INODE, kind: BTRFS_INODE_ITEM_KEY, offset: 0 };
    let last = Key { object: u64::MAX, kind: u8::MAX.into(), offset: u64::MAX };
    let since = transaction.saturating_add(1);
    range::<MANY, ()>(file, OWN_TREE, (first, last), since, |key, data| {
        search.see(key, data)?;
        Ok(ControlFlow::Continue(()))
    })?;
    search.finish(file)
}

#[derive(Default)]
struct Search {
    transaction: u64,
    changes: Changes,
    /// The changed inode whose items are passing by, while no name of it was seen.
    nameless: Option<u64>,
    /// Those of which not all names were seen: their items may lie in a leaf that was not written.
    unnamed: Vec<u64>,
    /// Subvolumes whose names were put somewhere.
    subvolumes: Vec<u64>,
    directories: HashSet<u64>,
}

impl Search {
    fn see(&mut self, key: Key, data: &[u8]) -> Result<()> {
        if self.nameless.is_some_and(|inode| inode != key.object) {
            self.unnamed.extend(self.nameless.take());
        }
        match key.kind {
            BTRFS_INODE_ITEM_KEY => {
                let item = InodeItem::parse(data)?;
                if item.changed > self.transaction {
                    self.changes.changed.push(key.object);
                    if item.links == 1 {
                        self.nameless = Some(key.object);
                    } else if item.links > 1 {
                        self.unnamed.push(key.object);
                    }
                }
            }
            INODE_REF_KEY if self.nameless == Some(key.object) => {
                self.nameless = None;
                self.directories.insert(key.offset);
            }
            BTRFS_DIR_INDEX_KEY => {
                let entry = DirItem::parse(data)?;
                if entry.placed > self.transaction {
                    if u32::from(entry.target_kind) == BTRFS_ROOT_ITEM_KEY {
                        self.subvolumes.push(entry.target);
                    } else if u32::from(entry.file_type) == BTRFS_FT_DIR {
                        self.changes.placed.push(entry.target);
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn finish(self, file: BorrowedFd<'_>) -> Result<Changes> {
        let Self { mut changes, nameless, mut unnamed, subvolumes, directories, .. } = self;
        unnamed.extend(nameless);
        let mut unread: Vec<u64> = directories.into_iter().collect();
        for inode in unnamed {
            names(file, inode, |directory| unread.push(directory))?;
        }
        while let Some(directory) = unread.pop() {
            if changes.above.insert(directory) && directory != ROOT_INODE {
                names(file, directory, |above| unread.push(above))?;
            }
        }
        changes.changed.extend(subvolumes);
        changes.changed.sort_unstable();
        changes.changed.dedup();
        changes.placed.sort_unstable();
        changes.placed.dedup();
        Ok(changes)
    }
}

/// Calls `visit` with each directory in which the inode has a name; with none if it was deleted and
/// is still open.
fn names(file: BorrowedFd<'_>, inode: u64, mut visit: impl FnMut(u64)) -> Result<()> {
    let first = Key { object: inode, kind: INODE_REF_KEY, offset: 0 };
    let last = Key { object: inode, kind: BTRFS_INODE_EXTREF_KEY, offset: u64::MAX };
    range::<FEW, ()>(file, OWN_TREE, (first, last), 0, |key, data| {
        if key.kind == INODE_REF_KEY {
            visit(key.offset);
        } else {
            inode_extref_directories(data, &mut visit)?;
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(())
}
