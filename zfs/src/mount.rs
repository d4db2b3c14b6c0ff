//! Mounting datasets and snapshots at places of our own, with mount(2).
//!
//! What one may count on (tested with ZFS 2.3.9):
//!
//! - `mountpoint` and `canmount` are for the `zfs` and `mount` commands; the kernel asks neither.
//! - A read-only mount of a dataset replays its intent log when the pool is writable: what
//!   was fsynced just before a crash is there. A snapshot that was taken before that first mount
//!   lacks it, and a rollback throws it away. So mount a dataset once after a crash, if only to
//!   read, before taking a snapshot of it as its last state.
//! - `FICLONE` between two mounts is EXDEV, also between a snapshot and its own dataset.
//!   `copy_file_range` clones blocks from an origin into its clone, from a clone into its origin,
//!   and from a snapshot that is mounted.

use std::path::Path;

use rustix::mount::{MountFlags, UnmountFlags};

use crate::name::{self, Kind};
use crate::{Errno, Error};

/// Whether a mount may be written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Only read. A snapshot can be mounted in no other way.
    ReadOnly,
    /// Read and written.
    ReadWrite,
}

/// Mounts a dataset or a snapshot at `target`, whatever its `mountpoint` and `canmount` say.
/// Device nodes and setuid bits have no effect there, and reading leaves access times alone.
pub fn mount(name: &str, target: &Path, access: Access) -> Result<(), Error> {
    const OPERATION: &str = "mount";
    name::check(Kind::DatasetOrSnapshot, name)?;
    let mut flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOATIME;
    if access == Access::ReadOnly {
        flags |= MountFlags::RDONLY;
    }
    rustix::mount::mount(name, target, "zfs", flags, None).map_err(|errno| {
        match Errno::from(errno) {
            // The same numbers stand for a target that is missing.
            errno @ Errno::NOENT if !target.exists() => {
                Error::Path { operation: "mount at", path: target.to_owned(), source: errno }
            }
            Errno::ACCES => Error::KeyUnavailable { operation: OPERATION, name: name.to_owned() },
            errno => Error::from_errno(OPERATION, name, errno),
        }
    })
}

/// Unmounts what is mounted at `target`, and fails if it is in use.
pub fn unmount(target: &Path) -> Result<(), Error> {
    rustix::mount::unmount(target, UnmountFlags::NOFOLLOW).map_err(|errno| Error::Path {
        operation: "unmount",
        path: target.to_owned(),
        source: errno.into(),
    })
}
