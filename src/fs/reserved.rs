//! Names in a volume's root that are not the user's.

use std::ffi::CStr;
use std::os::fd::BorrowedFd;

use rustix::fs::fstatfs;
use rustix::io::Errno;

use crate::rules::OWN_DIRECTORY;

/// Magic numbers of filesystems, as `statfs(2)` tells them (`linux/magic.h`; `OpenZFS`).
const EXT4: u64 = 0xef53;
const ZFS: u64 = 0x2fc1_2fc1;

/// Names in a volume's root that are not the user's: the tool's own, and those that a filesystem
/// shows there by itself (`.zfs` where `snapdir=visible`, `lost+found` on ext4).
#[derive(Debug, Clone, Copy)]
pub struct Reserved {
    by_filesystem: Option<&'static CStr>,
}

impl Reserved {
    /// Those of the filesystem that an open directory is on.
    ///
    /// # Errors
    /// As statfs(2).
    pub fn of(root: BorrowedFd<'_>) -> Result<Self, Errno> {
        let by_filesystem = match fstatfs(root)?.f_type.cast_unsigned() {
            EXT4 => Some(c"lost+found"),
            ZFS => Some(c".zfs"),
            _ => None,
        };
        Ok(Self { by_filesystem })
    }

    /// Whether a name in the root is one.
    #[must_use]
    pub fn holds(self, name: &CStr) -> bool {
        name.to_bytes() == OWN_DIRECTORY.as_bytes() || Some(name) == self.by_filesystem
    }
}
