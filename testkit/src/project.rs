//! What `FS_IOC_FSSETXATTR` sets: the project id of a file (the number that project quotas count
//! by), and the immutable flag by itself.
//!
//! The one module of this crate with unsafe code: rustix has no wrapper for these two ioctls.
#![allow(unsafe_code, reason = "FS_IOC_FSGETXATTR and FS_IOC_FSSETXATTR have no safe wrapper")]

use std::os::fd::AsFd;

use linux_raw_sys::general::{FS_XFLAG_IMMUTABLE, fsxattr};
use linux_raw_sys::ioctl::{FS_IOC_FSGETXATTR, FS_IOC_FSSETXATTR};
use rustix::io::Errno;
use rustix::ioctl::{Getter, Setter, ioctl};

type Get = Getter<{ FS_IOC_FSGETXATTR }, fsxattr>;
type Set = Setter<{ FS_IOC_FSSETXATTR }, fsxattr>;

fn get(file: impl AsFd) -> rustix::io::Result<fsxattr> {
    // SAFETY: FS_IOC_FSGETXATTR fills one `struct fsxattr`, which is what the output type is.
    let request = unsafe { Get::new() };
    // SAFETY: the request matches its opcode, and the descriptor is borrowed for the whole call.
    unsafe { ioctl(file, request) }
}

/// Reads the project id; 0 where the filesystem has none.
pub fn read(file: impl AsFd) -> rustix::io::Result<u32> {
    match get(file) {
        Ok(attributes) => Ok(attributes.fsx_projid),
        Err(Errno::NOTTY | Errno::OPNOTSUPP | Errno::NOSYS) => Ok(0),
        Err(errno) => Err(errno),
    }
}

/// Sets the project id.
pub fn write(file: impl AsFd, project: u32) -> rustix::io::Result<()> {
    let mut attributes = get(&file)?;
    attributes.fsx_projid = project;
    set(file, attributes)
}

/// Makes a file immutable and changes nothing else. Setting the flags would make btrfs write the
/// property `btrfs.compression` anew.
pub fn make_immutable(file: impl AsFd) -> rustix::io::Result<()> {
    let mut attributes = get(&file)?;
    attributes.fsx_xflags |= FS_XFLAG_IMMUTABLE;
    set(file, attributes)
}

fn set(file: impl AsFd, attributes: fsxattr) -> rustix::io::Result<()> {
    // SAFETY: FS_IOC_FSSETXATTR reads one `struct fsxattr`, which is what is given.
    let request = unsafe { Set::new(attributes) };
    // SAFETY: the request matches its opcode, and the descriptor is borrowed for the whole call.
    unsafe { ioctl(file, request) }
}
