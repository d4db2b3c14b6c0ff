//! Numbers that btrfs gives to its own.

use linux_raw_sys::btrfs::{
    BTRFS_EMPTY_SUBVOL_DIR_OBJECTID, BTRFS_FIRST_FREE_OBJECTID, BTRFS_FS_TREE_OBJECTID,
};

/// The id of the top level, which holds every other subvolume and cannot be deleted.
pub const TOP_LEVEL: u64 = BTRFS_FS_TREE_OBJECTID as u64;

/// The inode number of every subvolume's root directory.
pub const ROOT_INODE: u64 = BTRFS_FIRST_FREE_OBJECTID as u64;

/// The inode number of every stub: the empty directory that a snapshot shows
/// where its source has a nested subvolume.
pub const STUB_INODE: u64 = BTRFS_EMPTY_SUBVOL_DIR_OBJECTID as u64;
