//! Error numbers, in words.
//!
//! `libzfs_core` returns an error number and no more. Below 1024 it is the kernel's; from 1024 up
//! it is one of `ZFS_ERR_*` (`zfs_errno_t` in `include/sys/fs/zfs.h` of ZFS), which no
//! `strerror` knows.

use std::{fmt, io};

use rustix::io::Errno as Os;

/// An error number of the kernel or of ZFS. Displays as its name and what it means.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Errno(i32);

impl Errno {
    /// Operation not permitted.
    pub const PERM: Self = Self::os(Os::PERM);
    /// No such dataset, snapshot or pool.
    pub const NOENT: Self = Self::os(Os::NOENT);
    /// No such process; from a rollback: the dataset has no snapshot.
    pub const SRCH: Self = Self::os(Os::SRCH);
    /// Argument list too long.
    pub const TOO_BIG: Self = Self::os(Os::TOOBIG);
    /// Try again; from an ioctl of ZFS: the pool is suspended.
    pub const AGAIN: Self = Self::os(Os::AGAIN);
    /// Out of memory; from a channel program: its answer did not fit.
    pub const NOMEM: Self = Self::os(Os::NOMEM);
    /// Permission denied; from a mount: the encryption key is not loaded.
    pub const ACCES: Self = Self::os(Os::ACCESS);
    /// Busy: mounted, held, or in use.
    pub const BUSY: Self = Self::os(Os::BUSY);
    /// Exists already; from a destroy: something depends on it.
    pub const EXIST: Self = Self::os(Os::EXIST);
    /// Another pool.
    pub const XDEV: Self = Self::os(Os::XDEV);
    /// Invalid argument.
    pub const INVAL: Self = Self::os(Os::INVAL);
    /// No space left.
    pub const NOSPC: Self = Self::os(Os::NOSPC);
    /// Read-only pool.
    pub const ROFS: Self = Self::os(Os::ROFS);
    /// From a channel program: it was stopped by an error of its own.
    pub const CHRNG: Self = Self::os(Os::CHRNG);
    /// From a channel program: it ran over its instruction limit.
    pub const TIME: Self = Self::os(Os::TIME);
    /// Over quota.
    pub const DQUOT: Self = Self::os(Os::DQUOT);

    const fn os(errno: Os) -> Self {
        Self(errno.raw_os_error())
    }

    /// The error number `raw`, as the library or the kernel gave it.
    #[must_use]
    pub const fn from_raw(raw: i32) -> Self {
        Self(raw)
    }

    /// The number itself.
    #[must_use]
    pub const fn raw(self) -> i32 {
        self.0
    }

    /// The name and the meaning of the numbers that only ZFS uses.
    fn of_zfs(self) -> Option<(&'static str, &'static str)> {
        let index = usize::try_from(self.0.checked_sub(FIRST_OF_ZFS)?).ok()?;
        OF_ZFS.get(index).copied()
    }
}

impl From<Os> for Errno {
    fn from(errno: Os) -> Self {
        Self::os(errno)
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((name, meaning)) = self.of_zfs() {
            write!(f, "{meaning} ({name}, {})", self.0)
        } else if self.0 >= FIRST_OF_ZFS {
            write!(f, "an error that this version does not know (ZFS_ERR {})", self.0)
        } else {
            // Its text already ends in "(os error N)".
            write!(f, "{}", io::Error::from_raw_os_error(self.0))
        }
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Errno({}: {self})", self.0)
    }
}

impl std::error::Error for Errno {}

const FIRST_OF_ZFS: i32 = 1024;

/// `zfs_errno_t` in the order of its declaration; ZFS only ever appends to it.
const OF_ZFS: [(&str, &str); 30] = [
    ("ZFS_ERR_CHECKPOINT_EXISTS", "the pool has a checkpoint"),
    ("ZFS_ERR_DISCARDING_CHECKPOINT", "the pool's checkpoint is being discarded"),
    ("ZFS_ERR_NO_CHECKPOINT", "the pool has no checkpoint"),
    ("ZFS_ERR_DEVRM_IN_PROGRESS", "a device is being removed from the pool"),
    ("ZFS_ERR_VDEV_TOO_BIG", "a device is too big"),
    (
        "ZFS_ERR_IOC_CMD_UNAVAIL",
        "the loaded zfs module does not know this operation; it and libzfs_core differ in version",
    ),
    (
        "ZFS_ERR_IOC_ARG_UNAVAIL",
        "the loaded zfs module does not know an argument; it and libzfs_core differ in version",
    ),
    ("ZFS_ERR_IOC_ARG_REQUIRED", "an argument that the loaded zfs module needs is missing"),
    ("ZFS_ERR_IOC_ARG_BADTYPE", "an argument has a type that the loaded zfs module refuses"),
    ("ZFS_ERR_WRONG_PARENT", "wrong kind of parent dataset"),
    ("ZFS_ERR_FROM_IVSET_GUID_MISSING", "the source has no IV set guid"),
    ("ZFS_ERR_FROM_IVSET_GUID_MISMATCH", "the IV set guids differ"),
    ("ZFS_ERR_SPILL_BLOCK_FLAG_MISSING", "the stream lacks the spill block flag"),
    ("ZFS_ERR_UNKNOWN_SEND_STREAM_FEATURE", "the stream has an unknown feature"),
    ("ZFS_ERR_EXPORT_IN_PROGRESS", "the pool is being exported"),
    ("ZFS_ERR_BOOKMARK_SOURCE_NOT_ANCESTOR", "the bookmark's source is not an ancestor"),
    ("ZFS_ERR_STREAM_TRUNCATED", "the stream is truncated"),
    ("ZFS_ERR_STREAM_LARGE_BLOCK_MISMATCH", "the stream's large-block flag differs"),
    ("ZFS_ERR_RESILVER_IN_PROGRESS", "the pool is being resilvered"),
    ("ZFS_ERR_REBUILD_IN_PROGRESS", "the pool is being rebuilt"),
    ("ZFS_ERR_BADPROP", "the property cannot be set here or has a bad value"),
    ("ZFS_ERR_VDEV_NOTSUP", "the device does not support it"),
    ("ZFS_ERR_NOT_USER_NAMESPACE", "not a user namespace"),
    ("ZFS_ERR_RESUME_EXISTS", "an interrupted receive can be resumed"),
    ("ZFS_ERR_CRYPTO_NOTSUP", "the encryption is not supported"),
    ("ZFS_ERR_RAIDZ_EXPAND_IN_PROGRESS", "the raidz is being expanded"),
    ("ZFS_ERR_ASHIFT_MISMATCH", "the sector sizes (ashift) differ"),
    ("ZFS_ERR_STREAM_LARGE_MICROZAP", "the stream has large microzaps"),
    ("ZFS_ERR_TOO_MANY_SITOUTS", "too many devices are sitting out"),
    ("ZFS_ERR_NO_USER_NS_SUPPORT", "the kernel has no user namespaces"),
];

#[cfg(test)]
mod tests {
    use super::Errno;

    #[test]
    fn an_error_number_of_the_kernel_reads_as_the_kernel_says_it() {
        assert_eq!(Errno::BUSY.to_string(), "Device or resource busy (os error 16)");
    }

    #[test]
    fn the_first_error_number_of_zfs_is_a_checkpoint_that_exists() {
        assert_eq!(
            Errno::from_raw(1024).to_string(),
            "the pool has a checkpoint (ZFS_ERR_CHECKPOINT_EXISTS, 1024)"
        );
    }

    #[test]
    fn the_table_is_in_the_order_of_the_header() {
        // Spot checks against include/sys/fs/zfs.h of OpenZFS 2.4; a line lost shifts them.
        let name = |raw| Errno::from_raw(raw).of_zfs().map(|(name, _)| name);
        assert_eq!(name(1029), Some("ZFS_ERR_IOC_CMD_UNAVAIL"));
        assert_eq!(name(1038), Some("ZFS_ERR_EXPORT_IN_PROGRESS"));
        assert_eq!(name(1044), Some("ZFS_ERR_BADPROP"));
        assert_eq!(name(1053), Some("ZFS_ERR_NO_USER_NS_SUPPORT"));
        assert_eq!(name(1054), None);
    }

    #[test]
    fn an_error_number_from_a_newer_zfs_keeps_its_number() {
        assert_eq!(
            Errno::from_raw(1999).to_string(),
            "an error that this version does not know (ZFS_ERR 1999)"
        );
    }
}
