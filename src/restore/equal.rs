//! Whether two entries have the same extended attributes (ACLs, capabilities, labels, users' own)
//! and flags.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::Context as _;
use rustix::fs::FileType;
use rustix::io::Errno;

use super::at;
use super::attributes::{Handle, XATTR_MAX, each_name};

/// Memory for names and values, to be used again for each comparison.
#[derive(Debug)]
pub struct Comparison {
    names: [Vec<u8>; 2],
    values: [Vec<u8>; 2],
}

impl Default for Comparison {
    fn default() -> Self {
        let buffers = || [vec![0; XATTR_MAX], vec![0; XATTR_MAX]];
        Self { names: buffers(), values: buffers() }
    }
}

/// Whether `name` in one directory and `name` in another one, both of this kind, have the same
/// extended attributes. Neither is followed if it is a symbolic link.
///
/// # Errors
/// The attribute that cannot be read.
pub fn same_xattrs(
    one: BorrowedFd<'_>,
    other: BorrowedFd<'_>,
    name: &CStr,
    kind: FileType,
    memory: &mut Comparison,
) -> anyhow::Result<bool> {
    let Comparison { names: [names, other_names], values: [value, other_value] } = memory;
    let (mut held, mut other_held) = (None, None);
    let handle = list(one, name, kind, names, &mut held)?;
    let other_handle = list(other, name, kind, other_names, &mut other_held)?;
    let (handle, names) = handle;
    let (other_handle, other_names) = other_handle;
    let mut sorted: Vec<&CStr> = each_name(names).collect();
    let mut other_sorted: Vec<&CStr> = each_name(other_names).collect();
    sorted.sort_unstable();
    other_sorted.sort_unstable();
    if sorted != other_sorted {
        return Ok(false);
    }
    for name in sorted {
        let value = get(handle, name, value)?;
        let other_value = get(other_handle, name, other_value)?;
        if value != other_value {
            return Ok(false);
        }
    }
    Ok(true)
}

/// `None` where it was removed a moment ago.
fn get<'b>(
    handle: Handle<'_>,
    name: &CStr,
    value: &'b mut [u8],
) -> anyhow::Result<Option<&'b [u8]>> {
    match handle.get(name, value) {
        Err(Errno::NODATA) => Ok(None),
        value => {
            value.map(Some).with_context(|| format!("cannot read extended attribute {name:?}"))
        }
    }
}

/// The names that an entry has. It is opened only where there are more than a call without a
/// descriptor can tell of.
fn list<'a, 'n>(
    parent: BorrowedFd<'a>,
    name: &'a CStr,
    kind: FileType,
    names: &'n mut Vec<u8>,
    held: &'a mut Option<OwnedFd>,
) -> anyhow::Result<(Handle<'a>, &'n [u8])> {
    let cannot = "cannot list extended attributes";
    let unopened = Handle::Named(parent, name);
    let too_many = |error: &anyhow::Error| error.downcast_ref() == Some(&Errno::TOOBIG);
    let length = match unopened.list(names) {
        Ok(list) => list.len(),
        Err(error) if too_many(&error) => {
            let opened = match kind {
                FileType::Directory => at::open_directory(parent, name),
                _ => at::open_file(parent, name),
            };
            let opened: &'a OwnedFd = held.insert(opened.context(cannot)?);
            let handle = Handle::Open(OwnedFd::as_fd(opened));
            return Ok((handle, handle.list(names).context(cannot)?));
        }
        Err(error) => return Err(error.context(cannot)),
    };
    Ok((unopened, &names[..length]))
}

/// Whether `name` in one directory and `name` in another one, both of this kind, have the same flags
/// of chattr(1), as far as users set them. Only files and directories have any.
///
/// # Errors
/// They cannot be opened or read.
pub fn same_flags(
    one: BorrowedFd<'_>,
    other: BorrowedFd<'_>,
    name: &CStr,
    kind: FileType,
) -> anyhow::Result<bool> {
    let flags = |parent| -> anyhow::Result<_> {
        let opened = match kind {
            FileType::Directory => at::open_directory(parent, name)?,
            _ => at::open_file(parent, name)?,
        };
        Ok(Handle::Open(opened.as_fd()).flags()?)
    };
    if !matches!(kind, FileType::Directory | FileType::RegularFile) {
        return Ok(true);
    }
    let cannot = "cannot read the flags of chattr(1)";
    Ok(flags(one).context(cannot)? == flags(other).context(cannot)?)
}
