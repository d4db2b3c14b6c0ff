//! Mounting the top level for as long as the work takes, and making it durable.

use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{FileType, stat, syncfs};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};

use crate::Access;
use crate::error::{Error, ErrorKind, Result, Subject, usual_meaning};

const MOUNTING: &str = "mounting the top level of";

/// Mounts the top level of the filesystem on `device` at `target`, where all
/// its subvolumes can be reached (`subvolid=5`).
///
/// `device` may be a symlink, as those in `/dev/disk/by-label` are; `target` is a
/// directory of the caller's own making. The mount is `noatime`, `nodev`, `nosuid`
/// and `noexec`: what lies in there is data to move around, not programs to run.
///
/// Mounting with [`Access::ReadOnly`] still replays a log tree that a power cut has
/// left, which writes to the device (`btrfs(5)`, `rescue=nologreplay`). Never do it
/// while a hibernation image waits to be resumed.
///
/// A filesystem of several devices mounts only when the kernel has been told of all
/// of them (`btrfs device scan`, udev); before that it is [`ErrorKind::DeviceMissing`],
/// as it is when nothing is at `device` (*measured*: `ENOENT` both).
/// [`ErrorKind::NotABlockDevice`] and [`ErrorKind::MountPointMissing`] say
/// which path is wrong, [`ErrorKind::NotBtrfs`] that there is something else, nothing, or
/// damage on the device (`EINVAL`), [`ErrorKind::ReadOnly`] that the device cannot be written.
pub fn mount_top_level(device: &Path, target: &Path, access: Access) -> Result<()> {
    let failed = |kind, errno| Error::system(MOUNTING, Subject::Path(device.into()), kind, errno);

    // mount(2) says ENOENT for the device, for the target, and for a device of the same
    // filesystem that has not been scanned. Looking first tells them apart.
    let found = stat(device).map_err(|errno| match errno {
        Errno::NOENT | Errno::NOTDIR => failed(ErrorKind::DeviceMissing, errno),
        other => failed(usual_meaning(other), other),
    })?;
    if FileType::from_raw_mode(found.st_mode) != FileType::BlockDevice {
        return Err(failed(ErrorKind::NotABlockDevice, Errno::NOTBLK));
    }

    let found = stat(target).map_err(|errno| match errno {
        Errno::NOENT | Errno::NOTDIR => failed(ErrorKind::MountPointMissing, errno),
        other => failed(usual_meaning(other), other),
    })?;
    if FileType::from_raw_mode(found.st_mode) != FileType::Directory {
        return Err(failed(ErrorKind::MountPointMissing, Errno::NOTDIR));
    }

    let mut flags =
        MountFlags::NOATIME | MountFlags::NODEV | MountFlags::NOSUID | MountFlags::NOEXEC;
    if access == Access::ReadOnly {
        flags |= MountFlags::RDONLY;
    }
    rustix::mount::mount(device, target, "btrfs", flags, c"subvolid=5").map_err(|errno| {
        let kind = match errno {
            Errno::INVAL => ErrorKind::NotBtrfs,
            Errno::NOENT | Errno::NXIO => ErrorKind::DeviceMissing,
            Errno::NODEV => ErrorKind::NoBtrfsInKernel,
            Errno::NOTBLK => ErrorKind::NotABlockDevice,
            // A device that cannot be written was to be mounted for writing.
            Errno::ACCESS => ErrorKind::ReadOnly,
            other => usual_meaning(other),
        };
        failed(kind, errno)
    })
}

/// Takes the mount at `target` away (`umount2(2)`, following no symlink).
///
/// [`ErrorKind::Busy`] while a file below it is open or a directory is somebody's
/// working directory; [`ErrorKind::NotMounted`] when nothing is mounted there.
pub fn unmount(target: &Path) -> Result<()> {
    rustix::mount::unmount(target, UnmountFlags::NOFOLLOW).map_err(|errno| {
        let kind = match errno {
            Errno::INVAL => ErrorKind::NotMounted,
            other => usual_meaning(other),
        };
        Error::system("unmounting", Subject::Path(target.into()), kind, errno)
    })
}

/// Commits the running transaction and wakes the kernel's cleaner (`BTRFS_IOC_SYNC`), which
/// otherwise begins on deleted subvolumes with the next commit that is made in the background, up
/// to 30 seconds later (*measured*). Whether it is done, [`is_cleaned`](crate::is_cleaned) says.
pub fn wake_cleaner(file: impl AsFd) -> Result<()> {
    let file = file.as_fd();
    crate::ioctl::sync_and_wake(file).map_err(|errno| {
        let kind = crate::error::ioctl_meaning(file, errno);
        Error::system("waking the cleaner of the filesystem", Subject::Descriptor, kind, errno)
    })
}

/// Makes everything done to the filesystem so far durable: data, metadata, names,
/// subvolumes, flags and the default (`syncfs(2)`).
///
/// It writes out all dirty files and commits the running transaction, which is one
/// step on disk: after a power cut either all of what happened since the last commit
/// is there or none of it. `BTRFS_IOC_SYNC` does the same and also wakes the cleaner;
/// `syncfs` is the better one here, since it also reports a write that has failed in
/// the background since `file` was opened (`syncfs(2)`, Linux 5.8).
pub fn sync(file: impl AsFd) -> Result<()> {
    syncfs(file).map_err(|errno| {
        Error::system(
            "making durable the filesystem",
            Subject::Descriptor,
            usual_meaning(errno),
            errno,
        )
    })
}
