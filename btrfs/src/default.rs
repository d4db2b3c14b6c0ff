//! The default subvolume: what a mount without `subvol=` or `subvolid=` gets.

use std::ffi::OsStr;
use std::ops::ControlFlow;
use std::os::fd::AsFd;

use linux_raw_sys::btrfs::{BTRFS_DIR_ITEM_KEY, BTRFS_ROOT_TREE_DIR_OBJECTID};

use crate::error::{Error, Result, Subject, ioctl_meaning};
use crate::ids::TOP_LEVEL;
use crate::ioctl;
use crate::search::{DirItem, ROOT_TREE, items};

/// The id of the default subvolume, [`TOP_LEVEL`] when none was ever set.
///
/// `file` is any open file of the filesystem. There is no ioctl for this: it is
/// the entry `default` of the directory in the tree of trees, where
/// `btrfs subvolume get-default` looks too. The kernel mounts the top level when
/// the entry is missing, and so this says the top level.
pub fn default_subvolume(file: impl AsFd) -> Result<u64> {
    let found = items(
        file.as_fd(),
        ROOT_TREE,
        u64::from(BTRFS_ROOT_TREE_DIR_OBJECTID),
        BTRFS_DIR_ITEM_KEY,
        |_, data| {
            let entry = DirItem::parse(data)?;
            Ok(if entry.name == OsStr::new("default") {
                ControlFlow::Break(entry.target)
            } else {
                ControlFlow::Continue(())
            })
        },
    )?;
    Ok(found.unwrap_or(TOP_LEVEL))
}

/// Makes the subvolume with that id the default one (`BTRFS_IOC_DEFAULT_SUBVOL`).
///
/// It matters from the next mount on, not to the mounts there are, and is durable after [`sync`](crate::sync).
/// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) when there is no such
/// subvolume (id 0 means the top level); [`ErrorKind::ReadOnly`](crate::ErrorKind::ReadOnly) on a read-only mount.
pub fn set_default_subvolume(file: impl AsFd, id: u64) -> Result<()> {
    let file = file.as_fd();
    ioctl::set_default_subvolume(file, id).map_err(|errno| {
        Error::system(
            "making the default subvolume the one",
            Subject::Id(id),
            ioctl_meaning(file, errno),
            errno,
        )
    })
}
