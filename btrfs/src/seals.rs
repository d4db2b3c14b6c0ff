//! The immutable and the append-only flag, or the project, and nothing else of a file.

use std::os::fd::AsFd;

use linux_raw_sys::general::{FS_XFLAG_APPEND, FS_XFLAG_IMMUTABLE};
use rustix::fs::IFlags;

use crate::ioctl;

/// Makes the immutable and the append-only flag of an open file or directory those in `seals`,
/// and leaves alone whatever else it has (`FS_IOC_FSSETXATTR`).
///
/// The usual `FS_IOC_SETFLAGS` does not: for a file with the flag `c` btrfs writes the
/// property `btrfs.compression` anew, with the kind of compression that the filesystem is mounted
/// with or else zlib, and for one with the flag `m` it removes it (*measured*).
///
/// The error is the kernel's own: `ENOTTY` or `EOPNOTSUPP` where the filesystem does not know the
/// call.
pub fn set_seals(file: impl AsFd, seals: IFlags) -> rustix::io::Result<()> {
    let file = file.as_fd();
    let mut flags = ioctl::extended_flags(file)?;
    for (flag, bit) in [(IFlags::IMMUTABLE, FS_XFLAG_IMMUTABLE), (IFlags::APPEND, FS_XFLAG_APPEND)]
    {
        if seals.contains(flag) {
            flags.fsx_xflags |= bit;
        } else {
            flags.fsx_xflags &= !bit;
        }
    }
    ioctl::set_extended_flags(file, flags)
}

/// The project of an open file or directory, which the quotas of XFS, ext4 and ZFS count by; 0 is none
/// (`FS_IOC_FSGETXATTR`).
///
/// The error is the kernel's own: `ENOTTY` or `EOPNOTSUPP` where the filesystem knows no projects.
pub fn project(file: impl AsFd) -> rustix::io::Result<u32> {
    Ok(ioctl::extended_flags(file.as_fd())?.fsx_projid)
}

/// Gives an open file or directory a project.
///
/// The error is the kernel's own, as for [`project`].
pub fn set_project(file: impl AsFd, project: u32) -> rustix::io::Result<()> {
    let file = file.as_fd();
    let mut flags = ioctl::extended_flags(file)?;
    flags.fsx_projid = project;
    ioctl::set_extended_flags(file, flags)
}
