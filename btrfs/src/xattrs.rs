//! The names of extended attributes, however many there are.

use std::ops::ControlFlow;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;

use linux_raw_sys::btrfs::BTRFS_XATTR_ITEM_KEY;
use rustix::fs::fstat;

use crate::error::{Error, Result, Subject, ioctl_meaning};
use crate::search::{OWN_TREE, items, xattr_item_names};

/// The names of the extended attributes of an open file or directory, each with a NUL at its end,
/// as listxattr(2) gives them.
///
/// That call fails with `E2BIG` when all names together take more than 64 KiB
/// (`XATTR_LIST_MAX`), which btrfs lets any user reach (*measured*). Here they are read from the
/// filesystem's records, as they are in the running transaction. Needs `CAP_SYS_ADMIN`.
pub fn xattr_names(file: impl AsFd) -> Result<Vec<u8>> {
    let file = file.as_fd();
    let operation = "reading the names of the extended attributes";
    let inode = fstat(file)
        .map_err(|errno| {
            Error::system(operation, Subject::Descriptor, ioctl_meaning(file, errno), errno)
        })?
        .st_ino;
    let mut names = Vec::new();
    items(file, OWN_TREE, inode, BTRFS_XATTR_ITEM_KEY, |_, data| {
        xattr_item_names(data, |name| {
            names.extend_from_slice(name.as_bytes());
            names.push(0);
        })?;
        Ok(ControlFlow::<()>::Continue(()))
    })?;
    Ok(names)
}
