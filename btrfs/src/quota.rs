//! How much a subvolume takes, where the filesystem counts it: its quota groups.

use std::mem::offset_of;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, BorrowedFd};

use linux_raw_sys::btrfs::{
    BTRFS_QGROUP_INFO_KEY, BTRFS_QGROUP_LIMIT_KEY, BTRFS_QGROUP_LIMIT_MAX_EXCL,
    BTRFS_QGROUP_LIMIT_MAX_RFER, BTRFS_QGROUP_RELATION_KEY, BTRFS_QGROUP_STATUS_FLAG_INCONSISTENT,
    BTRFS_QGROUP_STATUS_FLAG_ON, BTRFS_QGROUP_STATUS_FLAG_RESCAN,
    BTRFS_QGROUP_STATUS_FLAG_SIMPLE_MODE, BTRFS_QGROUP_STATUS_KEY, BTRFS_QUOTA_TREE_OBJECTID,
    btrfs_qgroup_info_item, btrfs_qgroup_limit, btrfs_qgroup_limit_item, btrfs_qgroup_status_item,
};

use crate::error::{Error, ErrorKind, Result, Subject, ioctl_meaning};
use crate::ioctl;
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
    let Some(flags) = status(file)? else { return Ok(None) };
    let has = |flag: u32| flags & u64::from(flag) != 0;
    if has(BTRFS_QGROUP_STATUS_FLAG_RESCAN) || has(BTRFS_QGROUP_STATUS_FLAG_INCONSISTENT) {
        return Ok(None);
    }
    let simple = has(BTRFS_QGROUP_STATUS_FLAG_SIMPLE_MODE);
    Ok(Some(if simple { Accounting::SimpleQuota } else { Accounting::Quota }))
}

/// The flags of quotas that are on.
fn status(file: BorrowedFd<'_>) -> Result<Option<u64>> {
    let status = items(file, QUOTA_TREE, 0, BTRFS_QGROUP_STATUS_KEY, |_, data| {
        Ok(ControlFlow::Break(le64(data, offset_of!(btrfs_qgroup_status_item, flags))?))
    });
    let flags = match status {
        // No such tree: quotas were never on, or are off again.
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        flags => flags?,
    };
    Ok(flags.filter(|flags| flags & u64::from(BTRFS_QGROUP_STATUS_FLAG_ON) != 0))
}

/// A limit, and how much may still be written under it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Limit {
    /// Bytes, as of the last commit.
    pub left: u64,
    /// The quota group that has the limit: its level, and its number.
    pub group: (u64, u64),
    /// How much the group may refer to, in bytes, if that is limited.
    pub referenced: Option<u64>,
    /// How much it may have to itself.
    pub exclusive: Option<u64>,
}

impl Limit {
    /// Takes the limit away (`BTRFS_IOC_QGROUP_LIMIT`), until [`Limit::set`]. `file` is any file of the
    /// filesystem, but the change of the quotas counts as written to its subvolume.
    pub fn lift(&self, file: impl AsFd) -> Result<()> {
        self.write(file.as_fd(), |_| NO_LIMIT)
    }

    /// Makes it the group's limit again. Where quotas are off by now, or the group is gone, there is
    /// nothing to limit.
    pub fn set(&self, file: impl AsFd) -> Result<()> {
        let file = file.as_fd();
        if status(file)?.is_none() {
            return Ok(());
        }
        match self.write(file, |limit| limit) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            set => set,
        }
    }

    fn write(&self, file: BorrowedFd<'_>, value: impl Fn(u64) -> u64) -> Result<()> {
        let flag = |limit: Option<u64>, flag| if limit.is_some() { u64::from(flag) } else { 0 };
        let limit = btrfs_qgroup_limit {
            flags: flag(self.referenced, BTRFS_QGROUP_LIMIT_MAX_RFER)
                | flag(self.exclusive, BTRFS_QGROUP_LIMIT_MAX_EXCL),
            max_rfer: self.referenced.map_or(0, &value),
            max_excl: self.exclusive.map_or(0, &value),
            rsv_rfer: 0,
            rsv_excl: 0,
        };
        let group = self.group.0 << LEVEL_SHIFT | self.group.1;
        ioctl::limit_quota_group(file, group, limit).map_err(|errno| {
            let meaning = ioctl_meaning(file, errno);
            Error::system("limiting the quota group", Subject::Id(group), meaning, errno)
        })
    }
}

/// What the kernel takes for "no limit any more".
const NO_LIMIT: u64 = u64::MAX;

/// The limits on what is written in the subvolume with that id: its own, and those of the groups that
/// it belongs to. The numbers are those that the kernel goes by, even while it counts anew.
pub fn subvolume_limits(file: impl AsFd, id: u64) -> Result<Vec<Limit>> {
    let file = file.as_fd();
    if status(file)?.is_none() {
        return Ok(Vec::new());
    }
    let mut groups = vec![id];
    let mut at = 0;
    while let Some(&group) = groups.get(at) {
        at += 1;
        items(file, QUOTA_TREE, group, BTRFS_QGROUP_RELATION_KEY, |key, _| {
            // It is written down both ways; what is above has the higher level.
            if level(key.offset) > level(group) && !groups.contains(&key.offset) {
                groups.push(key.offset);
            }
            Ok(ControlFlow::<()>::Continue(()))
        })?;
    }
    groups
        .into_iter()
        .filter_map(|group| limit_of(file, group, |usage| usage).transpose())
        .collect()
}

/// The limit on a snapshot that is yet to be made of the subvolume with that id: it inherits the
/// subvolume's own limit, and nothing in it is exclusive yet (*measured*).
pub fn snapshot_limit(file: impl AsFd, id: u64) -> Result<Option<Limit>> {
    let file = file.as_fd();
    let Some(flags) = status(file)? else { return Ok(None) };
    let simple = flags & u64::from(BTRFS_QGROUP_STATUS_FLAG_SIMPLE_MODE) != 0;
    limit_of(file, id, |(referenced, _)| (if simple { 0 } else { referenced }, 0))
}

const LEVEL_SHIFT: u32 = 48;

const fn level(group: u64) -> u64 {
    group >> LEVEL_SHIFT
}

/// The limits of a group, and what they leave of what is used, referenced and exclusive, once `used` has had
/// a say.
fn limit_of(
    file: BorrowedFd<'_>,
    group: u64,
    used: impl Fn((u64, u64)) -> (u64, u64),
) -> Result<Option<Limit>> {
    let find = |kind, fields: &[usize]| {
        items(file, QUOTA_TREE, 0, kind, |key, data| {
            if key.offset != group {
                return Ok(ControlFlow::Continue(()));
            }
            let numbers: Result<Vec<u64>> = fields.iter().map(|at| le64(data, *at)).collect();
            numbers.map(ControlFlow::Break)
        })
    };
    let limits = [
        offset_of!(btrfs_qgroup_limit_item, flags),
        offset_of!(btrfs_qgroup_limit_item, max_rfer),
        offset_of!(btrfs_qgroup_limit_item, max_excl),
    ];
    let limits = find(BTRFS_QGROUP_LIMIT_KEY, &limits)?;
    let usage =
        [offset_of!(btrfs_qgroup_info_item, rfer), offset_of!(btrfs_qgroup_info_item, excl)];
    let usage = find(BTRFS_QGROUP_INFO_KEY, &usage)?;
    let (Some([flags, of_referenced, of_exclusive]), Some([referenced, exclusive])) =
        (limits.as_deref(), usage.as_deref())
    else {
        return Ok(None);
    };
    let has = |flag: u32, limit: &u64| (flags & u64::from(flag) != 0).then_some(*limit);
    let limits = (
        has(BTRFS_QGROUP_LIMIT_MAX_RFER, of_referenced),
        has(BTRFS_QGROUP_LIMIT_MAX_EXCL, of_exclusive),
    );
    let usage = used((*referenced, *exclusive));
    let left = |(limit, used): (Option<u64>, u64)| limit.map(|limit| limit.saturating_sub(used));
    let left = [(limits.0, usage.0), (limits.1, usage.1)].into_iter().filter_map(left).min();
    Ok(left.map(|left| Limit {
        left,
        group: (level(group), group & ((1 << LEVEL_SHIFT) - 1)),
        referenced: limits.0,
        exclusive: limits.1,
    }))
}
