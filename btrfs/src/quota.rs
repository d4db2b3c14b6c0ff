//! How much a subvolume takes, where the filesystem counts it: its quota groups.

use std::mem::offset_of;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, BorrowedFd};

use linux_raw_sys::btrfs::{
    BTRFS_QGROUP_INFO_KEY, BTRFS_QGROUP_STATUS_FLAG_INCONSISTENT, BTRFS_QGROUP_STATUS_FLAG_ON,
    BTRFS_QGROUP_STATUS_FLAG_RESCAN, BTRFS_QGROUP_STATUS_FLAG_SIMPLE_MODE, BTRFS_QGROUP_STATUS_KEY,
    BTRFS_QUOTA_TREE_OBJECTID, btrfs_qgroup_info_item, btrfs_qgroup_status_item,
};

use crate::error::{ErrorKind, Result};
use crate::search::{items, le64};

/// What the two numbers of a [`Usage`] mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accounting {
    /// Quotas: `referenced` is what can be reached from the subvolume, `exclusive` what can be
    /// reached from no other one.
    Quota,
    /// Simple quotas (Linux 6.7): both are what was allocated for the subvolume and is still in
    /// use, perhaps by its snapshots only. A snapshot begins with next to nothing.
    SimpleQuota,
}

/// How much a subvolume takes, in bytes of extents, compressed as they are, metadata included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// What the numbers mean.
    pub accounting: Accounting,
    /// Bytes.
    pub referenced: u64,
    /// Bytes.
    pub exclusive: u64,
}

/// What the filesystem says that the subvolume with that id takes, as of the last commit.
///
/// `None` where quotas are off, or are being counted, or known to be wrong (`btrfs quota
/// rescan`). There is no ioctl for this: it is read from the quota tree, as
/// `btrfs qgroup show` does.
pub fn subvolume_usage(file: impl AsFd, id: u64) -> Result<Option<Usage>> {
    let file = file.as_fd();
    let Some(accounting) = accounting(file)? else { return Ok(None) };
    // A subvolume's own group has its id for a number, level 0.
    items(file, QUOTA_TREE, 0, BTRFS_QGROUP_INFO_KEY, |key, data| {
        if key.offset != id {
            return Ok(ControlFlow::Continue(()));
        }
        Ok(ControlFlow::Break(Usage {
            accounting,
            referenced: le64(data, offset_of!(btrfs_qgroup_info_item, rfer))?,
            exclusive: le64(data, offset_of!(btrfs_qgroup_info_item, excl))?,
        }))
    })
}

const QUOTA_TREE: u64 = BTRFS_QUOTA_TREE_OBJECTID as u64;

fn accounting(file: BorrowedFd<'_>) -> Result<Option<Accounting>> {
    let status = items(file, QUOTA_TREE, 0, BTRFS_QGROUP_STATUS_KEY, |_, data| {
        Ok(ControlFlow::Break(le64(data, offset_of!(btrfs_qgroup_status_item, flags))?))
    });
    let flags = match status {
        // No such tree: quotas were never on, or are off again.
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
        Ok(None) => return Ok(None),
        Ok(Some(flags)) => flags,
    };
    let has = |flag: u32| flags & u64::from(flag) != 0;
    let wrong = has(BTRFS_QGROUP_STATUS_FLAG_RESCAN) || has(BTRFS_QGROUP_STATUS_FLAG_INCONSISTENT);
    if !has(BTRFS_QGROUP_STATUS_FLAG_ON) || wrong {
        return Ok(None);
    }
    let simple = has(BTRFS_QGROUP_STATUS_FLAG_SIMPLE_MODE);
    Ok(Some(if simple { Accounting::SimpleQuota } else { Accounting::Quota }))
}
